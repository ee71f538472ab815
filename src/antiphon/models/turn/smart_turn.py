"""Smart Turn v3: does this utterance sound finished?

Source of the input format: pipecat-ai/smart-turn v3 (the last 8 s at 16 kHz, zeros before it, zero
mean and unit variance over all 8 s as Whisper's feature extractor does with `do_normalize`, then
Whisper's log-mel). The model errs in about one of four cases: whoever asks it keeps a silence limit
beside it. Does not know when speech stopped or what was said.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from antiphon.models.onnx import open_session, run, weight_file
from antiphon.models.ports import STT_RATE_HZ, ModelInfo, Pcm16, WeightSource
from antiphon.models.registry import register_model
from antiphon.models.turn.mel import log_mel

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
