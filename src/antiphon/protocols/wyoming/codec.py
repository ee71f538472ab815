"""Events of the Wyoming protocol (Home Assistant's voice services): bytes <-> events.

Source: rhasspy/wyoming. One event is a line of JSON, then `data_length` bytes of more JSON, then `payload_length` raw
bytes. Newer peers write `data` apart from the line, older ones into it: both are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from antiphon.errors import ProtocolError

VERSION = "1.10.2"
"""Of the protocol that was read; peers only log it."""
MAX_LINE_BYTES = 64 << 10
MAX_DATA_BYTES = 1 << 20
MAX_PAYLOAD_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Event:
    type: str
    data: Mapping[str, Any] = field(default_factory=dict)
    payload: bytes = b""

    def text(self, name: str) -> str:
        """A member of `data` that should be a text; empty when it is not."""
        value = self.data.get(name)
        return value if isinstance(value, str) else ""

    def number(self, name: str, default: int) -> int:
        value = self.data.get(name)
        return value if isinstance(value, int) and not isinstance(value, bool) else default

    def group(self, name: str) -> Mapping[str, Any]:
        value = self.data.get(name)
        return value if isinstance(value, dict) else {}


def encode(event: Event) -> bytes:
    head: dict[str, Any] = {"type": event.type, "version": VERSION}
    data = msgspec.json.encode(dict(event.data)) if event.data else b""
    if data:
        head["data_length"] = len(data)
    if event.payload:
        head["payload_length"] = len(event.payload)
    return msgspec.json.encode(head) + b"\n" + data + event.payload


class WyomingDecoder:
    """Bytes cut anywhere -> whole events. After a ProtocolError the stream cannot be read any further."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._head: dict[str, Any] | None = None
        self._data_bytes = self._payload_bytes = 0

    def feed(self, piece: bytes) -> list[Event]:
        """The events that `piece` completes. Raises ProtocolError."""
        self._held += piece
        events: list[Event] = []
        while (event := self._next()) is not None:
            events.append(event)
        return events

    def _next(self) -> Event | None:
        if self._head is None and not self._read_head():
            return None
        whole = self._data_bytes + self._payload_bytes
        if self._head is None or len(self._held) < whole:
            return None
        head, self._head = self._head, None
        data = head.get("data")
        found = dict(data) if isinstance(data, dict) else {}
        if self._data_bytes:
            more = _object(bytes(self._held[: self._data_bytes]), "data")
            found.update(more)
        payload = bytes(self._held[self._data_bytes : whole])
        del self._held[:whole]
        return Event(head["type"], found, payload)

    def _read_head(self) -> bool:
        end = self._held.find(b"\n", 0, MAX_LINE_BYTES + 1)
        if end < 0:
            if len(self._held) > MAX_LINE_BYTES:
                raise ProtocolError("a Wyoming event begins with a line of JSON; this is none")
            return False
        head = _object(bytes(self._held[:end]), "the line of an event")
        del self._held[: end + 1]
        if not isinstance(head.get("type"), str):
            raise ProtocolError("a Wyoming event has no type")
        self._data_bytes = _length(head, "data_length", MAX_DATA_BYTES)
        self._payload_bytes = _length(head, "payload_length", MAX_PAYLOAD_BYTES)
        self._head = head
        return True


def _object(text: bytes, what: str) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(text)
    except (msgspec.DecodeError, ValueError, RecursionError):
        raise ProtocolError(f"{what} is not JSON") from None
    if not isinstance(found, dict):
        raise ProtocolError(f"{what} is not a JSON object")
    return found


def _length(head: Mapping[str, Any], name: str, limit: int) -> int:
    length = head.get(name) or 0
    if not isinstance(length, int) or not 0 <= length <= limit:
        raise ProtocolError(f"{name} of a Wyoming event must be 0 to {limit}")
    return length
