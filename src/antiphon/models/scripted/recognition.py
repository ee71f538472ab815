"""Scripted models that hear: voice activity, end of turn, speech to text."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Unpack

import numpy as np

from antiphon.errors import ConfigError
from antiphon.models.ports import STT_RATE_HZ, ModelInfo, Pcm16, Transcript, WeightSource
from antiphon.models.scripted.pace import Pace, PaceOptions

_FRAME_MS = 50
_LEAST_FRAMES = 2
_HEARD_RMS = 100.0
_TOLERANCE_HZ = 30.0


def tone(frequency_hz: float, duration_ms: int, rate_hz: int, rms: float = 3000.0) -> Pcm16:
    """A sine of this level: what ScriptedVad takes for speech and ScriptedStt reads as words."""
    times_s = np.arange(rate_hz * duration_ms // 1000) / rate_hz
    wave = np.sin(2 * np.pi * frequency_hz * times_s) * rms * np.sqrt(2)
    samples: Pcm16 = np.clip(np.rint(wave), -32768, 32767).astype(np.int16)
    return samples


def rms_of(audio: Pcm16) -> float:
    """Root mean square of samples, 0..32768; 0 for none."""
    return float(np.sqrt(np.mean(np.square(audio, dtype=np.float64)))) if audio.size else 0.0


class ScriptedVad:
    """Speech is what is loud: a probability that rises from 0 to 1 between two levels. Without
    memory.

    `silence_rms`, `speech_rms`: the levels (int16 RMS) at and below, at and above which it is sure.
    """

    rates_hz: ClassVar[tuple[int, ...]] = (8_000, 16_000)

    def __init__(
        self,
        weights: WeightSource | None = None,
        *,
        silence_rms: float = 100.0,
        speech_rms: float = 500.0,
        **pace: Unpack[PaceOptions],
    ) -> None:
        if speech_rms <= silence_rms:
            raise ConfigError("scripted vad: speech_rms must be above silence_rms")
        self.info = ModelInfo("scripted", detail="by level")
        self._silence_rms = silence_rms
        self._span_rms = speech_rms - silence_rms
        self._pace = Pace("the scripted vad", pace)

    def load(self) -> None:
        pass

    def close(self) -> None:
        pass

    def window_samples(self, rate_hz: int) -> int:
        return rate_hz * 32 // 1000

    def new_state(self, rate_hz: int) -> Any:
        return None

    def score(self, windows: Sequence[Pcm16], states: Sequence[Any]) -> Sequence[float]:
        self._pace.pause()
        return [
            min(1.0, max(0.0, (rms_of(window) - self._silence_rms) / self._span_rms))
            for window in windows
        ]


class ScriptedTurnDetector:
    """Says the given probabilities in order, the last one for ever.

    `probabilities`: one number per request. `audio_ms` lists how much audio came with each.
    """

    def __init__(
        self,
        weights: WeightSource | None = None,
        *,
        probabilities: Sequence[float] = (0.9,),
        **pace: Unpack[PaceOptions],
    ) -> None:
        if not probabilities:
            raise ConfigError("scripted turn: probabilities must not be empty")
        self.info = ModelInfo("scripted", detail="as listed")
        self.audio_ms: list[int] = []
        self._probabilities = tuple(probabilities)
        self._pace = Pace("the scripted turn detector", pace)

    def load(self) -> None:
        pass

    def close(self) -> None:
        pass

    def predict(self, audio: Pcm16) -> float:
        self.audio_ms.append(audio.size * 1000 // STT_RATE_HZ)
        number = self._pace.pause()
        return float(self._probabilities[min(number, len(self._probabilities)) - 1])


class ScriptedStt:
    """Hears what it was told to hear, in one of three ways.

    `tones`: frequency in Hz -> words, e.g. `{"440" = "what time is it", "660" = "in Lisbon"}`. Each
    stretch of such a tone (see `tone`) of at least 150 ms is heard as its words, one after the
    other; anything else is silence. The transcript depends on the audio alone, so that it is right
    however often an utterance is transcribed: prefer this in tests of whole calls. `transcripts`:
    given out in order, one per final request, the last one for ever; a partial request hears the
    first half of the words of the next one. `hear`: in Python, a function of (audio, partial) to
    the text.

    Without any of them it hears `hello` in whatever is not silent.
    """

    def __init__(
        self,
        weights: WeightSource | None = None,
        *,
        tones: Mapping[str | int, str] | None = None,
        transcripts: Sequence[str] = (),
        hear: Callable[[Pcm16, bool], str] | None = None,
        partials: bool = True,
        **pace: Unpack[PaceOptions],
    ) -> None:
        if sum((tones is not None, bool(transcripts), hear is not None)) > 1:
            raise ConfigError("scripted stt: give one of tones, transcripts and hear")
        self.info = ModelInfo("scripted", detail="as told", partials=partials)
        self.finals = 0
        """Final requests so far."""
        self._tones = {float(hz): words for hz, words in (tones or {}).items()}
        self._transcripts = tuple(transcripts)
        self._hear = hear or (
            self._listed if transcripts else self._heard_tones if tones else _hello
        )
        self._lock = threading.Lock()
        self._pace = Pace("the scripted stt", pace)

    def load(self) -> None:
        pass

    def close(self) -> None:
        pass

    def transcribe(
        self, audio: Pcm16, *, language: str | None = None, partial: bool = False
    ) -> Transcript:
        self._pace.pause()
        with self._lock:
            text = self._hear(audio, partial)
            self.finals += not partial
        return Transcript(text, language)

    def _listed(self, audio: Pcm16, partial: bool) -> str:
        text = self._transcripts[min(self.finals, len(self._transcripts) - 1)]
        words = text.split()
        return " ".join(words[: len(words) // 2]) if partial else text

    def _heard_tones(self, audio: Pcm16, partial: bool) -> str:
        frame = STT_RATE_HZ * _FRAME_MS // 1000
        frames = [
            self._words_in(audio[start : start + frame])
            for start in range(0, audio.size - frame + 1, frame)
        ]
        runs = [(words, len(list(run))) for words, run in itertools.groupby(frames)]
        return " ".join(words for words, length in runs if words and length >= _LEAST_FRAMES)

    def _words_in(self, frame: Pcm16) -> str:
        if rms_of(frame) < _HEARD_RMS:
            return ""
        spectrum = np.abs(np.fft.rfft(frame * np.hanning(frame.size)))
        frequency_hz = float(np.argmax(spectrum)) * 1000 / _FRAME_MS
        nearest_hz = min(self._tones, key=lambda known_hz: abs(known_hz - frequency_hz))
        return self._tones[nearest_hz] if abs(nearest_hz - frequency_hz) <= _TOLERANCE_HZ else ""


def _hello(audio: Pcm16, partial: bool) -> str:
    return "hello" if rms_of(audio) >= _HEARD_RMS else ""
