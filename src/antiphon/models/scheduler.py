"""Schedulers: the way in which many calls share one loaded model.

This module does not know which thread works on it, nor what follows when a limit has passed.

A scheduler orders requests (`turnstile`), runs them where they belong and guards them with time limits:
blocking back ends on worker threads of the scheduler (`ThreadScheduler`), asynchronous ones on the event loop
(`AsyncScheduler`). A model that hangs costs the request that met it, never the scheduler: its thread is left
behind and a fresh one goes on.

A scheduler does not know what is asked of the model, what a call is, or which model would replace this
one. It belongs to one event loop. Voice activity has a scheduler of its own, `vad_lane`.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

from antiphon.errors import AntiphonError, BusyError, ModelError, RequestError
from antiphon.models.fair_queue import FairQueue, Work
from antiphon.models.workers import Worker, post


@dataclass(frozen=True, slots=True)
class SchedulerLimits:
    """Sizes and time limits of a scheduler."""

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
    """For the requests at work when the scheduler is closed."""
    max_stuck: int = 4
    """Threads left behind in a hanging model before the scheduler refuses to start more."""


def model_error(name: str, error: BaseException) -> AntiphonError:
    """What a model raised, as an error of ours that names the model."""
    if isinstance(error, AntiphonError):
        return error
    lines = str(error).strip().splitlines()
    reason = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    wrapped = ModelError(f"{name} failed: {reason}")
    wrapped.__cause__ = error
    return wrapped


class ThreadJob:
    """One request at work on a thread: how its items reach the loop, and how it is told to stop.

    All of it belongs to the loop's thread but `work`, and what `work` looks at.
    """

    def __init__(self, ask: Callable[[], Any], limits: SchedulerLimits) -> None:
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


__all__ = ["AsyncScheduler", "Scheduler", "SchedulerLimits", "SchedulerStats", "ThreadScheduler"]


@dataclass(frozen=True, slots=True)
class SchedulerStats:
    """A snapshot of a scheduler's counters since it was opened."""

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
    """Turned away because the scheduler was busy, or the request could not be served as it was."""
    stuck: int
    """Threads left behind because the model did not return."""
    batches: int = 0
    """Voice activity only: how many times the model was asked for the `served` windows."""


class Scheduler(ABC):
    """What blocking and asynchronous schedulers share: the line and the counters."""

    def __init__(self, name: str, places: int, limits: SchedulerLimits) -> None:
        self.name = name
        """Of the model, for messages: `stt model moonshine`."""
        self._limits = limits
        self._turns = FairQueue(
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

    def stats(self) -> SchedulerStats:
        return SchedulerStats(
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


class ThreadScheduler(Scheduler):
    """For blocking back ends: `workers` threads, each with one request at a time."""

    def __init__(
        self, name: str, *, workers: int = 1, limits: SchedulerLimits | None = None
    ) -> None:
        super().__init__(name, workers, limits or SchedulerLimits())
        self._thread_name = "antiphon " + name
        self._free = [Worker(self._thread_name) for _ in range(workers)]
        self._left_behind: list[Worker] = []
        self._jobs: set[ThreadJob] = set()
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

    def _start(self, ask: Callable[[], Any], limits: SchedulerLimits) -> ThreadJob:
        self._left_behind = [worker for worker in self._left_behind if worker.alive]
        if len(self._left_behind) >= limits.max_stuck:
            self._turns.leave()
            raise ModelError(
                f"{self.name} hangs in {len(self._left_behind)} threads; restart the server"
            )
        job = ThreadJob(ask, limits)
        worker = self._free.pop()
        self._jobs.add(job)
        self._running += 1
        self._idle.clear()
        job.guard(lambda: self._overdue(worker, job))
        worker.give(lambda: self._work(worker, job))
        return job

    def _work(self, worker: Worker, job: ThreadJob) -> None:
        """On the worker's thread."""
        error: BaseException | None = None
        try:
            job.work()
        except BaseException as caught:  # noqa: BLE001 - whatever it is, it belongs to the request
            error = caught
        post(job.loop, self._finished, worker, job, error)

    def _finished(self, worker: Worker, job: ThreadJob, error: BaseException | None) -> None:
        if job.abandoned:
            return
        job.end(None if error is None else model_error(self.name, error))
        self._free.append(worker)
        self._drop(job)

    def _overdue(self, worker: Worker, job: ThreadJob) -> None:
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

    def _drop(self, job: ThreadJob) -> None:
        job.unguard()
        self._jobs.discard(job)
        self._running -= 1
        if not self._jobs:
            self._idle.set()
        self._turns.leave()


class AsyncScheduler(Scheduler):
    """For back ends that only wait for a network: up to `places` requests on the event loop."""

    def __init__(
        self, name: str, *, places: int = 64, limits: SchedulerLimits | None = None
    ) -> None:
        super().__init__(name, places, limits or SchedulerLimits())

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
