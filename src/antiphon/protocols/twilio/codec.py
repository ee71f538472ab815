"""Twilio Media Streams: JSON text frames of a telephone call <-> what happened, what to do.

One frame in -> one frozen dataclass; one action out -> one text frame. Telnyx and Plivo speak the same protocol with
other key names (`DIALECTS`). Lenient where peers differ (numbers for strings, events nobody knows), strict where audio
would become noise: a payload that is not base64, an encoding that we do not speak.

Sources: Twilio's Media Streams
message reference, Telnyx's and Plivo's streaming references; docs/protocols/twilio.md.
"""

from __future__ import annotations

import binascii
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from antiphon.errors import ProtocolError

MAX_FRAME_CHARS = 3 << 20
"""A longer frame is not even parsed."""
MAX_MEDIA_BYTES = 8_000 * 20
"""Of one frame: twenty seconds of telephone audio, which is a thousand times what phone companies send at once."""
DIGITS = frozenset("0123456789*#ABCD")
_MAX_NAME_CHARS = 200
_MAX_PARAMETERS = 50
_MAX_VALUE_CHARS = 500

# --- what a peer says ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AudioFormat:
    """Of the caller's audio, and of ours."""

    encoding: str = "mulaw"
    """`mulaw` or `alaw`."""
    rate_hz: int = 8_000


@dataclass(frozen=True, slots=True)
class Connected:
    """First frame of a stream; says nothing that we need."""


@dataclass(frozen=True, slots=True)
class StreamStart:
    dialect: Dialect
    stream_id: str
    call_id: str
    account_id: str = ""
    format: AudioFormat = AudioFormat()
    parameters: Mapping[str, str] = field(default_factory=dict)
    """Of the `<Parameter>` elements: bounded in number and length, and not to be trusted."""


class Media(msgspec.Struct, frozen=True):
    """A piece of the caller's voice. The hot path of every call: such a class is made in a quarter of the time."""

    payload: bytes
    chunk: int | None = None
    """Its number, from 1."""
    timestamp_ms: int | None = None
    """Where it begins; since when is the peer's business."""


@dataclass(frozen=True, slots=True)
class Digit:
    """A key was pressed: 0-9, `*`, `#`, A-D."""

    digit: str


@dataclass(frozen=True, slots=True)
class MarkEchoed:
    """Everything before our mark has been played, or cleared."""

    name: str


@dataclass(frozen=True, slots=True)
class StreamStop:
    """The stream is over."""


@dataclass(frozen=True, slots=True)
class UnknownMessage:
    """Something else, to be ignored: protocols grow."""

    event: str


Incoming = Connected | StreamStart | Media | Digit | MarkEchoed | StreamStop | UnknownMessage

# --- dialects -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one company spells the same protocol."""

    name: str
    stream: str
    """Key of the stream's id, in frames and in `start`."""
    call: str
    account: str
    format: str
    rate: str
    parameters: str
    names_stream: bool = True
    """Our frames carry the stream's id."""
    media: str = "media"
    mark: str = "mark"
    clear: str = "clear"
    flat_marks: bool = False
    """A mark's name stands beside `event`, not in an object."""
    typed_media: bool = False
    """Our media says how it is encoded."""


TWILIO = Dialect(
    "twilio", "streamSid", "callSid", "accountSid", "mediaFormat", "sampleRate", "customParameters"
)
TELNYX = Dialect(
    "telnyx",
    "stream_id",
    "call_control_id",
    "user_id",
    "media_format",
    "sample_rate",
    "custom_parameters",
    names_stream=False,
)
PLIVO = Dialect(
    "plivo",
    "streamId",
    "callId",
    "accountId",
    "mediaFormat",
    "sampleRate",
    "extra_headers",
    media="playAudio",
    mark="checkpoint",
    clear="clearAudio",
    flat_marks=True,
    typed_media=True,
)
DIALECTS = (TWILIO, TELNYX, PLIVO)

_ENCODINGS = {
    "audio/x-mulaw": "mulaw",
    "pcmu": "mulaw",
    "mulaw": "mulaw",
    "audio/x-alaw": "alaw",
    "pcma": "alaw",
    "alaw": "alaw",
}
_MIME = {"mulaw": "audio/x-mulaw", "alaw": "audio/x-alaw"}
_RATES_HZ = (8_000, 16_000)

# --- decoding -----------------------------------------------------------------------------------------


class _Media(msgspec.Struct):
    payload: Any = None
    chunk: Any = None
    timestamp: Any = None
    track: Any = None


class _Frame(msgspec.Struct):
    """The union of all frames: one pass of the decoder, whatever the event."""

    event: Any = None
    media: _Media | None = None
    start: Any = None
    mark: Any = None
    dtmf: Any = None
    name: Any = None
    streamSid: Any = None
    stream_id: Any = None
    streamId: Any = None
    extra_headers: Any = None


_decoder = msgspec.json.Decoder(_Frame)


def decode(text: str | bytes) -> Incoming:
    """One text frame. Raises ProtocolError with a sentence that says what to look at."""
    if len(text) > MAX_FRAME_CHARS:
        raise ProtocolError(
            f"a frame of {len(text)} characters, the limit is {MAX_FRAME_CHARS}; send 20 ms of audio a frame"
        )
    try:
        frame = _decoder.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise ProtocolError(f"a frame that is no Media Streams message: {error}") from None
    if frame.event == "media":
        return _media(frame.media)
    read = _READERS.get(frame.event) if isinstance(frame.event, str) else None
    if read is not None:
        return read(frame)
    if frame.event is None:
        raise ProtocolError(
            "a frame without `event`: this path takes telephone streams; other clients use "
            "/v1/realtime or /ws/conversation"
        )
    return UnknownMessage(str(frame.event)[:_MAX_NAME_CHARS])


def is_telephony(text: str) -> bool:
    """Whether the first frame of a websocket is that of a telephone stream."""
    if len(text) > MAX_FRAME_CHARS:
        return False
    try:
        return _decoder.decode(text).event is not None
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return False


def _media(media: _Media | None) -> Incoming:
    if media is None or not isinstance(media.payload, str):
        raise ProtocolError("media: there is no `payload`; it must be base64 of the audio")
    if media.track in ("outbound", "outbound_track"):
        return UnknownMessage("media of our own voice")
    try:
        payload = binascii.a2b_base64(media.payload, strict_mode=True)
    except (binascii.Error, ValueError) as error:
        raise ProtocolError(
            f"media: the payload is not base64 ({error}); send raw audio, base64 once, no line breaks"
        ) from None
    if len(payload) > MAX_MEDIA_BYTES:
        raise ProtocolError(
            f"media: {len(payload)} bytes in one frame, the limit is {MAX_MEDIA_BYTES}; send 20 ms"
        )
    return Media(payload, _number(media.chunk), _number(media.timestamp))


def _number(value: Any) -> int | None:
    """Twilio sends numbers as strings, others as numbers; what is neither says nothing."""
    if isinstance(value, str) and value.isdigit() and value.isascii() and len(value) < 19:
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value if 0 <= value < 10**18 else None
    if isinstance(value, float) and 0 <= value < 1e18:
        return int(value)
    return None


def _start(frame: _Frame) -> StreamStart:
    start = frame.start
    if not isinstance(start, Mapping):
        raise ProtocolError("start: there is no `start` object in it")
    for dialect in DIALECTS:
        stream = start.get(dialect.stream) or getattr(frame, dialect.stream)
        if stream is not None and dialect.call in start:
            break
    else:
        keys = ", ".join(f"{d.stream} with {d.call} ({d.name})" for d in DIALECTS)
        raise ProtocolError(f"start: names neither stream nor call; known are {keys}")
    given = start.get(dialect.parameters) or frame.extra_headers
    return StreamStart(
        dialect,
        _text(stream),
        _text(start.get(dialect.call)),
        _text(start.get(dialect.account)),
        _audio_format(start.get(dialect.format), dialect),
        _parameters(given, start),
    )


def _text(value: Any) -> str:
    return str(value)[:_MAX_NAME_CHARS] if isinstance(value, (str, int)) else ""


def _audio_format(found: Any, dialect: Dialect) -> AudioFormat:
    if not isinstance(found, Mapping):
        return AudioFormat()
    name = str(found.get("encoding", "audio/x-mulaw")).lower()
    rate_hz = _number(found.get(dialect.rate, 8_000))
    channels = _number(found.get("channels", 1))
    encoding = _ENCODINGS.get(name)
    if encoding is None or rate_hz not in _RATES_HZ or channels != 1:
        raise ProtocolError(
            f"start: audio is {name[:40]!r}, {rate_hz} Hz, {channels} channel(s); set the stream to mono mu-law "
            "(audio/x-mulaw, PCMU) at 8000 Hz"
        )
    return AudioFormat(encoding, rate_hz)


def _parameters(found: Any, start: Mapping[str, Any]) -> dict[str, str]:
    if isinstance(found, str):  # Plivo: JSON in a string, or name=value pairs
        found = _from_header(found)
    named: dict[str, Any] = dict(found) if isinstance(found, Mapping) else {}
    for theirs, ours in (("from", "from_number"), ("to", "to_number")):  # Telnyx
        if theirs in start:
            named.setdefault(ours, start[theirs])
    values = {str(n)[:_MAX_NAME_CHARS]: v for n, v in list(named.items())[:_MAX_PARAMETERS]}
    return {
        name: str(value)[:_MAX_VALUE_CHARS]
        for name, value in values.items()
        if isinstance(value, (str, int, float))
    }


def _from_header(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        pairs = (part.split("=", 1) for part in text.split(",") if "=" in part)
        return {name.strip(): value.strip() for name, value in pairs}


def _digit(frame: _Frame) -> Digit:
    digit = frame.dtmf.get("digit") if isinstance(frame.dtmf, Mapping) else None
    digit = str(digit).upper() if isinstance(digit, (str, int)) else ""
    if digit not in DIGITS:
        raise ProtocolError(f"dtmf: {digit[:20]!r} is no key of a telephone")
    return Digit(digit)


def _mark(frame: _Frame) -> MarkEchoed:
    named = frame.mark.get("name") if isinstance(frame.mark, Mapping) else frame.name
    if not isinstance(named, (str, int)):
        raise ProtocolError("mark: there is no `name` in it")
    return MarkEchoed(str(named)[:_MAX_NAME_CHARS])


_READERS: Mapping[str, Callable[[_Frame], Incoming]] = {
    "connected": lambda _: Connected(),
    "start": _start,
    "dtmf": _digit,
    "mark": _mark,
    "playedStream": _mark,
    "played": _mark,
    "stop": lambda _: StreamStop(),
}

# --- encoding -----------------------------------------------------------------------------------------


class MediaEncoder:
    """Frames to one stream. What never changes of them is made once: `media` is the hot path of every call."""

    def __init__(self, dialect: Dialect, stream_id: str, audio: AudioFormat | None = None) -> None:
        stream = {dialect.stream: stream_id} if dialect.names_stream else {}
        self._flat = dialect.flat_marks
        self._mark: dict[str, Any] = {"event": dialect.mark, **stream}
        self._clear = _json({"event": dialect.clear, **stream})
        media: dict[str, Any] = {"payload": ""}
        if dialect.typed_media:
            audio = audio or AudioFormat()
            kind = _MIME[audio.encoding]
            media = {"contentType": kind, "sampleRate": audio.rate_hz, **media}
        named = {} if dialect.typed_media else stream
        whole = _json({"event": dialect.media, **named, "media": media})
        self._head, self._tail = whole[:-3], whole[-3:]

    def media(self, codes: bytes) -> str:
        """Audio in the stream's encoding, without any header; the peer queues it."""
        encoded = binascii.b2a_base64(codes, newline=False).decode("ascii")
        return f"{self._head}{encoded}{self._tail}"

    def mark(self, name: str) -> str:
        """Echoed when all audio before it has been played, or cleared."""
        if self._flat:
            return _json({**self._mark, "name": name})
        return _json({**self._mark, "mark": {"name": name}})

    def clear(self) -> str:
        """The peer forgets what it has not played, and echoes all pending marks."""
        return self._clear


def _json(message: Mapping[str, Any]) -> str:
    return msgspec.json.encode(message).decode()
