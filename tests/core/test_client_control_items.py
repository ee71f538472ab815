"""Edits of the history by a client: items added, deleted and cut to what was heard."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from antiphon.core import actions as act
from antiphon.core import events as ev
from antiphon.core.floor import Floor
from antiphon.core.history import Item
from antiphon.testing.virtual_call import World

Call = Callable[..., World]

SEA = "The sea is deep and cold and very wide, and nobody knows how many ships are lying on its ground."


def codes(world: World) -> list[str]:
    return [a.code for a in world.actions(act.Fault)]


def by_hand(call: Call, **policy: object) -> World:
    return call(auto_turns=False, auto_reply=False, idle_prompt_after_ms=0, **policy)


# -- cutting -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("heard_ms", "words"), [(-100, 0), (0, 0), (900, 3), (1_700, 4), (10**9, None)]
)
def test_truncating_the_live_item(call: Call, heard_ms: int, words: int | None) -> None:
    world = by_hand(call)
    world.reply = lambda words: SEA
    world.at(1_000, ev.RequestReply())
    world.run(4_000)
    reply = world.view.reply
    assert reply is not None
    world.feed(ev.TruncateItem("a1", heard_ms))
    world.run(6_000)
    (ended,) = world.actions(act.ReplyEnded)
    (cut,) = world.actions(act.ItemTruncated)
    assert ended.status == "cancelled"
    if words is None:  # beyond the end: never more than was sent
        assert cut.heard_ms == reply.playout.sent_ms
    else:
        assert cut.heard_ms == max(heard_ms, 0)
        assert abs(len(ended.heard.split()) - words) <= 1
    assert world.view.history.find("a1") is not None
    assert [text for _, text in world.transcript()] == ([ended.heard] if ended.heard else [])


def test_truncating_a_past_item_and_what_is_cut_off_does_not_come_back(call: Call) -> None:
    world = by_hand(call)
    world.reply = lambda words: SEA
    world.at(1_000, ev.RequestReply())
    world.run(12_000)
    assert world.transcript() == [("assistant", SEA)]
    for heard_ms, expected_ms in ((10**9, 6_000), (3_000, 3_000), (10**9, 3_000), (1_000, 1_000)):
        world.feed(ev.TruncateItem("a1", heard_ms))
        cut = world.actions(act.ItemTruncated)[-1]
        assert cut.heard_ms == expected_ms
        assert f"{cut.heard} {cut.unheard}".split() == SEA.split()
        assert world.transcript() == [("assistant", cut.heard)]


def test_an_interrupted_item_cannot_be_made_longer(call: Call) -> None:
    world = by_hand(call)
    world.reply = lambda words: SEA
    world.at(1_000, ev.RequestReply())
    world.at(3_000, ev.RequestCancel())
    world.run(4_000)
    heard = world.said()[0]
    world.feed(ev.TruncateItem("a1", 10**9))
    assert world.transcript() == [("assistant", heard)]


@pytest.mark.parametrize("item", ["nothing", "u1", "a1"])
def test_what_was_not_spoken_cannot_be_truncated(call: Call, item: str) -> None:
    world = by_hand(call, speak_replies=False)
    world.reply = lambda words: SEA
    world.at(1_000, ev.RequestReply())
    world.run(4_000)
    world.feed(ev.TruncateItem(item, 100))
    assert codes(world) == ["item_truncate_invalid_item_id"]
    assert world.transcript() == [("assistant", SEA)]


# -- items -------------------------------------------------------------------------------------------


def test_items_are_added_where_the_client_wants_them(call: Call) -> None:
    world = by_hand(call)
    world.run(100)
    for item, after in (("b", None), ("a", "root"), ("c", "b"), ("a", None), ("d", "nowhere")):
        world.feed(ev.AddItem(Item(item, "user", item), after))
    assert [(a.item.id, a.after) for a in world.actions(act.ItemAdded)] == [
        ("b", None),
        ("a", None),
        ("c", "b"),
    ]
    assert [text for _, text in world.transcript()] == ["a", "b", "c"]
    assert codes(world) == [
        "item_create_duplicate_item_id",
        "item_create_invalid_previous_item_id",
    ]


def test_items_are_deleted(call: Call) -> None:
    world = by_hand(call)
    world.at(100, ev.AddItem(Item("b", "user", "b")))
    world.at(200, ev.DeleteItem("b"))
    world.at(300, ev.DeleteItem("b"))
    world.run(400)
    assert world.transcript() == []
    assert codes(world) == ["item_delete_invalid_item_id"]


def test_deleting_the_live_reply_stops_it(call: Call) -> None:
    world = by_hand(call)
    world.reply = lambda words: SEA
    world.at(1_000, ev.RequestReply())
    world.at(3_000, ev.DeleteItem("a1"))
    world.run(6_000)
    assert world.transcript() == []
    assert world.floor is Floor.OPEN


@pytest.mark.parametrize(
    "event", [ev.DeleteItem("a1"), ev.TruncateItem("a1", 10), ev.RequestCancel()]
)
def test_stopping_the_goodbye_ends_the_call(call: Call, event: ev.Event) -> None:
    world = by_hand(call)
    world.at(1_000, ev.Finish("done", say_goodbye=True))
    world.at(1_600, event)
    world.run(4_000)
    assert world.when(act.Hangup) == [1_600]


def test_a_client_may_use_ids_that_look_like_ours(call: Call) -> None:
    world = call(idle_prompt_after_ms=0)
    for number, item_id in enumerate(("u1", "a1", "w1", "u2", "a2")):
        world.at(100 + number, ev.AddItem(Item(item_id, "user", item_id)))
    world.speak(1_000, "what time is it", 1_200)
    world.at(8_000, ev.UserText("hello"))
    world.run(14_000)
    assert [text for _, text in world.transcript()][5:] == [
        "what time is it",
        "You said: what time is it.",
        "hello",
        "You said: hello.",
    ]


def test_an_id_that_was_announced_is_taken(call: Call) -> None:
    world = call(idle_prompt_after_ms=0)
    world.speak(1_000, "what time is it", 1_200)
    world.at(1_500, ev.AddItem(Item("u1", "user", "not this")))
    world.run(6_000)
    assert codes(world) == ["item_create_duplicate_item_id"]
    assert world.transcript()[0] == ("user", "what time is it")


def test_a_guess_that_does_not_know_a_new_item_is_made_again(call: Call) -> None:
    world = call(min_silence_ms=600)
    world.speak(1_000, "what time is it", 1_200)
    world.at(2_500, ev.AddItem(Item("s", "system", "It is noon.")))
    world.run(8_000)
    used = [
        a for a in world.actions(act.Generate) if a.reply == world.actions(act.ReplyBegan)[0].reply
    ]
    assert "It is noon." in [item.text for item in used[0].history]
    assert world.said() == ["You said: what time is it."]
