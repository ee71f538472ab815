"""The models of a process as a call sees them, on scripted back ends and real threads."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from antiphon.errors import ConfigError, ModelError
from antiphon.models.model_set import FallbackConfig, ModelSet, SpeechChunk, Work
from antiphon.models.ports import (
    Kind,
    LlmDelta,
    LlmRequest,
    Message,
    ModelInfo,
    ModelStatus,
    SpeechRequest,
    Transcript,
)
from antiphon.models.registry import Registry
from antiphon.models.scheduler import SchedulerLimits
from antiphon.models.scripted import ScriptedLlm, ScriptedVad, tone
from antiphon.models.workers import run_in_thread

PATIENCE_S = 20.0
WORK = Work("call")
HELLO = LlmRequest((Message("user", "hello"),), call_id="call")


class Folder:
    def files(self, name: str) -> Mapping[str, Path]:
        raise AssertionError("no weights are needed here")


def model_set(*chains: FallbackConfig, **options: Any) -> ModelSet:
    """These chains, and a scripted model for each kind that has none."""
    missing = [kind for kind in Kind if kind not in [chain.kind for chain in chains]]
    scripted = [FallbackConfig(kind, ("scripted",)) for kind in missing]
    return ModelSet([*chains, *scripted], Folder(), **options)


def run(models: ModelSet, test: Callable[[ModelSet], Awaitable[None]], load: bool = True) -> None:
    """The test with loaded models; no thread and no task may be left."""

    async def guarded() -> None:
        if load:
            await models.load()
        await asyncio.wait_for(test(models), PATIENCE_S)
        await models.close()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    before = set(threading.enumerate())
    asyncio.run(guarded())
    assert not set(threading.enumerate()) - before


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - the condition has no event to wait for
        await asyncio.sleep(0)


async def reply(models: ModelSet, request: LlmRequest = HELLO, work: Work = WORK) -> str:
    return "".join([delta.text async for delta in models.generate(request, work=work)])


def test_every_kind_of_work() -> None:
    async def test(models: ModelSet) -> None:
        assert models.ready
        assert models.partials
        state = models.vad.new_state(8_000)
        window = tone(400, 32, 8_000)
        assert window.size == models.vad.window_samples(8_000)
        assert await models.vad.score(window, state) == 1.0
        audio = tone(400, 500, 16_000)
        assert await models.predict_turn(audio, work=WORK) == 0.9
        heard = await models.transcribe(audio, language="en", partial=True, work=WORK)
        assert heard == Transcript("hello", "en")
        deltas = [delta async for delta in models.generate(HELLO, work=WORK)]
        assert [delta.text for delta in deltas] == ["You ", "said: ", "hello", ""]
        assert deltas[-1].finish == "stop"
        speech = SpeechRequest("hello there")
        chunks = [chunk async for chunk in models.synthesize(speech, work=WORK)]
        assert [(chunk.pcm.size, chunk.rate_hz) for chunk in chunks] == [(3_200, 16_000)] * 2
        assert isinstance(chunks[0], SpeechChunk)
        await models.warm(HELLO, work=WORK)
        await models.release("call")
        llm = models.backend(Kind.LLM)
        assert (llm.warmed, llm.released) == ([HELLO], ["call"])
        assert models.info(Kind.TTS).name == "scripted"
        stats = models.scheduler_stats()
        assert set(stats) == {f"{kind}:scripted" for kind in Kind if kind != "vad"} | {"vad"}
        assert stats["llm:scripted"].served == 3
        assert stats["vad"].served == 1

    run(model_set(), test)


def test_status_names_every_model_and_tells_each_change() -> None:
    changes: list[ModelStatus] = []

    async def test(models: ModelSet) -> None:
        assert not models.ready
        with pytest.raises(ModelError, match="no vad model is loaded"):
            _ = models.vad
        await models.load(changes.append)
        shown = [(s.kind.value, s.name, s.state, s.in_use) for s in models.status()]
        assert shown == [
            ("vad", "scripted", "ready", True),
            ("turn", "scripted", "ready", True),
            ("stt", "scripted", "ready", True),
            ("stt", "moonshine", "standby", False),
            ("llm", "scripted", "ready", True),
            ("tts", "scripted", "ready", True),
        ]
        assert models.status()[2].options == {"transcripts": ["a"]}
        assert models.status()[3].detail == "tiny"
        of_stt = [change.state for change in changes if change.kind is Kind.STT]
        assert of_stt[:3] == ["loading", "ready", "standby"]
        assert models.ready

    chain = FallbackConfig(
        Kind.STT, ("scripted", "moonshine:tiny"), {"scripted": {"transcripts": ["a"]}}
    )
    run(model_set(chain), test, load=False)


def test_the_status_shows_no_secret() -> None:
    secret = {"api_key": "sk-1", "extra_headers": {"x": "sk-2"}}
    options = {"openai": {**secret, "max_retries": 2, "extra_body": {"a_token": 1, "tokens": 3}}}
    models = ModelSet([FallbackConfig(Kind.LLM, ("openai:gpt",), options)], Folder())
    shown: dict[str, Any] = {"api_key": "hidden", "extra_headers": "hidden", "max_retries": 2}
    shown["extra_body"] = {"a_token": "hidden", "tokens": 3}
    assert models.status()[0].options == shown


def test_settings_that_cannot_be_meant_are_errors() -> None:
    with pytest.raises(ConfigError, match="did you mean 'moonshine'"):
        model_set(FallbackConfig(Kind.STT, ("monshine",)))
    with pytest.raises(ConfigError, match="two chains of stt"):
        model_set(FallbackConfig(Kind.STT, ("scripted",)), FallbackConfig(Kind.STT, ("scripted",)))

    async def test(models: ModelSet) -> None:
        with pytest.raises(ConfigError, match="did you mean 'delay_ms'"):
            await models.load()

    for specs in (("scripted",), ("moonshine", "scripted")):
        options = {"scripted": {"delay": 3}}
        run(model_set(FallbackConfig(Kind.STT, specs, options)), test, load=False)


def test_a_kind_without_a_chain_is_an_error_when_it_is_asked_for_except_turns() -> None:
    async def test(models: ModelSet) -> None:
        await models.load()
        assert models.ready
        assert await models.predict_turn(np.zeros(100, np.int16), work=WORK) == 0.5
        assert not models.partials
        with pytest.raises(ModelError, match="no llm model is configured"):
            await reply(models)
        with pytest.raises(ModelError, match="no vad model"):
            _ = models.vad

    models = ModelSet(
        [FallbackConfig(Kind.TURN, ()), FallbackConfig(Kind.TTS, ("scripted",))], Folder()
    )
    run(models, test, load=False)


def test_a_failing_turn_detector_is_undecided() -> None:
    async def test(models: ModelSet) -> None:
        assert await models.predict_turn(np.zeros(100, np.int16), work=WORK) == 0.5
        assert models.ready

    options = {"scripted": {"fail_always": True}}
    run(model_set(FallbackConfig(Kind.TURN, ("scripted",), options)), test)


class Broken:
    def load(self) -> None:
        raise ModelError("no such device; set device = 'cpu'")

    def predict(self, audio: Any) -> float:
        return 0.5

    def transcribe(self, audio: Any) -> str:
        return ""


def _registry(**classes: type) -> Registry:
    """`kind_name=Class`."""
    registry = Registry()
    for spec, cls in classes.items():
        kind, _, name = spec.partition("_")
        registry.register(kind, name)(cls)
    return registry


def test_what_cannot_be_loaded_fails_the_load_except_turns() -> None:
    registry = _registry(stt_broken=Broken, turn_broken=Broken)

    async def fails(models: ModelSet) -> None:
        with pytest.raises(ModelError, match="no stt model can be loaded: broken: no such device"):
            await models.load()
        assert not models.ready
        assert await reply(models) == "You said: hello"

    run(model_set(FallbackConfig(Kind.STT, ("broken",)), registry=registry), fails, load=False)

    async def goes_on(models: ModelSet) -> None:
        assert models.ready
        assert await models.predict_turn(np.zeros(100, np.int16), work=WORK) == 0.5

    run(model_set(FallbackConfig(Kind.TURN, ("broken",)), registry=registry), goes_on)


class Timed:
    """Loads only when another does so at the same time."""

    together = threading.Barrier(2)

    def load(self) -> None:
        self.together.wait(PATIENCE_S)

    transcribe = generate = lambda self, asked: "x"


class Alone:
    loading: list[str] = []  # noqa: RUF012 - shared by both on purpose
    most = 0

    def load(self) -> None:
        self.loading.append("x")
        Alone.most = max(Alone.most, len(self.loading))
        self.loading.pop()

    transcribe = generate = lambda self, asked: "x"


def test_models_load_together_or_one_at_a_time() -> None:
    async def test(models: ModelSet) -> None:
        assert models.ready

    for cls, options in ((Timed, {}), (Alone, {"one_at_a_time": True})):
        registry = _registry(stt_t=cls, llm_t=cls)
        chains = [FallbackConfig(Kind.STT, ("t",)), FallbackConfig(Kind.LLM, ("t",))]
        run(model_set(*chains, registry=registry, **options), test)
    assert Alone.most == 1


def test_without_preload_a_model_is_loaded_when_it_is_first_asked() -> None:
    async def test(models: ModelSet) -> None:
        assert models.ready
        states = {status.kind: status.state for status in models.status()}
        assert states[Kind.VAD] == "ready"
        assert states[Kind.LLM] == "waiting"
        assert models.partials
        assert await reply(models) == "You said: hello"
        assert {status.kind: status.state for status in models.status()}[Kind.LLM] == "ready"

    run(model_set(preload=False), test)


def test_a_reply_falls_over_to_the_next_model() -> None:
    class Silent(ScriptedLlm):
        def generate(self, request: LlmRequest) -> Iterator[LlmDelta]:
            yield LlmDelta()  # as a back end does that can be stopped while it reads
            raise RuntimeError("out of memory")

    async def test(models: ModelSet) -> None:
        for _ in range(3):
            assert await reply(models) == "You said: hello"
        stats = models.scheduler_stats()
        assert stats["llm:silent"].failed == 2
        assert stats["llm:scripted"].served == 3

    registry = _registry(llm_silent=Silent)
    run(model_set(FallbackConfig(Kind.LLM, ("silent", "scripted")), registry=registry), test)


def test_a_model_that_breaks_off_is_an_error_for_the_caller() -> None:
    async def test(models: ModelSet) -> None:
        chunks = models.synthesize(SpeechRequest("one two three"), work=WORK)
        assert (await anext(chunks)).pcm.size
        with pytest.raises(ModelError, match="told to fail"):
            await anext(chunks)

    options = {"scripted": {"fail_on": [1], "fail_after": 1}}
    run(model_set(FallbackConfig(Kind.TTS, ("scripted",), options)), test)


def test_a_vad_that_keeps_failing_is_replaced_for_all_calls() -> None:
    async def test(models: ModelSet) -> None:
        state, window = models.vad.new_state(8_000), tone(400, 32, 8_000)
        for _ in range(2):
            with pytest.raises(ModelError, match="told to fail"):
                await models.vad.score(window, state)
        await until(lambda: models.status()[1].in_use)
        assert await models.vad.score(window, state) == 1.0
        assert [status.state for status in models.status()[:2]] == ["failed", "ready"]

    registry = _registry(vad_second=type("Second", (ScriptedVad,), {}))
    options = {"scripted": {"fail_always": True}}
    chain = FallbackConfig(Kind.VAD, ("scripted", "second"), options)
    run(model_set(chain, registry=registry), test)


class Held:
    """Holds the thread of whoever generates until it is let go."""

    def __init__(self) -> None:
        self.begun, self.may_end = threading.Event(), threading.Event()
        self.warmed: list[str] = []
        self.released: list[str] = []
        self.threads: set[str] = set()

    def generate(self, request: LlmRequest) -> Iterator[str]:
        self.threads.add(threading.current_thread().name)
        self.begun.set()
        assert self.may_end.wait(PATIENCE_S)
        yield "done"

    def warm(self, request: LlmRequest) -> None:
        self.warmed.append(request.call_id)

    def release(self, call_id: str) -> None:
        self.threads.add(threading.current_thread().name)
        self.released.append(call_id)


def test_warming_never_waits_and_a_release_is_never_lost() -> None:
    async def test(models: ModelSet) -> None:
        held = models.backend(Kind.LLM)
        answering = asyncio.create_task(reply(models))
        await run_in_thread(lambda: held.begun.wait(PATIENCE_S), name="test", timeout_s=PATIENCE_S)
        await models.warm(HELLO, work=WORK)
        assert held.warmed == []
        leaving = asyncio.create_task(models.release("call"))
        await until(lambda: models.scheduler_stats()["llm:held"].depth == 1)
        leaving.cancel()
        await asyncio.wait([leaving])
        held.may_end.set()
        assert await answering == "done"
        await until(lambda: models.scheduler_stats()["llm:held"].served == 2)
        assert held.released == ["call"]
        await models.warm(HELLO, work=WORK)
        assert held.warmed == ["call"]
        assert held.threads == {"antiphon llm model held"}

    registry = _registry(llm_held=Held)
    limits = {Kind.LLM: SchedulerLimits(max_waiting=0)}
    chain = FallbackConfig(Kind.LLM, ("held",))
    run(model_set(chain, registry=registry, limits=limits), test)


class Net:
    """As back ends for a network are: coroutines, with a blocking warm."""

    info = ModelInfo("net")
    parallel = 2

    def __init__(self) -> None:
        self.closed = self.running = self.most = 0
        self.warm_thread = ""
        self.released: list[str] = []

    async def load(self) -> None:
        self.loop = asyncio.get_running_loop()

    async def close(self) -> None:
        self.closed += 1

    def warm(self, request: LlmRequest) -> None:
        self.warm_thread = threading.current_thread().name

    async def release(self, call_id: str) -> None:
        self.released.append(call_id)

    async def generate(self, request: LlmRequest) -> AsyncIterator[LlmDelta]:
        assert asyncio.get_running_loop() is self.loop
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            for word in ("a ", "b ", "c"):
                await asyncio.sleep(0)
                yield LlmDelta(word)
        finally:
            self.running -= 1


def test_an_asynchronous_back_end_lives_on_the_loop() -> None:
    kept: list[Net] = []

    async def test(models: ModelSet) -> None:
        net = models.backend(Kind.LLM)
        kept.append(net)
        replies = [reply(models, work=Work(str(n))) for n in range(5)]
        assert await asyncio.gather(*replies) == ["a b c"] * 5
        assert net.most == 2
        async with aclosing(models.generate(HELLO, work=WORK)) as deltas:
            await anext(deltas)
        assert net.running == 0
        await models.warm(HELLO, work=WORK)
        assert net.warm_thread == "antiphon llm model net"
        await models.release("call")
        assert net.released == ["call"]

    run(model_set(FallbackConfig(Kind.LLM, ("net",)), registry=_registry(llm_net=Net)), test)
    assert kept[0].closed == 1


def test_a_hundred_calls_at_once_leave_nothing_behind() -> None:
    async def call(models: ModelSet, number: int) -> None:
        work = Work(f"call {number}")
        request = LlmRequest((Message("user", f"{number}"),), call_id=work.call_id)
        assert await reply(models, request, work) == f"You said: {number}"
        async with aclosing(models.synthesize(SpeechRequest("a b c"), work=work)) as chunks:
            await anext(chunks)
        await models.release(work.call_id)

    async def test(models: ModelSet) -> None:
        tasks = [asyncio.create_task(call(models, number)) for number in range(100)]
        await until(lambda: models.scheduler_stats()["llm:scripted"].served >= 3)
        for task in tasks[90:]:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert results[:90] == [None] * 90
        for stats in models.scheduler_stats().values():
            assert (stats.depth, stats.stuck) == (0, 0)

    limits = {kind: SchedulerLimits(max_waiting=200) for kind in Kind}
    run(model_set(limits=limits), test)


@pytest.mark.skipif(sys.platform == "win32", reason="uvloop has no Windows")
def test_it_runs_on_uvloop_too() -> None:
    import uvloop

    async def test() -> None:
        models = model_set()
        await models.load()
        assert await reply(models) == "You said: hello"
        await models.vad.score(tone(400, 32, 8_000), models.vad.new_state(8_000))
        await models.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(test())
