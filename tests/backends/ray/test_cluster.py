"""Calls through Ray Serve on a real cluster of three nodes, and what becomes of them when parts of it die."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import numpy as np
import pytest
from tests.backends.ray.conftest import SETTINGS, Grid
from tests.server.support import QUESTION, START, Client
from tests.support import STORY, say
from websockets.asyncio.client import connect

from antiphon.errors import BusyError, ModelError
from antiphon.models.ports import LlmRequest, Message, SpeechRequest
from antiphon.models.remote.ray_serve import RayLlm, RayStt, RayTts
from antiphon.testing.contracts import check_llm, check_stt, check_tts

NAME = "antiphon"
TELL_ME = say(550, 640, silence_ms=1200)
STORY_BYTES = len(STORY.split()) * 24_000 // 10 * 2
PATIENCE_S = 90.0


def run(work: Awaitable[None]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(2 * PATIENCE_S):
            await work

    asyncio.run(limited())


async def until(condition: Callable[[], Awaitable[Any]], what: str) -> Any:
    end_s = asyncio.get_running_loop().time() + PATIENCE_S
    while not (found := await condition()):
        assert asyncio.get_running_loop().time() < end_s, what
        await asyncio.sleep(0.02)
    return found


async def ready(grid: Grid) -> None:
    async with httpx.AsyncClient(base_url=grid.url, timeout=20) as http:

        async def well() -> bool:
            return (await http.get("/ready")).status_code == 200

        await until(well, "the ingress does not become ready")


@contextlib.asynccontextmanager
async def calling(grid: Grid) -> AsyncIterator[Client]:
    await ready(grid)
    address = f"ws://127.0.0.1:{grid.port}/ws/conversation"
    async with connect(address, compression=None, max_size=None) as socket:
        caller = Client(socket)
        listening = asyncio.create_task(caller.listen())
        await caller.send(**START)
        yield caller
        await socket.close()
        await listening


async def complete(caller: Client, turns: int) -> None:
    """So many answers have come to their end."""

    async def answered() -> bool:
        assert caller.closed is None, caller.frames[-3:]
        return len(caller.of("turn_complete")) >= turns

    await until(answered, f"no answer: {caller.frames[-5:]}")


async def answers(caller: Client) -> str:
    """Ask, and wait for the end of the answer -> its text."""
    turns, texts = len(caller.of("turn_complete")), len(caller.of("ai_text"))
    await caller.speak(QUESTION)
    await complete(caller, turns + 1)
    return "".join(message["text"] for message in caller.of("ai_text")[texts:])


def handle(deployment: str, app: str = NAME) -> Any:
    from ray import serve

    return serve.get_deployment_handle(deployment, app_name=app)


async def stats(deployment: str, app: str = NAME) -> dict[str, Any]:
    """Lane counters of each replica, by its id."""
    found = await handle(deployment, app).broadcast("stats").results_async(timeout_s=20)
    return {replica: next(iter(lanes.values())) for replica, lanes in found}


async def busy_replica(deployment: str) -> str:
    async def find() -> str:
        found = await stats(deployment)
        return next((replica for replica, lane in found.items() if lane.running), "")

    return str(await until(find, f"no replica of {deployment} is at work"))


def kill(deployment: str, replica: str) -> None:
    import ray

    name = f"SERVE_REPLICA::{NAME}#{deployment}#{replica}"
    ray.kill(ray.get_actor(name, namespace="serve"), no_restart=True)


async def two_replicas(*deployments: str) -> None:
    """Serve has replaced what was lost."""
    from ray import serve

    async def whole() -> bool:
        status = await asyncio.to_thread(serve.status)
        found = status.applications[NAME].deployments
        return all(found[name].replica_states.get("RUNNING", 0) == 2 for name in deployments)

    await until(whole, f"not two replicas each of {deployments}")


# --- the ports --------------------------------------------------------------------------------------


def test_the_ports_keep_their_contracts(grid: Grid) -> None:
    with asyncio.Runner() as runner:
        stt, llm, tts = RayStt(app=NAME), RayLlm(app=NAME), RayTts(app=NAME)
        for model in (stt, llm, tts):
            runner.run(model.load())
            assert model.info.name == "ray"
            assert "scripted" in model.info.detail
        assert tts.sample_rate_hz == 24_000
        assert stt.info.partials
        check_stt(stt, runner=runner)
        check_llm(llm, runner=runner)
        check_tts(tts, runner=runner)


def test_what_a_replica_raises_is_one_line(grid: Grid) -> None:
    async def main() -> None:
        llm = RayLlm(app=NAME)
        await llm.load()
        with pytest.raises(ModelError) as raised:
            await llm._remote.ask("no_such_method")
        assert "\n" not in str(raised.value)
        with pytest.raises(ModelError, match="no Ray Serve deployment 'Nobody'"):
            async with asyncio.timeout(20):
                await RayStt(app=NAME, deployment="Nobody").load()

    run(main())


def test_an_abandoned_stream_stops_on_its_replica(grid: Grid) -> None:
    async def main() -> None:
        tts = RayTts(app=NAME)
        await tts.load()
        before = sum(lane.cancelled for lane in (await stats("Tts")).values())
        stream = tts.synthesize(SpeechRequest(STORY * 4))
        await anext(stream)
        await stream.aclose()

        async def stopped() -> bool:
            found = (await stats("Tts")).values()
            return (
                not any(lane.running for lane in found)
                and sum(lane.cancelled for lane in found) > before
            )

        await until(stopped, "the replica goes on speaking to nobody")

    run(main())


def test_one_call_stays_with_one_replica(grid: Grid) -> None:
    async def main() -> None:
        llm = RayLlm(app=NAME)
        await llm.load()
        before = {replica: lane.served for replica, lane in (await stats("Llm")).items()}
        request = LlmRequest((Message("user", "hello"),), call_id="the-same")
        for _ in range(8):
            assert [delta async for delta in llm.generate(request)]
        after = {replica: lane.served for replica, lane in (await stats("Llm")).items()}
        assert sorted(after[replica] - before[replica] for replica in after) == [0, 8]

    run(main())


# --- calls ------------------------------------------------------------------------------------------


def test_a_call(grid: Grid) -> None:
    async def main() -> None:
        async with calling(grid) as caller:
            assert await answers(caller) == "It is noon."
            assert sum(len(f) for f in caller.frames if isinstance(f, bytes)) > 0
            async with httpx.AsyncClient(base_url=grid.url) as http:
                models = (await http.get("/ready")).json()["models"]
            assert [m["name"] for m in models if m["kind"] in ("stt", "llm", "tts")] == ["ray"] * 3

    run(main())


def test_the_voice_dies_in_mid_sentence_and_nothing_is_lost(grid: Grid) -> None:
    async def main() -> None:
        async with calling(grid) as caller:
            await caller.speak(TELL_ME)
            kill("Tts", await busy_replica("Tts"))
            await complete(caller, 1)
            heard = sum(len(f) for f in caller.frames if isinstance(f, bytes))
            assert heard == STORY_BYTES
            assert not caller.of("error")
            assert await answers(caller) == "It is noon."
        await two_replicas("Tts")

    run(main())


@pytest.mark.parametrize("deployment", ["Stt", "Llm"])
def test_a_replica_dies_between_two_questions(grid: Grid, deployment: str) -> None:
    async def main() -> None:
        async with calling(grid) as caller:
            assert await answers(caller) == "It is noon."
            kill(deployment, next(iter(await stats(deployment))))
            assert await answers(caller) == "It is noon."
            assert not caller.of("error")
        await two_replicas(deployment)

    run(main())


def test_a_node_is_removed(grid: Grid) -> None:
    async def main() -> None:
        async with calling(grid) as caller:
            assert await answers(caller) == "It is noon."
            lost = grid.nodes.pop(0)
            removing = asyncio.to_thread(grid.cluster.remove_node, lost, allow_graceful=False)
            await asyncio.gather(removing, answers(caller))
            assert await answers(caller) == "It is noon."
            grid.add_node()  # on this thread: Ray sets signal handlers
            assert await answers(caller) == "It is noon."
        await two_replicas("Stt", "Llm", "Tts")

    run(main())


# --- load -------------------------------------------------------------------------------------------


def test_a_full_queue_is_busy_and_a_lasting_load_gets_replicas(grid: Grid) -> None:
    from deploy.ray.app import Plan, Size, Stt
    from ray import serve

    size = Size(
        resources={"models": 1}, max_replicas=3, ongoing=1, target=1, queued=2, upscale_delay_s=0
    )
    slow = {"models.options.stt.scripted": {"delay_ms": 200}}
    plan = Plan(settings={**SETTINGS, **slow})
    serve.run(Stt.options(**size.options()).bind(plan), name="tight", route_prefix=None)
    audio = (np.ones(16_000) * 3_000).astype(np.int16)

    async def main() -> None:
        stt = RayStt(app="tight")
        await stt.load()
        asked = (stt.transcribe(audio) for _ in range(8))
        found = await asyncio.gather(*asked, return_exceptions=True)
        refused = [answer for answer in found if isinstance(answer, BusyError)]
        assert refused, found
        assert len(refused) < len(found)
        assert "try again" in str(refused[0])

        async def load() -> None:
            while True:
                with contextlib.suppress(BusyError):
                    await stt.transcribe(audio)

        loading = [asyncio.create_task(load()) for _ in range(3)]

        async def grown() -> bool:
            status = await asyncio.to_thread(serve.status)
            states = status.applications["tight"].deployments["Stt"].replica_states
            return bool(states.get("RUNNING", 0) >= 2)

        try:
            await until(grown, "no replica was added under load")
        finally:
            for task in loading:
                task.cancel()
            await asyncio.gather(*loading, return_exceptions=True)

    try:
        run(main())
    finally:
        serve.delete("tight")
