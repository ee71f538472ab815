"""Which slot of a server holds the prompt cache of which call."""

from __future__ import annotations

import threading
from collections import OrderedDict

ANY_SLOT = -1


class KvSlots:
    """Which slot of the server holds the prompt cache of which call.

    A slot stays with its call until the call is released or, when there are more calls than slots,
    until it is the one used longest ago. A freed slot is the first to be given out again: it has
    the beginning that all calls share.
    """

    def __init__(self, count: int) -> None:
        self._free = list(range(count))
        self._held: OrderedDict[str, int] = OrderedDict()
        self._running: dict[str, int] = {}
        self._lock = threading.Lock()

    def acquire(self, call_id: str) -> int:
        """-> slot, or -1: any that comes free, when all are at work."""
        with self._lock:
            slot = self._held.pop(call_id, None)
            if slot is not None and not call_id and self._running.get(call_id):
                self._held[call_id] = slot
                return (
                    ANY_SLOT  # requests without a call have nothing to keep: do not queue them up
                )
            if slot is None:
                slot = self._free.pop() if self._free else self._evict()
            if slot == ANY_SLOT:
                return slot
            self._held[call_id] = slot
            self._running[call_id] = self._running.get(call_id, 0) + 1
            return slot

    def done(self, call_id: str, slot: int) -> None:
        """A request that `acquire` gave this slot has ended."""
        if slot == ANY_SLOT:
            return
        with self._lock:
            self._running[call_id] -= 1
            if not self._running[call_id]:
                del self._running[call_id]

    def release(self, call_id: str) -> None:
        with self._lock:
            slot = self._held.pop(call_id, None)
            if slot is not None:
                self._free.append(slot)

    def _evict(self) -> int:
        idle = next((call for call in self._held if call not in self._running), None)
        return ANY_SLOT if idle is None else self._held.pop(idle)
