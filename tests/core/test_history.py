"""What the language model is told."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from antiphon.core.history import History, Item, ToolRequest


def history(*ids: str) -> History:
    made = History()
    for item_id in ids:
        made.add(Item(item_id, "user", f"text of {item_id}"))
    return made


def ids(it: History) -> list[str]:
    return [item.id for item in it]


@pytest.mark.parametrize(
    ("after", "order", "before"),
    [
        (None, ["a", "b", "new"], "b"),
        ("root", ["new", "a", "b"], None),
        ("a", ["a", "new", "b"], "a"),
        ("b", ["a", "b", "new"], "b"),
    ],
)
def test_add(after: str | None, order: list[str], before: str | None) -> None:
    it = history("a", "b")
    assert it.add(Item("new", "user", "hello"), after) == before
    assert ids(it) == order


def test_the_first_item_has_none_before_it() -> None:
    assert History().add(Item("a", "user")) is None


def test_an_id_can_be_taken_only_once() -> None:
    it = history("a")
    with pytest.raises(ValueError, match="a"):
        it.add(Item("a", "user"))
    assert len(it) == 1


@pytest.mark.parametrize(
    "attempt",
    [
        lambda it: it.add(Item("b", "user"), "nowhere"),
        lambda it: it.remove("nowhere"),
        lambda it: it.change("nowhere", "", complete=True),
        lambda it: it.before("nowhere"),
    ],
)
def test_unknown_items_are_key_errors(attempt: Callable[[History], object]) -> None:
    it = history("a")
    with pytest.raises(KeyError):
        attempt(it)
    assert ids(it) == ["a"]


def test_remove_and_change() -> None:
    it = history("a", "b")
    assert it.remove("a").id == "a"
    changed = it.change("b", "less", complete=False)
    assert (changed.text, changed.complete) == ("less", False)
    assert it.find("b") == changed
    assert it.find("a") is None


def test_insert_before() -> None:
    it = history("a", "b")
    it.add(Item("x", "user"), it.before("b"))
    it.add(Item("y", "user"), it.before("a"))
    assert ids(it) == ["y", "a", "x", "b"]


def test_the_snapshot_leaves_out_what_says_nothing_but_no_result_of_a_function() -> None:
    it = History()
    it.add(Item("u", "user", "hello"))
    it.add(Item("a", "assistant", ""))
    it.add(Item("t", "tool_call", tool=ToolRequest("c", "f", "{}")))
    it.add(Item("o", "tool_result", "", call_id="c"))
    assert [item.id for item in it.snapshot()] == ["u", "t", "o"]


def test_the_last_words_are_those_that_were_heard() -> None:
    it = history("u")
    assert it.last("assistant") is None
    it.add(Item("a1", "assistant", "What is your number?"))
    it.add(Item("a2", "assistant", "", complete=False))
    last = it.last("assistant")
    assert last is not None
    assert last.id == "a1"


def test_a_snapshot_does_not_change_afterwards() -> None:
    it = history("a")
    before = it.snapshot()
    it.change("a", "other", complete=True)
    assert before[0].text == "text of a"
