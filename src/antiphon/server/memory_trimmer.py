"""Memory given back to the system after calls have ended.

glibc keeps what was freed for itself, so a busy hour would stay the size of the process. `malloc_trim` returns it; it
takes milliseconds, so it runs on a thread, seldom, and only where there is something to gain.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

log = logging.getLogger(__name__)

_AFTER_S = 2.0
"""Calls often end together."""
_EVERY_S = 10.0
_GAIN_BYTES = 16 << 20
"""Growth since the last time that makes it worth the while."""


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
        self._least_bytes = resident()
        self._timer: asyncio.TimerHandle | None = None
        self._not_before_s = 0.0
        self._task: asyncio.Task[None] | None = None

    def call_ended(self) -> None:
        """Have a look soon, once for all that end until then."""
        if self._trim is None or self._timer is not None:
            return
        loop = asyncio.get_running_loop()
        at_s = max(loop.time() + _AFTER_S, self._not_before_s)
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
        self._not_before_s = loop.time() + _EVERY_S
        now_bytes = self._resident()
        self._least_bytes = min(self._least_bytes, now_bytes)
        if now_bytes - self._least_bytes >= _GAIN_BYTES:
            self._task = loop.create_task(self.run(now_bytes), name="memory trim")

    async def run(self, before_bytes: int) -> None:
        """Give back what can be given back."""
        assert self._trim is not None
        await asyncio.to_thread(self._trim, 0)
        self._least_bytes = self._resident()
        freed_mb = (before_bytes - self._least_bytes) >> 20
        log.info("memory: gave back %d MB; %d MB in use", freed_mb, self._least_bytes >> 20)
