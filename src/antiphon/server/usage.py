"""What each key has used, and whether it may use more: calls at a time, minutes a day, requests a minute.

In the memory of one process: a restart begins anew, and several processes count each for itself.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from antiphon.server.http_errors import RequestRefused

_DAY_S = 86_400
_MINUTE_S = 60
_CODE = "rate_limit_exceeded"


@dataclass(frozen=True, slots=True)
class UsageLimits:
    """0: no limit."""

    max_sessions: int = 0
    """Calls at the same time."""
    minutes_per_day: int = 0
    """Of calls, of recordings heard and of speech made, from midnight to midnight UTC."""
    requests_per_minute: int = 0
    """Requests and new connections in any 60 seconds."""


@dataclass(frozen=True, slots=True, eq=False)
class MeteredCall:
    """A call that a key is paying for."""

    began_s: float
    left_s: float | None
    """What was left of the key's day when the call began; None: no limit. Calls begun later shorten it."""


@dataclass(slots=True)
class _Used:
    requests: deque[float] = field(default_factory=deque)
    seats: set[MeteredCall] = field(default_factory=set)
    day: int = 0
    spent_s: float = 0.0


class UsageLedger:
    """One entry per key that was ever used; there are as many as the owner made."""

    def __init__(self, now_s: Callable[[], float] = time.time) -> None:
        """`now_s`: seconds since 1970."""
        self.now_s = now_s
        self._used: dict[str, _Used] = {}

    def note_request(self, name: str, limits: UsageLimits) -> None:
        """Raises Refused (429) for one too many; that one is not counted."""
        limit = limits.requests_per_minute
        if not limit:
            return
        now_s, recent = self.now_s(), self._of(name).requests
        while recent and recent[0] <= now_s - _MINUTE_S:
            recent.popleft()
        if len(recent) >= limit:
            wait_s = max(1, round(recent[0] + _MINUTE_S - now_s))
            raise RequestRefused(
                429,
                f"this key may make {limit} requests a minute; try again in {wait_s} s",
                _CODE,
                retry_after_s=wait_s,
            )
        recent.append(now_s)

    def left_s(self, name: str, limits: UsageLimits) -> float | None:
        """Seconds left of the key's day, the calls that are on counted as far as they are; None: no limit."""
        if not limits.minutes_per_day:
            return None
        used, now_s = self._today(name), self.now_s()
        running_s = sum(max(0.0, now_s - seat.began_s) for seat in used.seats)
        return limits.minutes_per_day * 60 - used.spent_s - running_s

    def check_left(self, name: str, limits: UsageLimits) -> float | None:
        """Like `left_s`. Raises Refused (429) when nothing is."""
        left_s = self.left_s(name, limits)
        if left_s is not None and left_s <= 0:
            wait_s = _DAY_S - int(self.now_s()) % _DAY_S
            raise RequestRefused(
                429,
                f"this key has used its {limits.minutes_per_day} minutes of today; they are back at midnight UTC",
                _CODE,
                retry_after_s=wait_s,
                retry=False,
            )
        return left_s

    def spend(self, name: str, seconds: float) -> None:
        """Audio that was heard or made for this key."""
        self._today(name).spent_s += seconds

    @contextmanager
    def session(self, name: str, limits: UsageLimits) -> Iterator[MeteredCall]:
        """A call, for as long as the context lasts. Raises Refused (429) when the key may have no other."""
        left_s = self.check_left(name, limits)
        used = self._of(name)
        if limits.max_sessions and len(used.seats) >= limits.max_sessions:
            raise RequestRefused(
                429,
                f"this key may hold {limits.max_sessions} calls at a time; end one and try again",
                _CODE,
                retry_after_s=5,
            )
        seat = MeteredCall(self.now_s(), left_s)
        used.seats.add(seat)
        try:
            yield seat
        finally:
            used.seats.discard(seat)
            self.spend(name, max(0.0, self.now_s() - seat.began_s))

    def sessions(self, name: str) -> int:
        """Calls that are on with this key."""
        return len(self._of(name).seats)

    def _of(self, name: str) -> _Used:
        return self._used.setdefault(name, _Used())

    def _today(self, name: str) -> _Used:
        used, day = self._of(name), int(self.now_s() // _DAY_S)
        if day != used.day:
            used.day, used.spent_s = day, 0.0
        return used
