"""Is what was heard the agent's own voice, come back? Compared by waveform, for a transcript of an echo is any words.

Normalised cross-correlation of the loudest pieces of 200 ms with all of what was lately sent, both differentiated
once so that low vowels do not look alike. In pieces, because the agent falls silent in the middle of its echo and
then says the same once more: a longer piece may reach over the gap. Measured at 8 kHz through mu-law, 20 dB below the
agent, with a short room: pieces of an echo 0.74 to 1.0, of other speech up to 0.47. A long reverberation may hide an
echo; it is then judged by its words as before.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from antiphon.audio.framing import Pcm16
from antiphon.audio.resample import resample

RATE_HZ = 8_000
LOOK_BACK_MS = 3_000
"""An echo is no older: a telephone network's delay and what a client plays ahead."""
_PIECE_MS = 200
_LEAST_MS = 150
_PIECES = 6
_ALIKE = 0.65
_SHARE = 0.3
"""Of the pieces' energy: less comes back in an echo than somebody says who speaks over it."""
_FAINT = 1e-3
"""Stretches of the agent's voice with less than this share of its loudest energy are silence, and alike to anything."""


def is_echo(heard: Pcm16, heard_hz: int, sent: Pcm16, sent_hz: int) -> bool:
    """`heard`: the caller's side, shape [samples]; `sent`: the agent's voice of the last seconds, likewise."""
    signal, voice = _steps(heard, heard_hz), _steps(sent, sent_hz)
    length = min(RATE_HZ * _PIECE_MS // 1000, len(signal))
    if length < RATE_HZ * _LEAST_MS // 1000 or len(voice) < length:
        return False
    pieces = _loudest(signal, length)
    size = 1 << (len(voice) + length - 1).bit_length()
    spectra = np.fft.rfft(voice, size) * np.conj(np.fft.rfft(pieces, size))
    products = np.fft.irfft(spectra, size)[:, : len(voice) - length + 1]
    energies = _energies(voice, length)
    loudest = float(energies.max(initial=0.0))
    own = (pieces * pieces).sum(axis=1)
    if loudest <= 0 or own.max() <= 0:
        return False
    there = np.sqrt(np.maximum(energies, _FAINT * loudest))
    alike = (np.abs(products) / there).max(axis=1) / np.sqrt(np.maximum(own, _FAINT * own.max()))
    return float(own[alike >= _ALIKE].sum()) >= _SHARE * float(own.sum())


def _steps(pcm: Pcm16, rate_hz: int) -> npt.NDArray[np.float64]:
    """Differences from sample to sample, at `RATE_HZ`."""
    return np.diff(resample(pcm, rate_hz, RATE_HZ).astype(np.float64))


def _loudest(signal: npt.NDArray[np.float64], length: int) -> npt.NDArray[np.float64]:
    """Pieces that overlap by half, shape [up to `_PIECES`, length]."""
    starts = np.arange(0, len(signal) - length + 1, max(length // 2, 1))
    order = np.argsort(_energies(signal, length)[starts])[::-1][:_PIECES]
    return np.stack([signal[start : start + length] for start in starts[order]])


def _energies(signal: npt.NDArray[np.float64], length: int) -> npt.NDArray[np.float64]:
    """Of every stretch of this length."""
    sums = np.concatenate([[0.0], np.cumsum(signal * signal)])
    energies: npt.NDArray[np.float64] = sums[length:] - sums[:-length]
    return energies
