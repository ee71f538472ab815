"""Is what was heard the agent's own voice, come back? Compared by waveform, for a transcript of an echo is any words.

Normalised cross-correlation of the loudest 300 ms with all of what was lately sent, both differentiated once so
that low vowels do not look alike. Measured at 8 kHz through mu-law, 20 dB below the agent, with a short room: echoes
0.86 to 0.98, other speech of the same or of other people up to 0.50. A long reverberation may hide an echo; it is then
judged by its words as before. Knows no turn.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from antiphon.audio.resample import resample
from antiphon.models.ports import Pcm16

RATE_HZ = 8_000
LOOK_BACK_MS = 3_000
"""An echo is no older: a telephone network's delay and what a client plays ahead."""
_PIECE_MS = 300
_LEAST_MS = 150
_ALIKE = 0.65
_FAINT = 1e-3
"""Stretches of the agent's voice with less than this share of its loudest energy are silence, and alike to anything."""


def is_echo(heard: Pcm16, heard_hz: int, sent: Pcm16, sent_hz: int) -> bool:
    """`heard`: the caller's side, shape [samples]; `sent`: the agent's voice of the last seconds, likewise."""
    piece = _loudest(_steps(heard, heard_hz), RATE_HZ * _PIECE_MS // 1000)
    voice = _steps(sent, sent_hz)
    if len(piece) < RATE_HZ * _LEAST_MS // 1000 or len(voice) < len(piece):
        return False
    size = 1 << (len(voice) + len(piece) - 1).bit_length()
    spectrum = np.fft.rfft(voice, size) * np.conj(np.fft.rfft(piece, size))
    products = np.fft.irfft(spectrum, size)[: len(voice) - len(piece) + 1]
    energies = _energies(voice, len(piece))
    loudest = float(energies.max(initial=0.0))
    own = float(piece @ piece)
    if loudest <= 0 or own <= 0:
        return False
    alike = np.abs(products) / np.sqrt(np.maximum(energies, _FAINT * loudest) * own)
    return float(alike.max()) >= _ALIKE


def _steps(pcm: Pcm16, rate_hz: int) -> npt.NDArray[np.float64]:
    """Differences from sample to sample, at `RATE_HZ`."""
    return np.diff(resample(pcm, rate_hz, RATE_HZ).astype(np.float64))


def _loudest(signal: npt.NDArray[np.float64], length: int) -> npt.NDArray[np.float64]:
    if len(signal) <= length:
        return signal
    start = int(np.argmax(_energies(signal, length)))
    return signal[start : start + length]


def _energies(signal: npt.NDArray[np.float64], length: int) -> npt.NDArray[np.float64]:
    """Of every stretch of this length."""
    sums = np.concatenate([[0.0], np.cumsum(signal * signal)])
    energies: npt.NDArray[np.float64] = sums[length:] - sums[:-length]
    return energies
