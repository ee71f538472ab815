"""What was said in a telephone call, by its CallSid, for as long as its next webhook may come.

Items are those of the core's history, so that a call may go from one flow to the other and the agent knows the rest.
Bounded in calls, in items of a call and in time. Knows no flow.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable

from antiphon.core.history import Item

MAX_CALLS = 500
MAX_ITEMS = 200
"""Of one call; the oldest are forgotten."""
KEEP_S = 3600.0


class CallMemory:
    def __init__(
        self,
        *,
        max_calls: int = MAX_CALLS,
        keep_s: float = KEEP_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_calls = max_calls
        self._keep_s = keep_s
        self._clock = clock
        self._calls: OrderedDict[str, tuple[float, tuple[Item, ...]]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._calls)

    def of(self, call_sid: str) -> tuple[Item, ...]:
        """Oldest first; empty for a call that is new or forgotten."""
        self._expire()
        return self._calls.get(call_sid, (0.0, ()))[1]

    def keep(self, call_sid: str, items: Iterable[Item]) -> None:
        """All that was said so far."""
        self._calls[call_sid] = (self._clock(), tuple(items)[-MAX_ITEMS:])
        self._calls.move_to_end(call_sid)
        self._expire()

    def forget(self, call_sid: str) -> None:
        self._calls.pop(call_sid, None)

    def _expire(self) -> None:
        before_s = self._clock() - self._keep_s
        while self._calls:
            call_sid, (touched_s, _) = next(iter(self._calls.items()))
            if touched_s >= before_s and len(self._calls) <= self._max_calls:
                break
            del self._calls[call_sid]
