"""One request on a thread of a lane: its items on their way to the event loop, and its time limits.

This module does not know which thread works on it, nor what follows when a limit has passed.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from antiphon.errors import AntiphonError, ModelError
from antiphon.models.workers import post


@dataclass(frozen=True, slots=True)
class LaneLimits:
    """Sizes and time limits of a lane."""

    max_waiting: int = 64
    """Requests in line; one more is refused with BusyError."""
    wait_s: float = 30.0
    """In line, before a request is refused with BusyError."""
    first_s: float = 30.0
    """From the start of the work to the first item of a stream."""
    next_s: float = 20.0
    """From one item to the next."""
    total_s: float = 120.0
    """For the whole of a stream, and for a request with a single result."""
    buffer_items: int = 256
    """Items of a stream that wait for their consumer before the model has to wait."""
    close_s: float = 5.0
    """For the requests at work when the lane is closed."""
    max_stuck: int = 4
    """Threads left behind in a hanging model before the lane refuses to start more."""


def model_error(name: str, error: BaseException) -> AntiphonError:
    """What a model raised, as an error of ours that names the model."""
    if isinstance(error, AntiphonError):
        return error
    lines = str(error).strip().splitlines()
    reason = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    wrapped = ModelError(f"{name} failed: {reason}")
    wrapped.__cause__ = error
    return wrapped


class Job:
    """One request at work on a thread: how its items reach the loop, and how it is told to stop.

    All of it belongs to the loop's thread but `work`, and what `work` looks at.
    """

    def __init__(self, ask: Callable[[], Any], limits: LaneLimits) -> None:
        self._ask = ask
        self._limits = limits
        self.loop = asyncio.get_running_loop()
        self._started_s = self._progressed_s = self.loop.time()
        self._timer: asyncio.TimerHandle | None = None
        self._overdue: Callable[[], None] | None = None
        self.abandoned = False
        self._cancelled = threading.Event()
        self._room = threading.Semaphore(limits.buffer_items - 1)
        self._items: deque[Any] = deque()
        self._count = 0
        self._ended = False
        self._error: AntiphonError | None = None
        self._wake: asyncio.Future[None] | None = None

    @property
    def full(self) -> bool:
        """The model waits for the consumer, not the consumer for the model."""
        return len(self._items) >= self._limits.buffer_items

    @property
    def silent_s(self) -> float:
        """Since it last gave something, or began."""
        return self.loop.time() - self._progressed_s

    def guard(self, overdue: Callable[[], None]) -> None:
        """Call `overdue` when the model has taken too long, once."""
        self._overdue = overdue
        self._arm()

    def guard_again(self) -> None:
        """With all limits counted from now."""
        self._started_s = self._progressed_s = self.loop.time()
        self._arm()

    def unguard(self) -> None:
        self._overdue = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def put(self, item: Any) -> None:
        self._count += 1
        self._progressed_s = self.loop.time()
        if not self._cancelled.is_set():
            self._items.append(item)
            self._notify()
        self._arm()

    def end(self, error: AntiphonError | None) -> None:
        if not self._ended:
            self._ended, self._error = True, error
            self._notify()

    def cancel(self) -> None:
        """The thread stops at its next item; nothing more reaches the consumer."""
        self._cancelled.set()
        self._items.clear()
        self._room.release()

    async def next(self) -> tuple[Any, bool]:
        """(item, True), or (None, False) at the end. Raises what ended the request."""
        while not self._items:
            if self._ended:
                if self._error is not None:
                    raise self._error
                return None, False
            self._wake = self.loop.create_future()
            try:
                await self._wake
            finally:
                self._wake = None
        was_full = self.full
        item = self._items.popleft()
        self._room.release()
        if was_full:  # now it is the model's turn again
            self._progressed_s = self.loop.time()
            self._arm()
        return item, True

    def _notify(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    def _due_s(self) -> float:
        """When the model will have taken too long, unless something happens until then."""
        total_s = self._started_s + self._limits.total_s
        if self.full:
            return total_s
        step_s = self._limits.next_s if self._count else self._limits.first_s
        return min(total_s, self._progressed_s + step_s)

    def _arm(self) -> None:
        """A timer that rings too early is cheaper than one that is set anew at every item."""
        if self._overdue is None:
            return
        due_s = self._due_s()
        if self._timer is not None:
            if self._timer.when() <= due_s:
                return
            self._timer.cancel()
        self._timer = self.loop.call_at(due_s, self._ring)

    def _ring(self) -> None:
        self._timer = None
        if self.loop.time() < self._due_s():
            self._arm()
        elif self._overdue is not None:
            self._overdue()

    def work(self) -> None:
        """On the thread: give out the items one by one, waiting while the buffer is full."""
        if self._cancelled.is_set():
            return
        items = self._ask()
        try:
            for item in items:
                post(self.loop, self.put, item)
                self._room.acquire()
                if self._cancelled.is_set():
                    break
        finally:
            close = getattr(items, "close", None)
            if callable(close):
                close()
