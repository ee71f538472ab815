"""Voices of coqui-tts in this process: XTTS v2 (streaming, seventeen languages, cloning) and every other Coqui model.

Source of the interface: idiap/coqui-ai-TTS. The weights of XTTS are under the Coqui Public Model License: not for
for commercial use. Does not know replies, playback or queues: it is given a few sentences and gives their audio.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from antiphon.errors import ModelError, RequestError, suggest
from antiphon.models.ports import ModelInfo, Pcm16, SpeechRequest, WeightSource
from antiphon.models.registry import register_model
from antiphon.models.torch_device import device_and_dtype, missing
from antiphon.models.tts.normalise import split_sentences
from antiphon.models.tts.postprocess import Float32, active_rms, finish, limit

XTTS = "tts_models/multilingual/multi-dataset/xtts_v2"
XTTS_LICENCE = "Coqui Public Model License: not for commercial use"
_MAX_LEARNED = 64
_SHORT_CODES = {"zh": "zh-cn"}
_WARM_UP = "Good morning."
_TARGET_RMS = 0.085
_GAIN_LIMITS = (0.5, 4.0)


@register_model("tts", "xtts")
class Xtts:
    """The `TextToSpeech` port on XTTS v2.

    `model`: a Coqui name or a folder with `config.json`, `model.pth` and `vocab.json`. `voice`: a studio speaker, or
    the path of a clip of 6 to 30 s to clone. `accept_licence`: the owner has read that the weights are not for
    commercial use. `chunk_tokens`: audio tokens per piece; fewer come sooner and sound worse.
    """

    def __init__(
        self,
        weights: WeightSource,
        *,
        model: str = XTTS,
        voice: str = "",
        device: str = "auto",
        accept_licence: bool = False,
        chunk_tokens: int = 20,
    ) -> None:
        del weights  # the library has a store of its own
        self.info = ModelInfo("xtts", detail=model, licence=XTTS_LICENCE)
        self.sample_rate_hz = 24_000
        self._name, self._voice, self._device = model, voice, device
        self._accepted, self._chunk_tokens = accept_licence, chunk_tokens
        self._model: Any = None
        self._voices: dict[str, tuple[Any, Any]] = {}
        self._learned: list[str] = []

    def load(self) -> None:
        """Fetch and open the model, speak two words. Raises ModelError with what to install or set."""
        try:
            from TTS.tts.configs.xtts_config import XttsConfig
            from TTS.tts.models.xtts import Xtts as Model
        except ImportError as error:
            raise missing("coqui-tts", "coqui", error) from error
        device, _ = device_and_dtype(self._device, "float32", model="xtts")
        folder = _folder(self._name, accepted=self._accepted)
        try:
            config = XttsConfig()
            config.load_json(str(folder / "config.json"))
            model = Model(config)
            model.load_checkpoint(config, checkpoint_dir=str(folder), eval=True)
            self._model = model.to(device)
        except Exception as error:  # checkpoints of strangers fail in any way
            raise ModelError(f"coqui-tts cannot open {self._name!r}: {_said(error)}") from error
        self.sample_rate_hz = int(config.audio.output_sample_rate)
        known = getattr(model.speaker_manager, "speakers", None) or {}
        self._voices = {
            name: (tensors["gpt_cond_latent"], tensors["speaker_embedding"])
            for name, tensors in known.items()
        }
        if self._voice and self._voice not in self._voices:
            self._voices[self._voice] = self.clone(Path(self._voice))
        if not self._voices:
            raise ModelError("XTTS has no studio speakers here: set voice to a clip of 6 to 30 s")
        self._voice = self._voice or next(iter(self._voices))
        self.info = ModelInfo(
            "xtts",
            detail=f"{self._name}, {device}",
            languages=tuple(str(code).partition("-")[0] for code in config.languages),
            voices=tuple(self._voices),
            licence=XTTS_LICENCE,
        )
        for _ in self.synthesize(SpeechRequest(_WARM_UP)):
            pass

    def close(self) -> None:
        self._model = None
        self._voices.clear()

    def clone(self, clip: Path) -> tuple[Any, Any]:
        """-> conditioning latents [1, t, n] and speaker embedding [1, 512, 1] of whoever speaks in `clip`.

        Raises ModelError.
        """
        if not clip.is_file():
            raise ModelError(f"XTTS has no voice {str(clip)!r}{suggest(str(clip), self._voices)}")
        try:
            latents, embedding = self._model.get_conditioning_latents(audio_path=[str(clip)])
        except Exception as error:
            raise RequestError(f"{clip.name} cannot be cloned: {_said(error)}") from error
        return latents, embedding

    def learn_voice(self, name: str, clip: Path) -> None:
        """From now on `name` may be asked for. The oldest of many learned voices is forgotten. Raises ModelError."""
        while len(self._learned) >= _MAX_LEARNED:
            del self._voices[self._learned.pop(0)]
        self._voices[name] = self.clone(clip)
        self._learned.append(name)
        self.info = replace(self.info, voices=tuple(self._voices))

    def synthesize(self, request: SpeechRequest) -> Iterator[Pcm16]:
        """int16 [n], as it is made. Raises ModelError."""
        if self._model is None:
            raise ModelError("XTTS is not loaded; call load() first")
        if not any(character.isalnum() for character in request.text):
            return
        voice = request.voice or self._voice
        if voice not in self._voices:
            raise RequestError(f"XTTS has no voice {voice!r}{suggest(voice, self._voices)}")
        latents, embedding = self._voices[voice]
        language = request.language or "en"
        stream = self._model.inference_stream(
            request.text,
            _SHORT_CODES.get(language, language),
            latents.to(self._model.device),
            embedding.to(self._model.device),
            stream_chunk_size=self._chunk_tokens,
            speed=request.speed,
        )
        try:
            for chunk in stream:
                samples: Float32 = chunk.detach().float().cpu().numpy().reshape(-1)
                limit(samples)
                if samples.size:
                    yield np.rint(samples * 32767.0).astype(np.int16)
        except (RuntimeError, ValueError, AssertionError, IndexError) as error:
            raise ModelError(f"XTTS: {_said(error)}") from error


@register_model("tts", "coqui")
class Coqui:
    """The `TextToSpeech` port on any other Coqui model, a sentence at a time.

    `model`: a Coqui name, `tts_models/en/ljspeech/tacotron2-DDC`, or a folder with `config.json` and `model.pth`.
    """

    def __init__(
        self,
        weights: WeightSource,
        *,
        model: str = "tts_models/en/ljspeech/tacotron2-DDC",
        voice: str = "",
        device: str = "auto",
    ) -> None:
        del weights  # the library has a store of its own
        self.info = ModelInfo("coqui", detail=model)
        self.sample_rate_hz = 22_050
        self._name, self._voice, self._device = model, voice, device
        self._synthesizer: Any = None
        self._gain = 1.0

    def load(self) -> None:
        """Fetch and open the model, speak a sentence. Raises ModelError with what to install or set."""
        try:
            from TTS.utils.synthesizer import Synthesizer
        except ImportError as error:
            raise missing("coqui-tts", "coqui", error) from error
        device, _ = device_and_dtype(self._device, "float32", model="coqui")
        try:
            self._synthesizer = Synthesizer(**_places(self._name)).to(device)
        except Exception as error:
            raise ModelError(f"coqui-tts cannot open {self._name!r}: {_said(error)}") from error
        self.sample_rate_hz = int(self._synthesizer.output_sample_rate)
        manager = getattr(self._synthesizer.tts_model, "speaker_manager", None)
        voices = tuple(getattr(manager, "speaker_names", None) or ())
        language = self._name.split("/")[1] if self._name.startswith("tts_models/") else ""
        self.info = ModelInfo(
            "coqui",
            detail=f"{self._name}, {device}",
            languages=(language,) if len(language) == 2 else (),
            voices=voices,
        )
        self._voice = self._voice or (voices[0] if voices else "")
        loudness = active_rms(self._speak(_WARM_UP, self._voice, 1.0))
        low, high = _GAIN_LIMITS
        self._gain = min(max(_TARGET_RMS / max(loudness, 1e-6), low), high)

    def close(self) -> None:
        self._synthesizer = None

    def synthesize(self, request: SpeechRequest) -> Iterator[Pcm16]:
        """One array of int16 [n] per sentence. Raises ModelError."""
        if self._synthesizer is None:
            raise ModelError("Coqui is not loaded; call load() first")
        voice = request.voice or self._voice
        if voice and voice not in self.info.voices:
            raise RequestError(
                f"{self._name} has no voice {voice!r}{suggest(voice, self.info.voices)}"
            )
        for sentence in split_sentences(request.text):
            if any(character.isalnum() for character in sentence):
                samples = self._speak(sentence, voice, request.speed)
                yield finish(samples, self._gain, sentence, self.sample_rate_hz)

    def _speak(self, text: str, voice: str, speed: float) -> Float32:
        model = self._synthesizer.tts_model
        if hasattr(model, "length_scale"):  # VITS
            model.length_scale = 1.0 / speed
        try:
            said = self._synthesizer.tts(text, speaker_name=voice or None, split_sentences=False)
        except (RuntimeError, ValueError, IndexError) as error:
            raise ModelError(f"{self._name}: {_said(error)}") from error
        return np.asarray(said, np.float32)


def _folder(name: str, *, accepted: bool) -> Path:
    """Where the files of XTTS lie; fetched from Coqui's hub when `name` is not a folder."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if not accepted:
        raise ModelError(
            f"the weights of XTTS are under the {XTTS_LICENCE}; "
            "set the option accept_licence to true if that is what you do"
        )
    from TTS.utils.manage import ModelManager

    os.environ["COQUI_TOS_AGREED"] = "1"  # else it asks on standard input, in a server
    try:
        path, _, _ = ModelManager(progress_bar=False).download_model(name)
    except Exception as error:
        raise ModelError(f"{name!r} cannot be fetched: {_said(error)}") from error
    return Path(path)


def _places(name: str) -> Mapping[str, Any]:
    folder = Path(name).expanduser()
    if folder.is_dir():
        return {
            "tts_checkpoint": str(folder / "model.pth"),
            "tts_config_path": str(folder / "config.json"),
        }
    from TTS.utils.manage import ModelManager

    manager = ModelManager(progress_bar=False)
    model, config, item = manager.download_model(name)
    found: dict[str, Any] = {"tts_checkpoint": str(model), "tts_config_path": str(config)}
    if vocoder := (item or {}).get("default_vocoder"):
        model, config, _ = manager.download_model(vocoder)
        found |= {"vocoder_checkpoint": str(model), "vocoder_config": str(config)}
    return found


def _said(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
