"""Bodies of the XTTS streaming server's API: voices as tensors, requests for speech.

Source: coqui-ai/xtts-streaming-server. A voice is a pair of tensors that clients fetch and send back with every
request; here the tensors hold nothing but a mark of the voice's name, in whole numbers that survive JSON and half
precision.
"""

from __future__ import annotations

import base64
from typing import Any

import msgspec

from antiphon.errors import ProtocolError

RATE_HZ = 24_000


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


def whole_file(wav: bytes) -> str:
    """The answer of `/tts`: a JSON string of base64."""
    return msgspec.json.encode(base64.b64encode(wav).decode()).decode()
