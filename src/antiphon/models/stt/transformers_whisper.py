"""Speech to text through Transformers: any `openai/whisper-*`, and Kyutai's `stt-*-trfs`.

Source of the interface: huggingface/transformers (processor and `generate` of the automatic classes). Does not know
turns, partial policies or other calls: it hears an array of samples and gives text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from antiphon.errors import ModelError
from antiphon.models.ports import STT_RATE_HZ, ModelInfo, Pcm16, Transcript, WeightSource
from antiphon.models.registry import register_model
from antiphon.models.stt.silence import is_silent, split_at_quiet
from antiphon.models.torch_device import device_and_dtype, missing

_WHISPER_S = 28
_TOKENS_PER_S = 8
_SPARE_TOKENS = 16


class _Transcriber:
    """What both share: opening the processor and the model, and cutting long audio at quiet places."""

    name = ""

    def __init__(
        self,
        weights: WeightSource,
        *,
        model: str = "",
        device: str = "auto",
        dtype: str = "auto",
        trust_remote_code: bool = False,
    ) -> None:
        del weights  # the library has a store of its own
        self.info = ModelInfo(self.name, detail=model)
        self._model_name = model
        self._device, self._dtype = device, dtype
        self._remote_code = trust_remote_code
        self._model: Any = None
        self._processor: Any = None
        self._on: tuple[str, Any] = ("cpu", None)

    def load(self) -> None:
        """Fetch and open the model, transcribe a second of noise. Raises ModelError."""
        try:
            import transformers
        except ImportError as error:
            raise missing("Transformers", "transformers", error) from error
        self._on = device, dtype = device_and_dtype(self._device, self._dtype, model=self.name)
        trust = {"trust_remote_code": self._remote_code}
        try:
            self._processor = transformers.AutoProcessor.from_pretrained(self._model_name, **trust)
            model = self._class(transformers).from_pretrained(
                self._model_name, dtype=dtype, **trust
            )
        except (OSError, ValueError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[0]
            raise ModelError(f"Transformers cannot open {self._model_name!r}: {reason}") from error
        self._model = model.to(device).eval()
        shown = str(dtype).removeprefix("torch.")
        self.info = ModelInfo(
            self.name,
            detail=f"{self._model_name}, {device}, {shown}",
            languages=self._languages(),
            partials=device.startswith("cuda"),
        )
        noise = np.random.default_rng(0).normal(0.0, 1000.0, STT_RATE_HZ)
        self.transcribe(noise.astype(np.int16))

    def close(self) -> None:
        self._model = self._processor = None

    def transcribe(
        self, audio: Pcm16, *, language: str | None = None, partial: bool = False
    ) -> Transcript:
        """int16 samples [n] at 16 kHz, any n -> text; silence -> empty text. Raises ModelError."""
        if self._model is None:
            raise ModelError(f"{self.name} is not loaded; call load() first")
        known = language if language in self.info.languages else None
        try:
            texts = [
                self._hear(piece.astype(np.float32) / 32768.0, known)
                for piece in split_at_quiet(audio, _WHISPER_S - 8, _WHISPER_S)
                if not is_silent(piece)
            ]
        except (RuntimeError, ValueError) as error:
            raise ModelError(f"{self.name}: {error}") from error
        return Transcript(" ".join(text for text in texts if text), known)

    def _class(self, transformers: Any) -> Any:
        raise NotImplementedError

    def _languages(self) -> tuple[str, ...]:
        raise NotImplementedError

    def _hear(self, samples: Any, language: str | None) -> str:
        raise NotImplementedError


@register_model("stt", "transformers-whisper")
class TransformersWhisper(_Transcriber):
    """The `SpeechToText` port on Whisper of any size; default `openai/whisper-large-v3-turbo`."""

    name = "transformers-whisper"

    def __init__(
        self, weights: WeightSource, *, model: str = "openai/whisper-large-v3-turbo", **options: Any
    ) -> None:
        super().__init__(weights, model=model, **options)

    def _class(self, transformers: Any) -> Any:
        return transformers.AutoModelForSpeechSeq2Seq

    def _languages(self) -> tuple[str, ...]:
        known = getattr(self._model.generation_config, "lang_to_id", None) or {}
        return tuple(token.strip("<|>") for token in known) or ("en",)

    def transcribe_batch(
        self, audios: Sequence[Pcm16], *, language: str | None = None
    ) -> list[Transcript]:
        """Utterances of several callers in one pass, each of at most 28 s. Raises ModelError."""
        if self._model is None:
            raise ModelError(f"{self.name} is not loaded; call load() first")
        known = language if language in self.info.languages else None
        spoken = [at for at, audio in enumerate(audios) if not is_silent(audio)]
        texts = [""] * len(audios)
        try:
            samples = [audios[at].astype(np.float32) / 32768.0 for at in spoken]
            heard = self._hear_all(samples, known) if samples else []
        except (RuntimeError, ValueError) as error:
            raise ModelError(f"{self.name}: {error}") from error
        for at, text in zip(spoken, heard, strict=True):
            texts[at] = text
        return [Transcript(text, known) for text in texts]

    def _hear(self, samples: Any, language: str | None) -> str:
        return self._hear_all([samples], language)[0]

    def _hear_all(self, samples: Sequence[Any], language: str | None) -> list[str]:
        device, dtype = self._on
        inputs = self._processor(
            list(samples),
            sampling_rate=STT_RATE_HZ,
            return_tensors="pt",
            return_attention_mask=True,
        ).to(device, dtype)
        spoken = (
            {"language": language, "task": "transcribe"} if len(self.info.languages) > 1 else {}
        )
        longest_s = max(piece.size for piece in samples) / STT_RATE_HZ
        budget = int(longest_s * _TOKENS_PER_S) + _SPARE_TOKENS
        longest = int(self._model.config.max_target_positions) - _SPARE_TOKENS
        ids = self._model.generate(
            **inputs, max_new_tokens=min(budget, longest), do_sample=False, num_beams=1, **spoken
        )
        found = self._processor.batch_decode(ids, skip_special_tokens=True)
        return [str(text).strip() for text in found]


@register_model("stt", "kyutai-transformers")
class KyutaiTransformers(_Transcriber):
    """The `SpeechToText` port on Kyutai's delayed-streams models, `kyutai/stt-2.6b-en-trfs`; 24 kHz inside."""

    name = "kyutai-transformers"

    def __init__(
        self, weights: WeightSource, *, model: str = "kyutai/stt-2.6b-en-trfs", **options: Any
    ) -> None:
        super().__init__(weights, model=model, **options)

    def _class(self, transformers: Any) -> Any:
        return transformers.KyutaiSpeechToTextForConditionalGeneration

    def _languages(self) -> tuple[str, ...]:
        return ("en", "fr") if "en_fr" in self._model_name else ("en",)

    def _hear(self, samples: Any, language: str | None) -> str:
        from antiphon.audio.resample import resample

        device, dtype = self._on
        rate_hz = int(self._processor.feature_extractor.sampling_rate)
        pcm = resample((samples * 32767).astype(np.int16), STT_RATE_HZ, rate_hz)
        inputs = self._processor(
            audio=pcm.astype(np.float32) / 32768.0, sampling_rate=rate_hz, return_tensors="pt"
        )
        ids = self._model.generate(**inputs.to(device, dtype))
        return str(self._processor.batch_decode(ids, skip_special_tokens=True)[0]).strip()
