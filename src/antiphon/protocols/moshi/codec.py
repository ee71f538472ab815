"""Messages of Kyutai's moshi-server, speech to text and text to speech: MessagePack maps <-> frozen dataclasses.

Source: kyutai-labs/delayed-streams-modeling and moshi (`rust/moshi-server`). Audio is 24 kHz mono float32 in -1..1, as
an array of numbers, in frames of 80 ms. Used by both ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from antiphon.errors import ProtocolError

RATE_HZ = 24_000
FRAME_SAMPLES = 1_920
FRAME_S = FRAME_SAMPLES / RATE_HZ
MAX_SAMPLES = 10 * RATE_HZ
"""Of one message: more is a client that has lost its mind."""

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Audio:
    """Float samples [n] at 24 kHz."""

    pcm: Float32


@dataclass(frozen=True, slots=True)
class OggOpus:
    data: bytes


@dataclass(frozen=True, slots=True)
class Marker:
    """A client asks to be told when everything before it has been heard; the server answers with the same."""

    id: int


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of text to be spoken; from the server, a word that was spoken from `start_s` to `stop_s`."""

    text: str
    start_s: float = 0.0
    stop_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Voice:
    """A voice as numbers, as `/api/voice` gave them out."""

    embeddings: tuple[float, ...]
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Eos:
    """No more text."""


@dataclass(frozen=True, slots=True)
class Ready:
    """The connection has a slot."""


@dataclass(frozen=True, slots=True)
class Step:
    """One frame of 80 ms has been processed. `prs`: probabilities of a pause of 0.5, 1, 2 and 3 s."""

    step_idx: int
    prs: tuple[float, ...]
    buffered_pcm: int = 0


@dataclass(frozen=True, slots=True)
class Word:
    text: str
    start_time: float


@dataclass(frozen=True, slots=True)
class EndWord:
    stop_time: float


@dataclass(frozen=True, slots=True)
class Error:
    message: str


@dataclass(frozen=True, slots=True)
class Ignored:
    """A message of a kind that means nothing to us."""

    type: str


Message = (
    Audio | OggOpus | Marker | Text | Voice | Eos | Ready | Step | Word | EndWord | Error | Ignored
)


def encode(message: Message) -> bytes:
    """One binary frame. Numbers of audio are single precision, as Kyutai's own clients expect."""
    if isinstance(message, Audio):
        return _encode_audio(message.pcm)
    fields = {name: getattr(message, name) for name in message.__dataclass_fields__}
    return msgspec.msgpack.encode({"type": type(message).__name__, **fields})


def decode(frame: bytes) -> Message:
    """Raises ProtocolError for what is not a message."""
    try:
        found = msgspec.msgpack.decode(frame)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise ProtocolError(f"this is not a MessagePack message: {error}") from None
    if not isinstance(found, dict) or not isinstance(found.get("type"), str):
        raise ProtocolError("a message must be a map with a `type`")
    kind = found["type"]
    try:
        return _decode(kind, found)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ProtocolError(f"a {kind} message lacks or garbles {error}") from None


def _decode(kind: str, found: dict[str, Any]) -> Message:
    match kind:
        case "Audio":
            return Audio(_samples(found["pcm"]))
        case "OggOpus":
            return OggOpus(bytes(found["data"]))
        case "Marker":
            return Marker(int(found["id"]))
        case "Text":
            return Text(
                str(found["text"]),
                float(found.get("start_s") or 0.0),
                float(found.get("stop_s") or 0.0),
            )
        case "Voice":
            numbers = tuple(float(number) for number in found["embeddings"])
            return Voice(numbers, tuple(int(number) for number in found["shape"]))
        case "Step":
            prs = tuple(float(number) for number in found.get("prs") or ())
            return Step(int(found["step_idx"]), prs, int(found.get("buffered_pcm") or 0))
        case "Word":
            return Word(str(found["text"]), float(found["start_time"]))
        case "EndWord":
            return EndWord(float(found["stop_time"]))
        case "Error":
            return Error(str(found.get("message", "")))
        case "Eos":
            return Eos()
        case "Ready":
            return Ready()
        case _:
            return Ignored(kind[:40])


def _samples(numbers: Sequence[float]) -> Float32:
    if len(numbers) > MAX_SAMPLES:
        raise ValueError(f"at most {MAX_SAMPLES} samples, got {len(numbers)}")
    samples = np.asarray(numbers, np.float32)
    if samples.ndim != 1 or not np.isfinite(samples).all():
        raise ValueError("numbers that are no samples")
    clipped: Float32 = np.clip(samples, -1.0, 1.0)
    return clipped


_AUDIO_HEAD = b"\x82\xa4type\xa5Audio\xa3pcm\xdd"


def _encode_audio(pcm: Float32) -> bytes:
    """By hand: a float of Python per sample would cost more than the network."""
    numbers = np.empty((pcm.size, 5), np.uint8)
    numbers[:, 0] = 0xCA
    numbers[:, 1:] = pcm.astype(">f4").view(np.uint8).reshape(-1, 4)
    return _AUDIO_HEAD + pcm.size.to_bytes(4, "big") + numbers.tobytes()
