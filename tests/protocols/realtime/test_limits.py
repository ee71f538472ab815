"""What one session may keep and ask for: bytes and work. Others on the same server do not notice."""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from tests.protocols.realtime.support import Client, call, spoken, talking
from tests.server.support import serving
from tests.support import run
from websockets.exceptions import ConnectionClosed

from antiphon.protocols.realtime import connection
from antiphon.protocols.realtime.frames import MAX_VALUES
from antiphon.server import budget
from antiphon.server.budget import Allowance, WorkRate

KIB = 1 << 10
LIMIT = 256 * KIB


def message(text: str, **more: Any) -> dict[str, Any]:
    content = [{"type": "input_text", "text": text}]
    return {"type": "message", "role": "user", "content": content, **more}


def test_a_session_keeps_so_many_bytes_of_items(tmp_path: Path) -> None:
    async def main() -> None:
        async with call(tmp_path, realtime__max_session_bytes=LIMIT) as c:
            for number in range(4):
                await c.send(
                    "conversation.item.create", item=message("a" * 80 * KIB, id=f"m{number}")
                )
            error = (await c.wait("error"))["error"]
            assert error["code"] == "session_too_large"
            assert error["param"] == "item"
            assert str(LIMIT) in error["message"]
            assert len(c.of("conversation.item.done")) == 3
            # What is deleted makes room.
            await c.send("conversation.item.delete", item_id="m0")
            await c.send("conversation.item.create", item=message("a" * 80 * KIB, id="m9"))
            await c.wait("conversation.item.done", 4)

    run(main())


@pytest.mark.parametrize(
    "session",
    [
        {"instructions": "x" * LIMIT},
        {"tools": [{"name": f"f{n}", "description": "y" * 4 * KIB} for n in range(70)]},
        {"prompt": {"variables": {"a": "z" * LIMIT}}},
        {"audio": {"output": {"voice": "v" * LIMIT}}},
        {"tracing": ["t"] * 40_000},
    ],
    ids=lambda session: next(iter(session)),
)
def test_a_session_object_counts_as_well(session: dict[str, Any], tmp_path: Path) -> None:
    async def main() -> None:
        async with call(tmp_path, realtime__max_session_bytes=LIMIT) as c:
            before = await c.update()
            await c.send("session.update", session={"type": "realtime", **session})
            assert (await c.wait("error"))["error"]["code"] == "session_too_large"
            assert await c.update() == before
            await c.update(instructions="short")
            assert (await c.respond())["status"] == "completed"

    run(main())


def test_a_response_of_its_own_input_counts_as_well(tmp_path: Path) -> None:
    async def main() -> None:
        async with call(tmp_path, realtime__max_session_bytes=LIMIT) as c:
            items = [message("a" * 80 * KIB) for _ in range(4)]
            for conversation in ("auto", "none"):
                response = {"conversation": conversation, "input": items}
                await c.send("response.create", response=response)
            await c.wait("error", 2)
            assert {e["error"]["code"] for e in c.of("error")} == {"session_too_large"}

    run(main())


def test_a_message_of_countless_parts_is_an_error(tmp_path: Path) -> None:
    async def main() -> None:
        async with call(tmp_path) as c:
            item = {"type": "message", "role": "user"}
            parts = [{"type": "input_text", "text": ""}] * 101
            await c.send("conversation.item.create", item={**item, "content": parts})
            assert "101 parts" in (await c.wait("error"))["error"]["message"]
            await c.socket.send('{"type": "session.update", "x": [' + "0," * MAX_VALUES + "0]}")
            assert (await c.wait("error", 2))["error"]["code"] == "event_too_large"

    run(main())


def allow(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    """Every session of the test has this allowance."""
    monkeypatch.setattr(connection, "ALLOWANCE", Allowance(**changes))


async def flood(c: Client, count: int) -> None:
    for number in range(count):
        event = {"type": "conversation.item.create", "item": message("x", id=f"f{number}")}
        await c.socket.send(json.dumps(event))


def test_a_flood_of_items_waits_and_the_others_are_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After its burst a client is read no faster than its allowance, here: not at all."""

    async def main() -> None:
        allow(monkeypatch, messages=WorkRate(0.01, 100))
        async with serving(tmp_path) as served, talking(served) as evil, talking(served) as good:
            await evil.wait("session.created")
            flooding = asyncio.create_task(flood(evil, 5_000))
            await evil.wait("conversation.item.done", 100)
            await good.speak(spoken(440, silence_ms=1200), piece_ms=200)
            await good.wait("response.done")
            assert len(evil.of("conversation.item.done")) <= 100 + budget._SETTLE_MESSAGES
            flooding.cancel()

    run(main())


def test_who_stays_over_the_budget_is_ended_and_the_others_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        allow(monkeypatch, messages=WorkRate(1_000, 100), patience_s=0.0)
        async with serving(tmp_path) as served, talking(served) as evil, talking(served) as good:
            await good.wait("session.created")
            await evil.wait("session.created")
            with contextlib.suppress(ConnectionClosed):
                await flood(evil, 5_000)
            code, reason = await evil.wait_closed()
            assert code == 1008
            assert "more than 1000 messages a second" in reason
            assert (await good.respond())["status"] == "completed"

    run(main())


def test_audio_as_fast_as_possible_waits_and_is_heard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is ended for it."""

    async def main() -> None:
        allow(monkeypatch, audio_s=WorkRate(4, 0.1), patience_s=0.0)
        async with call(tmp_path) as c:
            await c.speak(spoken(440, silence_ms=1_200), piece_ms=1_840)
            await c.wait("response.done")
            assert c.closed is None

    run(main())
