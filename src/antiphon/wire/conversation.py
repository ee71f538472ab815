"""The browser's protocol on `/ws/conversation`: that of the talk backend, and our extensions to it.

Binary frames are audio in both directions and are not looked at here. Extensions are sent only to a client that named
them in its `start` message, so that an older client sees nothing new:

    {"type":"start","format":"pcm_s16le","rate":48000,"extensions":["clear","played","floor","heard","turn","items"]}

| extension | meaning |
| clear     | the client drops its queued audio on {"type":"clear"}; without it an interruption lets the lead play out |
| played    | the client reports {"type":"played","reply":"r3","ms":1234}; `ai_audio_start` then names it, and      |
|           | comes again with `from_ms` where a cleared reply goes on: `ms` counts from the reply's first sample |
| floor     | {"type":"floor","state":"agent"} whenever somebody else holds the floor |
| heard     | {"type":"heard","reply","text","unheard"} after an answer that was not heard to its end |
| turn      | {"type":"turn","record":{...}}: the times of each step of the turn that has just ended |
| items     | `transcript` and `ai_text` carry `item` and `reply`; {"type":"withdrawn","item"} takes a transcript back |

Knows no websocket, no session and no model. Source of the base protocol: docs/protocols/conversation.md.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
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
_MAX_NAME_CHARS = 200
_RATES_HZ = (4_000, 192_000)


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
_NOT_JSON = "text frames must be JSON objects; send audio as binary frames"
_TYPES = ("start", "ping", "set_level", "end_conversation", "stop", "played", "text")


def decode(text: str) -> Incoming:
    """One text frame of the client. Raises ProtocolError with a sentence for its developer."""
    try:
        message = _decoder.decode(text)
    except msgspec.ValidationError as error:
        raise ProtocolError(_explain(text, str(error))) from None
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        raise ProtocolError(_NOT_JSON) from None
    _check(message)
    return message


def start_from_query(query: Mapping[str, str]) -> Start:
    """Older clients announce raw audio in the URL: `?format=pcm_s16le&rate=16000`. Raises ProtocolError."""
    rate = query.get("rate") or query.get("sample_rate") or ""
    if rate and not (rate.isascii() and rate.isdigit() and len(rate) <= 6):
        raise ProtocolError(f"rate {rate[:40]!r} in the URL is not a number of Hz")
    start = Start(
        format=query.get("format", "pcm_s16le" if rate else "auto"), rate=int(rate or Start().rate)
    )
    _check(start)
    return start


def agreed(start: Start) -> frozenset[str]:
    """The extensions that both sides know."""
    return frozenset(start.extensions) & frozenset(EXTENSIONS)


def _check(message: Incoming) -> None:
    if isinstance(message, Start):
        _check_start(message)
    elif isinstance(message, SetLevel) and message.level not in LEVELS:
        level = message.level[:40]
        raise ProtocolError(f"set_level: unknown level {level!r}{suggest(level, LEVELS)}")
    elif isinstance(message, PlayedReport) and message.ms < 0:
        raise ProtocolError("played: `ms` must not be negative")
    elif isinstance(message, Text):
        if not message.text.strip():
            raise ProtocolError("text: there is nothing in it")
        if len(message.text) > MAX_TEXT_CHARS:
            raise ProtocolError(f"text: longer than {MAX_TEXT_CHARS} characters; send less")


def _check_start(start: Start) -> None:
    if start.format not in FORMATS:
        fmt = start.format[:40]
        raise ProtocolError(f"start: unknown format {fmt!r}{suggest(fmt, FORMATS)}")
    least, most = _RATES_HZ
    if not least <= start.rate <= most:
        raise ProtocolError(f"start: rate {start.rate} is not between {least} and {most} Hz")
    if max(len(start.voice), len(start.language)) > _MAX_NAME_CHARS:
        raise ProtocolError("start: `voice` and `language` are names, not texts")


def _explain(text: str, problem: str) -> str:
    try:
        data = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return _NOT_JSON
    if not isinstance(data, dict):
        return "a text frame must be a JSON object with a `type`"
    kind = data.get("type")
    if not isinstance(kind, str):
        return f"a message needs a `type`; known: {', '.join(_TYPES)}"
    if kind not in _TYPES:
        return f"unknown message type {kind[:40]!r}{suggest(kind[:40], _TYPES)}"
    return f"{kind}: {problem[:1].lower()}{problem[1:]}"


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
        self._from_ms = 0
        """Where in its reply the next audio lies."""
        self._words_of = ""
        """The reply whose text is not complete."""
        self._reports_judged = True
        """A wrong report is worth telling: it cannot be about audio that a `clear` has taken back."""

    def audio_start(self, reply: str) -> str | None:
        """The frame that must precede this reply's next binary frame, if any."""
        if reply == self._audio_of:
            return None
        self._audio_of = reply
        fields: dict[str, Any] = {"sample_rate": OUTPUT_RATE_HZ}
        if "played" in self.extensions:
            fields["reply"] = reply
            if self._from_ms:
                fields["from_ms"] = self._from_ms
        return frame("ai_audio_start", **fields)

    def clear(self) -> str | None:
        if "clear" not in self.extensions:
            return None
        self._reports_judged = False
        return frame("clear")

    def encode(self, action: act.Action) -> list[str]:
        match action:
            case act.Caption():
                return [
                    self._tagged("transcript", action.item, text=action.text, is_final=action.final)
                ]
            case act.ReplyWords():
                self._words_of = action.reply
                return [self._tagged("ai_text", action.reply, text=action.text, is_complete=False)]
            case act.ReplyGenerated():
                self._words_of = ""
                return [self._tagged("ai_text", action.reply, text="", is_complete=True)]
            case act.Play():
                self._play(action)
            case act.ReplyEnded():
                return self._reply_ended(action)
            case act.Fault():
                return self._fault(action)
            case act.FloorChanged() if "floor" in self.extensions:
                return [frame("floor", state=action.floor.value)]
            case act.ItemRemoved() | act.SpeechDropped() if "items" in self.extensions:
                return [frame("withdrawn", item=action.item)]
            case act.TurnRecorded() if "turn" in self.extensions:
                return [frame("turn", record=record_fields(action.record))]
            case act.Hangup() if self.extensions:
                return [frame("ended", reason=action.reason)]
        return []

    def _play(self, action: act.Play) -> None:
        self._from_ms = action.from_ms
        if "clear" in self.extensions and "played" in self.extensions and action.from_ms:
            self._audio_of = ""  # the client counts anew from `from_ms`

    def _fault(self, action: act.Fault) -> list[str]:
        if action.code == "played_invalid":
            # One word to the developer of a client that counts wrongly, not one ten times a second; and none about
            # a report that was on its way when the audio it speaks of was taken back.
            if not self._reports_judged:
                return []
            self._reports_judged = False
        return [error(action.message)]

    def _reply_ended(self, action: act.ReplyEnded) -> list[str]:
        frames = []
        if (
            self._words_of == action.reply
        ):  # cut short: an older client waits for the end of the text
            frames.append(self._tagged("ai_text", action.reply, text="", is_complete=True))
            self._words_of = ""
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
