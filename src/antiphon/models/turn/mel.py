"""Log-mel spectrogram as Whisper defines it, in NumPy.

Source of the definition: openai/whisper `audio.py` (`log_mel_spectrogram`) and the Slaney mel scale
of librosa: 16 kHz, periodic Hann window of 400 samples, hop of 160, reflected ends, the last frame
dropped, power spectrum, 80 area-normalised triangular filters from 0 to 8,000 Hz, log10 clamped at
1e-10 and at 8 below the loudest, then (x + 4) / 4. Knows no model.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

RATE_HZ = 16_000
WINDOW = 400
HOP = 160
MELS = 80
_BLOCK = 8

Float32 = npt.NDArray[np.float32]


def log_mel(audio: Float32) -> Float32:
    """Samples -1..1 at 16 kHz, at least 201 -> log-mel [80, len(audio) // 160], float32."""
    if audio.size <= WINDOW // 2:
        raise ValueError(f"log_mel needs more than {WINDOW // 2} samples, got {audio.size}")
    padded = np.pad(audio, WINDOW // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP][: audio.size // HOP]
    spectrum = np.fft.rfft(frames * _hann(), axis=1)
    power = np.zeros((-(-len(frames) // _BLOCK) * _BLOCK, WINDOW // 2 + 1), np.float32)
    np.square(spectrum.real, out=power[: len(frames)])
    power[: len(frames)] += np.square(spectrum.imag)
    # One product per small block: a BLAS library starts its threads for a large one, which on a
    # busy machine takes 12 ms in place of 0.3.
    blocks = np.matmul(power.reshape(-1, _BLOCK, power.shape[1]), _filters())
    mel = blocks.reshape(-1, MELS)[: len(frames)].T
    log: Float32 = np.log10(np.maximum(mel, 1e-10))
    np.maximum(log, log.max() - 8.0, out=log)
    log += 4.0
    log *= 0.25
    return np.ascontiguousarray(log)


@cache
def _hann() -> Float32:
    """Periodic Hann window, [400]."""
    return np.hanning(WINDOW + 1)[:-1].astype(np.float32)


@cache
def _filters() -> Float32:
    """Slaney mel filter bank, [201, 80]: every triangle has the same area."""
    bins_hz = np.linspace(0.0, RATE_HZ / 2, WINDOW // 2 + 1)
    edges_hz = _mel_to_hz(np.linspace(_hz_to_mel(0.0), _hz_to_mel(RATE_HZ / 2), MELS + 2))
    widths_hz = np.diff(edges_hz)
    slopes = edges_hz[:, None] - bins_hz[None, :]
    rising = -slopes[:-2] / widths_hz[:-1, None]
    falling = slopes[2:] / widths_hz[1:, None]
    triangles = np.maximum(0.0, np.minimum(rising, falling))
    triangles *= (2.0 / (edges_hz[2:] - edges_hz[:-2]))[:, None]
    return np.ascontiguousarray(triangles.T, dtype=np.float32)


# The Slaney scale is linear below 1 kHz (3 mel per 200 Hz) and logarithmic above (27 mel per factor
# of 6.4).
_BREAK_HZ = 1000.0
_BREAK_MEL = 15.0
_LOG_STEP = float(np.log(6.4)) / 27.0


def _hz_to_mel(hz: float) -> float:
    if hz < _BREAK_HZ:
        return hz * 3.0 / 200.0
    return _BREAK_MEL + float(np.log(hz / _BREAK_HZ)) / _LOG_STEP


def _mel_to_hz(mel: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    linear = mel * 200.0 / 3.0
    above = _BREAK_HZ * np.exp(_LOG_STEP * (mel - _BREAK_MEL))
    return np.where(mel < _BREAK_MEL, linear, above)
