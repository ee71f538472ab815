"""Ids of things: unique over all sessions, and the core's own short ids as the client sees them, one to one.

Clients keep items of earlier sessions and send them again with the ids they had, so a new session must not use an id
twice.
"""

from __future__ import annotations

_CLIENTS = "."
"""Marks, inside the core, an id that the client chose."""


class Ids:
    """The ids of one session."""

    def __init__(self, token: str) -> None:
        """`token`: unique per session, letters and digits."""
        self._token = token
        self._prefix = f"item_{token}_"
        self._events = 0

    @property
    def session(self) -> str:
        return f"sess_{self._token}"

    @property
    def conversation(self) -> str:
        return f"conv_{self._token}"

    def event(self) -> str:
        self._events += 1
        return f"event_{self._token}_{self._events}"

    def item(self, core_id: str) -> str:
        """An id of the core -> what the client calls it."""
        if core_id.startswith(_CLIENTS):
            return core_id[len(_CLIENTS) :]
        return self._prefix + core_id

    def core(self, item_id: str) -> str:
        """The inverse of `item`."""
        if item_id.startswith(self._prefix):
            return item_id[len(self._prefix) :]
        return _CLIENTS + item_id

    def response(self, number: int) -> str:
        return f"resp_{self._token}_{number}"
