"""Who is next: the bounded waiting line of a model that many calls share.

Earliest deadline first; among equal deadlines the call that was let through least of late, then
whoever came first. A fair queue does not know what is done with a place: whoever got one gives it
back with `leave()`. It belongs to one event loop and is used on that loop only.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from antiphon.errors import BusyError, ModelError

_REMEMBERED = 64
"""Places handed out lately, over all calls, on which fairness is judged."""


@dataclass(frozen=True, slots=True)
class Work:
    """On whose behalf a model is asked, and how urgently."""

    call_id: str
    deadline_ms: int = 0
    """Time of the event loop's clock by which the result is wanted; 0: as soon as possible.

    Orders the waiting line only: nothing is dropped because it is late.
    """


@dataclass(slots=True, eq=False)
class _Waiting:
    deadline_ms: int
    call_id: str
    number: int
    admitted: asyncio.Future[None]


class FairQueue:
    """`places` requests at once, at most `max_waiting` more in line, each for at most `wait_s`."""

    def __init__(self, name: str, *, places: int, max_waiting: int, wait_s: float) -> None:
        self._name = name
        self._free = places
        self._max_waiting = max_waiting
        self._wait_s = wait_s
        self._line: list[_Waiting] = []
        self._recent: dict[str, int] = {}
        self._recent_total = 0
        self._number = 0
        self._closed = ""
        self._loop = asyncio.get_running_loop()
        self.waited_ms = 0
        """Total time that requests stood in line before they were let through."""

    @property
    def waiting(self) -> int:
        """Requests in line."""
        return len(self._line)

    async def enter(self, work: Work, *, always: bool = False) -> None:
        """Wait for a place. Cancelling the wait leaves the line.

        `always`: join even a full line. Raises BusyError when the line is full or the wait too
        long.
        """
        if self._closed:
            raise ModelError(self._closed)
        if self.try_enter(work.call_id):
            return
        if len(self._line) >= self._max_waiting and not always:
            raise BusyError(
                f"{self._name}: {len(self._line)} requests are waiting already; "
                "try again later or allow fewer calls"
            )
        await self._stand_in_line(work)

    def try_enter(self, call_id: str) -> bool:
        """Take a place if one is free and nobody waits for it."""
        if self._closed or self._free == 0 or self._line:
            return False
        self._free -= 1
        self._remember(call_id)
        return True

    def leave(self) -> None:
        """Give a place back; the next in line gets it."""
        self._free += 1
        while self._free and self._line:
            entry = min(self._line, key=self._rank)
            self._line.remove(entry)
            if not entry.admitted.done():  # else it is being cancelled
                self._free -= 1
                self._remember(entry.call_id)
                entry.admitted.set_result(None)

    def close(self, reason: str) -> None:
        """Send everybody in line away with a ModelError of `reason`, and all who come later."""
        self._closed = reason
        for entry in self._line:
            if not entry.admitted.done():
                entry.admitted.set_exception(ModelError(reason))
        self._line.clear()

    async def _stand_in_line(self, work: Work) -> None:
        since = self._loop.time()
        deadline_ms = work.deadline_ms or int(since * 1000)
        self._number += 1
        entry = _Waiting(deadline_ms, work.call_id, self._number, self._loop.create_future())
        self._line.append(entry)
        try:
            async with asyncio.timeout(self._wait_s):
                await entry.admitted
        except TimeoutError:
            self._give_up(entry)
            raise BusyError(
                f"{self._name}: no time for this request within {self._wait_s:g} s; "
                "try again later or allow fewer calls"
            ) from None
        except asyncio.CancelledError:
            self._give_up(entry)
            raise
        self.waited_ms += int((self._loop.time() - since) * 1000)

    def _give_up(self, entry: _Waiting) -> None:
        if entry in self._line:
            self._line.remove(entry)
        elif not entry.admitted.cancelled() and entry.admitted.exception() is None:
            # The place had been given at the very moment of the cancellation.
            self.leave()

    def _rank(self, entry: _Waiting) -> tuple[int, int, int]:
        return entry.deadline_ms, self._recent.get(entry.call_id, 0), entry.number

    def _remember(self, call_id: str) -> None:
        """Count; halve all counts now and then, so that the past fades and ended calls vanish."""
        self._recent[call_id] = self._recent.get(call_id, 0) + 1
        self._recent_total += 1
        if self._recent_total >= _REMEMBERED:
            self._recent = {key: count // 2 for key, count in self._recent.items() if count > 1}
            self._recent_total = sum(self._recent.values())
