"""The tones of a telephone's keys: making them, and recognising them.

Two sines per key, by ITU-T Recommendation Q.23; timing and tolerances in the spirit of Q.24: a key sounds for at least
40 ms, frequencies may be 1.5 % off. Recognised by the Goertzel algorithm (G. Goertzel, 1958), eight frequencies over
windows of 25 ms.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from antiphon.audio.framing import Pcm16
from antiphon.errors import AudioError

LOW_HZ = (697, 770, 852, 941)
HIGH_HZ = (1209, 1336, 1477, 1633)
KEYS = ("123A", "456B", "789C", "*0#D")
PAUSE = ","
"""In a string of keys: half a second of silence."""

_PAUSE_MS = 500
_RAMP_MS = 3
_WINDOW_MS = 25
_LEAST_RMS = 150.0
_SHARE = 0.6
"""Of a window's energy that lies in the two tones. Speech is spread wider."""
_TWIST = 8.0
"""Energy of one tone over that of the other, at most (9 dB)."""
_STANDS_OUT = 6.0
"""A tone's energy over that of the next strongest of its group, at least."""

_PLACE = {key: (low, high) for low, row in enumerate(KEYS) for high, key in enumerate(row)}


def tones(
    keys: str, rate_hz: int, *, tone_ms: int = 120, gap_ms: int = 80, level: float = 0.35
) -> Pcm16:
    """The keys one after the other; `,` is a pause. `level`: of each of the two sines, 0 to 0.5.

    Raises AudioError for what is no key.
    """
    pieces: list[Pcm16] = []
    for key in keys.upper():
        if key == PAUSE:
            pieces.append(np.zeros(rate_hz * _PAUSE_MS // 1000, np.int16))
            continue
        if key not in _PLACE:
            raise AudioError(f"{key!r} is no key of a telephone; use 0-9, *, #, A-D and ','")
        pieces += [
            _tone(key, rate_hz, tone_ms, level),
            np.zeros(rate_hz * gap_ms // 1000, np.int16),
        ]
    return np.concatenate(pieces) if pieces else np.zeros(0, np.int16)


def _tone(key: str, rate_hz: int, tone_ms: int, level: float) -> Pcm16:
    low, high = _PLACE[key]
    times_s = np.arange(rate_hz * tone_ms // 1000) / rate_hz
    wave = np.sin(2 * np.pi * LOW_HZ[low] * times_s) + np.sin(2 * np.pi * HIGH_HZ[high] * times_s)
    ramp = max(1, rate_hz * _RAMP_MS // 1000)
    edge = np.minimum(np.arange(len(wave)), np.arange(len(wave))[::-1]) / ramp
    samples: Pcm16 = np.rint(wave * np.minimum(edge, 1.0) * level * 32767).astype(np.int16)
    return samples


class DtmfDetector:
    """Keys in a stream of audio, cut anywhere. A key counts once, after two windows that agree."""

    def __init__(self, rate_hz: int) -> None:
        """Raises AudioError below 4 kHz: the tones would not fit."""
        if rate_hz < 4_000:
            raise AudioError(f"tones of keys need 4000 Hz at least, not {rate_hz} Hz")
        self._window = rate_hz * _WINDOW_MS // 1000
        angles = 2 * np.pi * np.array(LOW_HZ + HIGH_HZ) / rate_hz
        self._basis = np.exp(-1j * angles[:, None] * np.arange(self._window)[None, :])
        self._basis *= np.hamming(self._window)
        self._rest: Pcm16 = np.empty(0, np.int16)
        self._before = ""
        self._counted = ""

    def feed(self, pcm: Pcm16) -> str:
        """-> the keys that became certain with this piece."""
        audio = np.concatenate([self._rest, pcm]) if len(self._rest) else pcm
        usable = len(audio) // self._window * self._window
        self._rest = audio[usable:].copy()
        return "".join(self._keys(audio[:usable].reshape(-1, self._window)))

    def _keys(self, windows: Pcm16) -> Iterator[str]:
        for window in windows:
            key = self._key_in(window.astype(np.float64))
            if key == self._before and key != self._counted:
                self._counted = key
                if key:
                    yield key
            self._before = key

    def _key_in(self, samples: npt.NDArray[np.float64]) -> str:
        energy = float(samples @ samples)
        if energy < _LEAST_RMS**2 * len(samples):
            return ""
        powers = np.abs(self._basis @ samples) ** 2
        low, high = powers[:4], powers[4:]
        row, column = int(low.argmax()), int(high.argmax())
        tones_power = low[row] + high[column]
        # A sine of amplitude a has the energy a^2 n / 2, and this power under the window: a^2 (n * 0.54)^2 / 4.
        share = tones_power * 2 / (len(samples) * 0.54**2 * energy)
        twist = max(low[row], high[column]) / max(min(low[row], high[column]), 1e-9)
        rivals = (np.partition(low, -2)[-2], np.partition(high, -2)[-2])
        clear = low[row] > _STANDS_OUT * rivals[0] and high[column] > _STANDS_OUT * rivals[1]
        return KEYS[row][column] if share > _SHARE and twist < _TWIST and clear else ""
