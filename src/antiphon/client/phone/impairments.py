"""What a telephone line does to speech: noise, lost packets, uneven arrival. The same every time for the same seed.

Works on samples and on frame numbers; knows no protocol and no clock. Only the caller's side is impaired: the way back
is measured, and what the line added there would be taken for the agent's doing.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import numpy as np

from antiphon.audio.framing import Pcm16
from antiphon.errors import ConfigError

_BURST_FRAMES = 2.0
"""Packets are lost in bursts of this mean length."""


@dataclass(frozen=True, slots=True)
class Impairments:
    """Of one line."""

    loss_share: float = 0.0
    """Of frames that never arrive, 0 to 0.5. Their time passes: the timestamps have a gap there."""
    jitter_ms: float = 0.0
    """Frames leave up to this much late, in order, so that some come bunched."""
    seed: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.loss_share <= 0.5:
            raise ConfigError(f"loss is a share of 0% to 50%, got {self.loss_share:.0%}")
        if not 0 <= self.jitter_ms <= 2_000:
            raise ConfigError(f"jitter is 0 to 2000 ms, got {self.jitter_ms:g}")


@dataclass(slots=True)
class Fate:
    """Decides about one frame after the other.

    Losses follow Gilbert's two-state model (E. N. Gilbert, Capacity of a Burst-Noise Channel, 1960): a state that loses
    everything, left with the same chance at each frame.
    """

    impairments: Impairments
    _random: random.Random = field(init=False)
    _losing: bool = False

    def __post_init__(self) -> None:
        self._random = random.Random(self.impairments.seed)

    def is_lost(self) -> bool:
        share = self.impairments.loss_share
        if share <= 0:
            return False
        end = 1 / _BURST_FRAMES
        begin = end * share / (1 - share)
        self._losing = (
            self._random.random() >= end if self._losing else self._random.random() < begin
        )
        return self._losing

    def delay_s(self) -> float:
        jitter_ms = self.impairments.jitter_ms
        return self._random.uniform(0, jitter_ms) / 1000 if jitter_ms else 0.0


def noise(samples: int, speech_rms: float, snr_db: float, seed: int = 1) -> Pcm16:
    """Pink noise (equal power per octave, as in rooms) `snr_db` below speech of that RMS, shape [samples]."""
    if not samples:
        return np.zeros(0, np.int16)
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal(samples))
    spectrum[0] = 0.0
    spectrum[1:] /= np.sqrt(np.arange(1, len(spectrum)))
    shaped = np.fft.irfft(spectrum, samples)
    level = float(np.sqrt(np.mean(shaped**2))) or 1.0
    scaled = shaped * (speech_rms * 10 ** (-snr_db / 20) / level)
    return np.clip(np.round(scaled), -32768, 32767).astype(np.int16)
