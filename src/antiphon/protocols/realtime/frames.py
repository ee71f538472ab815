"""Text frames and events, in the dialect of the client: GA or beta.

The dialect is known from the handshake, or shows in the first `session.update`. Server events are encoded at once, for
what they show may change, and wait here until they are taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from antiphon.errors import suggest
from antiphon.protocols.realtime.beta import Beta, looks_beta
from antiphon.protocols.realtime.ids import Ids
from antiphon.protocols.realtime.items import Items
from antiphon.protocols.realtime.schema import MAX_EVENT_ID_CHARS, RealtimeError

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
MAX_VALUES = 100_000
"""The most commas and brackets of one event: megabytes of text are read in no time, a million small objects are not."""
_LARGE_CHARS = 64 << 10
_decoder = msgspec.json.Decoder()
_encoder = msgspec.json.Encoder()


@dataclass(frozen=True, slots=True)
class Send:
    """One frame for the client."""

    data: bytes
    response: str = ""
    """It is audio of this response, and may be dropped before it leaves."""


class Emit(Protocol):
    def __call__(self, kind: str, /, *, reply: str = "", **fields: Any) -> None:
        """Send an event. `reply`: it is audio of this response, and may be dropped before it leaves."""
        ...


def show_item(items: Items, emit: Emit, item: dict[str, Any], after: str | None = None) -> None:
    """An item that is complete as it appears. `after`: as in `Items.add`."""
    before = items.add(item, after)
    emit("conversation.item.added", previous_item_id=before, item=item)
    emit("conversation.item.done", previous_item_id=before, item=item)


class Frames:
    """Both directions of one connection."""

    def __init__(self, ids: Ids, dialect: str = "auto") -> None:
        """`dialect`: `ga`, `beta`, or `auto` until the client shows which it speaks."""
        self.beta = Beta() if dialect == "beta" else None
        self._may_show = dialect == "auto"
        self._ids = ids
        self._waiting: list[Send] = []

    def emit(self, kind: str, /, *, reply: str = "", **fields: Any) -> None:
        """A server event of the GA dialect. `reply`: as in `Emit`."""
        event = {"event_id": self._ids.event(), "type": kind, **fields}
        found = (event,) if self.beta is None else self.beta.outgoing(event)
        self._waiting += (Send(_encoder.encode(each), reply) for each in found)

    def take(self) -> list[Send]:
        """What is to be sent now."""
        waiting, self._waiting = self._waiting, []
        return waiting

    def decode(self, frame: str | bytes) -> dict[str, Any]:
        """-> an event of the GA dialect, of a known type. Raises RealtimeError."""
        if isinstance(frame, bytes):
            raise RealtimeError("events are JSON in text frames, not binary ones", "invalid_event")
        _check_values(frame)
        try:
            event = _decoder.decode(frame)
        except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
            raise RealtimeError(
                "not JSON; send one JSON object per text frame", "invalid_json"
            ) from None
        if not isinstance(event, dict):
            raise RealtimeError("an event is a JSON object", "invalid_event")
        if self._may_show and looks_beta(event):
            self.beta = Beta()
        if event.get("type") == "session.update":
            self._may_show = False
        known: dict[str, Any] = event if self.beta is None else self.beta.incoming(event)
        kind = known.get("type")
        if not isinstance(kind, str):
            raise RealtimeError("an event needs a `type`", "invalid_event", "type")
        if kind not in CLIENT_EVENTS:
            hint = suggest(kind[:60], CLIENT_EVENTS)
            raise RealtimeError(f"unknown event type {kind[:60]!r}{hint}", "invalid_event", "type")
        return known


def _check_values(frame: str) -> None:
    if len(frame) <= _LARGE_CHARS:
        return
    values = frame.count(",") + frame.count("[") + frame.count("{")
    if values > MAX_VALUES:
        raise RealtimeError(
            f"the event has {values} commas and brackets; at most {MAX_VALUES}: send less at a time",
            "event_too_large",
        )


def session_patch(session: dict[str, Any], dialect: str) -> Any:
    """A session object in this dialect, as an update in the GA dialect. Raises RealtimeError."""
    event = {"type": "session.update", "session": session}
    return (Beta().incoming(event) if dialect == "beta" else event)["session"]


def event_id(frame: str | bytes) -> str | None:
    """What an error should name, of a frame that may be anything."""
    if isinstance(frame, bytes) or len(frame) > _LARGE_CHARS:
        return None
    try:
        event = _decoder.decode(frame)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return None
    found = event.get("event_id") if isinstance(event, dict) else None
    return found[:MAX_EVENT_ID_CHARS] if isinstance(found, str) else None
