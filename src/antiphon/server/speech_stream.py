"""Text -> speech at 24 kHz, clause by clause, with the time at which each word is said.

What the XTTS, moshi and Wyoming doors share. Knows none of them.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

import numpy as np

from antiphon.audio.framing import Pcm16
from antiphon.audio.resample import Resampler
from antiphon.core.text_segmenter import TextSegmenter
from antiphon.models.model_set import ModelSet, Work
from antiphon.models.ports import Kind, SpeechRequest

RATE_HZ = 24_000
_SLOWEST, _FASTEST = 0.5, 2.0
DEFAULT_VOICE = "default"
"""Name of the only voice of a back end that has no names for voices."""


@dataclass(frozen=True, slots=True)
class SpeechOptions:
    """How to say it."""

    voice: str = ""
    language: str = ""
    speed: float = 1.0


@dataclass(frozen=True, slots=True)
class SpokenWord:
    text: str
    start_s: float
    stop_s: float


def voices_of(models: ModelSet) -> tuple[str, ...]:
    """Names to choose from, never empty."""
    return models.info(Kind.TTS).voices or (DEFAULT_VOICE,)


def known_voice(models: ModelSet, name: str, otherwise: str = "") -> str:
    """`name` if the model has it, else `otherwise`: clients of other servers ask for voices that only those have."""
    return name if name in models.info(Kind.TTS).voices else otherwise


def clauses(text: str, max_chars: int) -> list[str]:
    """Cut where a speaker would breathe."""
    cutter = TextSegmenter(first_words=0, max_chars=max_chars)
    return [*cutter.feed(text), *cutter.flush()]


class SpeechStream:
    """Of one stream of audio: what was made so far gives the time of the next word."""

    def __init__(self, models: ModelSet, work: Work, manner: SpeechOptions) -> None:
        self._models = models
        self._work = work
        self.manner = manner
        self._resampler: Resampler | None = None
        self._samples = 0
        self.words: list[SpokenWord] = []
        """Of the clause that was said last, in order. Seconds of this stream's audio."""

    async def say(self, clause: str) -> AsyncGenerator[Pcm16, None]:
        """int16 [n] at 24 kHz, as it is made. Raises ModelError, BusyError."""
        manner, began = self.manner, self._samples
        self.words = []
        speed = min(max(manner.speed, _SLOWEST), _FASTEST)
        request = SpeechRequest(clause, manner.voice, manner.language, speed)
        async with aclosing(self._models.synthesize(request, work=self._work)) as made:
            async for chunk in made:
                if self._resampler is None or self._resampler.from_hz != chunk.rate_hz:
                    if len(held := self.rest()):
                        yield self._count(held)
                    self._resampler = Resampler(chunk.rate_hz, RATE_HZ)
                if len(pcm := self._resampler.process(chunk.pcm)):
                    yield self._count(pcm)
        self.words = _timed(clause, began / RATE_HZ, self._samples / RATE_HZ)

    def rest(self) -> Pcm16:
        """What the resampler holds back; to be asked for at the end."""
        if self._resampler is None:
            return np.empty(0, np.int16)
        return self._resampler.flush()

    def _count(self, pcm: Pcm16) -> Pcm16:
        self._samples += len(pcm)
        return pcm


def _timed(clause: str, start_s: float, stop_s: float) -> list[SpokenWord]:
    """No voice says when: a word takes its share of the letters, which is right within a syllable or two."""
    words = clause.split()
    letters = sum(len(word) + 1 for word in words) or 1
    per_letter_s = (stop_s - start_s) / letters
    timed, at_s = [], start_s
    for word in words:
        until_s = at_s + (len(word) + 1) * per_letter_s
        timed.append(SpokenWord(word, round(at_s, 4), round(until_s, 4)))
        at_s = until_s
    return timed


async def said(speaker: SpeechStream, text: str, max_chars: int) -> AsyncGenerator[Pcm16, None]:
    """All of a text, int16 [n] at 24 kHz. Raises ModelError, BusyError."""
    for clause in clauses(text, max_chars):
        async with aclosing(speaker.say(clause)) as made:
            async for pcm in made:
                yield pcm
    if len(rest := speaker.rest()):
        yield rest
