"""Probabilities in, speech start, pause and resume out."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.core.vad import SpeechDetector, VadChange

W = 32
LOUD, SOFT, MID = 0.9, 0.1, 0.42


def run(
    gate: SpeechDetector,
    probabilities: list[float],
    *,
    min_speech_ms: int = 96,
    pause_ms: int = 64,
    window_ms: int = W,
) -> list[tuple[int, VadChange]]:
    """-> (audio clock in ms, change) of every change."""
    changes = []
    for probability in probabilities:
        end_ms = gate.heard_ms + window_ms
        change = gate.feed(
            probability,
            end_ms,
            start=0.5,
            stop=0.35,
            min_speech_ms=min_speech_ms,
            pause_ms=pause_ms,
        )
        if change is not None:
            changes.append((end_ms, change))
    return changes


@pytest.mark.parametrize(
    ("probabilities", "expected"),
    [
        ([SOFT] * 50, []),
        ([LOUD] * 2 + [SOFT] * 10, []),  # a click
        ([LOUD] * 3, [(96, VadChange.START)]),
        ([LOUD] * 3 + [SOFT], [(96, VadChange.START)]),
        ([LOUD] * 3 + [SOFT] * 2, [(96, VadChange.START), (160, VadChange.PAUSE)]),
        ([LOUD] * 3 + [SOFT] * 20, [(96, VadChange.START), (160, VadChange.PAUSE)]),  # once
        # Between the thresholds the last state holds, either way.
        ([LOUD] + [MID] * 2, [(96, VadChange.START)]),
        ([MID] * 20, []),
        ([LOUD] * 3 + [MID] * 20, [(96, VadChange.START)]),
        # One loud window after a pause is a breath, two are speech.
        (
            [LOUD] * 3 + [SOFT] * 3 + [LOUD] + [SOFT] * 3,
            [(96, VadChange.START), (160, VadChange.PAUSE)],
        ),
        (
            [LOUD] * 3 + [SOFT] * 3 + [LOUD] * 2 + [SOFT] * 2,
            [
                (96, VadChange.START),
                (160, VadChange.PAUSE),
                (256, VadChange.RESUME),
                (320, VadChange.PAUSE),
            ],
        ),
        # A gap shorter than a pause is nothing.
        ([LOUD] * 3 + [SOFT] + [LOUD] * 3, [(96, VadChange.START)]),
    ],
)
def test_changes(probabilities: list[float], expected: list[tuple[int, VadChange]]) -> None:
    assert run(SpeechDetector(), probabilities) == expected


def test_onset_is_the_first_loud_window_and_silence_counts_from_the_last() -> None:
    gate = SpeechDetector()
    run(gate, [SOFT] * 10 + [LOUD] * 5)
    assert (gate.onset_ms, gate.voiced_until_ms, gate.silence_ms) == (320, 480, 0)
    run(gate, [SOFT] * 5)
    assert (gate.voiced_until_ms, gate.silence_ms) == (480, 160)


def test_a_breath_in_a_pause_does_not_shorten_the_silence() -> None:
    gate = SpeechDetector()
    run(gate, [LOUD] * 5 + [SOFT] * 5 + [LOUD] + [SOFT] * 5)
    assert gate.silence_ms == 11 * W


def test_after_reset_speech_starts_anew() -> None:
    gate = SpeechDetector()
    run(gate, [LOUD] * 5)
    gate.reset()
    assert run(gate, [LOUD] * 3) == [(8 * W, VadChange.START)]
    assert gate.onset_ms == 5 * W


def test_thresholds_of_each_window_count() -> None:
    gate = SpeechDetector()
    for end_ms in (32, 64, 96, 128):
        assert gate.feed(0.55, end_ms, start=0.6, stop=0.35, min_speech_ms=96, pause_ms=64) is None
    assert run(gate, [0.55] * 3) == [(224, VadChange.START)]


@pytest.mark.parametrize(("at_ms", "onset_ms"), [(0, 0), (100, 100), (64, 64)])
def test_split_keeps_speech_after_the_cut(at_ms: int, onset_ms: int) -> None:
    gate = SpeechDetector()
    run(gate, [LOUD] * 10)
    gate.split(at_ms)
    assert gate.in_speech
    assert gate.onset_ms == onset_ms


def test_split_at_the_end_of_speech_starts_anew() -> None:
    gate = SpeechDetector()
    run(gate, [LOUD] * 10 + [SOFT] * 4)
    gate.split(gate.heard_ms)
    assert not gate.in_speech
    assert run(gate, [LOUD] * 3)[0][1] is VadChange.START


def test_split_in_the_middle_of_a_word_lets_it_go_on() -> None:
    gate = SpeechDetector()
    run(gate, [LOUD] * 10)
    gate.split(320)
    assert not gate.in_speech
    assert run(gate, [LOUD] * 3) == [(416, VadChange.START)]
    assert gate.onset_ms == 320


@settings(derandomize=True, max_examples=200)
@given(st.lists(st.sampled_from([LOUD, MID, SOFT]), max_size=80), st.integers(1, 400))
def test_changes_alternate_and_silence_is_never_negative(
    probabilities: list[float], min_speech_ms: int
) -> None:
    gate = SpeechDetector()
    changes = [c for _, c in run(gate, probabilities, min_speech_ms=min_speech_ms)]
    for before, after in zip([None, *changes], changes, strict=False):
        assert (
            after
            in {
                None: (VadChange.START,),
                VadChange.START: (VadChange.PAUSE,),
                VadChange.PAUSE: (VadChange.RESUME,),
                VadChange.RESUME: (VadChange.PAUSE,),
            }[before]
        )
    assert gate.silence_ms >= 0
    assert gate.onset_ms <= gate.heard_ms
