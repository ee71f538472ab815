"""The batcher of voice activity detection: the windows of all calls, scored in as few requests as possible."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from antiphon.errors import BusyError, ModelError
from antiphon.models.ports import Pcm16
from antiphon.models.scheduler import SchedulerStats, model_error
from antiphon.models.workers import Worker, post

log = logging.getLogger(__name__)

VadCallback = Callable[[float], object]
"""Called on the event loop with the probability 0..1, or NaN when the model failed."""


class BatchingVad(Protocol):
    """The part of a VAD that the scheduler uses; see `ports.Vad`."""

    @property
    def rates_hz(self) -> tuple[int, ...]: ...

    def window_samples(self, rate_hz: int) -> int: ...

    def new_state(self, rate_hz: int) -> Any: ...

    def score(self, windows: Sequence[Pcm16], states: Sequence[Any]) -> Sequence[float]: ...


@dataclass(frozen=True, slots=True)
class VadLimits:
    max_batch: int = 128
    """Windows in one request to the model."""
    gather_s: float = 0.008
    """Between the beginnings of two batches. More saves little more; all of it is latency."""
    hurry_below: int = 8
    """Calls that are not behind: from so many on, one that is hurries nobody."""
    window_s: float = 0.032
    """In which each call that is on has one window: calls are counted by it."""
    max_waiting: int = 4096
    """Windows of all calls in line; one more is refused with BusyError."""
    batch_s: float = 5.0
    """For one request to the model."""
    max_stuck: int = 4
    """Threads left behind in a hanging model before no more are started."""


class VadState:
    """What the VAD remembers of one call at one rate. Opaque to its holder."""

    __slots__ = ("at_work", "inner", "model", "patience", "rate_hz", "waiting")

    def __init__(self, rate_hz: int, *, at_once: bool = False) -> None:
        self.rate_hz = rate_hz
        self.patience = 0 if at_once else 1
        """Windows that may wait for those of other calls; with more, it is behind."""
        self.model: BatchingVad | None = None
        self.inner: Any = None
        self.at_work = False
        self.waiting = 0
        """Windows that were submitted and not yet scored."""


_Pending = tuple[Pcm16, VadState, VadCallback]


class VadBatcher:
    """Voice activity for all calls of the process, on one thread.

    `on_failure` is told of each batch that failed, and how many did so in a row.
    """

    def __init__(
        self,
        limits: VadLimits | None = None,
        on_failure: Callable[[ModelError, int], None] | None = None,
    ) -> None:
        self._limits = limits or VadLimits()
        self._on_failure = on_failure
        self._loop = asyncio.get_running_loop()
        self._model: BatchingVad | None = None
        self._name = "vad"
        self._samples: dict[int, int] = {}
        self._worker: Worker | None = None
        self._left_behind: list[Worker] = []
        self._pending: dict[int, deque[_Pending]] = {}
        self._depth = 0
        self._behind = 0
        """Calls with more windows in line than their patience."""
        self._batch: list[_Pending] = []
        self._batch_since_s = 0.0
        self._calm = self._calm_before = 0
        """Windows of calls that are not behind, in this period of a window's length and in the one before: calls."""
        self._calm_since_s = 0.0
        self._flush_due = False
        self._timer: asyncio.TimerHandle | None = None
        self._idle: asyncio.Future[None] | None = None
        self._last_error = "no vad model is loaded"
        self._closed = False
        self._failed_in_a_row = 0
        self._served = self._failed = self._refused = self._stuck = self._batches = 0

    def use(self, name: str, model: BatchingVad) -> None:
        """Score with this model from the next request on; calls start afresh in it."""
        self._name, self._model = name, model
        self._failed_in_a_row = 0
        self._samples = {rate_hz: model.window_samples(rate_hz) for rate_hz in model.rates_hz}

    @property
    def rates_hz(self) -> tuple[int, ...]:
        """Sample rates that need no resampling."""
        return self._loaded().rates_hz

    def window_samples(self, rate_hz: int) -> int:
        """Samples of one window at this rate."""
        self._check_rate(rate_hz)
        return self._samples[rate_hz]

    def new_state(self, rate_hz: int, *, at_once: bool = False) -> VadState:
        """For one call. Raises ModelError when the model does not take this rate.

        `at_once`: its windows come one by one, each when the one before has been scored.
        """
        self._check_rate(rate_hz)
        return VadState(rate_hz, at_once=at_once)

    def submit(self, window: Pcm16, state: VadState, callback: VadCallback) -> None:
        """Score one window [window_samples(rate)] of a call; `callback` gets the probability later.

        Windows of one state are scored in the order of submission. Raises BusyError when the line
        is full.
        """
        if self._closed:
            raise ModelError(f"{self._name} is shutting down")
        samples = self._samples.get(state.rate_hz)
        if window.shape != (samples,):
            raise ModelError(
                f"{self._name} takes windows of {samples} samples at {state.rate_hz} Hz, "
                f"not {window.shape}"
            )
        if self._depth >= self._limits.max_waiting:
            self._refused += 1
            raise BusyError(f"{self._name}: {self._depth} windows are waiting; allow fewer calls")
        pending = self._pending.get(state.rate_hz)
        if pending is None:
            pending = self._pending[state.rate_hz] = deque()
        pending.append((window, state, callback))
        state.waiting += 1
        self._behind += state.waiting == state.patience + 1
        self._calm += state.waiting <= state.patience
        self._depth += 1
        if not self._batch:
            self._plan_flush()

    async def score(self, window: Pcm16, state: VadState) -> float:
        """Like `submit`, awaited. Raises ModelError when the model failed."""
        scored: asyncio.Future[float] = self._loop.create_future()

        def settle(probability: float) -> None:
            if not scored.done():
                scored.set_result(probability)

        self.submit(window, state, settle)
        # The watch over each batch sees to it that every window is settled.
        probability = await scored
        if math.isnan(probability):
            raise ModelError(self._last_error)
        return probability

    def stats(self) -> SchedulerStats:
        return SchedulerStats(
            depth=self._depth,
            running=len(self._batch),
            waited_ms=0,
            served=self._served,
            cancelled=0,
            failed=self._failed,
            refused=self._refused,
            stuck=self._stuck,
            batches=self._batches,
        )

    async def close(self) -> None:
        """End the present batch and the thread. Windows in line are given up."""
        self._closed = True
        if self._batch:
            self._idle = self._loop.create_future()
            await self._idle  # the watch ends it if the model does not
        self._last_error = f"{self._name} is shutting down"
        for waiting in self._pending.values():
            self._settle(list(waiting), None)
        self._pending.clear()
        self._depth = 0
        if self._timer is not None:
            self._timer.cancel()
        if self._worker is not None:
            self._worker.stop()
            self._worker.join(1.0)
            self._worker = None

    def _loaded(self) -> BatchingVad:
        if self._model is None:
            raise ModelError("no vad model is loaded; name one in the settings")
        return self._model

    def _check_rate(self, rate_hz: int) -> None:
        if rate_hz not in self._loaded().rates_hz:
            known = ", ".join(str(rate) for rate in self.rates_hz)
            raise ModelError(f"{self._name} takes {known} Hz, not {rate_hz}; resample first")

    def _take(self) -> list[_Pending]:
        """The next windows of one rate, at most one of each state, the rates in turn."""
        for rate_hz in list(self._pending):
            waiting = self._pending.pop(rate_hz)
            batch: list[_Pending] = []
            later: list[_Pending] = []
            while waiting and len(batch) < self._limits.max_batch:
                item = waiting.popleft()
                if item[1].at_work:
                    later.append(item)
                else:
                    item[1].at_work = True
                    batch.append(item)
            waiting.extendleft(reversed(later))
            if waiting:
                self._pending[rate_hz] = waiting  # at the end: the other rate goes first next time
            if batch:
                self._depth -= len(batch)
                return batch
        return []

    def _plan_flush(self) -> None:
        if self._flush_due:
            return
        self._flush_due = True
        due_s = self._batch_since_s + self._limits.gather_s
        now_s = self._loop.time()
        if due_s <= now_s or (self._behind and self._calls_on(now_s) < self._limits.hurry_below):
            self._loop.call_soon(self._flush)  # with what else this turn of the loop brings
        else:
            self._loop.call_at(due_s, self._flush)

    def _calls_on(self, now_s: float) -> int:
        """That are not behind, about."""
        passed_s, window_s = now_s - self._calm_since_s, self._limits.window_s
        if passed_s >= window_s:
            self._calm_before = self._calm if passed_s < 2 * window_s else 0
            self._calm, self._calm_since_s = 0, now_s
        return max(self._calm, self._calm_before)

    def _flush(self) -> None:
        self._flush_due = False
        while self._depth and not self._batch and not self._closed:
            batch = self._take()
            try:
                self._send(batch)
            except Exception as error:  # noqa: BLE001 - new_state is the model's
                self._fail(batch, error)

    def _send(self, batch: list[_Pending]) -> None:
        model = self._loaded()
        worker = self._ready_worker()
        rate_hz = batch[0][1].rate_hz
        if batch[0][0].shape != (self._samples.get(rate_hz),):  # the model was replaced
            raise ModelError(f"{self._name} does not take these windows at {rate_hz} Hz")
        for _, state, _ in batch:
            if state.model is not model:
                state.model, state.inner = model, model.new_state(rate_hz)
        self._batch = batch
        self._batch_since_s = self._loop.time()
        if self._timer is None:
            self._timer = self._loop.call_later(self._limits.batch_s, self._watch)
        worker.give(lambda: self._work(model, batch))

    def _ready_worker(self) -> Worker:
        if self._worker is None:
            self._left_behind = [worker for worker in self._left_behind if worker.alive]
            if len(self._left_behind) >= self._limits.max_stuck:
                raise ModelError(f"{self._name} hangs; restart the server")
            self._worker = Worker("antiphon vad")
        return self._worker

    def _work(self, model: BatchingVad, batch: list[_Pending]) -> None:
        """On the thread."""
        scores: list[float] | None = None
        error: BaseException | None = None
        try:
            scores = [
                float(score)
                for score in model.score(
                    [item[0] for item in batch], [item[1].inner for item in batch]
                )
            ]
            if len(scores) != len(batch):
                raise ModelError(f"gave {len(scores)} scores for {len(batch)} windows")
        except BaseException as caught:  # noqa: BLE001 - whatever it is, it belongs to the batch
            error = caught
        post(self._loop, self._scored, batch, scores, error)

    def _scored(
        self, batch: list[_Pending], scores: list[float] | None, error: BaseException | None
    ) -> None:
        if batch is not self._batch:  # it was given up
            return
        self._batch = []
        self._batches += 1
        if error is None:
            self._served += len(batch)
            self._failed_in_a_row = 0
            self._settle(batch, scores)
        else:
            self._fail(batch, error)
        self._next()

    def _next(self) -> None:
        if self._idle is not None:
            if not self._idle.done():
                self._idle.set_result(None)
        elif self._depth and not self._closed:
            self._plan_flush()

    def _fail(self, batch: list[_Pending], error: BaseException) -> None:
        failure = model_error(self._name, error)
        self._last_error = str(failure)
        self._failed += len(batch)
        for _, state, _ in batch:
            state.model = None  # what it remembers may be half written
        self._settle(batch, None)
        if self._on_failure is not None and not self._closed:
            self._failed_in_a_row += 1
            self._on_failure(ModelError(self._last_error), self._failed_in_a_row)

    def _settle(self, batch: list[_Pending], scores: list[float] | None) -> None:
        for index, (_, state, callback) in enumerate(batch):
            state.at_work = False
            self._behind -= state.waiting == state.patience + 1
            state.waiting -= 1
            try:
                callback(math.nan if scores is None else scores[index])
            except Exception:  # one call's fault must not cost the others their windows
                log.exception("a voice activity callback failed")

    def _watch(self) -> None:
        """One timer for all batches: it is cheaper to look now and then than to arm one for each."""
        self._timer = None
        if not self._batch:
            return
        due_s = self._batch_since_s + self._limits.batch_s
        if self._loop.time() < due_s:
            self._timer = self._loop.call_at(due_s, self._watch)
            return
        batch, self._batch = self._batch, []
        if self._worker is not None:
            self._worker.stop()
            self._left_behind.append(self._worker)
            self._worker = None
        self._stuck += 1
        self._fail(batch, ModelError(f"{self._name} gave nothing for {self._limits.batch_s:g} s"))
        self._next()
