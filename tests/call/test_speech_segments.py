"""Recordings cut into segments of speech, at pauses where there are any."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from tests.support import loaded, run, say

from antiphon.call.speech_segments import (
    PauseSplitter,
    SpeechSegment,
    speech_segments,
    transcribe_segments,
)
from antiphon.models.model_set import ModelSet, Work

WINDOW_MS = 32


def cut(*parts: tuple[float, int]) -> list[SpeechSegment]:
    """`parts`: probability, milliseconds."""
    cutter = PauseSplitter(WINDOW_MS, 0.5)
    found = [
        cutter.feed(probability)
        for probability, length_ms in parts
        for _ in range(length_ms // WINDOW_MS)
    ]
    return [segment for segment in (*found, cutter.flush()) if segment is not None]


def test_pauses_end_a_stretch_and_breaths_do_not() -> None:
    one, two = cut((0.0, 960), (1.0, 960), (0.0, 320), (1.0, 640), (0.0, 1_600), (1.0, 960))
    assert (one.start_ms, one.end_ms) == (960, 2_880)
    assert (one.padded_start_ms, one.padded_end_ms) == (720, 3_120)
    assert (two.start_ms, two.end_ms, two.padded_end_ms) == (4_480, 5_440, 5_440)


def test_the_longer_it_lasts_the_shorter_a_pause_will_do() -> None:
    first, second = cut((1.0, 12_800), (0.0, 320), (1.0, 3_200))
    assert (first.end_ms, second.start_ms) == (12_800, 13_120)
    assert first.padded_end_ms <= second.padded_start_ms  # no sound is heard twice


def test_speech_without_a_pause_is_cut_where_it_is_weakest() -> None:
    found = cut((1.0, 24_000), (0.6, 32), (1.0, 36_000))
    assert found[0].end_ms == 24_032
    assert all(s.end_ms - s.start_ms <= 28_000 for s in found)
    assert [s.end_ms for s in found[:-1]] == [s.start_ms for s in found[1:]]
    assert found[-1].end_ms == 60_032 // WINDOW_MS * WINDOW_MS


def test_clicks_are_nothing() -> None:
    assert cut((0.0, 320), (1.0, 64), (0.0, 3_200)) == []
    assert cut() == []


def test_a_recording_becomes_words() -> None:
    tones = [say(440, 640, silence_ms=1_000), say(550, 640, silence_ms=1_000)] * 3
    pcm = np.concatenate(tones)[: -16_000 + 7]

    async def main() -> None:
        async with loaded() as models:
            numbers = itertools.count()
            found = [
                one
                async for one in transcribe_segments(
                    models,
                    pcm,
                    threshold=0.5,
                    language="en",
                    new_work=lambda: Work(f"test-{next(numbers)}"),
                )
            ]
            assert [one.text for one in found] == ["what time is it", "tell me a story"] * 3
            assert {one.language for one in found} == {"en"}
            assert next(numbers) == 6
            starts = [one.segment.start_ms for one in found]
            assert starts == pytest.approx([1_640 * n for n in range(6)], abs=64)
            assert await of(models, np.zeros(0, np.int16)) == []
            assert await of(models, np.zeros(5, np.int16)) == []

    async def of(models: ModelSet, pcm: np.ndarray) -> list[SpeechSegment]:
        return [segment async for segment in speech_segments(models, pcm, 0.5)]

    run(main())
