"""Keys that the caller presses: gathered until there is something to be told, to a function that waits, or as text."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

MAX_KEYS = 40


@dataclass(frozen=True, slots=True)
class Collected:
    digits: str
    """Without the terminator."""
    ended_by: str
    """`terminator`, `max_digits`, `silence` or `nothing`: no key was pressed at all."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a function waits for."""

    max_digits: int = MAX_KEYS
    terminator: str = "#"
    """A key, or empty."""
    first_s: float = 15.0
    """Until the first key."""
    between_s: float = 5.0
    """From one key to the next."""


class Keypad:
    """Of one call. `told(keys)`: keys that no function waited for, after a pause."""

    def __init__(self, told: Callable[[str], None], pause_s: float) -> None:
        self._told = told
        self._pause_s = pause_s
        self._loop = asyncio.get_running_loop()
        self._keys = ""
        self._wanted = Wanted()
        self._waiting: asyncio.Future[Collected] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def press(self, key: str) -> None:
        """One of 0-9, `*`, `#`, A-D."""
        if self._waiting is not None:
            self._press_wanted(key)
            return
        self._keys += key
        if len(self._keys) >= MAX_KEYS:
            self._tell()
        else:
            self._arm(self._pause_s, self._tell)

    def collect(self, wanted: Wanted) -> asyncio.Future[Collected]:
        """The next keys; those that are here already count. One at a time: an earlier wait ends with what it has."""
        self._end("silence")
        waiting: asyncio.Future[Collected] = self._loop.create_future()
        waiting.add_done_callback(self._on_done)
        self._waiting, self._wanted = waiting, wanted
        early, self._keys = self._keys, ""
        self._arm(wanted.first_s, lambda: self._end("nothing"))
        for key in early:
            if not waiting.done():
                self._press_wanted(key)
        return waiting

    def expect_within(self, first_s: float) -> None:
        """From now on the first key of a wait may take this long."""
        if self._waiting is not None and not self._keys:
            self._arm(first_s, lambda: self._end("nothing"))

    def close(self) -> None:
        """The call is over."""
        self._disarm()
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _on_done(self, waiting: asyncio.Future[Collected]) -> None:
        if self._waiting is waiting:  # cancelled: nobody wants the keys any more
            self._waiting = None
            self._disarm()

    def _press_wanted(self, key: str) -> None:
        wanted = self._wanted
        if key == wanted.terminator:
            self._end("terminator")
            return
        self._keys += key
        if len(self._keys) >= wanted.max_digits:
            self._end("max_digits")
        else:
            self._arm(wanted.between_s, lambda: self._end("silence"))

    def _end(self, why: str) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is None:
            return
        self._disarm()
        keys, self._keys = self._keys, ""
        if not waiting.done():
            waiting.set_result(Collected(keys, why))

    def _tell(self) -> None:
        self._disarm()
        keys, self._keys = self._keys, ""
        self._told(keys)

    def _arm(self, delay_s: float, then: Callable[[], None]) -> None:
        self._disarm()
        self._timer = self._loop.call_later(delay_s, then)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
