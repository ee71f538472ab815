"""A stream of audio -> words with times, and how likely the speaker has stopped: speech to text for streaming clients.

The model hears whole utterances. Voice activity finds them; while one is under way and there is time, it is transcribed
again and again, and words on which two attempts agree are given out early. Knows no protocol.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass

import numpy as np

from antiphon.audio.framing import Framer, Pcm16
from antiphon.models.pool import ModelSet, Work
from antiphon.models.ports import STT_RATE_HZ
from antiphon.session.stretches import PauseCutter, Stretch

PAUSES_S = (0.5, 1.0, 2.0, 3.0)
_CERTAINTY = 0.3
_BASE_S = 0.15
"""How soon a silence is taken for a pause: after 0.7 s of it, one of 2 s is as likely as 0.6."""
_PARTIAL_EVERY_MS = 960
_SCORE_S = 10.0


@dataclass(frozen=True, slots=True)
class HeardWord:
    """Seconds since the stream began. No model here says when: words share their utterance by letters."""

    text: str
    start_s: float
    stop_s: float


class Hearing:
    """Of one stream, int16 at 16 kHz. One coroutine at a time."""

    def __init__(
        self, models: ModelSet, work: Work, *, threshold: float, language: str | None
    ) -> None:
        """`threshold`: of the voice activity detector. `language`: None: as the model thinks."""
        self._models, self._work = models, work
        self._language = language
        samples = models.vad.window_samples(STT_RATE_HZ)
        self._state = models.vad.new_state(STT_RATE_HZ, at_once=True)
        self._framer = Framer(samples)
        self._cutter = PauseCutter(samples * 1000 // STT_RATE_HZ, threshold)
        self._audio = np.empty(0, np.int16)
        self._audio_from = 0
        """Number of the first sample that is kept."""
        self._given = 0
        """Words of the utterance under way that were given out already."""
        self._guess: list[str] = []
        self._guessed_ms = 0
        self._said_until_s = 0.0

    @property
    def pauses(self) -> tuple[float, ...]:
        """Probabilities that the speaker pauses for at least `PAUSES_S`."""
        silence_s = self._cutter.silence_ms / 1000
        return tuple(
            round(1 - math.exp(-silence_s / (_CERTAINTY * pause_s + _BASE_S)), 4)
            for pause_s in PAUSES_S
        )

    @property
    def under_way(self) -> bool:
        """Somebody has spoken, and not all of it has been given out."""
        return self._cutter.under_way is not None

    async def feed(self, pcm: Pcm16) -> list[HeardWord]:
        """The next samples, any number -> the words of utterances that end with them. Raises ModelError, BusyError."""
        self._audio = np.concatenate([self._audio, pcm])
        found: list[HeardWord] = []
        for window in self._framer.feed(pcm):
            async with asyncio.timeout(_SCORE_S):
                probability = await self._models.vad.score(window, self._state)
            if (stretch := self._cutter.feed(probability)) is not None:
                found += await self._finish(stretch)
        self._forget()
        return found

    async def guess(self) -> list[HeardWord]:
        """Words of the utterance under way that will hardly change, where the model is quick enough to be asked twice.

        To be called while nothing else waits. Raises ModelError, BusyError.
        """
        stretch = self._cutter.under_way if self._models.partials else None
        if stretch is None or stretch.end_ms - self._guessed_ms < _PARTIAL_EVERY_MS:
            return []
        self._guessed_ms = stretch.end_ms
        heard = await self._models.transcribe(
            self._piece(stretch), language=self._language, partial=True, work=self._work
        )
        words, before = heard.text.split(), self._guess
        self._guess = words
        agreed = 0
        while agreed < min(len(words), len(before)) and _same(words[agreed], before[agreed]):
            agreed += 1
        agreed = min(agreed, len(words) - 1)  # the last one may be half a word
        return self._give(words, max(agreed, self._given), stretch)

    async def flush(self) -> list[HeardWord]:
        """Nobody speaks any more: the rest of the words. Raises ModelError, BusyError."""
        under_way, stretch = self._cutter.under_way, self._cutter.flush()
        if under_way is None or stretch is None:
            return []
        return await self._finish(stretch)

    async def _finish(self, stretch: Stretch) -> list[HeardWord]:
        heard = await self._models.transcribe(
            self._piece(stretch), language=self._language, work=self._work
        )
        words = heard.text.split()
        found = self._give(words, len(words), stretch)
        self._given, self._guess, self._guessed_ms = 0, [], 0
        return found

    def _give(self, words: list[str], until: int, stretch: Stretch) -> list[HeardWord]:
        letters = sum(len(word) + 1 for word in words) or 1
        per_letter_s = max(stretch.end_ms - stretch.start_ms, 1) / 1000 / letters
        at_s = stretch.start_ms / 1000
        given: list[HeardWord] = []
        for number, word in enumerate(words[:until]):
            stop_s = at_s + (len(word) + 1) * per_letter_s
            if number >= self._given:
                start_s = max(at_s, self._said_until_s)
                self._said_until_s = max(stop_s, start_s)
                given.append(HeardWord(word, round(start_s, 3), round(self._said_until_s, 3)))
            at_s = stop_s
        self._given = max(self._given, until)
        return given

    def _piece(self, stretch: Stretch) -> Pcm16:
        """Up to the last sample that came, where the stretch ends with the audio."""
        start = _sample(stretch.padded_start_ms) - self._audio_from
        end = _sample(stretch.padded_end_ms) - self._audio_from
        if stretch.padded_end_ms >= self._cutter.now_ms:
            end = len(self._audio)
        return self._audio[max(start, 0) : end]

    def _forget(self) -> None:
        """What no utterance can need any more."""
        keep_ms = self._cutter.keep_from_ms
        start = _sample(keep_ms) - self._audio_from
        if start > STT_RATE_HZ:  # not for every frame
            self._audio = self._audio[start:].copy()
            self._audio_from += start


def _same(one: str, other: str) -> bool:
    return one.strip(".,;:!?").lower() == other.strip(".,;:!?").lower()


def _sample(position_ms: int) -> int:
    return position_ms * STT_RATE_HZ // 1000
