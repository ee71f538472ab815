"""Text frames <-> events, in the dialect of the client.

The dialect is known from the handshake, or shows in the first `session.update`. Knows neither what an event means nor
where it goes.
"""

from __future__ import annotations

from typing import Any

import msgspec

from antiphon.errors import suggest
from antiphon.wire.realtime.beta import Beta, looks_beta
from antiphon.wire.realtime.errors import MAX_EVENT_ID_CHARS, PeerError

CLIENT_EVENTS = (
    "session.update",
    "input_audio_buffer.append",
    "input_audio_buffer.commit",
    "input_audio_buffer.clear",
    "conversation.item.create",
    "conversation.item.retrieve",
    "conversation.item.truncate",
    "conversation.item.delete",
    "response.create",
    "response.cancel",
    "output_audio_buffer.clear",
)
_decoder = msgspec.json.Decoder()
_encoder = msgspec.json.Encoder()


_MAX_VALUES = 100_000
"""Of one event. A string of megabytes is read in no time, a million of small objects is not."""
_LARGE_CHARS = 64 << 10


def _check_values(frame: str) -> None:
    if len(frame) <= _LARGE_CHARS:
        return
    values = frame.count(",") + frame.count("[") + frame.count("{")
    if values > _MAX_VALUES:
        raise PeerError(
            f"the event has {values} commas and brackets; at most {_MAX_VALUES}: send less at a time",
            "event_too_large",
        )


class Codec:
    """Of one connection. `dialect`: `ga`, `beta`, or `auto` until the client shows which it speaks."""

    def __init__(self, dialect: str = "auto") -> None:
        self.beta = Beta() if dialect == "beta" else None
        self._may_show = dialect == "auto"

    def decode(self, frame: str) -> dict[str, Any]:
        """-> an event of the GA dialect, of a known type. Raises PeerError."""
        _check_values(frame)
        try:
            event = _decoder.decode(frame)
        except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
            raise PeerError(
                "not JSON; send one JSON object per text frame", "invalid_json"
            ) from None
        if not isinstance(event, dict):
            raise PeerError("an event is a JSON object", "invalid_event")
        if self._may_show and looks_beta(event):
            self.beta = Beta()
        if event.get("type") == "session.update":
            self._may_show = False
        known: dict[str, Any] = event if self.beta is None else self.beta.incoming(event)
        kind = known.get("type")
        if not isinstance(kind, str):
            raise PeerError("an event needs a `type`", "invalid_event", "type")
        if kind not in CLIENT_EVENTS:
            hint = suggest(kind[:60], CLIENT_EVENTS)
            raise PeerError(f"unknown event type {kind[:60]!r}{hint}", "invalid_event", "type")
        return known

    def encode(self, event: dict[str, Any]) -> list[bytes]:
        """An event of the GA dialect -> frames."""
        if self.beta is None:
            return [_encoder.encode(event)]
        return [_encoder.encode(found) for found in self.beta.outgoing(event)]


def session_patch(session: dict[str, Any], dialect: str) -> Any:
    """A session object in this dialect, as an update in the GA dialect. Raises PeerError."""
    event = {"type": "session.update", "session": session}
    return (Beta().incoming(event) if dialect == "beta" else event)["session"]


def event_id(frame: str) -> str | None:
    """What an error should name, of a frame that may be anything."""
    if len(frame) > _LARGE_CHARS:
        return None
    try:
        event = _decoder.decode(frame)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return None
    found = event.get("event_id") if isinstance(event, dict) else None
    return found[:MAX_EVENT_ID_CHARS] if isinstance(found, str) else None
