"""A client that conducts the call itself: commits, replies on request, typed text, another policy."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from antiphon.core import actions as act
from antiphon.core import events as ev
from antiphon.core.floor import Floor
from antiphon.core.policy import Policy
from antiphon.testing.virtual_call import World

Call = Callable[..., World]

SEA = "The sea is deep and cold and very wide, and nobody knows how many ships are lying on its ground."


def codes(world: World) -> list[str]:
    return [a.code for a in world.actions(act.Fault)]


def by_hand(call: Call, **policy: object) -> World:
    return call(auto_turns=False, auto_reply=False, idle_prompt_after_ms=0, **policy)


# -- turns by hand -----------------------------------------------------------------------------------


def test_commit_then_reply(call: Call) -> None:
    world = by_hand(call)
    world.speak(1_000, "what time is it", 1_200)
    world.at(2_300, ev.CommitInput(2_300))
    world.at(2_700, ev.RequestReply({"instructions": "be brief"}))
    world.run(6_000)
    assert world.transcript() == [
        ("user", "what time is it"),
        ("assistant", "You said: what time is it."),
    ]
    (generate,) = world.actions(act.Generate)
    assert generate.options == {"instructions": "be brief"}
    assert not generate.preemptive
    assert world.actions(act.ReplyBegan)[0].options == {"instructions": "be brief"}


def test_a_reply_asked_for_before_the_transcript_is_there_waits_for_it(call: Call) -> None:
    world = by_hand(call)
    world.delays.transcribe = 800
    world.speak(1_000, "what time is it", 1_200)
    world.at(2_300, ev.CommitInput(2_300))
    world.at(2_310, ev.RequestReply({"n": 1}))
    world.run(7_000)
    (generate,) = world.actions(act.Generate)
    assert generate.options == {"n": 1}
    assert world.said() == ["You said: what time is it."]
    assert codes(world) == []


def test_a_reply_asked_for_is_given_even_if_nothing_was_said(call: Call) -> None:
    world = by_hand(call)
    world.reply = lambda words: "Hello there."
    world.at(2_300, ev.CommitInput(2_300))
    world.at(2_310, ev.RequestReply())
    world.run(7_000)
    assert len(world.actions(act.SpeechDropped)) == 1
    assert world.said() == ["Hello there."]


def test_options_of_one_reply_are_not_those_of_the_next(call: Call) -> None:
    world = by_hand(call)
    world.reply = lambda words: "Hello there."
    world.at(2_300, ev.CommitInput(2_300))
    world.at(2_310, ev.RequestReply({"n": 1}))
    world.speak(6_000, "what time is it", 1_200)
    world.at(7_300, ev.CommitInput(7_300, reply=True))
    world.run(12_000)
    assert [a.options for a in world.actions(act.Generate)] == [{"n": 1}, {}]


def test_commit_with_a_reply(call: Call) -> None:
    world = by_hand(call)
    world.speak(1_000, "what time is it", 1_200)
    world.at(2_300, ev.CommitInput(2_300, reply=True))
    world.run(6_000)
    assert world.said() == ["You said: what time is it."]


def test_nothing_happens_by_itself(call: Call) -> None:
    world = by_hand(call)
    world.speak(1_000, "what time is it", 1_200)
    world.run(60_000)
    assert world.log == []


def test_commit_of_nothing_is_a_fault(call: Call) -> None:
    world = by_hand(call)
    world.at(1_000, ev.CommitInput(1_000))
    world.at(2_000, ev.CommitInput(1_000))
    world.run(3_000)
    assert codes(world) == ["input_audio_buffer_commit_empty"]


def test_each_commit_takes_what_came_since_the_last(call: Call) -> None:
    world = by_hand(call)
    world.delays.transcribe = 900
    world.speak(1_000, "one two", 600)
    world.speak(2_000, "three four", 600)
    world.at(1_700, ev.CommitInput(1_700))
    world.at(2_700, ev.CommitInput(2_700))  # the first is done by then
    world.at(2_750, ev.CommitInput(2_750))  # the second is not
    world.run(6_000)
    assert [text for _, text in world.transcript()] == ["one two", "three four"]
    spans = [(a.start_ms, a.end_ms) for a in world.actions(act.Transcribe)]
    assert spans == [(0, 1_700), (1_700, 2_700), (2_700, 2_750)]


def test_cleared_audio_is_gone(call: Call) -> None:
    world = by_hand(call)
    world.speak(1_000, "never mind", 600)
    world.speak(2_000, "three four", 600)
    world.at(1_800, ev.ClearInput(1_800))
    world.at(2_700, ev.CommitInput(2_700))
    world.run(4_000)
    assert [text for _, text in world.transcript()] == ["three four"]


def test_a_committed_turn_cannot_be_cleared(call: Call) -> None:
    world = by_hand(call)
    world.speak(1_000, "one two", 600)
    world.at(1_700, ev.CommitInput(1_700))
    world.at(1_701, ev.ClearInput(1_701))
    world.run(4_000)
    assert [text for _, text in world.transcript()] == ["one two"]


def test_a_commit_while_the_agent_speaks_joins_the_history_and_stops_nobody(call: Call) -> None:
    world = by_hand(call, greeting=SEA)
    world.speak(1_000, "one two", 600)
    world.at(1_700, ev.CommitInput(1_700))
    world.run(9_000)
    assert world.said() == [SEA]
    assert world.transcript() == [("user", "one two"), ("assistant", SEA)]


def test_a_commit_while_the_agent_speaks_is_answered_afterwards_if_wished(call: Call) -> None:
    world = by_hand(call, greeting=SEA)
    world.speak(1_000, "one two", 600)
    world.at(1_700, ev.CommitInput(1_700, reply=True))
    world.run(12_000)
    assert world.said() == [SEA, "You said: one two."]


def test_a_commit_beside_speech_detection_loses_nothing_that_follows(call: Call) -> None:
    world = call(idle_prompt_after_ms=0, auto_reply=False)
    world.delays.transcribe = 900
    world.speak(1_000, "one two three four five six", 3_000)
    world.at(2_500, ev.CommitInput(2_500))
    world.run(9_000)
    assert " ".join(text for _, text in world.transcript()).split() == (
        "one two three four five six".split()
    )


@pytest.mark.parametrize("greeting", ["", SEA])
def test_a_commit_whose_transcript_never_comes_is_told(call: Call, greeting: str) -> None:
    world = by_hand(call, greeting=greeting, apology="")
    world.hang("Transcribe")
    world.at(2_000, ev.CommitInput(2_000))
    world.run(30_000)
    assert len(world.actions(act.TranscriptFailed)) == 1
    assert codes(world) == ["transcription_failed"]
    assert world.when(act.TranscriptFailed) == [2_000 + world.policy.transcript_timeout_ms]


def test_speech_detection_without_automatic_replies(call: Call) -> None:
    world = call(auto_reply=False, idle_prompt_after_ms=0)
    world.speak(1_000, "what time is it", 1_200)
    world.run(6_000)
    assert world.transcript() == [("user", "what time is it")]
    assert world.actions(act.Generate) == []
    (recorded,) = world.actions(act.TurnRecorded)
    assert recorded.record.status == "none"
    world.feed(ev.RequestReply())
    world.run(12_000)
    assert world.said() == ["You said: what time is it."]


# -- replies -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("at_ms", [1_050, 2_000])
def test_a_second_reply_is_refused(call: Call, at_ms: int) -> None:
    world = by_hand(call)
    world.reply = lambda words: SEA
    world.at(1_000, ev.RequestReply())
    world.at(at_ms, ev.RequestReply())
    world.run(12_000)
    assert codes(world) == ["conversation_already_has_active_response"]
    assert world.said() == [SEA]


def test_a_reply_in_text_only(call: Call) -> None:
    world = by_hand(call)
    world.reply = lambda words: SEA
    world.at(1_000, ev.RequestReply(speak=False))
    world.run(12_000)
    assert world.actions(act.Synthesize) == []
    assert world.actions(act.ReplyBegan)[0].speaks is False
    assert world.transcript() == [("assistant", SEA)]
    assert len(world.actions(act.ReplyGenerated)) == 1


def test_a_guess_that_is_ready_when_the_turn_ends_is_announced_as_made(call: Call) -> None:
    world = call(min_silence_ms=700)
    world.reply = lambda words: "Yes."
    world.speak(1_000, "are you there", 900)
    world.run(6_000)
    assert len(world.actions(act.ReplyGenerated)) == 1


def test_cancel_stops_the_reply_and_cuts_its_history(call: Call) -> None:
    world = by_hand(call)
    world.reply = lambda words: SEA
    world.at(1_000, ev.RequestReply())
    world.at(2_500, ev.RequestCancel("r7"))
    world.at(3_000, ev.RequestCancel("r1"))
    world.at(3_500, ev.RequestCancel())
    world.run(8_000)
    (ended,) = world.actions(act.ReplyEnded)
    assert (ended.status, ended.reason) == ("cancelled", "client_cancelled")
    assert 3 <= len(ended.heard.split()) <= 7
    assert world.transcript() == [("assistant", ended.heard)]
    assert codes(world) == ["response_cancel_not_active"] * 2
    assert world.floor is Floor.OPEN


def test_say(call: Call) -> None:
    world = call(idle_prompt_after_ms=0)
    world.at(1_000, ev.Say("Your table is ready."))
    world.at(1_500, ev.Say("This one is not said."))
    world.at(5_000, ev.Say("  "))
    world.run(9_000)
    assert world.said() == ["Your table is ready."]


# -- typed text --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("at_ms", "floor"),
    [
        (500, Floor.OPEN),
        (1_800, Floor.CALLER),
        (2_400, Floor.DECIDING),
        (2_470, Floor.THINKING),
        (4_000, Floor.AGENT),
        (5_200, Floor.OVERLAP),
    ],
)
def test_typed_text_is_answered_in_every_state(call: Call, at_ms: int, floor: Floor) -> None:
    world = call(idle_prompt_after_ms=0)
    world.reply = lambda words: SEA if words == "what time is it" else f"You said: {words}."
    world.speak(1_000, "what time is it", 1_200)
    if floor is Floor.OVERLAP:
        world.speak(5_000, "mm", 300)
    world.run(at_ms)
    assert world.floor is floor
    world.feed(ev.UserText("  hello  "))
    world.run(20_000)
    assert ("user", "hello") in world.transcript()
    last = world.actions(act.Generate)[-1]
    assert "hello" in [item.text for item in last.history]
    assert world.floor is Floor.OPEN
    assert world.actions(act.ReplyEnded)[-1].status == "completed"


def test_typed_text_without_a_wish_for_an_answer(call: Call) -> None:
    world = call(idle_prompt_after_ms=0)
    world.at(1_000, ev.UserText("hello", reply=False))
    world.at(1_100, ev.UserText("   "))
    world.run(5_000)
    assert world.transcript() == [("user", "hello")]


def test_typed_text_while_noise_is_heard_is_answered(call: Call) -> None:
    world = call(idle_prompt_after_ms=0)
    world.speak(1_000, "", 500)
    world.at(1_300, ev.UserText("hello"))
    world.run(8_000)
    assert world.said() == ["You said: hello."]


def test_typed_text_during_the_goodbye_is_too_late(call: Call) -> None:
    world = call()
    world.at(1_000, ev.Finish("done", say_goodbye=True))
    world.at(1_500, ev.UserText("hello"))
    world.run(9_000)
    assert world.transcript() == [("assistant", world.policy.goodbye)]


# -- configuration in mid-call -----------------------------------------------------------------------


def test_a_policy_can_change_in_mid_call(call: Call) -> None:
    world = call(idle_prompt_after_ms=0)
    world.speak(1_000, "what time is it", 1_200)
    world.at(1_500, ev.Configure(Policy(auto_reply=False, idle_prompt_after_ms=0)))
    world.speak(6_000, "and in Oslo", 900)
    world.at(6_400, ev.Configure(Policy(idle_prompt_after_ms=0)))
    world.run(12_000)
    assert world.said() == ["You said: and in Oslo."]


def test_switching_to_turns_by_hand_takes_only_audio_that_is_still_kept(call: Call) -> None:
    world = call(idle_prompt_after_ms=0)
    world.at(60_000, ev.Configure(Policy(auto_turns=False, idle_prompt_after_ms=0)))
    world.speak(60_500, "one two", 600)
    world.at(62_000, ev.CommitInput(62_000))
    world.run(64_000)
    (transcribe,) = world.actions(act.Transcribe)
    assert transcribe.start_ms > 57_000
