"""`/v1/audio/speech`: what a request asks for, and the events of `stream_format: sse`."""

from __future__ import annotations

import base64
from typing import Annotated, Any, Literal

import msgspec

from antiphon.wire.openai_http.parsing import BadRequest, parse

MAX_INPUT_CHARS = 4_096
Format = Literal["mp3", "opus", "aac", "flac", "wav", "pcm"]


class VoiceId(msgspec.Struct):
    id: str


class SpeechAsk(msgspec.Struct):
    input: str
    model: str = ""
    voice: str | VoiceId | None = None
    instructions: str | None = None
    """Accepted; no voice behind this server follows any."""
    response_format: Format = "mp3"
    speed: Annotated[float, msgspec.Meta(ge=0.25, le=4.0)] = 1.0
    stream_format: Literal["audio", "sse"] = "audio"

    @property
    def voice_name(self) -> str:
        return self.voice.id if isinstance(self.voice, VoiceId) else self.voice or ""


def read(body: bytes) -> SpeechAsk:
    """Raises BadRequest."""
    ask = parse(SpeechAsk, body)
    if not ask.input.strip():
        raise BadRequest("input is empty; send a text to be spoken", "input")
    if len(ask.input) > MAX_INPUT_CHARS:
        raise BadRequest(
            f"input has {len(ask.input)} characters, the limit is {MAX_INPUT_CHARS}; send it in parts",
            "input",
            "string_above_max_length",
        )
    return ask


def delta(audio: bytes) -> dict[str, Any]:
    """Each piece is base64 of its own: clients decode them one by one."""
    return {"type": "speech.audio.delta", "audio": base64.b64encode(audio).decode()}


def done(characters: int, audio_s: float) -> dict[str, Any]:
    """No speech model here counts tokens: four characters are taken for one, and 50 ms of audio, as is usual."""
    taken, made = -(-characters // 4), round(audio_s * 20)
    usage = {"input_tokens": taken, "output_tokens": made, "total_tokens": taken + made}
    return {"type": "speech.audio.done", "usage": usage}
