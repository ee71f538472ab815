"""Every pause of a recorded turn, with the signs of its end: what endpointing is fitted on and measured with.

A folder holds recordings of one turn each and `index.tsv` with the columns `file`, `speech_start_ms` and
`speech_end_ms`. The voice activity detector, the turn detector, speech to text and the language model hear each one as
they do in a call, as fast as they can; no clock is involved.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from antiphon.audio.containers import decode_file
from antiphon.audio.framing import Pcm16
from antiphon.core.policy import Policy
from antiphon.core.user import TURN_PROMPT_MS
from antiphon.core.vad import SpeechDetector, VadChange
from antiphon.errors import ConfigError
from antiphon.models.ports import Kind, LlmRequest, Message, WeightSource
from antiphon.models.registry import shared_registry

RATE_HZ = 16_000
WINDOW_SAMPLES = 512
WINDOW_MS = 32
MOMENTS_MS = (64, 128, 256, 384, 512, 768, 1024)
"""Silence after which the turn detector is asked."""
TAIL_MS = 2_500
"""Room that follows the last word, so that every rule comes to its end."""
_LONGEST_S = 120.0
_NEAR_MS = 60


@dataclass(frozen=True, slots=True)
class Recording:
    """A turn, and where its speech is. `file` names it."""

    file: str
    speech_start_ms: int
    speech_end_ms: int
    path: Path


@dataclass(slots=True)
class Pause:
    """Silence after speech, as the voice activity detector sees it."""

    voiced_until_ms: int
    resumed_ms: int | None = None
    """When speech was found to go on; None: it did not."""
    onset_ms: int = 0
    """Where the turn began."""
    detector: dict[int, float] = field(default_factory=dict)
    """Silence in milliseconds -> the turn detector's probability then."""
    text: str = ""
    """Transcript of the turn so far."""
    text_end: float | None = None
    """The language model's probability that the words end there."""

    @property
    def length_ms(self) -> float:
        """Infinite for the last one."""
        return float("inf") if self.resumed_ms is None else self.resumed_ms - self.voiced_until_ms


@dataclass(slots=True)
class Heard:
    """What was heard of one recording."""

    file: str
    speech_start_ms: int
    speech_end_ms: int
    pauses: list[Pause] = field(default_factory=list)


def read_index(folder: Path) -> list[Recording]:
    """Raises ConfigError when there is no index, or a line of it cannot be used."""
    index = folder / "index.tsv"
    try:
        with open(index, newline="") as lines:
            return [
                Recording(
                    row["file"],
                    int(row["speech_start_ms"]),
                    int(row["speech_end_ms"]),
                    folder / row["file"],
                )
                for row in csv.DictReader(lines, delimiter="\t")
            ]
    except OSError as error:
        raise ConfigError(f"cannot read {index}: {error.strerror or error}") from None
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{index}: a line has no usable {error}; it needs the columns file, speech_start_ms and "
            "speech_end_ms, separated by tabs"
        ) from None


class Listeners:
    """The models of a call, asked one after the other. Blocking."""

    def __init__(self, weights: WeightSource, prompt: str) -> None:
        """`prompt`: the agent's system prompt, before which the words are judged. Raises ModelError."""
        registry = shared_registry()
        self._prompt = prompt
        self._vad: Any = registry.create(Kind.VAD, "silero", weights)
        self._turn: Any = registry.create(Kind.TURN, "smart-turn", weights)
        self._stt: Any = registry.create(Kind.STT, "moonshine", weights)
        self._llm: Any = registry.create(Kind.LLM, "llamacpp", weights, {"threads": 1})
        self._models = (self._vad, self._turn, self._stt, self._llm)
        for model in self._models:
            model.load()

    def close(self) -> None:
        for model in self._models:
            model.close()

    def windows(self, pcm: Pcm16) -> Iterator[float]:
        """The speech probability of each 32 ms."""
        state = self._vad.new_state(RATE_HZ)
        for at in range(0, len(pcm) - WINDOW_SAMPLES + 1, WINDOW_SAMPLES):
            yield self._vad.score([pcm[at : at + WINDOW_SAMPLES]], [state])[0]

    def turn(self, pcm: Pcm16) -> float:
        return float(self._turn.predict(pcm))

    def transcript(self, pcm: Pcm16) -> str:
        return str(self._stt.transcribe(pcm, language="en").text)

    def text_end(self, text: str) -> float | None:
        """The probability that the user's words end there; None where the model does not say."""
        messages = (Message("system", self._prompt), Message("user", text))
        deltas = self._llm.generate(LlmRequest(messages, "bench", max_tokens=1, judge_words=True))
        try:
            found: float | None = next(deltas).ends_here
        except StopIteration:
            return None
        finally:
            deltas.close()
        return found


def hear(recording: Recording, listeners: Listeners) -> Heard:
    """All pauses of a recording with their signs. Blocking: about a second a pause. Raises AudioError, ModelError."""
    decoded = decode_file(recording.path, rate_hz=RATE_HZ, max_duration_s=_LONGEST_S)
    pcm = with_room(decoded.pcm, recording)
    heard = Heard(recording.file, recording.speech_start_ms, recording.speech_end_ms)
    heard.pauses = find_pauses(list(listeners.windows(pcm)), recording)
    for pause in heard.pauses:
        start_ms = max(pause.onset_ms - Policy().prefix_padding_ms, 0)
        pause.text = listeners.transcript(_piece(pcm, start_ms, pause.voiced_until_ms + WINDOW_MS))
        pause.text_end = listeners.text_end(pause.text) if pause.text else None
        for moment_ms in MOMENTS_MS:
            if moment_ms >= pause.length_ms:
                break
            until_ms = pause.voiced_until_ms + moment_ms
            sound = _piece(pcm, max(start_ms, until_ms - TURN_PROMPT_MS), until_ms)
            pause.detector[moment_ms] = round(listeners.turn(sound), 5)
    return heard


def find_pauses(windows: Sequence[float], recording: Recording) -> list[Pause]:
    """Speech probabilities of 32 ms each -> the pauses that the core would see."""
    policy, vad, pauses = Policy(), SpeechDetector(), list[Pause]()
    for number, probability in enumerate(windows, 1):
        change = vad.feed(
            probability,
            number * WINDOW_MS,
            start=policy.speech_threshold,
            stop=policy.silence_threshold,
            min_speech_ms=policy.min_speech_ms,
            pause_ms=policy.preemptive_generation_after_ms,
        )
        if change is VadChange.PAUSE:
            if vad.voiced_until_ms < recording.speech_start_ms:
                vad.reset()  # a click before the first word is no turn
                continue
            pauses.append(Pause(vad.voiced_until_ms, onset_ms=vad.onset_ms))
        elif change is VadChange.RESUME:
            pauses[-1].resumed_ms = vad.heard_ms
    return pauses


def with_room(pcm: Pcm16, recording: Recording) -> Pcm16:
    """The recording up to its last word, then its own room."""
    before = pcm[: _samples(recording.speech_start_ms - _NEAR_MS)]
    after = pcm[_samples(recording.speech_end_ms + _NEAR_MS) :]
    room = max(before[-RATE_HZ:], after, key=len)
    if not len(room):
        room = np.zeros(RATE_HZ, np.int16)
    end = min(len(pcm), _samples(recording.speech_end_ms + TAIL_MS))
    missing = max(_samples(recording.speech_end_ms + TAIL_MS) - len(pcm), 0)
    tiled = np.tile(room, missing // len(room) + 1)[:missing]
    return np.concatenate([pcm[:end], tiled]).astype(np.int16)


def _samples(ms: int) -> int:
    return max(ms, 0) * RATE_HZ // 1000


def _piece(pcm: Pcm16, start_ms: int, end_ms: int) -> Pcm16:
    return pcm[_samples(start_ms) : _samples(end_ms)]


# --- kept on disk, for hearing takes minutes ----------------------------------------------------------


def save(path: Path, heard: Sequence[Heard]) -> None:
    """Raises ConfigError."""
    try:
        path.write_text("".join(json.dumps(asdict(one)) + "\n" for one in heard))
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror or error}") from None


def load(path: Path) -> list[Heard]:
    """What `save` wrote. Raises ConfigError."""
    try:
        return [_heard(json.loads(line)) for line in path.read_text().splitlines()]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"cannot read the signs of {path}: {error}; hear them again") from None


def _heard(found: dict[str, Any]) -> Heard:
    pauses = [
        Pause(**{**pause, "detector": {int(ms): p for ms, p in pause["detector"].items()}})
        for pause in found.pop("pauses")
    ]
    return Heard(**found, pauses=pauses)
