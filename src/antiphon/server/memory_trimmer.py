"""Memory given back to the system after calls have ended.

glibc keeps what was freed for itself, so a busy hour would stay the size of the process. `malloc_trim` returns it; it
takes milliseconds, and what comes next must ask the system again: so it is done on a thread, when half of the calls
have ended, and now and then when memory has grown.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import math
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

log = logging.getLogger(__name__)

_AFTER_S = 2.0
"""Calls often end together."""
_EVERY_S = 10.0
_GROWN_EVERY_S = 60.0
_GROWN_BYTES = 64 << 20
"""Growth since the last time that is worth the while though as many calls go on as before."""


@cache
def _libc_trim() -> Callable[[int], int] | None:
    """None: this C library keeps nothing, or does not say how to get it back (musl, macOS, Windows)."""
    try:
        trim: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return None
    return trim


def resident_bytes() -> int:
    """Memory that the process occupies; 0 where the system does not tell."""
    try:
        pages = Path("/proc/self/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return 0


class MemoryTrimmer:
    """Of one process. Lives on one event loop."""

    def __init__(
        self,
        trim: Callable[[int], int] | None = None,
        resident: Callable[[], int] = resident_bytes,
    ) -> None:
        self._trim = trim or _libc_trim()
        self._resident = resident
        self._bytes = resident()
        """After the last time."""
        self._most_calls = self._calls = 0
        """The most since the last time, and now."""
        self._timer: asyncio.TimerHandle | None = None
        self._last_s = -math.inf
        self._task: asyncio.Task[None] | None = None

    def call_ended(self, calls: int) -> None:
        """Have a look soon, once for all that end until then. `calls`: those that go on."""
        self._most_calls, self._calls = max(self._most_calls, calls + 1), calls
        if self._trim is None or self._timer is not None:
            return
        loop = asyncio.get_running_loop()
        at_s = max(loop.time() + _AFTER_S, self._last_s + _EVERY_S)
        self._timer = loop.call_at(at_s, self._look)

    async def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._task is not None:
            await self._task

    def _look(self) -> None:
        self._timer = None
        loop = asyncio.get_running_loop()
        quieter = self._calls <= self._most_calls // 2
        settled = loop.time() - self._last_s >= _GROWN_EVERY_S
        if quieter or (settled and self._resident() - self._bytes >= _GROWN_BYTES):
            self._last_s, self._most_calls = loop.time(), self._calls
            self._task = loop.create_task(self._give_back(self._trim), name="memory trim")

    async def _give_back(self, trim: Callable[[int], int] | None) -> None:
        assert trim is not None
        before = self._resident()
        await asyncio.to_thread(trim, 0)
        self._bytes = self._resident()
        log.debug("gave back %d MB; %d MB in use", (before - self._bytes) >> 20, self._bytes >> 20)
