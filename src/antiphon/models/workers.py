"""Threads that models work on. They never keep the process alive, and never use asyncio's own
executor.

This module does not know models, calls or queues.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")


class Worker:
    """One daemon thread that does one job after another. A job must not raise."""

    def __init__(self, name: str) -> None:
        self._inbox: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def give(self, job: Callable[[], None]) -> None:
        self._inbox.put(job)

    def stop(self) -> None:
        """End the thread after its present job, whenever that returns."""
        self._inbox.put(None)

    def join(self, timeout_s: float) -> None:
        self._thread.join(timeout_s)

    def _main(self) -> None:
        while (job := self._inbox.get()) is not None:
            job()
            del job  # audio and history must not live on until the next request


def post(loop: asyncio.AbstractEventLoop, callback: Callable[..., object], *arguments: Any) -> None:
    """Call on the loop from a thread. A loop that is closed has no use for it any more."""
    try:
        loop.call_soon_threadsafe(callback, *arguments)
    except RuntimeError:
        if not loop.is_closed():
            raise


async def run_in_thread(function: Callable[[], T], *, name: str, timeout_s: float) -> T:
    """The result of a blocking function, called on a fresh thread.

    Raises TimeoutError; the thread is then left behind. So it is when the wait is cancelled.
    """
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if outcome.done():
            return
        if error is not None:
            outcome.set_exception(error)
        else:
            outcome.set_result(result)  # type: ignore[arg-type]

    def job() -> None:
        try:
            result = function()
        except BaseException as error:  # noqa: BLE001 - handed to whoever waits
            if isinstance(error, StopIteration):  # a Future refuses it
                error = RuntimeError("StopIteration")
            post(loop, settle, None, error)
        else:
            post(loop, settle, result, None)

    worker = Worker(name)
    worker.give(job)
    worker.stop()
    try:
        async with asyncio.timeout(timeout_s):
            return await outcome
    finally:
        if outcome.done() and not outcome.cancelled():
            worker.join(1.0)
