"""Notices that a client has stopped sending audio in mid-turn, and says how much silence to put in its place.

Clients send every 20 ms or every second (MediaRecorder time slices), so "stopped" is judged by the client's own rhythm.
Phone networks and push-to-talk pages stop sending while the caller is silent; without this a turn would never end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

_LEAST_S = 0.5
_RHYTHMS = 2.0
"""Two of the longest recent gaps are a stop, not jitter."""
_STEP_S = 0.1


class StallClock:
    """`fill(duration_ms)` is called every 100 ms while watching and nothing arrives."""

    def __init__(self, loop: asyncio.AbstractEventLoop, fill: Callable[[int], None]) -> None:
        self._loop = loop
        self._fill = fill
        self._last_s = loop.time()
        self._gap_s = 0.0
        self._filled_until_s = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def arrived(self) -> None:
        """Audio came."""
        now_s = self._loop.time()
        gap_s = now_s - self._last_s
        # The longest gap fades, so that one hiccup does not slow down the rest of the call.
        self._gap_s = max(gap_s, 0.9 * self._gap_s) if gap_s < 3 else self._gap_s
        self._last_s = self._filled_until_s = now_s

    def watch(self, watching: bool) -> None:
        """Only while a turn is being heard does a stall matter."""
        if watching and self._timer is None:
            self._timer = self._loop.call_later(_STEP_S, self._check)
        elif not watching:
            self.stop()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check(self) -> None:
        self._timer = self._loop.call_later(_STEP_S, self._check)
        now_s = self._loop.time()
        if now_s - self._last_s < max(_LEAST_S, _RHYTHMS * self._gap_s):
            return
        missing_s = now_s - self._filled_until_s
        self._filled_until_s = now_s
        self._fill(int(min(missing_s, 3.0) * 1000))
