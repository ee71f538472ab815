"""The caller's audio of the last turn or two, addressed by the audio clock.

Kept at the rate it came in for the VAD; given out at the rate that speech to text hears.
"""

from __future__ import annotations

import numpy as np

from antiphon.audio.resample import resample
from antiphon.models.ports import STT_RATE_HZ, Pcm16


class AudioBuffer:
    """A growing array that forgets its beginning. `max_ms` bounds it whatever happens."""

    def __init__(self, rate_hz: int, max_ms: int) -> None:
        self.rate_hz = rate_hz
        self._max = max_ms * rate_hz // 1000
        self._pcm: Pcm16 = np.empty(0, np.int16)
        self._start = 0
        """Position of the first kept sample on the audio clock, in samples."""
        self._length = 0

    @property
    def end_ms(self) -> int:
        return (self._start + self._length) * 1000 // self.rate_hz

    def append(self, pcm: Pcm16) -> None:
        needed = self._length + len(pcm)
        if needed > len(self._pcm):
            grown = np.empty(max(needed, min(2 * needed, needed + 10 * self.rate_hz)), np.int16)
            grown[: self._length] = self._pcm[: self._length]
            self._pcm = grown
        self._pcm[self._length : needed] = pcm
        self._length = needed
        if (
            self._length > self._max + self.rate_hz
        ):  # by the second: each drop copies all that is kept
            self._drop(self._length - self._max)

    def trim(self, before_ms: int) -> None:
        """Forget what lies before. Done in steps of a second or more, so that it costs nothing per window."""
        excess = before_ms * self.rate_hz // 1000 - self._start
        if excess > self.rate_hz:
            self._drop(min(excess, self._length))

    def clear(self) -> None:
        """The call is over: nothing will be asked for."""
        self._start, self._length = self._start + self._length, 0
        self._pcm = np.empty(0, np.int16)

    def slice(self, start_ms: int, end_ms: int) -> Pcm16:
        """Audio between two positions at 16 kHz; what is no longer or not yet there is left out."""
        first = max(start_ms * self.rate_hz // 1000 - self._start, 0)
        last = min(end_ms * self.rate_hz // 1000 - self._start, self._length)
        piece = self._pcm[first : max(last, first)].copy()
        return resample(piece, self.rate_hz, STT_RATE_HZ) if self.rate_hz != STT_RATE_HZ else piece

    def _drop(self, samples: int) -> None:
        kept = self._pcm[samples : self._length].copy()
        self._pcm, self._length = kept, len(kept)
        self._start += samples
