"""What the microphone heard of late, on the loop's clock: its level, and when the caller's speech ended.

Knows neither where the samples come from nor where they go.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np

from antiphon.audio.levels import dbfs, rms, speech_end_sample
from antiphon.models.ports import Pcm16

_KEPT_S = 180.0
"""Longer than an answer and the question before it."""


@dataclass(frozen=True, slots=True)
class _Block:
    pcm: Pcm16
    first: int
    """Index of its first sample since the start."""
    end_s: float
    """When its last sample was there; late by what the system took to say so."""


@dataclass(slots=True)
class MicTrack:
    rate_hz: int
    start_s: float | None = None
    """When the first sample was recorded."""
    _blocks: deque[_Block] = field(default_factory=deque)
    _samples: int = 0

    def add(self, pcm: Pcm16, end_s: float) -> None:
        """Samples of shape [n], the last of them recorded at `end_s`."""
        if self.start_s is None:
            self.start_s = end_s - len(pcm) / self.rate_hz
        self._blocks.append(_Block(pcm, self._samples, end_s))
        self._samples += len(pcm)
        while self._blocks[0].end_s < end_s - _KEPT_S:
            self._blocks.popleft()

    @property
    def level_db(self) -> float:
        """RMS of the last block in dB below full scale; -inf for silence."""
        return dbfs(rms(self._blocks[-1].pcm)) if self._blocks else float("-inf")

    def speech_end_s(self, from_s: float, to_s: float) -> float | None:
        """When the last speech between two times ended, acoustically; None where nothing stands out."""
        blocks = [b for b in self._blocks if from_s < b.end_s <= to_s]
        if not blocks:
            return None
        # A block is never early: the least late one of them tells when the first sample was recorded.
        late = min(b.end_s - (b.first + len(b.pcm)) / self.rate_hz for b in blocks)
        end = speech_end_sample(np.concatenate([b.pcm for b in blocks]), self.rate_hz)
        return None if end is None else late + (blocks[0].first + end) / self.rate_hz
