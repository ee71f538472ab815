"""Taking steady noise out of speech, before voice activity detection and speech to text.

The filter is the noise suppressor of WebRTC's audio processing (a Wiener filter per band with a noise estimate that
follows the signal; WebRTC `modules/audio_processing/ns`), through the package `webrtc-noise-gain` (Apache-2.0 around
BSD code, no dependencies, wheels for Linux). Measured beside RNNoise (`pyrnnoise`, whose package brings matplotlib)
in white noise around the embedded voice, with Moonshine's wrong words of 112:

   SNR in dB                20   10    5    0    noise   lag      CPU per s of audio
    as it is                  4    7   21   47     0 dB     0       0
    this filter, level 1      4   10   15   40    -6 dB     6 ms    1.3 ms
    this filter, level 2      4    8   10   26   -12 dB     6 ms    1.3 ms
    this filter, level 3      4    9   12   36   -17 dB     6 ms    1.3 ms
    this filter, level 4      4    9   16   34   -21 dB     6 ms    1.3 ms
   RNNoise at 48 kHz        14   19   23   55   -40 dB    20 ms   38 ms

What takes away more noise takes away speech as well, so level 2 is the default; in a quiet room none is better.

The filter works at 16 kHz; other rates are resampled. It needs about half a second to know the noise of a room.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from antiphon.audio.framing import Framer, Pcm16, pcm_from_bytes, pcm_to_bytes
from antiphon.audio.resample import Resampler
from antiphon.errors import ConfigError

RATE_HZ = 16_000
"""At which the filter works."""

_FRAME = RATE_HZ // 100
_LATE = 96
"""Samples by which the filter's output lags behind its input: the overlap of its windows."""


class Denoiser:
    """Streaming, mono int16. One per call; not for several threads at once. About 1.3 ms of CPU per second of audio.

    The result does not depend on how the input was cut, has as many samples as the input after `flush`, and is not
    shifted against it, only held back.
    """

    def __init__(self, rate_hz: int = RATE_HZ, level: int = 2) -> None:
        """`level`: 1 (about 6 dB less noise), 2 (12), 3 (17) or 4 (20).

        Raises ConfigError when the package is missing or `level` is another, AudioError for a rate under 1.
        """
        if level not in (1, 2, 3, 4):
            raise ConfigError(f"denoiser level must be 1, 2, 3 or 4, got {level!r}")
        self.rate_hz = rate_hz
        self._level = level
        self._make = _processor_class()
        self._up = Resampler(rate_hz, RATE_HZ)
        self._down = Resampler(RATE_HZ, rate_hz)
        self._framer = Framer(_FRAME)
        self.reset()

    @property
    def delay_ms(self) -> float:
        """The most audio that is held back at any moment, in ms."""
        frame_ms = 1000 * (_FRAME + _LATE) / RATE_HZ
        return frame_ms + self._up.delay_ms + self._down.delay_ms

    def process(self, pcm: Pcm16) -> Pcm16:
        """Samples of shape [n] in, those that are ready out; n may be 0. After `flush` a new stream begins."""
        self._taken += len(pcm)
        return self._give(self._down.process(self._clean(self._up.process(pcm))))

    def flush(self) -> Pcm16:
        """What was held back. The next `process` begins a new stream."""
        rest = self._up.flush()
        tail = np.zeros(_LATE + _FRAME, np.int16)
        clean = self._clean(np.concatenate([rest, tail]))
        last = np.concatenate([self._down.process(clean), self._down.flush()])
        out = self._give(last[: self._taken - self._given])
        self.reset()
        return out

    def reset(self) -> None:
        """Forget the noise and what is held back: another stream begins."""
        self._processor = self._make(0, self._level)  # 0: no automatic gain
        self._up.reset()
        self._down.reset()
        self._framer.reset()
        self._skip = _LATE
        self._taken = self._given = 0

    def _clean(self, pcm: Pcm16) -> Pcm16:
        """At the filter's rate; without the samples by which it lags."""
        frames = [
            pcm_from_bytes(self._processor.Process10ms(pcm_to_bytes(frame)).audio)
            for frame in self._framer.feed(pcm)
        ]
        if not frames:
            return np.empty(0, np.int16)
        clean = np.concatenate(frames)
        skipped = min(self._skip, len(clean))
        self._skip -= skipped
        return clean[skipped:]

    def _give(self, pcm: Pcm16) -> Pcm16:
        self._given += len(pcm)
        return pcm


def _processor_class() -> Any:
    try:
        from webrtc_noise_gain import AudioProcessor
    except ImportError as error:
        raise ConfigError(
            f"noise suppression cannot be imported ({error}); run: pip install 'antiphon[denoise]'"
        ) from error
    return AudioProcessor


def check_available() -> None:
    """At start, so that no call finds out. Raises ConfigError with what to install."""
    _processor_class()
