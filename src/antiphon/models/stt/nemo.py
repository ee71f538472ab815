"""NVIDIA's cache-aware streaming models through NeMo: what has been heard once is not heard again for the next partial.

Source of the interface: NVIDIA/NeMo (`conformer_stream_step`, and the chunks of its streaming buffer). The encoder's
caches of an utterance are kept under its audio: when a longer audio begins with the same samples, only the rest is fed.
Does not know turns, partial policies or other calls.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from antiphon.errors import ModelError
from antiphon.models.ports import STT_RATE_HZ, ModelInfo, Pcm16, Transcript, WeightSource
from antiphon.models.registry import register_model
from antiphon.models.stt.silence import is_silent
from antiphon.models.torch_device import device_and_dtype, missing

_STREAMS = 32
"""Utterances whose caches are kept: of so many calls at once."""
_EDGE_FRAMES = 4
"""The last frames of features change when more audio comes: the window reaches over the end."""
_FLUSH_S = 0.6
"""Silence after the last word, for what the model sees ahead."""


@dataclass(slots=True)
class _Stream:
    """One utterance so far."""

    heard: Pcm16
    """The samples that stand behind `frames`."""
    caches: tuple[Any, Any, Any]
    frames: int = 0
    hypotheses: Any = None
    predicted: Any = None
    text: str = ""


@register_model("stt", "nemo")
class Nemo:
    """The `SpeechToText` port on a cache-aware streaming transducer or CTC model.

    `model`: a hub name or a `.nemo` file. `look_ahead`: frames of 80 ms that the model waits for before it writes, as
    it was trained (0, 1, 6 or 13 for Nemotron): fewer are faster, more are right more often.
    """

    def __init__(
        self,
        weights: WeightSource,
        *,
        model: str = "nvidia/nemotron-speech-streaming-en-0.6b",
        device: str = "auto",
        dtype: str = "float32",
        look_ahead: int = 1,
        languages: tuple[str, ...] | list[str] = ("en",),
    ) -> None:
        del weights  # the library has a store of its own
        self.info = ModelInfo("nemo", detail=model, languages=tuple(languages))
        self._name, self._device, self._dtype = model, device, dtype
        self._look_ahead = look_ahead
        self._model: Any = None
        self._features: Any = None
        self._streams: list[_Stream] = []
        self._turn = threading.Lock()

    def load(self) -> None:
        """Fetch and open the model, transcribe a second of noise. Raises ModelError with what to install or set."""
        try:
            from nemo.collections.asr.models import ASRModel
            from nemo.collections.asr.parts.utils.streaming_utils import (
                CacheAwareStreamingAudioBuffer,
            )
        except ImportError as error:
            raise missing("NeMo", "nemo", error) from error
        self._on = device, dtype = device_and_dtype(self._device, self._dtype, model="nemo")
        file = Path(self._name).expanduser()
        try:
            if file.is_file():
                model = ASRModel.restore_from(str(file), map_location=device)
            else:
                model = ASRModel.from_pretrained(self._name, map_location=device)
            model = model.to(device).eval()
            self._look(model)
            self._features = CacheAwareStreamingAudioBuffer(model).preprocessor.eval()
        except ModelError:
            raise
        except Exception as error:  # checkpoints of strangers fail in any way
            raise ModelError(f"NeMo cannot stream with {self._name!r}: {_said(error)}") from error
        if str(model.cfg.preprocessor.get("normalize", "NA")).upper() not in ("NA", "NONE"):
            raise ModelError(f"{self._name} normalises over whole recordings: it cannot stream")
        self._model = model
        self.info = ModelInfo(
            "nemo",
            detail=f"{self._name}, {device}, {str(dtype).removeprefix('torch.')}, "
            f"looks {self._look_ahead} frames ahead",
            languages=self.info.languages,
            partials=True,
        )
        noise = np.random.default_rng(0).normal(0.0, 1000.0, STT_RATE_HZ)
        self.transcribe(noise.astype(np.int16))

    def close(self) -> None:
        self._model = self._features = None
        self._streams.clear()

    def transcribe(
        self, audio: Pcm16, *, language: str | None = None, partial: bool = False
    ) -> Transcript:
        """int16 samples [n] at 16 kHz, any n -> text; silence -> empty text. Raises ModelError."""
        if self._model is None:
            raise ModelError("NeMo is not loaded; call load() first")
        if is_silent(audio):
            return Transcript("", language)
        with self._turn:
            try:
                text = self._hear(audio, partial=partial)
            except (RuntimeError, ValueError, IndexError) as error:
                raise ModelError(f"NeMo: {_said(error)}") from error
        return Transcript(" ".join(text.split()), self.info.languages[0])

    # --- streams ----------------------------------------------------------------------------------

    def _hear(self, audio: Pcm16, *, partial: bool) -> str:
        import torch

        device, dtype = self._on
        kind = device.partition(":")[0]
        with (
            torch.inference_mode(),
            torch.autocast(kind, dtype=dtype, enabled=dtype != torch.float32),
        ):
            stream = self._stream(audio)
            padded = np.pad(audio, (0, int(_FLUSH_S * STT_RATE_HZ)))
            features, frames = self._mel(padded)
            settled = frames * audio.size // padded.size - _EDGE_FRAMES
            for chunk, shift in self._chunks(features, stream.frames, settled):
                self._step(stream, chunk, shift)
            per_frame = padded.size / frames
            stream.heard = audio[: min(audio.size, round(stream.frames * per_frame))].copy()
            self._keep(stream)
            if partial:
                return stream.text
            last = copy.deepcopy(stream)  # the caller may go on: what was settled stays as it is
            for chunk, shift in self._chunks(features, stream.frames, frames):
                self._step(last, chunk, shift)
            return last.text

    def _stream(self, audio: Pcm16) -> _Stream:
        for at, stream in enumerate(self._streams):
            size = stream.heard.size
            if size <= audio.size and np.array_equal(stream.heard, audio[:size]):
                return self._streams.pop(at)
        caches = self._model.encoder.get_initial_cache_state(batch_size=1)
        return _Stream(np.zeros(0, np.int16), caches)

    def _keep(self, stream: _Stream) -> None:
        if not stream.heard.size:
            return
        self._streams.insert(0, stream)
        del self._streams[_STREAMS:]

    def _mel(self, audio: Pcm16) -> tuple[Any, int]:
        """-> features [1, mels, frames] and how many frames they are."""
        import torch

        device = self._on[0]
        samples = torch.from_numpy(audio.astype(np.float32) / 32768.0).to(device)[None]
        length = torch.tensor([audio.size], device=device)
        features, frames = self._features(input_signal=samples, length=length)
        return features, min(int(frames[0]), features.shape[-1])

    def _chunks(self, features: Any, start: int, end: int) -> Iterator[tuple[Any, int]]:
        """Whole chunks of [start, end), each with the frames before it that the first layers want."""
        import torch

        setup = self._model.encoder.streaming_cfg
        size, shift, before = (
            _steady(setup.chunk_size),
            _steady(setup.shift_size),
            _steady(setup.pre_encode_cache_size),
        )
        while start + size <= end:
            past = features[:, :, max(0, start - before) : start]
            lacking = before - past.shape[-1]
            if lacking:
                past = torch.nn.functional.pad(past, (lacking, 0))
            yield torch.cat((past, features[:, :, start : start + size]), dim=-1), shift
            start += shift

    def _step(self, stream: _Stream, chunk: Any, shift: int) -> None:
        import torch

        setup = self._model.encoder.streaming_cfg
        found = self._model.conformer_stream_step(
            processed_signal=chunk,
            processed_signal_length=torch.tensor([chunk.shape[-1]], device=chunk.device),
            cache_last_channel=stream.caches[0],
            cache_last_time=stream.caches[1],
            cache_last_channel_len=stream.caches[2],
            keep_all_outputs=False,
            previous_hypotheses=stream.hypotheses,
            previous_pred_out=stream.predicted,
            drop_extra_pre_encoded=setup.drop_extra_pre_encoded,
            return_transcription=True,
        )
        stream.predicted, written, *caches, stream.hypotheses = found
        stream.caches = (caches[0], caches[1], caches[2])
        stream.text = str(getattr(written[0], "text", written[0]))
        stream.frames += shift

    def _look(self, model: Any) -> None:
        encoder = model.encoder
        sizes = getattr(encoder, "att_context_size_all", None) or [encoder.att_context_size]
        chosen = next((size for size in sizes if size[-1] == self._look_ahead), None)
        if chosen is None:
            known = ", ".join(str(size[-1]) for size in sizes)
            raise ModelError(f"{self._name} looks ahead by {known} frames: set look_ahead")
        encoder.set_default_att_context_size(list(chosen))


def _steady(size: int | list[int]) -> int:
    """Of every chunk but the first; the first is filled up with silence to be like the others."""
    return int(size[1]) if isinstance(size, (list, tuple)) else int(size)


def _said(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
