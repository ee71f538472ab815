"""Schedulers with real threads: who is next, cancellation, hanging models, streams, batches of voice
activity.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing
from typing import Any

import numpy as np
import pytest

from antiphon.errors import AudioError, BusyError, ModelError, RequestError
from antiphon.models.fair_queue import FairQueue, Work
from antiphon.models.ports import Pcm16
from antiphon.models.scheduler import AsyncScheduler, SchedulerLimits, ThreadScheduler
from antiphon.models.vad_batcher import VadBatcher, VadLimits
from antiphon.models.workers import run_in_thread

PATIENCE_S = 20.0
"""A test that would hang fails after this long."""


def run(test: Callable[[], Awaitable[None]]) -> None:
    """The test on a loop; no thread and no task of it may be left."""

    async def guarded() -> None:
        await asyncio.wait_for(test(), PATIENCE_S)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left

    before = set(threading.enumerate())
    asyncio.run(guarded())
    assert not [thread for thread in threading.enumerate() if thread not in before]


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop turn until something on it has happened."""
    while not condition():  # noqa: ASYNC110 - the condition has no event to wait for
        await asyncio.sleep(0)


async def wait_for(event: threading.Event) -> None:
    await run_in_thread(lambda: event.wait(PATIENCE_S), name="test wait", timeout_s=PATIENCE_S)
    assert event.is_set()


async def take(stream: AsyncIterator[Any], taken: list[Any]) -> None:
    async for item in stream:
        taken.append(item)


class Gate:
    """A blocking piece of work that says when it has begun, and ends when it is let."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.may_end = threading.Event()

    def __call__(self) -> str:
        self.begun.set()
        assert self.may_end.wait(PATIENCE_S)
        return "done"


# --- who is next ---------------------------------------------------------------------------------


def test_the_earliest_deadline_goes_first_then_the_call_with_less_recent_work() -> None:
    async def test() -> None:
        turns = FairQueue("t", places=1, max_waiting=10, wait_s=PATIENCE_S)
        order: list[str] = []

        async def visit(name: str, call_id: str, deadline_ms: int) -> None:
            await turns.enter(Work(call_id, deadline_ms))
            order.append(name)
            turns.leave()

        assert turns.try_enter("busy")
        visits = [
            visit("late", "a", 900),
            visit("busy again", "busy", 500),
            visit("fresh", "b", 500),
            visit("fresh too", "c", 500),
            visit("first", "busy", 100),
        ]
        tasks = [asyncio.create_task(each) for each in visits]
        await until(lambda: turns.waiting == 5)
        assert not turns.try_enter("x")
        turns.leave()
        await asyncio.gather(*tasks)
        assert order == ["first", "fresh", "fresh too", "busy again", "late"]

    run(test)


def test_fairness_forgets_the_past() -> None:
    async def test() -> None:
        turns = FairQueue("t", places=1, max_waiting=10, wait_s=PATIENCE_S)
        for number in range(1000):
            await turns.enter(Work(f"call {number % 200}"))
            turns.leave()
        assert len(turns._recent) <= 64

    run(test)


def test_a_cancelled_wait_gives_up_its_place_even_if_it_was_just_given() -> None:
    async def test() -> None:
        turns = FairQueue("t", places=1, max_waiting=10, wait_s=PATIENCE_S)
        assert turns.try_enter("a")
        waiting = asyncio.create_task(turns.enter(Work("b")))
        await until(lambda: turns.waiting == 1)
        waiting.cancel()
        await asyncio.wait([waiting])
        assert turns.waiting == 0
        given = asyncio.create_task(turns.enter(Work("c")))
        await until(lambda: turns.waiting == 1)
        turns.leave()
        given.cancel()
        await asyncio.wait([given])
        assert turns.try_enter("d")

    run(test)


# --- blocking models -----------------------------------------------------------------------------


def test_a_full_lane_and_a_long_wait_are_refused() -> None:
    async def test() -> None:
        scheduler = ThreadScheduler(
            "stt model s", limits=SchedulerLimits(max_waiting=1, wait_s=0.01)
        )
        gate = Gate()
        first = asyncio.create_task(scheduler.run(gate, Work("a")))
        await wait_for(gate.begun)
        second = asyncio.create_task(scheduler.run(lambda: "second", Work("b")))
        await until(lambda: scheduler.stats().depth == 1)
        with pytest.raises(BusyError, match="1 requests are waiting"):
            await scheduler.run(lambda: "third", Work("c"))
        with pytest.raises(BusyError, match="stt model s: no time for this request"):
            await second
        gate.may_end.set()
        assert await first == "done"
        assert scheduler.stats().refused == 2
        assert scheduler.stats().served == 1
        await scheduler.close()

    run(test)


def test_a_request_cancelled_in_line_never_runs() -> None:
    async def test() -> None:
        scheduler = ThreadScheduler("m")
        gate, ran = Gate(), threading.Event()
        first = asyncio.create_task(scheduler.run(gate, Work("a")))
        second = asyncio.create_task(scheduler.run(ran.set, Work("b")))
        await wait_for(gate.begun)
        await until(lambda: scheduler.stats().depth == 1)
        second.cancel()
        await asyncio.wait([second])
        gate.may_end.set()
        assert await first == "done"
        assert await scheduler.run(lambda: "third", Work("c")) == "third"
        assert not ran.is_set()
        assert scheduler.stats().cancelled == 1
        await scheduler.close()

    run(test)


def test_a_request_cancelled_at_work_keeps_its_thread_only_until_it_returns() -> None:
    async def test() -> None:
        scheduler = ThreadScheduler("m")
        gate = Gate()
        first = asyncio.create_task(scheduler.run(gate, Work("a")))
        await wait_for(gate.begun)
        first.cancel()
        await asyncio.wait([first])
        assert first.cancelled()
        after = asyncio.create_task(scheduler.run(threading.get_ident, Work("b")))
        await until(lambda: scheduler.stats().depth == 1)
        gate.may_end.set()
        assert await after != threading.get_ident()
        assert scheduler.stats().cancelled == 1
        await scheduler.close()

    run(test)


def test_errors_name_the_model_and_ours_pass_unchanged() -> None:
    async def test() -> None:
        scheduler = ThreadScheduler("llm model x")

        def breaks() -> None:
            raise ValueError("bad\nvalue")

        def refuses() -> None:
            raise AudioError("no audio in it")

        def exits() -> None:
            raise SystemExit(3)

        with pytest.raises(ModelError, match=r"^llm model x failed: ValueError: bad$"):
            await scheduler.run(breaks, Work("a"))
        with pytest.raises(AudioError, match=r"^no audio in it$"):
            await scheduler.run(refuses, Work("a"))
        with pytest.raises(ModelError, match="SystemExit: 3"):
            await scheduler.run(exits, Work("a"))
        assert await scheduler.run(lambda: 1, Work("a")) == 1
        assert scheduler.stats().failed == 3
        await scheduler.close()

    run(test)


def test_a_model_that_hangs_costs_its_request_and_not_the_lane() -> None:
    gates: list[Gate] = []

    async def test() -> None:
        scheduler = ThreadScheduler(
            "stt model h", limits=SchedulerLimits(total_s=0.01, max_stuck=2)
        )
        for _ in range(2):
            gates.append(Gate())
            with pytest.raises(ModelError, match=r"stt model h gave nothing for 0\.0 s"):
                await scheduler.run(gates[-1], Work("a"))
        assert scheduler.stats().stuck == 2
        with pytest.raises(ModelError, match="hangs in 2 threads; restart"):
            await scheduler.run(lambda: 1, Work("a"))
        scheduler._limits = SchedulerLimits(max_stuck=2)
        for gate in gates:
            gate.may_end.set()
        for worker in scheduler._left_behind:
            worker.join(PATIENCE_S)
        assert await scheduler.run(lambda: 1, Work("a")) == 1
        await scheduler.close()

    run(test)


def test_a_hanging_request_that_nobody_waits_for_is_found_too() -> None:
    gate = Gate()

    async def test() -> None:
        scheduler = ThreadScheduler("m", limits=SchedulerLimits(total_s=0.05))
        first = asyncio.create_task(scheduler.run(gate, Work("a")))
        await wait_for(gate.begun)
        first.cancel()
        scheduler._limits = SchedulerLimits()
        assert await scheduler.run(lambda: 1, Work("b")) == 1
        assert scheduler.stats().stuck == 1
        gate.may_end.set()
        for worker in scheduler._left_behind:
            worker.join(PATIENCE_S)
        await scheduler.close()

    run(test)


def test_what_is_only_worth_doing_now_is_dropped_when_the_lane_is_busy() -> None:
    async def test() -> None:
        scheduler = ThreadScheduler("m")
        gate, ran = Gate(), threading.Event()
        first = asyncio.create_task(scheduler.run(gate, Work("a")))
        await wait_for(gate.begun)
        assert not await scheduler.run_if_idle(ran.set, "a")
        gate.may_end.set()
        await first
        assert not ran.is_set()
        assert await scheduler.run_if_idle(ran.set, "a")
        assert ran.is_set()
        await scheduler.close()

    run(test)


def test_several_workers_run_at_once() -> None:
    async def test() -> None:
        scheduler = ThreadScheduler("m", workers=3)
        together = threading.Barrier(3, timeout=PATIENCE_S)
        await asyncio.gather(*(scheduler.run(together.wait, Work(str(n))) for n in range(3)))
        await scheduler.close()

    run(test)


def test_closing_a_lane_refuses_what_waits_and_ends_what_runs() -> None:
    async def test() -> None:
        scheduler = ThreadScheduler("m")
        gate = Gate()
        running = asyncio.create_task(scheduler.run(gate, Work("a")))
        waiting = asyncio.create_task(scheduler.run(lambda: 1, Work("b")))
        await wait_for(gate.begun)
        await until(lambda: scheduler.stats().depth == 1)
        closing = asyncio.create_task(scheduler.close())
        for task in (running, waiting):
            with pytest.raises(ModelError, match="shutting down"):
                await task
        gate.may_end.set()
        await closing
        with pytest.raises(ModelError, match="shutting down"):
            await scheduler.run(lambda: 1, Work("c"))

    run(test)


# --- streams -------------------------------------------------------------------------------------


class Source:
    """A stream of numbers that says how far it is, and whether it was closed."""

    def __init__(self, count: int = 1_000_000) -> None:
        self.count = count
        self.given = 0
        self.closed = threading.Event()

    def __call__(self) -> Iterator[int]:
        try:
            for number in range(self.count):
                self.given += 1
                yield number
        finally:
            self.closed.set()


def test_a_stream_arrives_in_order_and_ends() -> None:
    async def test() -> None:
        scheduler = ThreadScheduler("m")
        source = Source(1_000)
        items = [item async for item in scheduler.stream(source, Work("a"))]
        assert items == list(range(1_000))
        assert source.closed.is_set()
        assert scheduler.stats().served == 1
        await scheduler.close()

    run(test)


def test_a_slow_consumer_makes_the_model_wait_and_closing_lets_it_go() -> None:
    async def test() -> None:
        scheduler = ThreadScheduler("m", limits=SchedulerLimits(buffer_items=4))
        source = Source()
        async with aclosing(scheduler.stream(source, Work("a"))) as items:
            assert await anext(items) == 0
            await until(lambda: source.given >= 4)
            assert source.given <= 6
        await wait_for(source.closed)
        assert source.given <= 7
        assert scheduler.stats().cancelled == 1
        assert await scheduler.run(lambda: 1, Work("b")) == 1
        await scheduler.close()

    run(test)


def test_cancelling_the_task_that_reads_a_stream_closes_it_after_its_present_item() -> None:
    async def test() -> None:
        scheduler = ThreadScheduler("m")
        gate, closed = Gate(), threading.Event()

        def slow() -> Iterator[str]:
            try:
                yield "first"
                yield gate()
                yield "never"
            finally:
                closed.set()

        taken: list[str] = []

        async def read() -> None:
            await take(scheduler.stream(slow, Work("a")), taken)

        reading = asyncio.create_task(read())
        await wait_for(gate.begun)
        await until(lambda: bool(taken))
        reading.cancel()
        await asyncio.wait([reading])
        gate.may_end.set()
        await wait_for(closed)
        assert taken == ["first"]
        await scheduler.close()

    run(test)


def test_a_stream_may_fail_after_some_items() -> None:
    async def test() -> None:
        scheduler = ThreadScheduler("m")

        def breaks() -> Iterator[int]:
            yield 1
            raise ValueError("broken")

        taken: list[Any] = []
        with pytest.raises(ModelError, match="m failed: ValueError: broken"):
            await take(scheduler.stream(breaks, Work("a")), taken)
        assert taken == [1]
        assert scheduler.stats().failed == 1
        await scheduler.close()

    run(test)


def test_a_stream_that_hangs_between_two_items_is_given_up() -> None:
    gate = Gate()

    async def test() -> None:
        scheduler = ThreadScheduler("m", limits=SchedulerLimits(next_s=0.01))

        def hangs() -> Iterator[str]:
            yield "first"
            yield gate()

        taken: list[Any] = []
        with pytest.raises(ModelError, match="gave nothing for"):
            await take(scheduler.stream(hangs, Work("a")), taken)
        assert taken == ["first"]
        assert await scheduler.run(lambda: 1, Work("b")) == 1
        gate.may_end.set()
        for worker in scheduler._left_behind:
            worker.join(PATIENCE_S)
        await scheduler.close()

    run(test)


def test_a_consumer_that_never_comes_back_does_not_hold_the_lane_for_ever() -> None:
    async def test() -> None:
        scheduler = ThreadScheduler("m", limits=SchedulerLimits(buffer_items=2, total_s=0.5))
        source = Source()
        stream = scheduler.stream(source, Work("a"))
        assert await anext(stream) == 0
        scheduler._limits = SchedulerLimits()
        assert await scheduler.run(lambda: 1, Work("b")) == 1
        assert source.closed.is_set()
        assert scheduler.stats().stuck == 0
        with pytest.raises(RequestError, match="nobody took what it made"):
            await anext(stream)
        await scheduler.close()

    run(test)


# --- asynchronous models -------------------------------------------------------------------------


def test_asynchronous_work_runs_on_the_loop_as_many_at_once_as_there_are_places() -> None:
    async def test() -> None:
        scheduler = AsyncScheduler("m", places=2)
        go, running, most = asyncio.Event(), 0, 0

        async def work() -> int:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await go.wait()
            running -= 1
            return threading.get_ident()

        tasks = [asyncio.create_task(scheduler.run(work, Work(str(n)))) for n in range(5)]
        await until(lambda: scheduler.stats().depth == 3)
        go.set()
        assert set(await asyncio.gather(*tasks)) == {threading.get_ident()}
        assert most == 2
        assert scheduler.stats().served == 5
        await scheduler.close()

    run(test)


def test_asynchronous_streams_have_limits_and_are_closed() -> None:
    async def test() -> None:
        scheduler = AsyncScheduler("llm model net", places=1, limits=SchedulerLimits(next_s=0.01))
        closed = []

        async def hangs() -> AsyncIterator[str]:
            try:
                yield "first"
                await asyncio.Event().wait()
            finally:
                closed.append(True)

        taken: list[Any] = []
        with pytest.raises(ModelError, match=r"llm model net gave nothing for 0\.0 s"):
            await take(scheduler.stream(hangs, Work("a")), taken)
        assert taken == ["first"]
        async with aclosing(scheduler.stream(hangs, Work("a"))) as items:
            assert await anext(items) == "first"
        assert closed == [True, True]
        assert scheduler.stats().running == 0
        await scheduler.close()

    run(test)


def test_asynchronous_errors_name_the_model() -> None:
    async def test() -> None:
        scheduler = AsyncScheduler("m")

        async def breaks() -> None:
            raise TimeoutError("its own")

        def at_once() -> None:
            raise ValueError("at once")

        with pytest.raises(ModelError, match="m failed: TimeoutError: its own"):
            await scheduler.run(breaks, Work("a"))
        with pytest.raises(ModelError, match="m failed: ValueError: at once"):
            await scheduler.run(at_once, Work("a"))
        await scheduler.close()

    run(test)


# --- voice activity ------------------------------------------------------------------------------


class Counting:
    """Scores how many windows a state has seen; may be held up, or broken."""

    rates_hz = (8_000, 16_000)

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.held = threading.Event()
        self.held.set()
        self.begun = threading.Event()
        self.broken = False

    def window_samples(self, rate_hz: int) -> int:
        return rate_hz * 32 // 1000

    def new_state(self, rate_hz: int) -> list[int]:
        return [0]

    def score(self, windows: Sequence[Pcm16], states: Sequence[Any]) -> Sequence[float]:
        self.begun.set()
        assert self.held.wait(PATIENCE_S)
        if self.broken:
            raise ValueError("broken")
        self.batches.append([window.size for window in windows])
        for state in states:
            state[0] += 1
        return [state[0] / 100 for state in states]


def _windows(rate_hz: int = 8_000) -> Pcm16:
    return np.zeros(rate_hz * 32 // 1000, np.int16)


def test_windows_of_all_calls_that_arrive_together_are_one_request() -> None:
    async def test() -> None:
        model, scheduler = Counting(), VadBatcher()
        scheduler.use("vad model c", model)
        assert scheduler.window_samples(8_000) == 256
        states = [scheduler.new_state(8_000) for _ in range(200)]
        scores = await asyncio.gather(*(scheduler.score(_windows(), state) for state in states))
        assert scores == [0.01] * 200
        assert [len(batch) for batch in model.batches] == [128, 72]
        assert scheduler.stats().served == 200
        assert scheduler.stats().batches == 2
        await scheduler.close()

    run(test)


def test_windows_soon_after_a_batch_wait_for_each_other() -> None:
    async def test() -> None:
        model, scheduler = Counting(), VadBatcher(VadLimits(gather_s=0.5))
        scheduler.use("c", model)
        await scheduler.score(_windows(), scheduler.new_state(8_000))  # the first one does not wait
        later = [asyncio.create_task(scheduler.score(_windows(), scheduler.new_state(8_000)))]
        await until(lambda: scheduler.stats().depth == 1)
        later.append(asyncio.create_task(scheduler.score(_windows(), scheduler.new_state(8_000))))
        await asyncio.wait(later)
        assert [len(batch) for batch in model.batches] == [1, 2]
        await scheduler.close()

    run(test)


def test_a_call_that_is_behind_does_not_wait() -> None:
    """A recording of an hour must not take 8 ms a window."""

    async def test() -> None:
        model, scheduler = Counting(), VadBatcher(VadLimits(gather_s=PATIENCE_S))
        scheduler.use("c", model)
        state = scheduler.new_state(8_000)
        got: list[float] = []
        for _ in range(200):
            scheduler.submit(_windows(), state, got.append)
        await until(lambda: len(got) >= 199)
        assert [len(batch) for batch in model.batches[:199]] == [1] * 199
        await scheduler.close()

    run(test)


def test_a_call_that_is_behind_hurries_nobody_where_many_are_on() -> None:
    """A flood has one window in each batch of the others, and makes no batches of its own."""

    async def test() -> None:
        limits = VadLimits(gather_s=0.02, window_s=PATIENCE_S)
        model, scheduler, loop = Counting(), VadBatcher(limits), asyncio.get_running_loop()
        scheduler.use("c", model)
        flood, others = scheduler.new_state(8_000), [scheduler.new_state(8_000) for _ in range(20)]
        flooded: list[float] = []
        got: list[float] = []
        for _ in range(500):
            scheduler.submit(_windows(), flood, flooded.append)
        for round_ in range(1, 11):
            for state in others:
                scheduler.submit(_windows(), state, got.append)
            await until(lambda due=20 * round_: len(got) >= due)  # type: ignore[misc]
        carrying = [len(batch) for batch in model.batches if len(batch) > 1]
        assert carrying == [21] * 10  # one of the flood beside one of each other call
        began_s, before = loop.time(), len(flooded)
        await until(lambda: len(flooded) >= before + 6)
        assert loop.time() - began_s >= 4 * limits.gather_s  # alone, no sooner than they are due
        assert set(map(len, model.batches[len(carrying) :])) <= {1, 21}
        await scheduler.close()

    run(test)


def test_a_batch_has_one_rate_and_one_window_of_a_call() -> None:
    async def test() -> None:
        model, scheduler = Counting(), VadBatcher()
        scheduler.use("c", model)
        slow, fast = scheduler.new_state(8_000), scheduler.new_state(16_000)
        got: list[tuple[str, float]] = []
        for _ in range(2):
            scheduler.submit(_windows(), slow, lambda score: got.append(("slow", score)))
            scheduler.submit(_windows(16_000), fast, lambda score: got.append(("fast", score)))
        await until(lambda: len(got) == 4)
        assert sorted(got) == [("fast", 0.01), ("fast", 0.02), ("slow", 0.01), ("slow", 0.02)]
        assert model.batches == [[256], [512], [256], [512]]
        await scheduler.close()

    run(test)


def test_windows_that_arrive_while_the_model_works_wait_for_the_next_request() -> None:
    async def test() -> None:
        model, scheduler = Counting(), VadBatcher(VadLimits(max_waiting=3))
        scheduler.use("c", model)
        model.held.clear()
        scores = [asyncio.create_task(scheduler.score(_windows(), scheduler.new_state(8_000)))]
        await wait_for(model.begun)
        for _ in range(3):
            scores.append(
                asyncio.create_task(scheduler.score(_windows(), scheduler.new_state(8_000)))
            )
        await until(lambda: scheduler.stats().depth == 3)
        with pytest.raises(BusyError, match="3 windows are waiting"):
            scheduler.submit(_windows(), scheduler.new_state(8_000), lambda score: None)
        scores[1].cancel()
        model.held.set()
        await asyncio.wait(scores)
        assert [len(batch) for batch in model.batches] == [1, 3]
        await scheduler.close()

    run(test)


def test_a_failing_batch_gives_nan_and_fresh_states_and_is_counted_in_a_row() -> None:
    async def test() -> None:
        model = Counting()
        told: list[tuple[str, int]] = []
        scheduler = VadBatcher(on_failure=lambda error, row: told.append((str(error), row)))
        scheduler.use("vad model c", model)
        state = scheduler.new_state(8_000)
        assert await scheduler.score(_windows(), state) == 0.01
        model.broken = True
        with pytest.raises(ModelError, match="vad model c failed: ValueError: broken"):
            await scheduler.score(_windows(), state)
        got: list[float] = []
        scheduler.submit(_windows(), state, got.append)
        await until(lambda: bool(got))
        assert math.isnan(got[0])
        model.broken = False
        assert await scheduler.score(_windows(), state) == 0.01
        assert [row for _, row in told] == [1, 2]
        assert scheduler.stats().failed == 2
        await scheduler.close()

    run(test)


def test_one_faulty_callback_does_not_cost_the_others_their_windows() -> None:
    async def test() -> None:
        scheduler = VadBatcher()
        scheduler.use("c", Counting())
        got: list[float] = []

        def faulty(score: float) -> None:
            raise RuntimeError("mine")

        scheduler.submit(_windows(), scheduler.new_state(8_000), faulty)
        scheduler.submit(_windows(), scheduler.new_state(8_000), got.append)
        await until(lambda: got == [0.01])
        await scheduler.close()

    run(test)


def test_a_vad_that_hangs_is_given_up_and_another_model_takes_over() -> None:
    async def test() -> None:
        stuck, fresh = Counting(), Counting()
        stuck.held.clear()
        scheduler = VadBatcher(
            VadLimits(batch_s=0.01), on_failure=lambda error, row: scheduler.use("fresh", fresh)
        )
        scheduler.use("vad model stuck", stuck)
        state = scheduler.new_state(8_000)
        with pytest.raises(ModelError, match=r"vad model stuck gave nothing for 0\.01 s"):
            await scheduler.score(_windows(), state)
        scheduler._limits = VadLimits()
        assert await scheduler.score(_windows(), state) == 0.01
        assert scheduler.stats().stuck == 1
        stuck.held.set()
        for worker in scheduler._left_behind:
            worker.join(PATIENCE_S)
        await scheduler.close()

    run(test)


def test_a_window_of_another_size_or_rate_is_refused() -> None:
    async def test() -> None:
        scheduler = VadBatcher()
        with pytest.raises(ModelError, match="no vad model is loaded"):
            scheduler.new_state(8_000)
        scheduler.use("vad model c", Counting())
        with pytest.raises(ModelError, match="takes 8000, 16000 Hz, not 44100"):
            scheduler.new_state(44_100)
        with pytest.raises(ModelError, match="takes windows of 256 samples at 8000 Hz"):
            scheduler.submit(_windows(16_000), scheduler.new_state(8_000), lambda score: None)
        await scheduler.close()
        with pytest.raises(ModelError, match="shutting down"):
            scheduler.submit(_windows(), scheduler.new_state(8_000), lambda score: None)

    run(test)


def test_closing_the_vad_lane_gives_up_what_waits() -> None:
    async def test() -> None:
        model, scheduler = Counting(), VadBatcher()
        scheduler.use("c", model)
        model.held.clear()
        state = scheduler.new_state(8_000)
        got: list[float] = []
        for _ in range(3):
            scheduler.submit(_windows(), state, got.append)
        await wait_for(model.begun)
        closing = asyncio.create_task(scheduler.close())
        await asyncio.sleep(0)
        model.held.set()
        await closing
        assert got[0] == 0.01
        assert all(math.isnan(score) for score in got[1:])
        assert len(got) == 3

    run(test)
