"""Whisper on Apple silicon through MLX.

Source of the interface: ml-explore/mlx-examples (`mlx_whisper`). Does not know turns, partial policies or other calls:
it hears an array of samples and gives text.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from antiphon.errors import ModelError
from antiphon.models.devices import choose_device
from antiphon.models.ports import STT_RATE_HZ, ModelInfo, Pcm16, Transcript, WeightSource
from antiphon.models.registry import register_model
from antiphon.models.stt.silence import is_silent

INSTALL = "pip install 'antiphon[mlx-whisper]'"
_NO_SPEECH = 0.6
_UNLIKELY = -1.0
"""Mean log probability under which a segment is taken for a hallucination when it also looks like no speech."""


@register_model("stt", "mlx-whisper")
class MlxWhisper:
    """The `SpeechToText` port on mlx-whisper. `device`: `auto`, `mlx`, or `cpu` for trying it elsewhere.

    `model`: a hub name of converted weights, or a folder with `config.json` and `weights.safetensors`. `dtype`:
    `float16` or `float32`; `auto`: float16 on the GPU.
    """

    def __init__(
        self,
        weights: WeightSource,
        *,
        model: str = "mlx-community/whisper-large-v3-turbo",
        device: str = "auto",
        dtype: str = "auto",
    ) -> None:
        del weights  # the library has a store of its own
        self.info = ModelInfo("mlx-whisper", detail=model)
        self._name, self._device, self._dtype = model, device, dtype
        self._half = False
        self._model: Any = None
        self._transcribe: Any = None

    def load(self) -> None:
        """Fetch and open the weights, transcribe a second of noise. Raises ModelError."""
        if self._dtype not in ("auto", "float16", "float32"):
            raise ModelError(f"mlx-whisper: unknown dtype {self._dtype!r}; float16 or float32")
        try:
            import mlx.core as mx
            from mlx_whisper.transcribe import ModelHolder, transcribe
        except ImportError as error:
            raise ModelError(f"mlx-whisper cannot be imported ({error}): {INSTALL}") from error
        device = choose_device(self._device, ("mlx", "cpu"), model="mlx-whisper")
        if device == "cpu":
            mx.set_default_device(mx.cpu)
        self._half = self._dtype == "float16" or (self._dtype == "auto" and device == "mlx")
        try:
            self._model = ModelHolder.get_model(
                self._name, mx.float16 if self._half else mx.float32
            )
        except Exception as error:
            raise ModelError(f"mlx-whisper cannot open {self._name!r}: {_said(error)}") from error
        self._transcribe = transcribe
        self.info = ModelInfo(
            "mlx-whisper",
            detail=f"{self._name}, {device}, {'float16' if self._half else 'float32'}",
            languages=_languages() if self._model.is_multilingual else ("en",),
            partials=device == "mlx",
        )
        noise = np.random.default_rng(0).normal(0.0, 1000.0, STT_RATE_HZ)
        self.transcribe(noise.astype(np.int16))

    def close(self) -> None:
        if self._model is not None:
            from mlx_whisper.transcribe import ModelHolder

            ModelHolder.model = ModelHolder.model_path = None  # the library keeps the last one
        self._model = self._transcribe = None

    def transcribe(
        self, audio: Pcm16, *, language: str | None = None, partial: bool = False
    ) -> Transcript:
        """int16 samples [n] at 16 kHz, any n -> text; silence -> empty text. Raises ModelError."""
        if self._transcribe is None:
            raise ModelError("mlx-whisper is not loaded; call load() first")
        if is_silent(audio):
            return Transcript("", language)
        try:
            heard = self._transcribe(
                audio.astype(np.float32) / 32768.0,
                path_or_hf_repo=self._name,
                language=language if language in self.info.languages else None,
                temperature=0.0,
                condition_on_previous_text=False,
                without_timestamps=audio.size <= 28 * STT_RATE_HZ,
                fp16=self._half,
            )
        except (RuntimeError, ValueError) as error:
            raise ModelError(f"mlx-whisper: {_said(error)}") from error
        parts = (_text_of(segment) for segment in heard["segments"])
        return Transcript(" ".join(part for part in parts if part), heard["language"])


def _languages() -> tuple[str, ...]:
    from mlx_whisper.tokenizer import LANGUAGES

    return tuple(LANGUAGES)


def _text_of(segment: Any) -> str:
    """Whisper makes words up for noise, and says itself that it is not sure."""
    if segment["no_speech_prob"] > _NO_SPEECH and segment["avg_logprob"] < _UNLIKELY:
        return ""
    return str(segment["text"]).strip()


def _said(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
