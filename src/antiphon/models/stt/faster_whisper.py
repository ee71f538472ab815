"""Whisper of any size by faster-whisper (CTranslate2): a hundred languages, on CUDA or a CPU.

Source of the interface: SYSTRAN/faster-whisper. Does not know turns, partial policies or other calls: it hears an array
of samples and gives text.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from antiphon.errors import ModelError
from antiphon.models.devices import choose_device
from antiphon.models.ports import STT_RATE_HZ, ModelInfo, Pcm16, Transcript, WeightSource
from antiphon.models.registry import register_model
from antiphon.models.stt.silence import is_silent

INSTALL = "pip install 'antiphon[faster-whisper]'"
IN_CATALOGUE = ("whisper-tiny-en", "whisper-base")
_CPU_MODEL, _GPU_MODEL = "whisper-base", "large-v3-turbo"
_NO_SPEECH = 0.6
_UNLIKELY = -1.0
"""Mean log probability under which a segment is taken for a hallucination when it also looks like no speech."""


@register_model("stt", "faster-whisper")
class FasterWhisper:
    """The `SpeechToText` port on faster-whisper.

    `model`: an entry of the catalogue (`whisper-tiny-en`, `whisper-base`), a size that faster-whisper knows
    (`large-v3-turbo`, fetched from the hub by its library), or a folder of converted weights; empty: the best for the
    device. `device`: `cuda`, `cpu` or `auto`; `compute`: CTranslate2's type, empty: float16 on CUDA and int8 on a CPU.
    """

    def __init__(
        self,
        weights: WeightSource,
        *,
        model: str = "",
        device: str = "auto",
        compute: str = "",
        threads: int = 1,
        beam: int = 1,
    ) -> None:
        self.info = ModelInfo("faster-whisper", detail=model or "best for the device")
        self._weights, self._model_name = weights, model
        self._device, self._compute = device, compute
        self._threads, self._beam = threads, beam
        self._model: Any = None

    def load(self) -> None:
        """Open the weights and transcribe a second of noise. Raises ModelError with what to install or set."""
        try:
            from faster_whisper import WhisperModel
        except ImportError as error:
            raise ModelError(f"faster-whisper is not installed: {INSTALL} ({error})") from error
        device = choose_device(self._device, ("cuda", "cpu"), model="faster-whisper")
        compute = self._compute or ("float16" if device.startswith("cuda") else "int8")
        name = self._model_name or (_GPU_MODEL if device.startswith("cuda") else _CPU_MODEL)
        family, _, index = device.partition(":")
        try:
            self._model = WhisperModel(
                self._place(name),
                device=family,
                device_index=int(index or 0),
                compute_type=compute,
                cpu_threads=self._threads,
            )
        except Exception as error:
            raise ModelError(f"faster-whisper cannot open {name!r} on {device}: {error}") from error
        many = bool(self._model.model.is_multilingual)
        self.info = ModelInfo(
            "faster-whisper",
            detail=f"{name}, {device}, {compute}, {self._threads} thread(s)",
            languages=tuple(self._model.supported_languages) if many else ("en",),
            partials=family == "cuda" or "tiny" in name,
        )
        noise = np.random.default_rng(0).normal(0.0, 1000.0, STT_RATE_HZ)
        self.transcribe(noise.astype(np.int16))

    def close(self) -> None:
        self._model = None

    def transcribe(
        self, audio: Pcm16, *, language: str | None = None, partial: bool = False
    ) -> Transcript:
        """int16 samples [n] at 16 kHz, any n -> text; silence -> empty text. Raises ModelError."""
        if self._model is None:
            raise ModelError("faster-whisper is not loaded; call load() first")
        if is_silent(audio):
            return Transcript("", language)
        known = language if language in self._model.supported_languages else None
        try:
            segments, info = self._model.transcribe(
                audio.astype(np.float32) / 32768.0,
                language=known,
                beam_size=1 if partial else self._beam,
                temperature=0.0,
                condition_on_previous_text=False,
                without_timestamps=audio.size <= 28 * STT_RATE_HZ,
                vad_filter=False,
            )
            text = " ".join(part for part in (_text_of(segment) for segment in segments) if part)
        except (RuntimeError, ValueError) as error:
            raise ModelError(f"faster-whisper: {error}") from error
        return Transcript(text, info.language)

    def _place(self, name: str) -> str:
        """Folder or name that faster-whisper opens. Entries of the catalogue come by their digests."""
        if Path(name).expanduser().is_dir():
            return str(Path(name).expanduser())
        if name not in IN_CATALOGUE:
            return name
        return str(next(iter(self._weights.files(name).values())).parent)


def _text_of(segment: Any) -> str:
    """Whisper makes words up for noise, and says itself that it is not sure."""
    if segment.no_speech_prob > _NO_SPEECH and segment.avg_logprob < _UNLIKELY:
        return ""
    return str(segment.text).strip()
