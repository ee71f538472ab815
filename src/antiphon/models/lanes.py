"""Lanes: the way in which many calls share one loaded model.

A lane orders requests (`turnstile`), runs them where they belong and guards them with time limits:
blocking back ends on worker threads of the lane (`ThreadLane`), asynchronous ones on the event loop
(`AsyncLane`). A model that hangs costs the request that met it, never the lane: its thread is left
behind and a fresh one goes on.

A lane does not know what is asked of the model, what a call is, or which model would replace this
one. It belongs to one event loop. Voice activity has a lane of its own, `vad_lane`.
"""

from __future__ import annotations

import asyncio
import inspect
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

from antiphon.errors import AntiphonError, BusyError, ModelError, RequestError
from antiphon.models.lane_job import Job, LaneLimits, model_error
from antiphon.models.turnstile import Turnstile, Work
from antiphon.models.workers import Worker, post

__all__ = ["AsyncLane", "Lane", "LaneLimits", "LaneStats", "ThreadLane"]


@dataclass(frozen=True, slots=True)
class LaneStats:
    """A snapshot of a lane's counters since it was opened."""

    depth: int
    """Requests in line now."""
    running: int
    """Requests at work now."""
    waited_ms: int
    """Total time in line of all requests that were let through."""
    served: int
    cancelled: int
    failed: int
    refused: int
    """Turned away because the lane was busy, or the request could not be served as it was."""
    stuck: int
    """Threads left behind because the model did not return."""
    batches: int = 0
    """Voice activity only: how many times the model was asked for the `served` windows."""


class Lane(ABC):
    """What blocking and asynchronous lanes share: the line and the counters."""

    def __init__(self, name: str, places: int, limits: LaneLimits) -> None:
        self.name = name
        """Of the model, for messages: `stt model moonshine`."""
        self._limits = limits
        self._turns = Turnstile(
            name, places=places, max_waiting=limits.max_waiting, wait_s=limits.wait_s
        )
        self._running = 0
        self._served = 0
        self._cancelled = 0
        self._failed = 0
        self._refused = 0
        self._stuck = 0

    async def run(self, ask: Callable[[], Any], work: Work, *, always: bool = False) -> Any:
        """One result. `ask` is called when its turn has come, on a thread or on the loop.

        Cancelling the wait withdraws the request. `always` joins even a full line. Raises
        BusyError, ModelError, or what else of `antiphon.errors` the model raised.
        """
        with self._counting():
            await self._turns.enter(work, always=always)
            return await self._perform(ask)

    async def run_if_idle(self, ask: Callable[[], Any], call_id: str) -> bool:
        """Do what is only worth doing now: dropped (False) when nothing is free at once."""
        if not self._turns.try_enter(call_id):
            return False
        with self._counting():
            await self._perform(ask)
        return True

    async def stream(self, ask: Callable[[], Any], work: Work) -> AsyncGenerator[Any, None]:
        """The items of the iterator that `ask` returns. Closing the stream closes the iterator.

        Raises like `run`, before the first item or after any.
        """
        with self._counting():
            await self._turns.enter(work)
            async with aclosing(self._items(ask)) as items:
                async for item in items:
                    yield item

    def stats(self) -> LaneStats:
        return LaneStats(
            depth=self._turns.waiting,
            running=self._running,
            waited_ms=self._turns.waited_ms,
            served=self._served,
            cancelled=self._cancelled,
            failed=self._failed,
            refused=self._refused,
            stuck=self._stuck,
        )

    @abstractmethod
    async def close(self) -> None:
        """Refuse what waits, end what runs, free the threads. The model itself is not closed."""

    @abstractmethod
    async def _perform(self, ask: Callable[[], Any]) -> Any:
        """One result, with a place already taken; gives the place back."""

    @abstractmethod
    def _items(self, ask: Callable[[], Any]) -> AsyncGenerator[Any, None]:
        """A stream, with a place already taken; gives the place back."""

    @contextmanager
    def _counting(self) -> Iterator[None]:
        try:
            yield
        except (asyncio.CancelledError, GeneratorExit):
            self._cancelled += 1
            raise
        except (BusyError, RequestError):
            self._refused += 1
            raise
        except Exception:
            self._failed += 1
            raise
        self._served += 1


class ThreadLane(Lane):
    """For blocking back ends: `workers` threads, each with one request at a time."""

    def __init__(self, name: str, *, workers: int = 1, limits: LaneLimits | None = None) -> None:
        super().__init__(name, workers, limits or LaneLimits())
        self._thread_name = "antiphon " + name
        self._free = [Worker(self._thread_name) for _ in range(workers)]
        self._left_behind: list[Worker] = []
        self._jobs: set[Job] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    async def close(self) -> None:
        reason = f"{self.name} is shutting down"
        self._turns.close(reason)
        for job in self._jobs:
            job.cancel()
            job.end(ModelError(reason))
        try:
            async with asyncio.timeout(self._limits.close_s):
                await self._idle.wait()
        except TimeoutError:
            self._stuck += len(self._jobs)
        for worker in self._free:
            worker.stop()
        for worker in self._free:
            worker.join(1.0)
        self._free.clear()

    async def _perform(self, ask: Callable[[], Any]) -> Any:
        job = self._start(
            lambda: iter((ask(),)), replace(self._limits, first_s=self._limits.total_s)
        )
        try:
            result, _ = await job.next()
            await job.next()  # the end: from here on the worker is free for whoever asks
            return result
        finally:
            job.cancel()

    async def _items(self, ask: Callable[[], Any]) -> AsyncGenerator[Any, None]:
        job = self._start(ask, self._limits)
        try:
            while True:
                item, more = await job.next()
                if not more:
                    return
                yield item
        finally:
            job.cancel()

    def _start(self, ask: Callable[[], Any], limits: LaneLimits) -> Job:
        self._left_behind = [worker for worker in self._left_behind if worker.alive]
        if len(self._left_behind) >= limits.max_stuck:
            self._turns.leave()
            raise ModelError(
                f"{self.name} hangs in {len(self._left_behind)} threads; restart the server"
            )
        job = Job(ask, limits)
        worker = self._free.pop()
        self._jobs.add(job)
        self._running += 1
        self._idle.clear()
        job.guard(lambda: self._overdue(worker, job))
        worker.give(lambda: self._work(worker, job))
        return job

    def _work(self, worker: Worker, job: Job) -> None:
        """On the worker's thread."""
        error: BaseException | None = None
        try:
            job.work()
        except BaseException as caught:  # noqa: BLE001 - whatever it is, it belongs to the request
            error = caught
        post(job.loop, self._finished, worker, job, error)

    def _finished(self, worker: Worker, job: Job, error: BaseException | None) -> None:
        if job.abandoned:
            return
        job.end(None if error is None else model_error(self.name, error))
        self._free.append(worker)
        self._drop(job)

    def _overdue(self, worker: Worker, job: Job) -> None:
        """A time limit has passed, whether or not anybody still waits for the result."""
        if job.full:  # it is the consumer who does not come; the thread will notice
            job.end(
                RequestError(
                    f"the {self.name.partition(' ')[0]} model stopped: nobody took what it made"
                )
            )
            job.cancel()
            job.guard_again()
            return
        job.abandoned = True
        job.end(ModelError(f"{self.name} gave nothing for {job.silent_s:.1f} s"))
        job.cancel()
        worker.stop()
        self._left_behind.append(worker)
        self._stuck += 1
        self._free.append(Worker(self._thread_name))
        self._drop(job)

    def _drop(self, job: Job) -> None:
        job.unguard()
        self._jobs.discard(job)
        self._running -= 1
        if not self._jobs:
            self._idle.set()
        self._turns.leave()


class AsyncLane(Lane):
    """For back ends that only wait for a network: up to `places` requests on the event loop."""

    def __init__(self, name: str, *, places: int = 64, limits: LaneLimits | None = None) -> None:
        super().__init__(name, places, limits or LaneLimits())

    async def close(self) -> None:
        """Requests at work belong to their callers' tasks, and end with them."""
        self._turns.close(f"{self.name} is shutting down")

    async def _perform(self, ask: Callable[[], Any]) -> Any:
        with self._place():
            return await self._limited(ask, self._limits.total_s)

    async def _items(self, ask: Callable[[], Any]) -> AsyncGenerator[Any, None]:
        with self._place():
            loop = asyncio.get_running_loop()
            items = await self._limited(lambda: aiter(ask()), self._limits.first_s)
            left_s, step_s = self._limits.total_s, self._limits.first_s
            try:
                while True:
                    asked_s = loop.time()
                    try:
                        item = await self._limited(lambda: anext(items), min(step_s, left_s))
                    except StopAsyncIteration:
                        return
                    # Only the model's own time counts, not that of a slow consumer.
                    left_s -= loop.time() - asked_s
                    step_s = self._limits.next_s
                    yield item
            finally:
                if hasattr(items, "aclose"):
                    with suppress(ModelError):
                        await self._limited(items.aclose, self._limits.close_s)

    async def _limited(self, ask: Callable[[], Any], limit_s: float) -> Any:
        limit = asyncio.timeout(limit_s)
        try:
            async with limit:
                asked = ask()
                return await asked if inspect.isawaitable(asked) else asked
        except (StopAsyncIteration, AntiphonError):
            raise
        except Exception as error:
            if limit.expired():
                raise ModelError(f"{self.name} gave nothing for {limit_s:.1f} s") from None
            raise model_error(self.name, error) from error

    @contextmanager
    def _place(self) -> Iterator[None]:
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1
            self._turns.leave()
