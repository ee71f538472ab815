"""Event loops of benches: one that is told to end (SIGTERM) cancels its work and leaves, whatever runs just then.

An exception raised in a signal handler will not do: event loops catch what their callbacks raise, so it can be lost.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run it to its end. Raises SystemExit when the process is told to end meanwhile."""
    return _run(main, asyncio.run)


def run_fast(main: Coroutine[Any, Any, T]) -> T:
    """The same on the fastest event loop there is: the driver must cost less than what it drives."""
    try:
        import uvloop
    except ImportError:
        return run(main)
    return _run(main, uvloop.run)


def _run(main: Coroutine[Any, Any, T], runner: Any) -> T:
    told = False

    async def watched() -> T:
        task = asyncio.current_task()
        assert task is not None

        def end() -> None:
            nonlocal told
            told = True
            task.cancel()

        loop, before = asyncio.get_running_loop(), signal.getsignal(signal.SIGTERM)
        loop.add_signal_handler(signal.SIGTERM, end)
        try:
            return await main
        finally:
            loop.remove_signal_handler(signal.SIGTERM)
            signal.signal(signal.SIGTERM, before)

    try:
        done: T = runner(watched())
    except asyncio.CancelledError:
        if told:
            sys.exit(128 + signal.SIGTERM)
        raise
    return done
