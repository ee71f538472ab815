"""The shape of prompts: where the user's words stand, and where a long history is cut."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest

from antiphon.errors import RequestError
from antiphon.models.ports import Message, ToolCall
from antiphon.models.prompt_window import USER_TEXT, PromptFrame, fit, frame

SYSTEM = Message("system", "s" * 20)
RENDERED = f"<sys>be kind<user>{USER_TEXT}<end><assistant>"


def history(turns: int, length: int = 40) -> tuple[Message, ...]:
    said = [
        (Message("user", f"{turn:03} {'u' * length}"), Message("assistant", "a" * length))
        for turn in range(turns)
    ]
    return (SYSTEM, *(message for turn in said for message in turn))


def cut(messages: Sequence[Message], budget: int = 500) -> tuple[Message, ...]:
    return fit(messages, budget, len)


def test_a_frame_holds_what_stands_around_the_words() -> None:
    found = frame(RENDERED)
    assert found == PromptFrame("<sys>be kind<user>", "<end><assistant>")
    assert found.whole(" what time ") == "<sys>be kind<user>what time<end><assistant>"
    assert found.unfinished("what time ") == "<sys>be kind<user>what time"
    assert found.whole("what time is it").startswith(found.unfinished("what time"))


@pytest.mark.parametrize("rendered", ["<user><end>", f"{USER_TEXT}, {USER_TEXT}"])
def test_no_frame_where_the_words_have_no_place_of_their_own(rendered: str) -> None:
    assert frame(rendered) is None


def test_a_history_that_fits_is_left_alone_and_not_counted() -> None:
    def count(text: str) -> int:
        raise AssertionError("counted")

    assert fit(history(2), 10_000, count) == history(2)


def test_a_long_history_keeps_its_system_message_and_its_newest_turns() -> None:
    messages = history(30)
    kept = cut(messages)
    assert kept[0] == SYSTEM
    assert kept[1].role == "user"
    assert kept[1:] == messages[-len(kept) + 1 :]
    assert 1 < len(kept) < len(messages)


def test_the_cut_stays_where_it_is_until_the_next_step() -> None:
    starts = [cut(history(turns), 2_000)[1] for turns in range(1, 60)]
    steps = sum(1 for one, after in itertools.pairwise(starts) if one != after)
    assert 0 < steps <= 8  # a cut that moves with every turn would make 40


def test_a_growing_last_message_does_not_move_the_cut() -> None:
    before = history(20)
    cuts = {
        cut((*before, Message("user", "and now " + "x" * words)))[1].content for words in range(20)
    }
    assert len(cuts) <= 2


def test_a_tool_call_is_never_parted_from_its_answer() -> None:
    call = ToolCall("c1", "look", '{"q": "' + "x" * 60 + '"}')
    turn = (
        Message("user", "u" * 30),
        Message("assistant", "", tool_calls=(call,)),
        Message("tool", "t" * 30, tool_call_id="c1"),
        Message("assistant", "a" * 30),
    )
    kept = cut((SYSTEM, *turn * 10))
    assert kept[1].role == "user"
    assert (len(kept) - 1) % len(turn) == 0


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ((Message("system", "s" * 600), Message("user", "hi")), "system prompt"),
        ((SYSTEM, Message("user", "u" * 600)), "last turn"),
    ],
)
def test_what_cannot_fit_is_an_error(messages: tuple[Message, ...], reason: str) -> None:
    with pytest.raises(RequestError, match=reason):
        cut(messages)
