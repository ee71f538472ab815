"""Chatterbox turbo in this process: expressive English, and any voice from a clip of six seconds.

Source of the interface: resemble-ai/chatterbox (`chatterbox.tts_turbo`). It makes a sentence as a whole, so a reply
comes sentence by sentence and an interruption takes effect at the end of one. Its audio carries the library's inaudible
watermark. Does not know replies, playback or queues.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from antiphon.errors import ModelError, RequestError, suggest
from antiphon.models.ports import ModelInfo, Pcm16, SpeechRequest, WeightSource
from antiphon.models.registry import register_model
from antiphon.models.torch_device import device_and_dtype
from antiphon.models.tts.normalise import split_sentences
from antiphon.models.tts.postprocess import Float32, active_rms, finish

INSTALL = "pip install 'antiphon[chatterbox]' && pip install --no-deps chatterbox-tts"
"""Its own pins exclude the version of NumPy that the rest of the server needs."""
REPOSITORY = "ResembleAI/chatterbox-turbo"
OWN_VOICE = "own"
_WARM_UP = "Good morning."
_TARGET_RMS = 0.085
_GAIN_LIMITS = (0.5, 4.0)
_SAME_SPEED = 0.02


@register_model("tts", "chatterbox")
class Chatterbox:
    """The `TextToSpeech` port on Chatterbox turbo, a sentence at a time.

    `model`: a folder with the files of the hub's repository; empty: fetched from there. `clips`: name of a voice ->
    path of a clip of at least 6 s to clone. `voice`: one of them; empty: the model's own. `temperature`: how lively.
    """

    def __init__(
        self,
        weights: WeightSource,
        *,
        model: str = "",
        voice: str = "",
        clips: Mapping[str, str] | None = None,
        device: str = "auto",
        temperature: float = 0.8,
    ) -> None:
        del weights  # the library has a store of its own
        self.info = ModelInfo("chatterbox", detail=model or REPOSITORY, languages=("en",))
        self.sample_rate_hz = 24_000
        self._folder, self._voice, self._clips = model, voice, dict(clips or {})
        self._device, self._temperature = device, temperature
        self._model: Any = None
        self._voices: dict[str, Any] = {}
        self._turn = threading.Lock()
        """One sentence at a time: the voice is a state of the library's model."""
        self._gain = 1.0

    def load(self) -> None:
        """Fetch and open the model, speak two words. Raises ModelError with what to install or set."""
        try:
            from chatterbox.tts_turbo import ChatterboxTurboTTS
        except ImportError as error:
            raise ModelError(f"chatterbox-tts cannot be imported ({error}); {INSTALL}") from error
        device, _ = device_and_dtype(self._device, "float32", model="chatterbox")
        try:
            if self._folder:
                model = ChatterboxTurboTTS.from_local(Path(self._folder).expanduser(), device)
            else:
                model = ChatterboxTurboTTS.from_pretrained(device)
        except Exception as error:  # checkpoints of strangers fail in any way
            name = self._folder or REPOSITORY
            raise ModelError(f"chatterbox-tts cannot open {name!r}: {_said(error)}") from error
        if model.conds is not None:
            self._voices[OWN_VOICE] = model.conds
        for name, clip in self._clips.items():
            self._voices[name] = _cloned(model, Path(clip).expanduser())
        if not self._voices:
            raise ModelError("Chatterbox has no voice here: set clips to a clip of at least 6 s")
        self._voice = self._voice or next(iter(self._voices))
        self._known(self._voice)
        self._model = model
        self.sample_rate_hz = int(model.sr)
        self.info = ModelInfo(
            "chatterbox",
            detail=f"{self._folder or REPOSITORY}, {device}",
            languages=("en",),
            voices=tuple(self._voices),
        )
        loudness = active_rms(self._speak(_WARM_UP, self._voice))
        low, high = _GAIN_LIMITS
        self._gain = min(max(_TARGET_RMS / max(loudness, 1e-6), low), high)

    def close(self) -> None:
        self._model = None
        self._voices.clear()

    def synthesize(self, request: SpeechRequest) -> Iterator[Pcm16]:
        """One array of int16 [n] per sentence. Raises ModelError."""
        if self._model is None:
            raise ModelError("Chatterbox is not loaded; call load() first")
        voice = request.voice or self._voice
        self._known(voice)
        for sentence in split_sentences(request.text):
            if any(character.isalnum() for character in sentence):
                samples = _paced(self._speak(sentence, voice), request.speed)
                yield finish(samples, self._gain, sentence, self.sample_rate_hz)

    def _known(self, voice: str) -> None:
        if voice not in self._voices:
            raise RequestError(f"Chatterbox has no voice {voice!r}{suggest(voice, self._voices)}")

    def _speak(self, text: str, voice: str) -> Float32:
        with self._turn:
            self._model.conds = self._voices[voice]
            try:
                said = self._model.generate(text, temperature=self._temperature)
            except (RuntimeError, ValueError, IndexError) as error:
                raise ModelError(f"Chatterbox: {_said(error)}") from error
        return np.asarray(said.reshape(-1).numpy(), np.float32)


def _cloned(model: Any, clip: Path) -> Any:
    if not clip.is_file():
        raise ModelError(f"there is no clip {str(clip)!r} to clone; set the option clips")
    plain = type(model).norm_loudness

    def in_float32(
        wav: Any, rate_hz: int
    ) -> Float32:  # NumPy 2 makes the library's factor a double
        return np.asarray(plain(model, wav, rate_hz), np.float32)

    model.norm_loudness = in_float32
    try:
        model.prepare_conditionals(str(clip), exaggeration=0.0)
    except Exception as error:
        raise RequestError(f"{clip.name} cannot be cloned: {_said(error)}") from error
    return model.conds


def _paced(samples: Float32, speed: float) -> Float32:
    """The model has one pace; another is made from its audio, with the pitch kept."""
    if abs(speed - 1.0) < _SAME_SPEED:
        return samples
    import librosa

    stretched: Float32 = librosa.effects.time_stretch(samples, rate=min(max(speed, 0.5), 2.0))
    return stretched


def _said(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
