"""A recording as words: segments of speech found by voice activity, cut at pauses, transcribed one after the other."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass

import numpy as np

from antiphon.errors import ModelError
from antiphon.models.model_set import ModelSet, Work
from antiphon.models.ports import STT_RATE_HZ, Pcm16
from antiphon.models.vad_batcher import VadState

_PADDING_MS = 240
"""Kept around speech: the first and last consonants are quieter than the VAD's threshold."""
_LEAST_WINDOWS = 3
"""Less speech than this is a click."""
_PAUSES_MS = ((10_000, 700), (20_000, 300), (26_000, 120))
"""A segment shorter than the first number ends at a pause of the second."""
_MAX_MS = 28_000
_LOOK_BACK_MS = 8_000
"""Without any pause it is cut where speech is least likely in the last so many."""
_PIECE_WINDOWS = 250
_VAD_PATIENCE_S = 30.0


@dataclass(frozen=True, slots=True)
class SpeechSegment:
    """Speech in a recording."""

    start_ms: int
    end_ms: int
    padded_start_ms: int
    """What a model should hear, from here ..."""
    padded_end_ms: int
    """... to here."""


@dataclass(frozen=True, slots=True)
class SegmentTranscript:
    """What was said in a segment."""

    segment: SpeechSegment
    text: str
    language: str
    """As the model detected it; empty: it does not say."""


class PauseSplitter:
    """Probabilities of speech in, segments out."""

    def __init__(self, window_ms: int, threshold: float) -> None:
        self._window_ms = window_ms
        self._threshold = threshold
        self._now_ms = 0
        self._cut_ms = 0
        """End of what was given out."""
        self._begin_ms: int | None = None
        self._voiced_ms = 0
        self._windows = 0
        self._recent: list[float] = []

    @property
    def now_ms(self) -> int:
        """How much has been heard."""
        return self._now_ms

    @property
    def silence_ms(self) -> int:
        """Since the last speech, or since the beginning."""
        return self._now_ms - self._voiced_ms

    @property
    def keep_from_ms(self) -> int:
        """Audio before this is in no segment that is yet to come."""
        begin_ms = self._now_ms if self._begin_ms is None else self._begin_ms
        return max(self._cut_ms, begin_ms - _PADDING_MS)

    @property
    def under_way(self) -> SpeechSegment | None:
        """The segment that has not ended, as far as it is known."""
        if self._begin_ms is None or self._windows < _LEAST_WINDOWS:
            return None
        padded_ms = max(self._cut_ms, self._begin_ms - _PADDING_MS)
        return SpeechSegment(self._begin_ms, self._voiced_ms, padded_ms, self._now_ms)

    def feed(self, probability: float) -> SpeechSegment | None:
        """The next window -> a segment that has ended with it."""
        begin_ms, self._now_ms = self._now_ms, self._now_ms + self._window_ms
        if probability >= self._threshold:
            if self._begin_ms is None:
                self._begin_ms, self._windows, self._recent = begin_ms, 0, []
            self._voiced_ms = self._now_ms
            self._windows += 1
        if self._begin_ms is None:
            return None
        self._recent.append(probability)
        length_ms = self._now_ms - self._begin_ms
        if length_ms >= _MAX_MS:
            return self._cut_anywhere(self._begin_ms)
        enough_ms = next((pause for below, pause in _PAUSES_MS if length_ms < below), 0)
        if self._now_ms - self._voiced_ms >= max(enough_ms, self._window_ms):
            return self._end(self._begin_ms)
        return None

    def flush(self) -> SpeechSegment | None:
        """The recording is over."""
        return None if self._begin_ms is None else self._end(self._begin_ms)

    def _end(self, begin_ms: int) -> SpeechSegment | None:
        self._begin_ms = None
        if self._windows < _LEAST_WINDOWS:
            return None
        padded_ms = max(self._cut_ms, begin_ms - _PADDING_MS)
        self._cut_ms = min(self._voiced_ms + _PADDING_MS, self._now_ms)
        return SpeechSegment(begin_ms, self._voiced_ms, padded_ms, self._cut_ms)

    def _cut_anywhere(self, begin_ms: int) -> SpeechSegment:
        span = _LOOK_BACK_MS // self._window_ms
        tail = self._recent[-span:]
        least = min(range(len(tail)), key=tail.__getitem__)
        rest = tail[least + 1 :]
        cut_ms = self._now_ms - len(rest) * self._window_ms
        padded_ms = max(self._cut_ms, begin_ms - _PADDING_MS)
        self._cut_ms = self._begin_ms = cut_ms
        self._recent, self._windows = rest, sum(p >= self._threshold for p in rest)
        self._voiced_ms = max(self._voiced_ms, cut_ms)
        return SpeechSegment(begin_ms, cut_ms, padded_ms, cut_ms)


async def transcribe_segments(
    models: ModelSet,
    pcm: Pcm16,
    *,
    threshold: float,
    language: str,
    new_work: Callable[[], Work],
) -> AsyncGenerator[SegmentTranscript, None]:
    """What is said in `pcm` (16 kHz), segment by segment, as soon as each is known; nothing for silence.

    `threshold`: of the VAD. `language`: empty: as the model thinks. `new_work`: for each request to the model.
    Raises ModelError, BusyError.
    """
    async with aclosing(speech_segments(models, pcm, threshold)) as found:
        async for segment in found:
            piece = pcm[_sample(segment.padded_start_ms) : _sample(segment.padded_end_ms)]
            heard = await models.transcribe(piece, language=language or None, work=new_work())
            if text := heard.text.strip():
                yield SegmentTranscript(segment, text, heard.language or "")


async def speech_segments(
    models: ModelSet, pcm: Pcm16, threshold: float
) -> AsyncGenerator[SpeechSegment, None]:
    """Of speech in `pcm` (16 kHz), in order. Raises ModelError when voice activity detection hangs."""
    samples = models.vad.window_samples(STT_RATE_HZ)
    state = models.vad.new_state(STT_RATE_HZ)
    cutter = PauseSplitter(samples * 1000 // STT_RATE_HZ, threshold)
    for windows in _pieces(pcm, samples):
        for probability in await _score(models, windows, state):
            if (segment := cutter.feed(probability)) is not None:
                yield segment
    if (segment := cutter.flush()) is not None:
        yield segment


def _pieces(pcm: Pcm16, samples: int) -> Iterator[list[Pcm16]]:
    step = samples * _PIECE_WINDOWS
    for start in range(0, len(pcm), step):
        piece = pcm[start : start + step]
        lacking = -len(piece) % samples
        whole = np.concatenate([piece, np.zeros(lacking, np.int16)]) if lacking else piece
        yield list(whole.reshape(-1, samples))


async def _score(models: ModelSet, windows: list[Pcm16], state: VadState) -> list[float]:
    """In order. A window that the VAD fails on is taken for speech: better heard than lost."""
    loop = asyncio.get_running_loop()
    scored: list[float] = []
    all_scored: asyncio.Future[None] = loop.create_future()

    def settle(probability: float) -> None:
        scored.append(1.0 if math.isnan(probability) else probability)
        if len(scored) == len(windows) and not all_scored.done():
            all_scored.set_result(None)

    for window in windows:
        models.vad.submit(window, state, settle)
    try:
        async with asyncio.timeout(_VAD_PATIENCE_S):
            await all_scored
    except TimeoutError:
        raise ModelError("voice activity detection hangs; restart the server") from None
    return scored


def _sample(position_ms: int) -> int:
    return position_ms * STT_RATE_HZ // 1000
