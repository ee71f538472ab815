"""Bodies of the XTTS streaming server's API: voices as tensors, requests for speech.

Source: coqui-ai/xtts-streaming-server. A voice is a pair of tensors that clients fetch and send back with every
request; here the tensors hold nothing but a mark of the voice's name, in whole numbers that survive JSON and half
precision. Knows no voice, no model and no HTTP.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from typing import Any

import msgspec

from antiphon.errors import ProtocolError

RATE_HZ = 24_000
EMBEDDING_NUMBERS = 512
LATENT_NUMBERS = 1_024

_MARK = (17.0, 1.0, 19.0, 20.0, 9.0, 16.0, 8.0, 15.0)
"""What tensors of ours begin with; a real embedding has no such numbers."""
_DIGEST_BYTES = 16
_TOLERANCE = 0.4

Tensors = dict[str, list[Any]]


class SpeechBody(msgspec.Struct):
    """Of `/tts` and `/tts_stream`. Unknown fields are ignored."""

    speaker_embedding: list[Any]
    gpt_cond_latent: list[Any]
    """Any shape: only the embedding says whose voice it is."""
    text: str
    language: str
    add_wav_header: bool = True
    stream_chunk_size: int | str = "20"
    """The original takes a string, Pipecat sends a number. Not used: pieces come as the model makes them."""
    speed: float = 1.0
    """An addition of ours."""


def read(body: bytes) -> SpeechBody:
    """Raises ProtocolError, to be answered with 422."""
    try:
        return msgspec.json.decode(body, type=SpeechBody)
    except msgspec.ValidationError as error:
        raise ProtocolError(f"the request is not as it should be: {error}") from None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise ProtocolError("the body is not a JSON object; check how it is sent") from None


def tensors(voice: str) -> Tensors:
    """A voice's name as `speaker_embedding` [512] and `gpt_cond_latent` [1, 1024]."""
    numbers = [*_MARK, *_digest(voice)]
    return {
        "gpt_cond_latent": [[*numbers, *[0.0] * (LATENT_NUMBERS - len(numbers))]],
        "speaker_embedding": [*numbers, *[0.0] * (EMBEDDING_NUMBERS - len(numbers))],
    }


def voice_of(embedding: Iterable[Any], voices: Iterable[str]) -> str | None:
    """The one of `voices` whose tensor this is, however it is nested and rounded; None: a stranger's."""
    head = _first_numbers(embedding, len(_MARK) + _DIGEST_BYTES)
    for voice in voices:
        wanted = (*_MARK, *_digest(voice))
        if len(head) == len(wanted) and all(
            abs(found - number) < _TOLERANCE for found, number in zip(head, wanted, strict=True)
        ):
            return voice
    return None


def whole_file(wav: bytes) -> str:
    """The answer of `/tts`: a JSON string of base64."""
    return msgspec.json.encode(base64.b64encode(wav).decode()).decode()


def _digest(voice: str) -> list[float]:
    return [float(byte) for byte in hashlib.sha256(voice.encode()).digest()[:_DIGEST_BYTES]]


def _first_numbers(tensor: Iterable[Any], count: int, depth: int = 4) -> list[float]:
    found: list[float] = []
    for item in tensor:
        if isinstance(item, list) and depth:
            found += _first_numbers(item, count - len(found), depth - 1)
        elif isinstance(item, (int, float)):
            found.append(float(item))
        else:
            return []
        if len(found) >= count:
            break
    return found[:count]
