"""The browser's protocol on `/ws/conversation`: that of the talk backend, and our extensions to it.

Binary frames are audio in both directions and are not looked at here. Extensions are sent only to a client that named
them in its `start` message, so that an older client sees nothing new:

    {"type":"start","format":"pcm_s16le","rate":48000,"extensions":["clear","played","floor","heard","turn","items"]}

| extension | meaning |
| clear     | the client drops its queued audio on {"type":"clear"}; without it an interruption lets the lead play out |
| played    | the client reports {"type":"played","reply":"r3","ms":1234}; `ai_audio_start` then carries `reply` |
| floor     | {"type":"floor","state":"agent"} whenever somebody else holds the floor |
| heard     | {"type":"heard","reply","text","unheard"} after an answer that was not heard to its end |
| turn      | {"type":"turn","record":{...}}: the times of each step of the turn that has just ended |
| items     | `transcript` and `ai_text` carry `item` and `reply`; {"type":"withdrawn","item"} takes a transcript back |

Knows no websocket, no session and no model. Source of the base protocol: docs/protocols/conversation.md.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec

from antiphon.core import actions as act
from antiphon.core.record import TurnRecord
from antiphon.errors import ProtocolError, suggest

EXTENSIONS = ("clear", "played", "floor", "heard", "turn", "items")
FORMATS = ("auto", "pcm_s16le", "pcm_f32le")
LEVELS = ("beginner", "intermediate", "advanced")
OUTPUT_RATE_HZ = 24_000
MAX_TEXT_CHARS = 4_000


class Start(msgspec.Struct, tag_field="type", tag="start"):
    """How the client's audio is encoded (`auto`: a container that says so itself), and what it understands."""

    format: str = "auto"
    rate: int = 16_000
    extensions: tuple[str, ...] = ()
    greeting: bool = True
    voice: str = ""
    language: str = ""


class Ping(msgspec.Struct, tag_field="type", tag="ping"):
    pass


class SetLevel(msgspec.Struct, tag_field="type", tag="set_level"):
    level: str


class EndConversation(msgspec.Struct, tag_field="type", tag="end_conversation"):
    pass


class Stop(msgspec.Struct, tag_field="type", tag="stop"):
    """The client hangs up."""


class PlayedReport(msgspec.Struct, tag_field="type", tag="played"):
    reply: str
    ms: int


class Text(msgspec.Struct, tag_field="type", tag="text"):
    """The caller writes instead of speaking."""

    text: str


Incoming = Start | Ping | SetLevel | EndConversation | Stop | PlayedReport | Text

_decoder: msgspec.json.Decoder[Incoming] = msgspec.json.Decoder(Incoming)
_TYPES = ("start", "ping", "set_level", "end_conversation", "stop", "played", "text")


def decode(text: str) -> Incoming:
    """One text frame of the client. Raises ProtocolError with a sentence for its developer."""
    try:
        message = _decoder.decode(text)
    except msgspec.ValidationError as error:
        raise ProtocolError(_explain(text, str(error))) from None
    except (msgspec.DecodeError, UnicodeEncodeError):
        raise ProtocolError(
            "text frames must be JSON objects; send audio as binary frames"
        ) from None
    _check(message)
    return message


def _check(message: Incoming) -> None:
    if isinstance(message, Start):
        if message.format not in FORMATS:
            hint = suggest(message.format, FORMATS)
            raise ProtocolError(f"unknown format {message.format!r}{hint}")
        if not 4_000 <= message.rate <= 192_000:
            raise ProtocolError(f"rate {message.rate} is not between 4000 and 192000 Hz")
    elif isinstance(message, SetLevel) and message.level not in LEVELS:
        raise ProtocolError(f"unknown level {message.level!r}{suggest(message.level, LEVELS)}")
    elif isinstance(message, Text) and len(message.text) > MAX_TEXT_CHARS:
        raise ProtocolError(f"text is longer than {MAX_TEXT_CHARS} characters")


def _explain(text: str, problem: str) -> str:
    try:
        data = msgspec.json.decode(text)
    except msgspec.DecodeError:
        return problem
    if not isinstance(data, dict):
        return "a text frame must be a JSON object with a `type`"
    kind = data.get("type")
    if not isinstance(kind, str):
        return f"a message needs a `type`; known: {', '.join(_TYPES)}"
    if kind not in _TYPES:
        return f"unknown message type {kind[:40]!r}{suggest(kind[:40], _TYPES)}"
    return f"{kind}: {problem}"


def frame(kind: str, **fields: Any) -> str:
    """One text frame to the client."""
    return msgspec.json.encode({"type": kind, **fields}).decode()


def connected(session_id: str) -> str:
    """The first frame of a connection, as an old client knows it."""
    return frame("connected", session_id=session_id)


def started(session_id: str, extensions: frozenset[str]) -> str:
    """The answer to `start`: what was agreed."""
    return frame(
        "connected",
        session_id=session_id,
        extensions=sorted(extensions),
        sample_rate=OUTPUT_RATE_HZ,
    )


def error(message: str) -> str:
    return frame("error", message=message)


class Encoder:
    """Actions of the core -> text frames for one client. Keeps only what the protocol's order needs."""

    def __init__(self, extensions: frozenset[str] = frozenset()) -> None:
        self.extensions = extensions
        self._audio_of = ""
        """The reply whose `ai_audio_start` was sent last."""

    def audio_start(self, reply: str) -> str | None:
        """The frame that must precede this reply's next binary frame, if any."""
        if reply == self._audio_of:
            return None
        self._audio_of = reply
        if "played" in self.extensions:
            return frame("ai_audio_start", sample_rate=OUTPUT_RATE_HZ, reply=reply)
        return frame("ai_audio_start", sample_rate=OUTPUT_RATE_HZ)

    def clear(self) -> str | None:
        return frame("clear") if "clear" in self.extensions else None

    def encode(self, action: act.Action) -> list[str]:
        match action:
            case act.Caption():
                return [
                    self._tagged("transcript", action.item, text=action.text, is_final=action.final)
                ]
            case act.ReplyWords():
                return [self._tagged("ai_text", action.reply, text=action.text, is_complete=False)]
            case act.ReplyGenerated():
                return [self._tagged("ai_text", action.reply, text="", is_complete=True)]
            case act.ReplyEnded():
                return self._reply_ended(action)
            case act.Fault():
                return [error(action.message)]
            case act.FloorChanged() if "floor" in self.extensions:
                return [frame("floor", state=action.floor.value)]
            case act.ItemRemoved() | act.SpeechDropped() if "items" in self.extensions:
                return [frame("withdrawn", item=action.item)]
            case act.TurnRecorded() if "turn" in self.extensions:
                return [frame("turn", record=record_fields(action.record))]
            case act.Hangup() if self.extensions:
                return [frame("ended", reason=action.reason)]
        return []

    def _reply_ended(self, action: act.ReplyEnded) -> list[str]:
        frames = []
        if action.unheard and "heard" in self.extensions:
            heard = frame("heard", reply=action.reply, text=action.heard, unheard=action.unheard)
            frames.append(heard)
        frames.append(frame("turn_complete"))
        return frames

    def _tagged(self, kind: str, name: str, **fields: Any) -> str:
        """With the name of what it belongs to, for clients that asked for names."""
        if "items" in self.extensions:
            fields["item" if kind == "transcript" else "reply"] = name
        return frame(kind, **fields)


def record_fields(record: TurnRecord) -> dict[str, Any]:
    """A turn record as plain JSON values."""
    return {**dataclasses.asdict(record), "voice_to_voice_ms": record.voice_to_voice_ms}
