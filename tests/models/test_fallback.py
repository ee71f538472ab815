"""Which model serves, and what happens when it cannot be loaded or fails."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress
from typing import Any

import pytest

from antiphon.errors import AudioError, BusyError, ModelError, RequestError, WeightsError
from antiphon.models.duck_typing import adapt
from antiphon.models.fallback import CALL_FAILURES, REST_FAILURES, REST_S, FallbackChain
from antiphon.models.model_handle import ModelHandle
from antiphon.models.ports import Kind, ModelInfo, ModelStatus


class Back:
    """A model that may be told not to load."""

    def __init__(self, load_error: Exception | None = None) -> None:
        self.load_error = load_error
        self.loads = 0
        self.closes = 0
        self.info = ModelInfo("back")

    def load(self) -> None:
        self.loads += 1
        self.thread = threading.current_thread()
        if self.load_error is not None:
            raise self.load_error
        self.info = ModelInfo("back", detail="loaded")

    def close(self) -> None:
        self.closes += 1

    def transcribe(self, audio: Any) -> str:
        return ""


class Setup:
    """A chain of models `a`, `b`, ... on a clock that stands still until it is moved."""

    def __init__(self, *backs: Back) -> None:
        self.now_s = 1000.0
        self.changes: list[ModelStatus] = []
        self.links = [
            ModelHandle(
                Kind.STT,
                "abc"[index],
                lambda back=back: adapt(Kind.STT, "back", back),  # type: ignore[misc]
                on_change=self.changes.append,
            )
            for index, back in enumerate(backs)
        ]
        self.chain = FallbackChain(Kind.STT, self.links, now_s=lambda: self.now_s)
        self.failing: set[str] = set()
        self.asked: list[str] = []

    async def ask(self, link: ModelHandle) -> str:
        self.asked.append(link.spec)
        if link.spec in self.failing:
            raise ModelError(f"{link.spec} is broken")
        return link.spec

    async def run(self, call_id: str = "call") -> str:
        return await self.chain.run(self.ask, call_id)

    def states(self) -> dict[str, str]:
        return {
            link.spec: link.status.state + (" in use" if link.status.in_use else "")
            for link in self.links
        }


def run(test: Callable[[Setup], Awaitable[None]], *backs: Back) -> Setup:
    kept: list[Setup] = []

    async def guarded() -> None:
        setup = Setup(*backs)
        kept.append(setup)
        await test(setup)
        await setup.chain.close()

    before = set(threading.enumerate())
    asyncio.run(guarded())
    assert not set(threading.enumerate()) - before
    return kept[0]


def test_the_first_model_is_loaded_on_a_thread_and_the_others_stand_by() -> None:
    first, second = Back(), Back()

    async def test(setup: Setup) -> None:
        await setup.chain.load()
        assert setup.states() == {"a": "ready in use", "b": "standby"}
        assert first.thread is not threading.current_thread()
        assert setup.links[0].status.detail == "loaded"
        assert setup.links[0].status.load_s is not None
        assert setup.chain.ready
        assert await setup.run() == "a"

    setup = run(test, first, second)
    assert (first.loads, first.closes, second.loads, second.closes) == (1, 1, 0, 0)
    assert [change.state for change in setup.changes if change.name == "a"][:2] == [
        "loading",
        "ready",
    ]


def test_a_model_that_cannot_be_loaded_is_replaced_by_the_next(
    caplog: pytest.LogCaptureFixture,
) -> None:
    missing = Back(WeightsError("no source for weights; connect to a network"))

    async def test(setup: Setup) -> None:
        with caplog.at_level(logging.WARNING):
            await setup.chain.load()
        assert setup.states() == {"a": "failed", "b": "ready in use", "c": "standby"}
        assert "no source for weights" in setup.links[0].status.error
        assert "stt model a: b is used instead" in caplog.text
        assert await setup.run() == "b"
        assert missing.loads == 1

    run(test, missing, Back(), Back())


def test_a_chain_without_any_usable_model_says_why() -> None:
    async def test(setup: Setup) -> None:
        with pytest.raises(
            ModelError,
            match=r"no stt model can be loaded: a: get it; b: .*RuntimeError: no device",
        ):
            await setup.chain.load()
        assert not setup.chain.ready
        with pytest.raises(ModelError, match="no stt model can be used"):
            await setup.run()

    run(test, Back(ModelError("get it")), Back(RuntimeError("no device")))


def test_a_model_that_could_not_be_loaded_is_tried_again_after_a_while() -> None:
    back = Back(ModelError("the network is down"))

    async def test(setup: Setup) -> None:
        with pytest.raises(ModelError):
            await setup.run()
        back.load_error = None
        with pytest.raises(ModelError, match="the network is down"):
            await setup.run()
        setup.now_s += REST_S + 1
        assert await setup.run() == "a"
        assert setup.states() == {"a": "ready in use"}
        assert back.loads == 2

    run(test, back)


def test_many_requests_wait_for_one_load_and_cancelling_one_does_not_stop_it() -> None:
    back = Back()

    async def test(setup: Setup) -> None:
        tasks = [asyncio.create_task(setup.run(str(n))) for n in range(3)]
        await asyncio.sleep(0)
        tasks[0].cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert results[1:] == ["a", "a"]
        assert back.loads == 1

    run(test, back)


def test_a_request_that_fails_goes_to_the_next_model_at_once() -> None:
    spare = Back()

    async def test(setup: Setup) -> None:
        await setup.chain.load()
        setup.failing = {"a"}
        assert await setup.run() == "b"
        assert setup.asked == ["a", "b"]
        assert spare.loads == 1
        assert setup.states() == {"a": "ready in use", "b": "ready"}

    run(test, Back(), spare)


def test_a_model_that_fails_twice_in_a_call_is_replaced_for_that_call_only(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def test(setup: Setup) -> None:
        await setup.chain.load()
        setup.failing = {"a"}
        for _ in range(CALL_FAILURES):
            await setup.run("one")
        setup.failing, setup.asked = set(), []
        assert await setup.run("one") == "b"
        assert await setup.run("two") == "a"
        assert setup.asked == ["b", "a"]
        assert "the next model serves the rest of it" in caplog.text
        setup.chain.forget("one")
        assert await setup.run("one") == "a"

    with caplog.at_level(logging.WARNING):
        run(test, Back(), Back())


def test_a_model_that_keeps_failing_rests_and_is_tried_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def test(setup: Setup) -> None:
        await setup.chain.load()
        setup.failing = {"a"}
        for number in range(REST_FAILURES):
            assert await setup.run(str(number)) == "b"
        assert setup.states() == {"a": "failed", "b": "ready in use"}
        assert setup.links[0].status.error == "a is broken"
        setup.asked = []
        assert await setup.run("new") == "b"
        assert setup.asked == ["b"]

        setup.now_s += REST_S + 1
        assert await setup.run("newer") == "b"
        assert setup.asked == ["b", "a", "b"]
        assert setup.states() == {"a": "failed", "b": "ready in use"}

        setup.now_s += REST_S + 1
        setup.failing = set()
        assert await setup.run("newest") == "a"
        assert setup.states() == {"a": "ready in use", "b": "ready"}
        assert "stt model a works again" in caplog.text

    with caplog.at_level(logging.WARNING):
        run(test, Back(), Back())


def test_the_only_model_is_used_however_often_it_fails() -> None:
    async def test(setup: Setup) -> None:
        await setup.chain.load()
        setup.failing = {"a"}
        for _ in range(REST_FAILURES + 1):
            with pytest.raises(ModelError, match="a is broken"):
                await setup.run()
        assert not setup.chain.ready
        setup.failing = set()
        assert await setup.run() == "a"
        assert setup.chain.ready

    run(test, Back())


@pytest.mark.parametrize("streamed", [False, True])
def test_what_a_failed_request_held_is_freed_at_once(
    streamed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """The error that is raised keeps no cycle, with the request in it, for the collector to find."""
    caplog.set_level(logging.CRITICAL)  # what is captured is held

    class Recording:
        """Megabytes of sound."""

    async def check(setup: Setup) -> None:
        setup.failing = {"a"}

        async def fails(held: Recording) -> None:
            async def ask(link: ModelHandle) -> str:
                assert held is not None
                return await setup.ask(link)

            async def items(link: ModelHandle) -> AsyncGenerator[str, None]:
                yield await ask(link)

            try:
                if streamed:
                    async with aclosing(setup.chain.stream(items, "call")) as found:
                        await anext(found)
                else:
                    await setup.chain.run(ask, "call")
            except ModelError:  # `pytest.raises` would hold it
                pass
            else:
                pytest.fail("it did not fail")

        recording = Recording()
        gone = weakref.ref(recording)
        gc.collect()
        gc.disable()
        try:
            await fails(recording)
            del recording
            assert gone() is None
        finally:
            gc.enable()

    run(check, Back())


def test_only_the_fault_of_the_model_counts() -> None:
    async def test(setup: Setup) -> None:
        await setup.chain.load()

        async def busy(link: ModelHandle) -> str:
            raise BusyError("full")

        async def deaf(link: ModelHandle) -> str:
            raise AudioError("not audio")

        for _ in range(CALL_FAILURES):
            with pytest.raises(BusyError):
                await setup.chain.run(busy, "call")
            with pytest.raises(AudioError):
                await setup.chain.run(deaf, "call")
        assert await setup.run() == "a"

    run(test, Back(), Back())


def test_the_only_model_is_ready_again_when_its_rest_is_over_though_nobody_asked() -> None:
    async def test(setup: Setup) -> None:
        await setup.chain.load()
        setup.failing = {"a"}
        for _ in range(REST_FAILURES):
            with pytest.raises(ModelError):
                await setup.run()
        assert not setup.chain.ready
        assert [status.state for status in setup.chain.status()] == ["failed"]
        setup.now_s += REST_S - 1
        assert not setup.chain.ready
        setup.now_s += 2
        assert setup.chain.ready
        assert [status.state for status in setup.chain.status()] == ["ready"]

        with pytest.raises(ModelError, match="a is broken"):
            await setup.run("new")
        assert not setup.chain.ready, "one failure is enough after a rest"
        setup.now_s += REST_S + 1
        setup.failing = set()
        assert await setup.run("newer") == "a"
        assert setup.chain.is_well(setup.links[0])

    run(test, Back())


@pytest.mark.parametrize("others", [0, 1])
@pytest.mark.parametrize("end", ["answered", "failed", "cancelled", "refused"])
def test_one_request_at_a_time_tries_a_model_that_rested(others: int, end: str) -> None:
    async def test(setup: Setup) -> None:
        await setup.chain.load()
        setup.failing = {"a"}
        for number in range(REST_FAILURES):
            with suppress(ModelError):
                await setup.run(str(number))
        setup.failing, setup.asked = set(), []
        setup.now_s += REST_S + 1
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        async def slow(link: ModelHandle) -> str:
            return await answer

        trial = asyncio.create_task(setup.chain.run(slow, "trial"))
        await asyncio.sleep(0)
        for number in range(3):
            if others:
                assert await setup.run(f"other {number}") == "b"
            else:
                with pytest.raises(ModelError, match="no stt model can be used"):
                    await setup.run(f"other {number}")
        assert "a" not in setup.asked
        if end == "answered":
            answer.set_result("a")
        elif end == "failed":
            answer.set_exception(ModelError("still broken"))
        elif end == "refused":
            answer.set_exception(RequestError("no"))
        else:
            trial.cancel()
        await asyncio.gather(trial, return_exceptions=True)
        if end == "failed":
            assert setup.chain.ready == bool(others)
            setup.now_s += REST_S + 1
        assert await setup.run("next") == "a"

    run(test, *[Back() for _ in range(others + 1)])


def test_a_stream_proves_a_model_with_its_first_item() -> None:
    async def test(setup: Setup) -> None:
        await setup.chain.load()
        setup.failing = {"a"}
        for _ in range(REST_FAILURES):
            with pytest.raises(ModelError):
                await setup.run()
        setup.failing = set()
        setup.now_s += REST_S + 1
        async with aclosing(setup.chain.stream(lambda link: _stream(link, {"a": 1}), "s")) as items:
            assert await anext(items) == "a0"
            assert await setup.run("meanwhile") == "a"
            with pytest.raises(ModelError):
                await anext(items)

    run(test, Back())


def test_what_a_request_got_wrong_is_no_failure_and_goes_to_no_other_model() -> None:
    spare = Back()

    async def test(setup: Setup) -> None:
        await setup.chain.load()

        async def refuse(link: ModelHandle) -> str:
            setup.asked.append(link.spec)
            raise RequestError("the schema refers to itself")

        async def refuse_stream(link: ModelHandle) -> AsyncGenerator[str, None]:
            await refuse(link)
            yield ""

        for _ in range(2 * REST_FAILURES):
            with pytest.raises(RequestError, match="refers to itself"):
                await setup.chain.run(refuse, "call")
            with pytest.raises(RequestError):
                await anext(setup.chain.stream(refuse_stream, "call"))
        assert set(setup.asked) == {"a"}
        assert await setup.run() == "a"

    run(test, Back(), spare)
    assert spare.loads == 0


# --- streams -------------------------------------------------------------------------------------


async def _stream(link: ModelHandle, fail_after: dict[str, int]) -> AsyncGenerator[str, None]:
    for number in range(3):
        if number == fail_after.get(link.spec):
            raise ModelError(f"{link.spec} broke off")
        yield f"{link.spec}{number}"


def test_a_stream_that_fails_before_its_first_item_is_begun_anew_with_the_next_model() -> None:
    async def test(setup: Setup) -> None:
        stream = setup.chain.stream(lambda link: _stream(link, {"a": 0}), "call")
        assert [item async for item in stream] == ["b0", "b1", "b2"]

    run(test, Back(), Back())


def test_a_stream_that_fails_later_is_the_consumers_to_deal_with() -> None:
    async def test(setup: Setup) -> None:
        for _ in range(CALL_FAILURES):
            stream = setup.chain.stream(lambda link: _stream(link, {"a": 2}), "call")
            assert await anext(stream) == "a0"
            assert await anext(stream) == "a1"
            with pytest.raises(ModelError, match="a broke off"):
                await anext(stream)
        assert await setup.run() == "b"

    run(test, Back(), Back())


def test_closing_a_stream_is_no_failure_and_closes_the_models() -> None:
    closed = []

    async def endless(link: ModelHandle) -> AsyncGenerator[int, None]:
        try:
            while True:
                yield 1
        finally:
            closed.append(link.spec)

    async def test(setup: Setup) -> None:
        for _ in range(CALL_FAILURES):
            async with aclosing(setup.chain.stream(endless, "call")) as items:
                await anext(items)
        assert closed == ["a", "a"]
        assert await setup.run() == "a"

    run(test, Back(), Back())
