"""Smart Turn v3: does this utterance sound finished?

Source of the input format: pipecat-ai/smart-turn v3 (the last 8 s at 16 kHz, zeros before it, zero
mean and unit variance over all 8 s as Whisper's feature extractor does with `do_normalize`, then
Whisper's log-mel). The model errs in about one of four cases: whoever asks it keeps a silence limit
beside it. Does not know when speech stopped or what was said.

Source of the definition: openai/whisper `audio.py` (`log_mel_spectrogram`) and the Slaney mel scale
of librosa: 16 kHz, periodic Hann window of 400 samples, hop of 160, reflected ends, the last frame
dropped, power spectrum, 80 area-normalised triangular filters from 0 to 8,000 Hz, log10 clamped at
1e-10 and at 8 below the loudest, then (x + 4) / 4.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from antiphon.models.onnx import open_session, run, weight_file
from antiphon.models.ports import STT_RATE_HZ, ModelInfo, Pcm16, WeightSource
from antiphon.models.registry import register_model

_HEARD_SAMPLES = 8 * STT_RATE_HZ
_LANGUAGES = tuple("ar bn zh da nl de en fi fr hi id it ja ko mr no pl pt ru es tr uk vi".split())


@register_model("turn", "smart-turn")
class SmartTurn:
    """The `TurnDetector` port on the 8-bit Smart Turn model."""

    def __init__(
        self, weights: WeightSource, *, model: str = "smart-turn-v3.2", threads: int = 1
    ) -> None:
        self.info = ModelInfo(
            "smart-turn", detail=f"{model}, cpu, {threads} thread(s)", languages=_LANGUAGES
        )
        self._weights = weights
        self._model = model
        self._threads = threads
        self._session: Any = None

    def load(self) -> None:
        """Open the model and run it once. Raises ModelError."""
        files = self._weights.files(self._model)
        path = weight_file(files, f"{self._model}-cpu.onnx", self._model)
        self._session = open_session(path, threads=self._threads)
        self.predict(np.zeros(STT_RATE_HZ, np.int16))

    def close(self) -> None:
        self._session = None

    def predict(self, audio: Pcm16) -> float:
        """The utterance so far at 16 kHz with its last silence, any length -> probability 0..1.

        Only the last 8 s are heard. Nothing at all is not a finished turn: 0.0.
        """
        if audio.size == 0:
            return 0.0
        (scores,) = run("Smart Turn", self._session, {"input_features": features(audio)[None]})
        return float(scores[0, 0])


def features(audio: Pcm16) -> npt.NDArray[np.float32]:
    """int16 samples at 16 kHz -> log-mel [80, 800] of the last 8 s, zeros before shorter audio."""
    heard = audio[-_HEARD_SAMPLES:]
    samples = np.zeros(_HEARD_SAMPLES, np.float32)
    samples[_HEARD_SAMPLES - heard.size :] = heard
    samples *= np.float32(1.0 / 32768.0)
    samples -= samples.mean()
    samples *= np.float32(1.0 / np.sqrt(samples.var() + 1e-7))
    return log_mel(samples)


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
