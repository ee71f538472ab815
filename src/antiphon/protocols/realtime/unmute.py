"""The dialect of Kyutai's Unmute: few events, Ogg Opus in them, words told one by one as they are heard.

Source: PROTOCOLS of this project on what Unmute's page and load test send and expect. Who the agent is comes as an
object with a `type`; the words for it are ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from antiphon.audio.encoding import StreamEncoder
from antiphon.audio.framing import Pcm16
from antiphon.audio.ogg_opus import OggOpusReader
from antiphon.errors import AudioError, suggest
from antiphon.protocols.realtime.audio_formats import VOICE_RATE_HZ, from_base64
from antiphon.protocols.realtime.schema import RealtimeError

RATE_HZ = 16_000
"""The rate of what the caller says, once decoded."""
_PAGE = b"OggS"
_FLAGS, _FIRST_PAGE = 5, 0x02
"""Where a page's flags are, and the one of the page that begins a stream (RFC 3533)."""
_BITRATE_KBPS = 32
_decoder = msgspec.json.Decoder()

_VOICE = (
    "You are on a voice call. Everything you write is spoken aloud, so write the way people talk: "
    "one to three short sentences, no lists, no symbols."
)
_CHARACTERS = {
    "smalltalk": "Chat with the caller about everyday things. Be curious, and ask one question at a time.",
    "quiz_show": "You host a quiz. Ask one question, wait for the answer, say whether it is right, keep the score "
    "over five questions, and then say goodbye.",
    "guess_animal": "You have secretly chosen an animal. The caller guesses it by asking questions that you answer "
    "with yes or no and a small hint.",
    "news": "The caller would like to talk about the news. You know none from today, and say so; talk about the "
    "background of what the caller brings up.",
    "unmute_explanation": "Explain how this works when you are asked: speech becomes text, a language model answers, "
    "and its words become speech again, all on the owner's own machine.",
}
_LANGUAGES = {
    "en": "Speak English.",
    "fr": "Speak French.",
    "en/fr": "Speak English, or French once the caller does.",
    "fr/en": "Speak French, or English once the caller does.",
}


@dataclass(frozen=True, slots=True)
class Update:
    """`session.update`."""

    session: dict[str, Any]
    prompt: str
    """Empty: the owner's."""
    language: str
    """As models know it; empty: no one language."""
    voice: str


@dataclass(frozen=True, slots=True)
class Append:
    """`input_audio_buffer.append`, decoded from base64."""

    data: bytes


def is_unmute(frame: str | bytes | None) -> bool:
    """Whether the first frame of a connection can only be Unmute's."""
    event = _event(frame)
    if event is None or event.get("type") != "session.update":
        return False
    session = event.get("session")
    if not isinstance(session, Mapping):
        return False
    return "allow_recording" in session or isinstance(session.get("instructions"), Mapping)


def is_typed(frame: str | bytes | None) -> bool:
    """Whether a frame is an event of any dialect: a JSON object with a `type`."""
    event = _event(frame)
    return event is not None and "type" in event


def _event(frame: str | bytes | None) -> dict[str, Any] | None:
    if not isinstance(frame, str):
        return None
    try:
        event = _decoder.decode(frame)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return None
    return event if isinstance(event, dict) else None


def decode(frame: str | bytes) -> Update | Append:
    """Raises RealtimeError."""
    event = _event(frame)
    if event is None:
        raise RealtimeError("not a JSON object in a text frame", "invalid_json")
    match event.get("type"):
        case "session.update":
            return _update(event.get("session"))
        case "input_audio_buffer.append":
            if not isinstance(event.get("audio"), str):
                raise RealtimeError("audio: base64 of Ogg Opus pages", "invalid_type", "audio")
            return Append(from_base64(event["audio"]))
    raise RealtimeError(
        f"unknown event type {str(event.get('type'))[:60]!r}", "invalid_event", "type"
    )


def _update(session: Any) -> Update:
    if not isinstance(session, dict):
        raise RealtimeError("session must be an object", "invalid_type", "session")
    voice, given = session.get("voice"), session.get("instructions")
    if voice is not None and not isinstance(voice, str):
        raise RealtimeError("session.voice: a text or null", "invalid_type", "session.voice")
    if given is None:
        return Update(session, "", "", voice or "")
    if not isinstance(given, Mapping):
        raise RealtimeError(
            "session.instructions: an object or null", "invalid_type", "session.instructions"
        )
    language = given.get("language")
    language = language if isinstance(language, str) and language in _LANGUAGES else ""
    known = language if len(language) == 2 else ""
    return Update(session, _prompt(given, language), known, voice or "")


def _prompt(given: Mapping[str, Any], language: str) -> str:
    kind = str(given.get("type"))
    if kind == "constant":
        text = given.get("text")
        if not isinstance(text, str):
            raise RealtimeError(
                "session.instructions.text: a text", param="session.instructions.text"
            )
    elif kind in _CHARACTERS:
        text = _CHARACTERS[kind]
    else:
        hint = suggest(kind[:60], ("constant", *_CHARACTERS))
        raise RealtimeError(f"session.instructions.type: {kind[:60]!r}{hint}", param="session")
    return " ".join(part for part in (text, _VOICE, _LANGUAGES.get(language, "")) if part)


class Ears:
    """The caller's pages -> int16 mono at 16 kHz, in the caller's thread."""

    def __init__(self) -> None:
        self._reader: OggOpusReader | None = None

    def feed(self, data: bytes) -> Pcm16 | None:
        """None: pages of a stream whose beginning is not known, as a browser flushes them. Raises RealtimeError."""
        if self._reader is None:
            at = _beginning(data)
            if at is None:
                return None
            data, self._reader = data[at:], OggOpusReader()
        try:
            return self._reader.feed(data)
        except AudioError as error:
            self._reader = None
            raise RealtimeError(str(error), "invalid_audio", "audio") from None


def starts_ogg(data: bytes) -> bool:
    """Whether this is the first page of an Ogg stream."""
    return _beginning(data) == 0


def _beginning(data: bytes) -> int | None:
    at = data.find(_PAGE)
    while at >= 0:
        if len(data) > at + _FLAGS and data[at + _FLAGS] & _FIRST_PAGE:
            return at
        at = data.find(_PAGE, at + 1)
    return None


class Mouth:
    """The agent's voice at `VOICE_RATE_HZ` -> one Ogg Opus stream for the whole connection."""

    def __init__(self) -> None:
        self._encoder = StreamEncoder("opus", VOICE_RATE_HZ, _BITRATE_KBPS)

    def feed(self, pcm: Pcm16) -> bytes:
        return self._encoder.encode(pcm)

    def close(self) -> None:
        self._encoder.finish()
