"""What a client that conducts the call needs beyond commands: replies in a row, silence, speech beside a reply."""

from __future__ import annotations

from collections.abc import Callable

from antiphon.core import actions as act
from antiphon.core import events as ev
from antiphon.testing.virtual_call import World

Call = Callable[..., World]

SEA = "The sea is deep and cold and very wide, and nobody knows how many ships are lying on its ground."


def codes(world: World) -> list[str]:
    return [a.code for a in world.actions(act.Fault)]


def told(world: World) -> list[str]:
    """What the last reply was generated from."""
    return [item.text for item in world.actions(act.Generate)[-1].history]


# -- replies one after the other -------------------------------------------------------------------


def unpaced(call: Call, **policy: object) -> World:
    world = call(idle_prompt_after_ms=0, speak_ahead_ms=60_000, **policy)
    world.paced = False
    world.reply = lambda words: SEA if "sea" in words else "Yes."
    return world


def test_a_reply_may_be_asked_for_while_the_client_still_plays_the_last(call: Call) -> None:
    world = unpaced(call)
    world.at(1_000, ev.UserText("the sea"))
    world.at(2_000, ev.UserText("and now", reply=False))
    world.at(2_000, ev.RequestReply())
    world.run(1_990)
    (generated,) = world.actions(act.ReplyGenerated)
    assert (generated.input_tokens, generated.cached_tokens) == (20, 10)
    world.run(20_000)
    assert codes(world) == []
    assert [a.status for a in world.actions(act.ReplyEnded)] == ["cancelled", "completed"]


def test_what_was_sent_is_played_out_before_the_next_reply_counts(call: Call) -> None:
    world = unpaced(call)
    world.at(1_000, ev.UserText("the sea"))
    world.at(2_000, ev.RequestReply())
    world.run(30_000)
    assert codes(world) == []
    first, _ = world.actions(act.ReplyEnded)
    assert (first.status, first.unheard) == ("completed", "")
    ended = world.when(act.ReplyEnded)
    sea_ms = len(SEA.split()) * 250
    assert ended[0] == 2_000
    assert ended[1] >= 1_000 + sea_ms


def test_a_reply_that_is_still_being_made_is_not_over(call: Call) -> None:
    world = unpaced(call)
    world.delays.token = 200
    world.at(1_000, ev.UserText("the sea"))
    world.at(2_000, ev.RequestReply())
    world.run(3_000)
    assert codes(world) == ["conversation_already_has_active_response"]


def test_an_answer_waits_for_what_was_committed_while_the_agent_spoke(call: Call) -> None:
    world = unpaced(call, auto_turns=False, auto_reply=False)
    world.delays.transcribe = 900
    world.speak(2_000, "what time is it", 900)
    world.at(1_000, ev.UserText("the sea"))
    world.at(3_000, ev.CommitInput(3_000, reply=False))
    world.at(3_010, ev.RequestReply())
    world.run(20_000)
    assert told(world)[-1] == "what time is it"


def test_a_reply_that_waits_can_be_taken_back(call: Call) -> None:
    world = unpaced(call, auto_turns=False, auto_reply=False)
    world.delays.transcribe = 900
    world.speak(1_000, "what time is it", 900)
    world.at(2_000, ev.CommitInput(2_000, reply=False))
    world.at(2_010, ev.RequestReply())
    world.at(2_020, ev.RequestCancel())
    world.run(20_000)
    assert codes(world) == []
    assert world.actions(act.Generate) == []
    assert world.transcript() == [("user", "what time is it")]


def test_a_commit_says_whether_it_wants_an_answer(call: Call) -> None:
    world = call(auto_turns=False, auto_reply=True, idle_prompt_after_ms=0)
    world.speak(1_000, "what time is it", 900)
    world.at(2_000, ev.CommitInput(2_000, reply=False))
    world.run(6_000)
    assert world.said() == []


def test_a_client_without_reports_knows_better_than_the_clock(call: Call) -> None:
    world = unpaced(call)
    world.at(1_000, ev.UserText("the sea"))
    world.at(2_500, ev.RequestCancel())
    world.at(2_600, ev.TruncateItem("a1", 2_500))
    world.at(2_700, ev.TruncateItem("a1", 4_000))  # what it has cut itself does not come back
    world.run(3_000)
    by_clock, by_client, again = world.actions(act.ItemTruncated)
    assert len(by_clock.heard) < len(by_client.heard)
    assert by_client.heard_ms == again.heard_ms == 2_500


# -- silence ---------------------------------------------------------------------------------------


def test_silence_after_an_answer_is_answered(call: Call) -> None:
    world = call(idle_answer=True, idle_prompt_after_ms=5_000, max_idle_prompts=2)
    world.speak(500, "what time is it", 900)
    world.run(60_000)
    passed = world.actions(act.SilencePassed)
    assert len(passed) == 2  # and then it asks no more, and does not hang up either
    assert all(p.end_ms - p.start_ms <= 5_100 for p in passed)
    assert told(world)[-1] == "..."
    assert world.actions(act.Hangup) == []


def test_silence_before_any_answer_is_not(call: Call) -> None:
    world = call(idle_answer=True, idle_prompt_after_ms=5_000)
    world.run(30_000)
    assert world.log == []


# -- speech beside a reply ---------------------------------------------------------------------------


def beside(call: Call) -> World:
    world = call(
        greeting=SEA,
        interruptible=False,
        overhear=True,
        plain_silence_ms=300,
        idle_prompt_after_ms=0,
    )
    world.speak(1_500, "what about the sky", 1_000)
    return world


def test_speech_beside_a_reply_is_a_turn_at_once_and_unanswered(call: Call) -> None:
    world = beside(call)
    world.run(20_000)
    (began,) = world.actions(act.SpeechBegan)
    (ended,) = world.actions(act.SpeechEnded)
    assert world.when(act.SpeechBegan)[0] < 2_000
    assert world.when(act.SpeechEnded)[0] < 3_500
    assert began.item == ended.item
    assert world.said() == [SEA]
    assert ("user", "what about the sky") in world.transcript()
    assert world.actions(act.Generate) == []


def test_speech_that_outlasts_the_reply_is_an_ordinary_turn(call: Call) -> None:
    world = call(
        greeting="Hello there.", interruptible=False, overhear=True, idle_prompt_after_ms=0
    )
    world.speak(200, "what about the sky then", 1_500)
    world.run(20_000)
    assert world.said() == ["Hello there.", "You said: what about the sky then."]
    assert len(world.actions(act.SpeechBegan)) == 1


def test_it_can_be_committed_cleared_and_hung_up(call: Call) -> None:
    world = beside(call)
    world.at(2_200, ev.CommitInput(2_200))
    world.run(20_000)
    said = [text for role, text in world.transcript() if role == "user"]
    assert said == ["what about the", "sky"]
    world = beside(call)
    world.at(2_200, ev.ClearInput(2_200))
    world.run(2_300)
    assert len(world.actions(act.SpeechDropped)) == 1
    world = beside(call)
    world.at(2_200, ev.HungUp())
    world.run(2_300)
    assert len(world.actions(act.SpeechDropped)) == 1
