"""Who may call, when, and how calls end when the server does."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.server.support import QUESTION, START, client, serving
from tests.support import PATIENCE_S, nothing_left, run, say, until
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from antiphon.models.registry import register_model
from antiphon.models.scripted import ScriptedLlm
from antiphon.observe import call_trace


def test_too_many_calls(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path, server__max_calls=1) as served, client(served) as first:
            await first.wait("connected")
            async with client(served) as second:
                error = await second.wait("error")
                assert error["message"] == "all 1 lines are busy; try again soon"
                assert await second.wait_closed() == (1013, error["message"])
                assert not second.of("connected")
            await first.send(type="stop")
            await first.wait_closed()
            await until(lambda: len(served.calls) == 0)
            async with client(served) as third:
                await third.wait("connected")
            assert served.calls.counters.refused == 1

    run(main())


def test_two_at_the_door_at_the_same_moment(tmp_path: Path) -> None:
    """Both find room when they knock; only one finds it when its `start` has been waited for."""

    async def main() -> None:
        async with (
            serving(tmp_path, server__max_calls=1) as served,
            client(served) as one,
            client(served) as other,
        ):
            await until(lambda: one.frames and other.frames)
            refused = other if one.of("connected") else one
            assert "busy" in refused.of("error")[0]["message"]
            assert (await refused.wait_closed())[0] == 1013

    run(main())


def test_pages_of_other_sites(tmp_path: Path) -> None:
    async def main() -> None:
        allowed = {"server__cors_origins": "https://shop.example, http://localhost:3000"}
        async with serving(tmp_path, **allowed) as served:
            for origin in (
                "https://evil.example",
                "null",
                "http://127.0.0.1",
                "https://shop.example.evil",
            ):
                with pytest.raises(InvalidStatus) as refused:
                    await connect(served.ws, origin=origin)  # type: ignore[arg-type]
                assert refused.value.response.status_code == 403
            for origin in (
                None,
                f"http://{served.address}",
                "https://shop.example",
                "http://localhost:3000",
            ):
                async with client(served, origin=origin) as caller:
                    await caller.wait("connected")
            await until(lambda: len(served.calls) == 0)

    run(main())


class SlowLlm(ScriptedLlm):
    """Loads when it is told to."""

    may_load: asyncio.Event

    async def load(self) -> None:  # type: ignore[override]
        await type(self).may_load.wait()


register_model("llm", "test-slow")(SlowLlm)


def test_models_that_are_still_loading(tmp_path: Path) -> None:
    async def main() -> None:
        SlowLlm.may_load = asyncio.Event()
        options: dict[str, Any] = {"models__llm": "test-slow"}
        async with nothing_left(), serving(tmp_path, wait=False, **options) as served:
            async with client(served) as caller:
                assert "still loading" in (await caller.wait("error"))["message"]
                assert (await caller.wait_closed())[0] == 1013
            ready = await served.http.get("/ready")
            assert (ready.status_code, ready.json()["status"]) == (503, "loading")
            SlowLlm.may_load.set()
            await until(lambda: served.ready)
            assert (await served.http.get("/ready")).status_code == 200
            async with client(served) as caller:
                await caller.wait("connected")

    run(main())


def test_stopping_while_models_load(tmp_path: Path) -> None:
    async def main() -> None:
        SlowLlm.may_load = asyncio.Event()
        async with nothing_left(), serving(tmp_path, wait=False, models__llm="test-slow"):
            pass

    run(main())


def test_a_server_that_is_told_to_stop_lets_calls_end(tmp_path: Path) -> None:
    async def main() -> None:
        async with nothing_left(), serving(tmp_path, drain_s=PATIENCE_S) as served:
            async with client(served, start={**START, "extensions": ["heard"]}) as caller:
                await caller.wait("connected")
                served.server.should_exit = True
                await until(lambda: served.calls.draining)
                ready = await served.http.get("/ready")
                assert (ready.status_code, ready.json()["status"]) == (503, "draining")
                async with client(served) as late:
                    assert "shutting down" in (await late.wait("error"))["message"]
                await caller.speak(QUESTION)  # the call that is on goes on
                await caller.wait("turn_complete")
                await caller.send(type="stop")
                assert await caller.wait_closed() == (1000, "")
            await served.serving

    run(main())


def test_a_server_that_has_no_more_patience_ends_calls(tmp_path: Path) -> None:
    async def main() -> None:
        async with nothing_left(), serving(tmp_path, drain_s=0.05) as served:
            async with client(served, start={**START, "extensions": ["heard"]}) as caller:
                await caller.speak(say(550, 640, silence_ms=1200))
                await caller.wait("ai_audio_start")
                served.server.should_exit = True
                assert (await caller.wait("ended"))["reason"] == "the server is shutting down"
                assert (await caller.wait_closed())[0] == 1000
            await served.serving

    run(main())


def test_a_call_cannot_last_for_ever(tmp_path: Path) -> None:
    async def main() -> None:
        async with (
            serving(tmp_path, server__max_call_s=1) as served,
            client(served, start={**START, "extensions": ["heard"]}) as caller,
        ):
            assert "longest duration" in (await caller.wait("ended"))["reason"]
            await caller.wait_closed()

    run(main())


def test_traces_are_written_and_replay(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path, trace_dir=tmp_path / "traces") as served:
            async with client(served, start=START) as caller:
                await caller.speak(QUESTION)
                await caller.wait("turn_complete")
            await until(lambda: len(served.calls) == 0)

    run(main())
    (file,) = (tmp_path / "traces").iterdir()
    assert call_trace.replay(file.read_text().splitlines()) is None
