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
| settings  | the client may change voice, language, agent and way of listening in mid-call with `configure` |
| commit    | push-to-talk: the client says `hold` when its button goes down and `commit` when it comes up |
| notice    | {"type":"notice","code","message"}: advice, for instance about the client's audio; `error` without it |
| resume    | `connected` carries a token with which a new connection takes over the call; needs clear and played |

Source of the base protocol: docs/protocols/conversation.md.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import msgspec

from antiphon.core import actions as act
from antiphon.core.floor import Floor
from antiphon.core.turn_record import TurnRecord
from antiphon.errors import ProtocolError, suggest

EXTENSIONS = tuple("clear played floor heard turn items settings commit resume notice".split())
FORMATS = ("auto", "pcm_s16le", "pcm_f32le")
LISTENING = ("open", "push")
LEVELS = ("beginner", "intermediate", "advanced")
OUTPUT_RATE_HZ = 24_000
MAX_TEXT_CHARS = 4_000
MAX_FRAME_CHARS = 256 << 10
"""A longer text frame is not even parsed."""
_MAX_NAME_CHARS = 200
_RATES_HZ = (4_000, 192_000)
_FLOOR_STATES = {Floor.OVERLAP: "contested"}
"""Names that this protocol has had longer than the core its own."""
_RECORD_FIELDS = {
    "false_interruptions": "false_alarms",
    "preemptive_generations": "speculations",
    "preemptive_used": "speculation_used",
    "text_end_probability": "ends_here",
}
"""The same of a turn record's fields."""


class StartCall(msgspec.Struct, tag_field="type", tag="start"):
    """How the client's audio is encoded (`auto`: a container that says so itself), and what it understands."""

    format: str = "auto"
    rate: int = 16_000
    extensions: tuple[str, ...] = ()
    greeting: bool = True
    voice: str = ""
    language: str = ""
    agent: str = ""
    """One of the owner's presets, by its name."""
    instructions: str = ""
    """What the caller asks of the agent beyond its prompt."""
    listen: str = "open"
    """`open`: turns end by listening. `push`: by `commit`."""
    level: str = ""
    """One of `LEVELS`; empty: as the owner set it."""
    resume: str = ""
    """The token of a call whose connection was lost."""
    frames: int = 0
    """Number of the last text frame that came in that call."""


class Ping(msgspec.Struct, tag_field="type", tag="ping"):
    pass


class SetLevel(msgspec.Struct, tag_field="type", tag="set_level"):
    level: str


class EndConversation(msgspec.Struct, tag_field="type", tag="end_conversation"):
    pass


class EndCall(msgspec.Struct, tag_field="type", tag="stop"):
    """The client hangs up."""


class PlayedReport(msgspec.Struct, tag_field="type", tag="played"):
    reply: str
    ms: int


class TypedText(msgspec.Struct, tag_field="type", tag="text"):
    """The caller writes instead of speaking."""

    text: str


class ChangeOptions(msgspec.Struct, tag_field="type", tag="configure"):
    """From now on; what is left out stays as it is. An empty voice, language or agent: as the owner set it."""

    voice: str | None = None
    language: str | None = None
    agent: str | None = None
    instructions: str | None = None
    listen: str | None = None


class Hold(msgspec.Struct, tag_field="type", tag="hold"):
    """Push-to-talk: the button is down. The agent falls silent."""


class Commit(msgspec.Struct, tag_field="type", tag="commit"):
    """Push-to-talk: the button is up. What was said is a turn, to be answered now."""


Incoming = (
    StartCall
    | Ping
    | SetLevel
    | EndConversation
    | EndCall
    | PlayedReport
    | TypedText
    | ChangeOptions
    | Hold
    | Commit
)

_decoder: msgspec.json.Decoder[Incoming] = msgspec.json.Decoder(Incoming)
_NOT_JSON = "text frames must be JSON objects; send audio as binary frames"
_TYPES = (
    "start",
    "ping",
    "set_level",
    "end_conversation",
    "stop",
    "played",
    "text",
    "configure",
    "hold",
    "commit",
)


def decode(text: str) -> Incoming:
    """One text frame of the client. Raises ProtocolError with a sentence for its developer."""
    if len(text) > MAX_FRAME_CHARS:
        raise ProtocolError(
            f"a text frame of {len(text)} characters, the limit is {MAX_FRAME_CHARS}; send audio as binary frames"
        )
    try:
        message = _decoder.decode(text)
    except msgspec.ValidationError as error:
        raise ProtocolError(_explain(text, str(error))) from None
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        raise ProtocolError(_NOT_JSON) from None
    _check(message)
    return message


def start_from_query(query: Mapping[str, str]) -> StartCall:
    """Older clients announce raw audio in the URL: `?format=pcm_s16le&rate=16000`. Raises ProtocolError."""
    rate = query.get("rate") or query.get("sample_rate") or ""
    if rate and not (rate.isascii() and rate.isdigit() and len(rate) <= 6):
        raise ProtocolError(f"rate {rate[:40]!r} in the URL is not a number of Hz")
    start = StartCall(
        format=query.get("format", "pcm_s16le" if rate else "auto"),
        rate=int(rate or StartCall().rate),
    )
    _check(start)
    return start


def agreed(start: StartCall) -> frozenset[str]:
    """The extensions that both sides know, and that work with one another."""
    both = frozenset(start.extensions) & frozenset(EXTENSIONS)
    return both if {"clear", "played"} <= both else both - {"resume"}


def _check(message: Incoming) -> None:
    if isinstance(message, StartCall):
        _check_start(message)
    elif isinstance(message, SetLevel):
        _check_level("set_level", message.level)
    elif isinstance(message, PlayedReport) and message.ms < 0:
        raise ProtocolError("played: `ms` must not be negative")
    elif isinstance(message, TypedText):
        if not message.text.strip():
            raise ProtocolError("text: there is nothing in it")
        if len(message.text) > MAX_TEXT_CHARS:
            raise ProtocolError(f"text: longer than {MAX_TEXT_CHARS} characters; send less")
    elif isinstance(message, ChangeOptions):
        _check_wishes("configure", message)


def _check_start(start: StartCall) -> None:
    if start.format not in FORMATS:
        fmt = start.format[:40]
        raise ProtocolError(f"start: unknown format {fmt!r}{suggest(fmt, FORMATS)}")
    least, most = _RATES_HZ
    if not least <= start.rate <= most:
        raise ProtocolError(f"start: rate {start.rate} is not between {least} and {most} Hz")
    _check_wishes("start", start)
    if start.level:
        _check_level("start", start.level)


def _check_level(kind: str, level: str) -> None:
    if level not in LEVELS:
        known = ", ".join(LEVELS)
        raise ProtocolError(f"{kind}: unknown level {level[:40]!r}; the levels are {known}")


def _check_wishes(kind: str, wishes: StartCall | ChangeOptions) -> None:
    names = (wishes.voice, wishes.language, wishes.agent)
    if max(len(name or "") for name in names) > _MAX_NAME_CHARS:
        raise ProtocolError(f"{kind}: `voice`, `language` and `agent` are names, not texts")
    if len(wishes.instructions or "") > MAX_TEXT_CHARS:
        raise ProtocolError(f"{kind}: `instructions` are longer than {MAX_TEXT_CHARS} characters")
    if wishes.listen is not None and wishes.listen not in LISTENING:
        listen = wishes.listen[:40]
        raise ProtocolError(f"{kind}: cannot listen {listen!r}{suggest(listen, LISTENING)}")


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


def started(session_id: str, extensions: frozenset[str], **fields: Any) -> str:
    """The answer to `start`: what was agreed. `fields`: see `resumption`."""
    return frame(
        "connected",
        session_id=session_id,
        extensions=sorted(extensions),
        sample_rate=OUTPUT_RATE_HZ,
        **fields,
    )


def resumption(token: str, resume_s: float, number: int, *, resumed: bool) -> dict[str, Any]:
    """Fields of `connected` for a client that may come back.

    `resume_s`: for so long after it was lost. `number`: of this frame, counting the call's text frames from 1.
    """
    return {"resume": token, "resume_s": resume_s, "frames": number, "resumed": resumed}


_OF_ITS_CONNECTION = tuple(
    f'{{"type":"{kind}"' for kind in ("connected", "pong", "clear", "ai_audio_start")
)


def outlives_its_connection(text: str) -> bool:
    """Whether a frame that was lost with its connection still means something on the next one."""
    return not text.startswith(_OF_ITS_CONNECTION)


_ADVICE = ("audio_quality",)
"""Faults that are no error of the protocol."""


def analysis(data: Mapping[str, Any]) -> str:
    """The last message after `end_conversation`."""
    return frame("analysis", data=data)


def error(message: str) -> str:
    return frame("error", message=message)


class BrowserEncoder:
    """Actions of the core -> text frames for one client. Keeps only what the protocol's order needs."""

    def __init__(self, extensions: frozenset[str] = frozenset()) -> None:
        self.extensions = extensions
        self._audio_of = ""
        """The reply whose `ai_audio_start` was sent last."""
        self._from_ms = 0
        """Where in its reply the next audio lies."""
        self._words_of = ""
        """The reply whose text is not complete."""
        self._restate = False
        """The client is new to the call: it is told where audio begins even if that is the start."""
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
            if self._from_ms or self._restate:
                fields["from_ms"] = self._from_ms
        self._restate = False
        return frame("ai_audio_start", **fields)

    def resumed(self) -> None:
        """Another connection takes over: what audio follows is said anew."""
        self._audio_of, self._restate = "", True

    def clear(self) -> str | None:
        if "clear" not in self.extensions:
            return None
        self._reports_judged = False
        return frame("clear")

    def encode(self, action: act.Action) -> list[str]:
        match action:
            case act.Transcript():
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
                return [frame("floor", state=_FLOOR_STATES.get(action.floor, action.floor.value))]
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
        if action.code in _ADVICE and "notice" in self.extensions:
            return [frame("notice", code=action.code, message=action.message)]
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
    fields = {
        _RECORD_FIELDS.get(name, name): value for name, value in dataclasses.asdict(record).items()
    }
    return {**fields, "voice_to_voice_ms": record.voice_to_voice_ms}
