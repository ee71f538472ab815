"""Models that fail, stall or say nothing: the caller is told, and the call lives."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from antiphon.core import actions as act
from antiphon.core import events as ev
from antiphon.core.floor import Floor
from antiphon.testing.virtual_call import World

Call = Callable[..., World]


def asked(call: Call, **policy: object) -> World:
    """Two questions; whatever happens to the first, the second must be answered."""
    world = call(idle_prompt_after_ms=0, **policy)
    world.speak(1_000, "what time is it", 1_200)
    return world


def codes(world: World) -> list[str]:
    return [a.code for a in world.actions(act.Fault)]


def lives(world: World, at_ms: int) -> None:
    world.speak(at_ms, "and in Oslo", 900)
    world.run(at_ms + 6_000)
    assert world.said()[-1] == "You said: and in Oslo."
    assert world.floor is Floor.OPEN


def test_a_guess_that_fails_is_made_again_and_nobody_hears_of_it(call: Call) -> None:
    world = asked(call)
    world.fail["Generate"] = 1
    world.run(8_000)
    assert world.said() == ["You said: what time is it."]
    assert codes(world) == []


def test_a_language_model_that_fails_before_the_first_sound(call: Call) -> None:
    world = asked(call)
    world.fail["Generate"] = 2
    world.run(8_000)
    failed = world.actions(act.ReplyEnded)[0]
    assert (failed.status, failed.heard) == ("failed", "")
    assert world.said()[1] == world.policy.apology
    assert codes(world) == ["reply_failed"]
    lives(world, 9_000)


def test_a_language_model_that_fails_after_the_first_sound(call: Call) -> None:
    world = asked(call, preemptive_generation_after_ms=0)
    world.reply = lambda words: (
        f"You said: {words}." if "Oslo" in words else "It is just after three o'clock now."
    )
    world.fail["Generate"] = 1
    world.fail_after_words = 6
    world.delays.token = 100
    world.run(9_000)
    failed, apology = world.actions(act.ReplyEnded)
    assert failed.status == "failed"
    assert failed.heard == "It is just"  # the clause that had been made
    assert failed.unheard == "after three o'clock"
    assert apology.heard == world.policy.apology
    assert ("assistant", "It is just") in world.transcript()
    lives(world, 10_000)


def test_without_an_apology_the_caller_just_has_the_floor(call: Call) -> None:
    world = asked(call, apology="", preemptive_generation_after_ms=0)
    world.fail["Generate"] = 1
    world.run(6_000)
    assert world.said() == [""]
    lives(world, 7_000)


def test_a_language_model_that_returns_nothing(call: Call) -> None:
    world = asked(call)
    world.reply = lambda words: f"You said: {words}." if "Oslo" in words else ""
    world.run(8_000)
    assert world.said()[-1] == world.policy.apology
    assert codes(world) == ["reply_failed"]
    lives(world, 9_000)


@pytest.mark.parametrize("hung", ["Generate", "Synthesize"])
def test_a_model_that_never_answers(call: Call, hung: str) -> None:
    world = asked(call)
    world.hang(hung)
    world.run(2_200 + world.policy.reply_timeout_ms - 200)
    assert world.floor is Floor.THINKING
    assert codes(world) == []
    world.run(60_000)
    assert "reply_timeout" in codes(world)
    assert world.floor is Floor.OPEN


@pytest.mark.parametrize("speaks", [True, False])
def test_a_language_model_that_stops_in_mid_reply(call: Call, speaks: bool) -> None:
    world = call(idle_prompt_after_ms=0, speak_replies=speaks)
    world.hang("Generate")
    world.at(1_000, ev.UserText("hello"))
    world.run(1_100)
    (generate,) = world.actions(act.Generate)
    world.at(1_200, ev.ReplyText(generate.job, "It is just after "))
    world.run(15_000)
    assert world.floor is (Floor.AGENT if speaks else Floor.THINKING)
    world.run(60_000)
    assert codes(world) == ["reply_timeout"]
    assert world.actions(act.ReplyEnded)[0].status == "failed"
    assert world.said()[1] == world.policy.apology
    assert world.floor is Floor.OPEN


def test_a_line_that_takes_no_audio(call: Call) -> None:
    world = call(greeting="Good morning.", idle_prompt_after_ms=0)
    world.hang("Play")
    world.run(60_000)
    ended = world.actions(act.ReplyEnded)[0]
    assert (ended.status, ended.heard, ended.unheard) == ("incomplete", "", "Good morning.")
    assert world.floor is Floor.OPEN


def test_text_to_speech_that_fails(call: Call) -> None:
    world = asked(call, min_silence_ms=600)
    world.fail["Synthesize"] = 1
    world.run(8_000)
    assert world.said()[-1] == "You said: what time is it."  # only the guess had failed
    assert codes(world) == []


def test_text_to_speech_that_keeps_failing(call: Call) -> None:
    world = asked(call, preemptive_generation_after_ms=0)
    world.fail["Synthesize"] = 1
    world.run(8_000)
    assert codes(world) == ["speech_failed"]
    assert world.said() == ["", world.policy.apology]
    lives(world, 9_000)


def test_text_to_speech_that_makes_no_sound(call: Call) -> None:
    world = asked(call, preemptive_generation_after_ms=0, apology="")
    world.hang("Synthesize")
    world.run(3_600)
    for number in (0, 1):
        world.feed(ev.SegmentComplete(world.actions(act.Synthesize)[number].job))
    world.run(5_000)
    assert codes(world) == ["speech_failed"]
    assert world.said() == [""]
    assert world.floor is Floor.OPEN


def test_an_apology_that_fails_is_not_apologised_for(call: Call) -> None:
    world = asked(call, preemptive_generation_after_ms=0)
    world.fail["Synthesize"] = 2
    world.run(8_000)
    assert codes(world) == ["speech_failed", "speech_failed"]
    assert [a.status for a in world.actions(act.ReplyEnded)] == ["failed", "failed"]
    lives(world, 9_000)


def test_everything_fails_and_the_call_still_ends_well(call: Call) -> None:
    world = call()
    world.fail = {"Generate": 99, "Synthesize": 99, "Transcribe": 99}
    world.speak(1_000, "what time is it", 1_200)
    world.run(120_000)
    assert world.floor is Floor.ENDED
    assert set(world.said()) == {""}


def test_results_that_come_after_the_end_of_their_reply_are_dropped(call: Call) -> None:
    world = asked(call)
    world.run(6_000)
    generate, synthesize = world.actions(act.Generate)[0].job, world.actions(act.Synthesize)[0].job
    transcribe, score = world.actions(act.Transcribe)[0].job, world.actions(act.ScoreTurn)[0].job
    for event in (
        ev.ReplyText(generate, "more"),
        ev.ReplyComplete(generate),
        ev.JobFailed(generate, "late"),
        ev.SegmentAudio(synthesize, 500),
        ev.JobFailed(synthesize, "late"),
        ev.AudioSent("r1", 9_000),
        ev.Played("r1", 9_000),
        ev.TurnScored(score, 0.1),
        ev.JobFailed(transcribe, "late"),
        ev.ToolReturned("nobody", "asked"),
    ):
        assert world.feed(event) == []


def test_a_failure_of_an_older_segment_or_of_a_finished_text_is_no_failure(call: Call) -> None:
    world = call(idle_prompt_after_ms=0)
    world.hang("Generate")
    world.at(1_000, ev.UserText("hello"))
    world.run(1_100)
    (generate,) = world.actions(act.Generate)
    world.at(1_200, ev.ReplyText(generate.job, "It is just after three o'clock now, I think."))
    world.at(1_210, ev.ReplyComplete(generate.job))
    world.run(2_000)
    assert world.feed(ev.JobFailed(world.actions(act.Synthesize)[0].job, "late")) == []
    assert world.feed(ev.JobFailed(generate.job, "late")) == []
    world.run(9_000)
    assert world.said() == ["It is just after three o'clock now, I think."]


def test_a_reply_ends_with_the_clause_that_reaches_the_limit(call: Call) -> None:
    world = asked(call, max_reply_ms=2_000)
    world.reply = lambda words: (
        "You said: and in Oslo." if "Oslo" in words else "It goes on like this, on and on. " * 20
    )
    world.run(8_000)
    ended = world.actions(act.ReplyEnded)[0]
    assert (ended.status, ended.reason) == ("incomplete", "length")
    assert ended.heard
    assert ended.unheard
    assert 2_000 <= world.actions(act.TurnRecorded)[0].record.audio_ms < 6_000
    assert codes(world) == []
    lives(world, 9_000)


def test_a_request_that_no_model_can_serve_is_told_as_such(call: Call) -> None:
    world = call(idle_prompt_after_ms=0)
    world.run(6_000)
    world.hang("Generate")
    world.feed(ev.RequestReply())
    job = world.actions(act.Generate)[-1].job
    world.feed(ev.JobFailed(job, "the schema refers to itself", "invalid_request"))
    assert codes(world) == ["invalid_request"]
    assert "language model failed" not in world.actions(act.Fault)[0].message
