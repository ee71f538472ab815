"""What happens when the caller speaks while the agent does."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from antiphon.core import actions as act
from antiphon.core import events as ev
from antiphon.core.floor import Floor
from antiphon.testing.virtual_call import World

Call = Callable[..., World]

SEA = "The sea is deep and cold and very wide, and nobody knows how many ships are lying on its ground."


def talkative(call: Call, **policy: object) -> World:
    """A call in which the agent speaks from about 2.5 s to 8.5 s."""
    world = call(**policy)
    world.reply = lambda words: SEA if words == "tell me about the sea" else f"You said: {words}."
    world.speak(1_000, "tell me about the sea", 1_200)
    return world


def test_real_words_stop_the_agent_and_cut_its_history(call: Call) -> None:
    world = talkative(call)
    world.speak(4_500, "no tell me about the sky", 1_500)
    world.run(20_000)
    (cut, _) = world.actions(act.ReplyEnded)[:2]
    assert (cut.status, cut.reason) == ("cancelled", "turn_detected")
    assert SEA.startswith(cut.heard)
    assert 4 <= len(cut.heard.split()) <= 8  # 300 ms a word
    assert f"{cut.heard} {cut.unheard}".split() == SEA.split()
    assert ("assistant", cut.heard) in world.transcript()
    assert world.said()[1] == "You said: no tell me about the sky."
    (truncated,) = world.actions(act.ItemTruncated)
    assert (truncated.heard, truncated.unheard) == (cut.heard, cut.unheard)
    # Output stopped with the first credible speech, well before the words were understood.
    assert world.when(act.Pause)[0] <= 4_500 + 150
    assert world.when(act.StopPlayout)[0] <= 4_500 + 500


def test_the_language_model_is_told_only_what_was_heard(call: Call) -> None:
    world = talkative(call)
    world.speak(4_500, "no tell me about the sky", 1_500)
    world.run(20_000)
    said = [i.text for i in world.actions(act.Generate)[-1].history if i.role == "assistant"]
    assert said == [world.said()[0]]


@pytest.mark.parametrize("text", ["mm-hm", "yeah", "okay, okay"])
def test_mm_hm_pauses_and_resumes(call: Call, text: str) -> None:
    world = talkative(call)
    world.speak(4_500, text, 300)
    world.run(13_000)
    assert world.said() == [SEA]
    assert [role for role, _ in world.transcript()] == ["user", "assistant"]
    assert len(world.actions(act.Pause)) == 1
    assert len(world.actions(act.Play)) == 2
    assert world.actions(act.StopPlayout) == []
    assert [a.item for a in world.actions(act.SpeechDropped)] == ["u2"]
    (record,) = [a.record for a in world.actions(act.TurnRecorded)]
    assert (record.false_interruptions, record.interrupted) == (1, False)


def test_resuming_repeats_the_word_that_was_cut_off(call: Call) -> None:
    world = talkative(call, client_can_clear=True)
    world.speak(4_500, "mm-hm", 300)
    world.run(4_700)
    reply = world.view.reply
    assert reply is not None
    position_ms = reply.playout.position(world.now_ms)
    assert world.floor is Floor.OVERLAP
    world.run(13_000)
    resumed = world.actions(act.Play)[1]
    assert position_ms - 400 < resumed.from_ms < position_ms
    assert resumed.from_ms == reply.playout.word_start(position_ms)


def test_a_client_that_cannot_clear_resumes_after_what_it_was_sent(call: Call) -> None:
    world = talkative(call)
    world.speak(4_500, "mm-hm", 300)
    world.run(4_700)
    reply = world.view.reply
    assert reply is not None
    sent_ms = reply.playout.sent_ms
    world.run(13_000)
    assert world.actions(act.Play)[1].from_ms == sent_ms


def test_a_cough_is_nothing(call: Call) -> None:
    world = talkative(call)
    world.speak(4_500, "", 250)
    world.run(13_000)
    assert world.said() == [SEA]
    assert len(world.transcript()) == 2


def test_the_agents_own_voice_does_not_interrupt_it(call: Call) -> None:
    # pipecat 1771: the agent interrupts itself by its own echo on the phone.
    world = talkative(call)
    world.speak(4_450, "cold and very", 700)
    world.run(14_000)
    assert world.said() == [SEA]
    assert len(world.transcript()) == 2


def test_words_that_were_said_long_before_are_no_echo(call: Call) -> None:
    world = talkative(call)
    world.speak(6_500, "the sea is deep", 900)
    world.run(15_000)
    assert world.actions(act.ReplyEnded)[0].status == "cancelled"
    assert world.said()[1] == "You said: the sea is deep."


def test_long_speech_interrupts_before_it_is_understood(call: Call) -> None:
    world = talkative(call)
    world.run(4_000)
    world.delays.transcribe = 2_500
    world.speak(4_500, "but what about the ships", 2_000)
    world.run(5_500)
    assert len(world.actions(act.StopPlayout)) == 1
    world.run(20_000)
    assert world.said()[1] == "You said: but what about the ships."


def test_immediate_mode_stops_at_the_first_speech(call: Call) -> None:
    world = talkative(call, barge_in="immediate")
    world.speak(4_500, "mm-hm", 300)
    world.run(13_000)
    assert world.actions(act.Pause) == []
    assert world.when(act.StopPlayout)[0] <= 4_500 + 150
    assert world.said()[1] == "You said: mm-hm."


def test_quiet_speech_does_not_reach_the_threshold_while_the_agent_speaks(call: Call) -> None:
    world = call(greeting=SEA)
    world.speak(2_000, "no stop that", 1_000, probability=0.55)
    world.run(9_000)
    assert world.said() == [SEA]
    assert world.actions(act.Pause) == []


def test_who_may_not_be_interrupted_hears_the_caller_afterwards(call: Call) -> None:
    world = talkative(call, interruptible=False, idle_prompt_after_ms=0)
    world.speak(4_500, "and what about the sky", 1_500)
    world.run(20_000)
    assert world.said() == [SEA, "You said: and what about the sky."]
    assert world.actions(act.Pause) == []
    assert all(a.status == "completed" for a in world.actions(act.ReplyEnded))


def test_speech_before_an_uninterruptible_reply_is_audible_waits_too(call: Call) -> None:
    world = talkative(call, interruptible=False)
    world.delays.speak = 900
    world.speak(2_700, "and the sky", 900)
    world.run(20_000)
    assert world.said() == [SEA, "You said: and the sky."]


def test_a_client_that_cancels_an_uninterruptible_reply_is_not_deaf_afterwards(call: Call) -> None:
    world = talkative(call, interruptible=False)
    world.speak(4_500, "and what about the sky", 1_500)
    world.at(5_000, ev.RequestCancel())
    world.speak(12_000, "hello", 600)
    world.run(20_000)
    assert world.said()[1:] == ["You said: and what about the sky.", "You said: hello."]


@pytest.mark.parametrize(
    ("text", "duration_ms", "resumes"), [("uh", 200, True), ("but what about ships", 800, False)]
)
def test_when_no_transcript_comes_length_decides(
    call: Call, text: str, duration_ms: int, resumes: bool
) -> None:
    world = talkative(call, idle_prompt_after_ms=0)
    world.run(3_000)
    world.hang("Transcribe")
    world.speak(4_500, text, duration_ms)
    world.run(40_000)
    assert (world.said()[0] == SEA) is resumes
    assert world.floor is Floor.OPEN  # never stuck


def test_a_failed_transcript_of_an_interruption_is_asked_for_again(call: Call) -> None:
    world = talkative(call, partial_every_ms=0, barge_in_check_ms=10_000)
    world.run(3_000)
    world.fail["Transcribe"] = 1
    world.speak(4_500, "but what about ships", 800)
    world.run(20_000)
    assert world.actions(act.ReplyEnded)[0].status == "cancelled"
    assert world.said()[1] == "You said: but what about ships."


def test_the_caller_interrupts_again_and_again(call: Call) -> None:
    # livekit 3418, 4413: a turn hangs for ever after an interruption at the wrong moment.
    for at_ms in range(2_300, 9_500, 61):
        world = talkative(call, idle_prompt_after_ms=0)
        world.speak(at_ms, "no", 400)
        world.speak(at_ms + 1_900, "no wait please", 700)
        world.speak(at_ms + 5_000, "tell me something", 900)
        world.run(at_ms + 12_000)
        assert world.floor is Floor.OPEN, at_ms
        assert world.said()[-1].endswith("tell me something."), at_ms


# -- what clients say about playback -------------------------------------------------------------------


def test_a_client_that_reports_is_believed(call: Call) -> None:
    world = talkative(call, client_can_clear=True, client_reports_played=True)
    world.reports = True
    world.speak(4_500, "no tell me about the sky", 1_500)
    world.run(20_000)
    assert SEA.startswith(world.said()[0])
    assert 3 <= len(world.said()[0].split()) <= 7
    assert world.said()[1] == "You said: no tell me about the sky."
    assert world.actions(act.Fault) == []


@pytest.mark.parametrize("played_ms", [-1, 60_000, 10**12])
def test_a_lying_report_is_a_fault_and_does_not_end_the_reply(call: Call, played_ms: int) -> None:
    world = talkative(call, client_reports_played=True)
    world.reports = True
    world.at(4_000, ev.Played("r1", played_ms))
    world.run(4_000)
    reply = world.view.reply
    assert reply is not None
    assert reply.playout.position(4_000) <= reply.playout.sent_ms < 3_000
    assert [a.code for a in world.actions(act.Fault)] == ["played_invalid"]
    world.run(15_000)
    assert world.said() == [SEA]


def test_a_client_that_promised_reports_and_sends_none_does_not_stop_the_call(call: Call) -> None:
    world = talkative(call, client_reports_played=True)
    world.run(18_000)
    assert world.said()[0] == SEA


def test_audio_that_leaves_faster_than_it_is_heard_is_made_to_the_end(call: Call) -> None:
    world = call(greeting="", speak_ahead_ms=1_000)
    world.paced = False
    world.reply = lambda words: "One two three four five six seven. " * 12
    world.speak(1_000, "count please", 900)
    world.run(40_000)
    assert world.said()[0].split() == ("One two three four five six seven. " * 12).split()
    made_ms = world.when(act.Synthesize)
    assert made_ms[-1] - made_ms[0] > 15_000  # and not all at once
