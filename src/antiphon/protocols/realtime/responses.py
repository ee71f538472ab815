"""One response, from `response.created` to `response.done`, in the order that clients rely on.

Everything that is opened is closed, however the response ends. Items are opened when there is something in them, so
that a response of function calls alone has no empty message. Events go to
`emit`.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from antiphon.audio.framing import Pcm16
from antiphon.core.history import ToolRequest
from antiphon.protocols.realtime import audio_formats as formats
from antiphon.protocols.realtime import schema
from antiphon.protocols.realtime.frames import Emit
from antiphon.protocols.realtime.items import Items, call_json, message
from antiphon.protocols.realtime.session_config import (
    SessionConfig,
    known_voice,
    modalities,
    token_limit,
    tool_choice,
)

_CHUNK_SAMPLES = formats.VOICE_RATE_HZ * 2 // 5
"""An event carries at most 400 ms of audio, so that an interruption can still drop what has not left."""


_ARGUMENTS = "response.function_call_arguments"


@dataclass(frozen=True, slots=True)
class Terms:
    """What a response was asked to be; shown in `response.created` and `response.done` alike."""

    modality: str = "audio"
    format: str = formats.PCM
    voice: Any = "alloy"
    max_output_tokens: int | str = "inf"
    conversation: str | None = None
    """None: out of band."""
    metadata: dict[str, str] | None = None
    temperature: float | None = None


@dataclass(slots=True)
class _Message:
    id: str
    index: int
    text: str = ""


@dataclass(slots=True)
class _Call:
    """A function call that is being written."""

    call_id: str
    name: str
    index: int
    arguments: str = ""


@dataclass(frozen=True, slots=True)
class TokenUsage:
    input: int = 0
    output: int = 0
    cached: int = 0


@dataclass(slots=True)
class Response:
    id: str
    terms: Terms
    emit: Emit
    items: Items | None
    """Where its items are shown; None: out of band, nowhere."""
    tells_audio: bool = True
    """False: its voice goes another way, and is only counted and kept here."""
    reply: str = ""
    """The core's name for it, once there is one."""
    created: bool = False
    done: bool = False
    audio_bytes: int = 0
    error_code: str = "server_error"
    """What a failure is called, should it fail."""
    _message: _Message | None = None
    _calls: dict[str, _Call] = field(default_factory=dict)
    """Item -> what there is of it."""
    _output: list[dict[str, Any]] = field(default_factory=list)
    _voice: formats.OutputAudio | None = None

    # -- its life -------------------------------------------------------------------------------

    def create(self) -> None:
        """Once."""
        if not self.created:
            self.created = True
            self.emit("response.created", response=self._shown("in_progress", None, None))

    def close(self, status: str, details: dict[str, Any] | None, tokens: TokenUsage) -> None:
        """Once; whatever is open is closed first."""
        if self.done:
            return
        self.create()
        self.done = True  # before it is told: clients ask for the next one at once
        self._close_message("completed" if status == "completed" else "incomplete")
        for item_id in list(self._calls):
            self._break_off_call(item_id)
        self.emit("response.done", response=self._shown(status, details, usage(tokens)))
        self.emit("rate_limits.updated", rate_limits=_RATE_LIMITS)

    def _shown(
        self, status: str, details: dict[str, Any] | None, spent: dict[str, Any] | None
    ) -> dict[str, Any]:
        terms = self.terms
        return {
            "object": "realtime.response",
            "id": self.id,
            "status": status,
            "status_details": details,
            "output": copy.deepcopy(self._output),
            "conversation_id": terms.conversation,
            "output_modalities": [terms.modality],
            "max_output_tokens": terms.max_output_tokens,
            "audio": {
                "output": {"format": formats.format_json(terms.format), "voice": terms.voice}
            },
            "usage": spent,
            "metadata": terms.metadata,
        }

    # -- what it says ---------------------------------------------------------------------------

    @property
    def item(self) -> str:
        """The id of its message; empty: there is none."""
        return self._message.id if self._message else ""

    def say(self, item_id: str, text: str) -> None:
        """More of its words."""
        if self.done or not text:
            return
        said = self._open_message(item_id)
        said.text += text
        kind = "output_audio_transcript" if self.terms.modality == "audio" else "output_text"
        self.emit(f"response.{kind}.delta", **self._indices(said), delta=text)

    def sound(self, item_id: str, pcm: Pcm16) -> None:
        """More of its voice, at `formats.VOICE_RATE_HZ`."""
        if self.done:
            return
        said = self._open_message(item_id)
        if self._voice is None:
            self._voice = formats.OutputAudio(self.terms.format)
        for start in range(0, len(pcm), _CHUNK_SAMPLES):
            self._send(said, self._voice.feed(pcm[start : start + _CHUNK_SAMPLES]))

    def _send(self, said: _Message, data: bytes) -> None:
        if not data:
            return
        self.audio_bytes += len(data)
        if self.items is not None and said.id in self.items:
            self.items.keep_audio(said.id, self.terms.format, data)
        if not self.tells_audio:
            return
        self.emit(
            "response.output_audio.delta",
            reply=self.id,
            **self._indices(said),
            delta=formats.to_base64(data),
        )

    def write_call(self, item_id: str, call_id: str, name: str, text: str) -> None:
        """More of the arguments of a function that the client is to run."""
        if self.done or not text:
            return
        self._open_call(item_id, call_id, name).arguments += text
        self.emit(f"{_ARGUMENTS}.delta", **self._call_names(item_id), delta=text)

    def _open_call(self, item_id: str, call_id: str, name: str) -> _Call:
        if item_id not in self._calls:
            self.create()
            self._calls[item_id] = _Call(call_id, name, len(self._output))
            begun = call_json(item_id, ToolRequest(call_id, name, ""), done=False)
            self._add(begun, len(self._output))
        return self._calls[item_id]

    def call(self, item_id: str, call: ToolRequest) -> None:
        """A function that the client is to run: all of it, whatever has been written before."""
        if self.done:
            return
        written = self._open_call(item_id, call.call_id, call.name).arguments
        rest = call.arguments.removeprefix(written)
        self.write_call(item_id, call.call_id, call.name, rest)
        names, index = self._call_names(item_id), self._calls.pop(item_id).index
        self.emit(f"{_ARGUMENTS}.done", **names, name=call.name, arguments=call.arguments)
        self._finish(call_json(item_id, call, done=True), index)

    def _break_off_call(self, item_id: str) -> None:
        """It was never asked for: the client is not to run it, and the conversation does not hold it."""
        call = self._calls.pop(item_id)
        asked = ToolRequest(call.call_id, call.name, call.arguments)
        item = {**call_json(item_id, asked, done=True), "status": "incomplete"}
        self._output[call.index] = item
        self.emit(
            "response.output_item.done", response_id=self.id, output_index=call.index, item=item
        )
        if self.items is not None and item_id in self.items:
            self.items.remove(item_id)
            self.emit("conversation.item.deleted", item_id=item_id)

    def _call_names(self, item_id: str) -> dict[str, Any]:
        call = self._calls[item_id]
        return {
            "response_id": self.id,
            "item_id": item_id,
            "output_index": call.index,
            "call_id": call.call_id,
        }

    # -- items and their parts ------------------------------------------------------------------

    def _open_message(self, item_id: str) -> _Message:
        if self._message is not None:
            return self._message
        self.create()
        said = self._message = _Message(item_id, len(self._output))
        self._add(message(item_id, "assistant", [], "in_progress"), said.index)
        self.emit("response.content_part.added", **self._indices(said), part=self._part(""))
        return said

    def _close_message(self, status: str) -> None:
        said = self._message
        if said is None:
            return
        if self.terms.modality == "audio":
            if status == "completed" and self._voice is not None:
                self._send(said, self._voice.flush())
            self.emit("response.output_audio.done", **self._indices(said))
            transcript = "response.output_audio_transcript.done"
            self.emit(transcript, **self._indices(said), transcript=said.text)
            content = {"type": "output_audio", "transcript": said.text}
        else:
            self.emit("response.output_text.done", **self._indices(said), text=said.text)
            content = {"type": "output_text", "text": said.text}
        self.emit("response.content_part.done", **self._indices(said), part=self._part(said.text))
        self._finish(message(said.id, "assistant", [content], status), said.index)

    def _part(self, text: str) -> dict[str, Any]:
        """Parts keep the short names, though the content of items has the long ones."""
        if self.terms.modality == "audio":
            return {"type": "audio", "transcript": text}
        return {"type": "text", "text": text}

    def _indices(self, said: _Message) -> dict[str, Any]:
        return {
            "response_id": self.id,
            "item_id": said.id,
            "output_index": said.index,
            "content_index": 0,
        }

    def _add(self, item: dict[str, Any], index: int) -> None:
        self._output.append(item)
        self.emit("response.output_item.added", response_id=self.id, output_index=index, item=item)
        if self.items is not None:
            before = self.items.add(item)
            self.emit("conversation.item.added", previous_item_id=before, item=item)

    def _finish(self, item: dict[str, Any], index: int) -> None:
        before = None
        self._output[index] = item
        if self.items is not None and item["id"] in self.items:  # the client may have deleted it
            self.items.update(item["id"], copy.deepcopy(item))
            before = next(iter(self.items.before(item["id"])[1:]), None)
            self.emit("conversation.item.done", previous_item_id=before, item=item)
        self.emit("response.output_item.done", response_id=self.id, output_index=index, item=item)


_RATE_LIMITS = [
    {"name": "requests", "limit": 1_000_000, "remaining": 1_000_000, "reset_seconds": 0.0},
    {"name": "tokens", "limit": 1_000_000_000, "remaining": 1_000_000_000, "reset_seconds": 0.0},
]
"""Clients want to see the event; what a process can serve is said by refusing calls, not in tokens."""


def usage(tokens: TokenUsage) -> dict[str, Any]:
    """The language model's own counts, as text: a cascade has no audio tokens."""
    none = {"text_tokens": 0, "audio_tokens": 0, "image_tokens": 0}
    cached = {**none, "text_tokens": tokens.cached}
    return {
        "total_tokens": tokens.input + tokens.output,
        "input_tokens": tokens.input,
        "output_tokens": tokens.output,
        "input_token_details": {
            **none,
            "text_tokens": tokens.input,
            "cached_tokens": tokens.cached,
            "cached_tokens_details": cached,
        },
        "output_token_details": {"text_tokens": tokens.output, "audio_tokens": 0},
    }


def cancelled(reason: str) -> dict[str, Any]:
    known = reason if reason == "turn_detected" else "client_cancelled"
    return {"type": "cancelled", "reason": known}


def failed(code: str, message: str) -> dict[str, Any]:
    kind = "invalid_request_error" if code == "invalid_request" else "server_error"
    error = {"type": kind, "code": code, "message": message}
    return {"type": "failed", "error": error}


CUT = {"type": "incomplete", "reason": "max_output_tokens"}


# -- what a `response.create` asks for -----------------------------------------------------------


def check_params(params: Mapping[str, Any]) -> None:
    """The `response` of a `response.create`. Raises RealtimeError."""
    schema.check(params, schema.ReplyParams, "response")
    schema.check_metadata(params.get("metadata"))
    schema.check_tools(params.get("tools") or [], "response.tools")
    schema.check_tool_choice(params.get("tool_choice"), "response.tool_choice")


def terms_of(params: Mapping[str, Any], session: SessionConfig, conversation: str | None) -> Terms:
    """What the response will say of itself."""
    said = (params.get("audio") or {}).get("output") or {}
    wanted = params.get("output_modalities")
    limit = params.get("max_output_tokens")
    return Terms(
        modality=modalities(wanted)[0] if wanted else session.modality,
        format=(said.get("format") or {}).get("type") or session.output_format,
        voice=said.get("voice") or session.voice,
        max_output_tokens=session["max_output_tokens"] if limit is None else limit,
        conversation=conversation,
        metadata=params.get("metadata"),
    )


def options_of(
    params: Mapping[str, Any], owner_voice: str, voices: Collection[str]
) -> dict[str, Any]:
    """What differs from the session's own, as the core carries it to the models and back."""
    options: dict[str, Any] = {}
    if params.get("instructions") is not None:
        options["instructions"] = params["instructions"]
    if params.get("tools") is not None:
        options["tools"] = schema.chat_tools(params["tools"])
        options["declared"] = params["tools"]
    if params.get("tool_choice") is not None:
        options["tool_choice"] = tool_choice(params["tool_choice"])
    if params.get("max_output_tokens") is not None:
        options["max_tokens"] = token_limit(params["max_output_tokens"])
    if params.get("temperature") is not None:
        options["temperature"] = params["temperature"]
    voice = ((params.get("audio") or {}).get("output") or {}).get("voice")
    if voice is not None:
        options["voice"] = known_voice(voice, owner_voice, voices)
    return options
