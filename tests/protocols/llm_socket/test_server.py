"""The language model's websocket, as the voice stack has it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from tests.protocols.services_support import service
from tests.support import STORY, run, until
from websockets.asyncio.client import ClientConnection, connect

from antiphon.models.ports import Kind


async def _ask(socket: ClientConnection, **message: Any) -> list[dict[str, Any]]:
    """-> all answers up to `complete` or `error`."""
    await socket.send(json.dumps({"type": "generate", **message}))
    found: list[dict[str, Any]] = []
    while not found or found[-1]["type"] == "token":
        async with asyncio.timeout(10):
            found.append(json.loads(await socket.recv()))
    return found


def test_prompts_one_after_the_other(tmp_path: Path) -> None:
    async def check() -> None:
        async with service(tmp_path, Kind.LLM) as served, connect(served.ws + "/ws") as socket:
            found = await _ask(socket, prompt="what time is it", temperature=0.2, max_tokens=50)
            tokens = [m for m in found if m["type"] == "token"]
            assert "".join(m["text"] for m in tokens) == "It is noon."
            assert [m["finished"] for m in tokens] == [False] * (len(tokens) - 1) + [True]
            assert (found[-1]["type"], found[-1]["finish_reason"]) == ("complete", "stop")
            turns = [{"role": "system", "content": "x"}, {"role": "user", "content": "the time"}]
            found = await _ask(socket, messages=turns, cumulative=True)
            assert [m["text"] for m in found[:-1]] == [
                "It ",
                "It is ",
                "It is noon.",
                "It is noon.",
            ]
            request = served.backend(Kind.LLM).requests[0]
            assert (request.temperature, request.max_tokens) == (0.2, 50)
            await socket.close()
            await until(lambda: len(served.streams) == 0)

    run(check())


def test_mistakes_are_told_and_forgiven(tmp_path: Path) -> None:
    async def check() -> None:
        async with service(tmp_path, Kind.LLM) as served, connect(served.ws + "/ws") as socket:
            for wrong in (
                "nonsense",
                "[]",
                '{"type": "sing"}',
                '{"type": "generate"}',
                '{"type": "generate", "messages": [{"role": "judge", "content": "x"}]}',
                '{"type": "generate", "prompt": "x", "max_tokens": 0}',
            ):
                await socket.send(wrong)
                assert json.loads(await socket.recv())["type"] == "error", wrong
            assert (await _ask(socket, prompt="time"))[-1]["type"] == "complete"

    run(check())


def test_an_answer_can_be_broken_off(tmp_path: Path) -> None:
    async def check() -> None:
        slow = {"rules": {"story": STORY * 40}, "piece_delay_ms": 20}
        async with (
            service(tmp_path, Kind.LLM, models__options__llm__scripted=slow) as served,
            connect(served.ws + "/ws") as socket,
        ):
            await socket.send(json.dumps({"type": "generate", "prompt": "a story"}))
            assert json.loads(await socket.recv())["text"] == "word1 "
            await socket.send(json.dumps({"type": "generate", "prompt": "another story"}))
            while (told := json.loads(await socket.recv()))["type"] == "token":
                pass
            assert told["type"] == "error"
            await socket.send(json.dumps({"type": "stop"}))
            stats = served.streams.models.scheduler_stats
            await until(lambda: stats()["llm:scripted"].running == 0)

    run(check())


def test_busy(tmp_path: Path) -> None:
    async def check() -> None:
        async with (
            service(tmp_path, Kind.LLM, server__max_calls=1) as served,
            connect(served.ws + "/ws") as first,
        ):
            assert (await _ask(first, prompt="time"))[-1]["type"] == "complete"
            async with connect(served.ws + "/ws") as second:
                assert json.loads(await second.recv())["type"] == "error"

    run(check())
