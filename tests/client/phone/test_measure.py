"""Figures from recordings whose truth is known to the sample."""

from __future__ import annotations

import numpy as np
import pytest
from tests.support import say

from antiphon.client.phone.caller_recording import CallerRecording, SpokenQuestion
from antiphon.client.phone.clips import FRAME_BYTES, RATE_HZ, make_clip
from antiphon.client.phone.measure import TurnFigures, measure, sounds
from antiphon.models.ports import Pcm16


def voice(ms: int, *, fade_ms: int = 30) -> Pcm16:
    tone = say(400, ms, rate_hz=RATE_HZ).astype(np.float64)
    fade = min(fade_ms * 8, len(tone) // 2)
    ramp = np.linspace(0, 1, fade) if fade else np.ones(0)
    tone[:fade] *= ramp
    if fade:
        tone[-fade:] *= ramp[::-1]
    return tone.astype(np.int16)


class Tape:
    def __init__(self, seconds: float = 10.0) -> None:
        size = int(seconds * RATE_HZ)
        self.caller, self.agent = np.zeros(size, np.int16), np.zeros(size, np.int16)
        self.fed = np.zeros(size // FRAME_BYTES, np.uint8)
        self.asked: list[SpokenQuestion] = []
        self.clears: tuple[int, ...] = ()

    def ask(self, at_ms: int, ms: int = 1_000) -> None:
        pcm = voice(ms, fade_ms=0)
        self.caller[at_ms * 8 : at_ms * 8 + len(pcm)] = pcm
        self.asked.append(SpokenQuestion("q", at_ms * 8, at_ms * 8, at_ms * 8 + len(pcm)))

    def answer(self, at_ms: int, ms: int, *, fade_ms: int = 0) -> None:
        pcm = voice(ms, fade_ms=fade_ms)
        self.agent[at_ms * 8 : at_ms * 8 + len(pcm)] = pcm
        self.feed(at_ms, at_ms + ms)

    def feed(self, from_ms: int, to_ms: int) -> None:
        self.fed[from_ms // 20 : -(-to_ms // 20)] = 1

    def figures(self) -> list[TurnFigures]:
        tape = CallerRecording(self.caller, self.agent, self.fed.tobytes(), self.clears)
        return measure(tape, self.asked)


def test_voice_to_voice_is_from_the_last_sound_to_the_first() -> None:
    tape = Tape()
    tape.ask(1_000)
    tape.answer(2_345, 800)
    (turn,) = tape.figures()
    assert turn.voice_to_voice_ms == pytest.approx(345, abs=1)
    assert turn.answer_ms == pytest.approx(800, abs=2)
    assert (turn.answered, turn.talked_over, turn.barge_in_to_silence_ms) == (True, False, None)
    assert turn.dead_air_ms == pytest.approx(345, abs=1)
    assert (turn.overlap_ms, turn.gaps) == (0, 0)


def test_no_answer_is_no_answer() -> None:
    tape = Tape()
    tape.ask(1_000)
    tape.ask(4_000)
    tape.answer(5_500, 500)
    first, second = tape.figures()
    assert not first.answered
    assert first.voice_to_voice_ms is None
    assert first.dead_air_ms == pytest.approx(2_000, abs=1), "until the caller asks again"
    assert second.answered


def test_an_agent_that_is_interrupted() -> None:
    tape = Tape()
    tape.ask(500)
    tape.answer(2_000, 1_740)
    tape.ask(3_500)
    tape.answer(5_000, 500)
    first, second = tape.figures()
    assert first.answer_ms == pytest.approx(1_500, abs=2), "up to the interruption"
    assert second.barge_in_to_silence_ms == pytest.approx(240, abs=2)
    assert second.overlap_ms == pytest.approx(240, abs=5)
    assert second.voice_to_voice_ms == pytest.approx(500, abs=1)
    assert not second.talked_over
    assert not second.cleared, "it may have ended by itself"
    for at_ms, cleared in ((3_400, False), (3_720, True), (4_000, False)):
        tape.clears = (at_ms * 8,)
        assert tape.figures()[1].cleared is cleared


def test_an_agent_that_pauses_and_goes_on_has_not_stopped() -> None:
    tape = Tape()
    tape.ask(500)
    tape.answer(2_000, 1_700)
    tape.ask(3_500, ms=1_500)
    tape.answer(4_100, 300)
    tape.answer(5_500, 500)
    turn = tape.figures()[1]
    assert turn.barge_in_to_silence_ms == pytest.approx(900, abs=2)
    assert turn.voice_to_voice_ms == pytest.approx(500, abs=1)


def test_cutting_in_between_two_words_of_the_agent() -> None:
    tape = Tape()
    tape.ask(500)
    tape.answer(2_000, 1_400)
    tape.answer(3_600, 200)
    tape.ask(3_500)
    tape.answer(5_000, 400)
    turn = tape.figures()[1]
    assert turn.barge_in_to_silence_ms == pytest.approx(300, abs=2)


def test_an_answer_that_begins_too_early_has_no_latency() -> None:
    tape = Tape()
    tape.ask(1_000, ms=2_000)
    tape.answer(2_800, 1_000)
    (turn,) = tape.figures()
    assert turn.talked_over
    assert turn.answered
    assert turn.voice_to_voice_ms is None
    assert turn.overlap_ms == pytest.approx(200, abs=3)


def test_an_early_answer_that_was_taken_back_does_not_hide_the_real_one() -> None:
    tape = Tape()
    tape.ask(1_000, ms=2_000)
    tape.answer(2_200, 200)
    tape.answer(3_400, 1_000)
    (turn,) = tape.figures()
    assert turn.talked_over
    assert turn.voice_to_voice_ms == pytest.approx(400, abs=1)
    assert turn.barge_in_to_silence_ms is None


def test_a_beginning_that_was_cut_off_and_one_that_was_not() -> None:
    for fade_ms, clipped in ((0, True), (30, False), (5, False)):
        tape = Tape()
        tape.ask(1_000)
        # A cosine begins at its peak, as a voice does that is cut in the middle of a vowel.
        tape.answer(2_500, 800, fade_ms=fade_ms)
        if not fade_ms:
            tape.agent[20_000:20_009] = 0
            tape.agent[20_000:20_004] = 12_000
        (turn,) = tape.figures()
        assert turn.clipped_start is clipped, fade_ms


def test_an_answer_that_runs_dry() -> None:
    tape = Tape()
    tape.ask(1_000)
    tape.answer(2_500, 600)
    tape.answer(3_400, 600)
    (turn,) = tape.figures()
    assert (turn.gaps, turn.longest_gap_ms) == (1, 300)
    assert turn.dead_air_ms == pytest.approx(500, abs=1)
    tape.feed(3_100, 3_400)
    assert tape.figures()[0].gaps == 0, "a pause that was sent is speech"


def test_clicks_are_no_sound_and_words_have_pauses() -> None:
    tape = Tape(2)
    tape.agent[4_000] = 20_000
    assert sounds(tape.agent) == []
    tape.answer(1_000, 100)
    tape.answer(1_150, 100)
    assert len(sounds(tape.agent)) == 1
    tape.answer(1_400, 100)
    assert len(sounds(tape.agent)) == 2


def test_noise_of_the_line_is_no_overlap() -> None:
    clip = make_clip("q", say(440, 800, rate_hz=RATE_HZ), RATE_HZ, noise_snr_db=20)
    tape = Tape()
    tape.asked = [SpokenQuestion.at(clip, 8_000)]
    tape.caller[8_000 : 8_000 + len(clip.pcm)] = clip.pcm
    tape.caller += np.random.default_rng(1).integers(-200, 200, len(tape.caller)).astype(np.int16)
    tape.answer(3_000, 500)
    assert tape.figures()[0].overlap_ms == 0
