"""A plain Realtime client that checks every frame strictly, and what tests of the dialect share."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tests.protocols.realtime.strict import check
from tests.server.support import Served, serving
from tests.support import say, until
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from antiphon.models.ports import Pcm16

RATE_HZ = 24_000
QUERY = "?model=gpt-4o-realtime-preview"
"""The beta dialect's types know their models by name."""
MANUAL = {"type": "realtime", "audio": {"input": {"turn_detection": None}}}
WEATHER = {
    "type": "function",
    "name": "weather",
    "description": "The weather of a place.",
    "parameters": {"type": "object", "properties": {"place": {"type": "string"}}},
}


def spoken(hz: int, ms: int = 640, *, silence_ms: int = 0) -> Pcm16:
    return say(hz, ms, silence_ms=silence_ms, rate_hz=RATE_HZ)


def b64(pcm: Pcm16) -> str:
    return base64.b64encode(pcm.astype("<i2").tobytes()).decode()


@dataclass(slots=True)
class Client:
    """Writes down every event, checked."""

    socket: ClientConnection
    dialect: str = "ga"
    events: list[dict[str, Any]] = field(default_factory=list)
    closed: tuple[int, str] | None = None
    problem: str = ""

    async def listen(self) -> None:
        try:
            async for frame in self.socket:
                assert isinstance(frame, str), "a binary frame"
                self.events.append(check(frame, self.dialect))
        except ConnectionClosed:
            pass
        except AssertionError as error:
            self.problem = str(error)[:3000]
        except Exception as error:
            self.problem = repr(error)[:3000]
        self.closed = (self.socket.close_code or 0, self.socket.close_reason or "")

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["type"] == kind]

    def kinds(self, start: int = 0) -> list[str]:
        """Types in order, runs of the same one once; chatter that comes at any time left out."""
        kinds = [e["type"] for e in self.events[start:] if "transcription" not in e["type"]]
        kinds = [k for k in kinds if k != "rate_limits.updated"]
        return [k for n, k in enumerate(kinds) if n == 0 or kinds[n - 1] != k]

    async def wait(self, kind: str, count: int = 1) -> dict[str, Any]:
        """-> the event of this type that comes as number `count`."""

        def there() -> bool:
            return len(self.of(kind)) >= count or self.closed is not None or bool(self.problem)

        await until(there, f"no {kind} {count}: {[e['type'] for e in self.events]}")
        assert not self.problem, self.problem
        assert len(self.of(kind)) >= count, f"closed {self.closed} before {kind} {count}"
        return self.of(kind)[count - 1]

    async def wait_closed(self) -> tuple[int, str]:
        await until(lambda: self.closed is not None, "not closed")
        assert self.closed is not None
        assert not self.problem, self.problem
        return self.closed

    async def send(self, kind: str, **fields: Any) -> None:
        await self.socket.send(json.dumps({"type": kind, **fields}))

    async def update(self, **session: Any) -> dict[str, Any]:
        """-> the session object."""
        count = len(self.of("session.updated")) + 1
        await self.send("session.update", session={"type": "realtime", **session})
        session_: dict[str, Any] = (await self.wait("session.updated", count))["session"]
        return session_

    async def speak(self, pcm: Pcm16, piece_ms: int = 40) -> None:
        step = RATE_HZ * piece_ms // 1000
        for at in range(0, len(pcm), step):
            await self.send("input_audio_buffer.append", audio=b64(pcm[at : at + step]))

    async def text(self, text: str, item_id: str | None = None) -> str:
        """A message of the user -> its id."""
        count = len(self.of("conversation.item.done")) + 1
        item = {
            "type": "message",
            "role": "user",
            "content": [{"type": "input_text", "text": text}],
        }
        if item_id is not None:
            item["id"] = item_id
        await self.send("conversation.item.create", item=item)
        found: str = (await self.wait("conversation.item.done", count))["item"]["id"]
        return found

    async def respond(self, **params: Any) -> dict[str, Any]:
        """-> the response when it is done."""
        count = len(self.of("response.done")) + 1
        await self.send("response.create", response=params)
        response: dict[str, Any] = (await self.wait("response.done", count))["response"]
        return response

    def audio(self, item_id: str | None = None) -> bytes:
        pieces = [
            base64.b64decode(e["delta"])
            for e in self.of("response.output_audio.delta")
            if item_id is None or e["item_id"] == item_id
        ]
        return b"".join(pieces)

    def said(self, response_id: str) -> str:
        kinds = ("response.output_audio_transcript.delta", "response.output_text.delta")
        found = [e for e in self.events if e["type"] in kinds]
        return "".join(e["delta"] for e in found if e["response_id"] == response_id)


@contextlib.asynccontextmanager
async def talking(
    served: Served, query: str = QUERY, *, dialect: str = "ga", **options: Any
) -> AsyncIterator[Client]:
    url = f"ws://{served.address}/v1/realtime{query}"
    if dialect == "beta":
        options["additional_headers"] = {"OpenAI-Beta": "realtime=v1"}
    async with connect(url, compression=None, max_size=None, **options) as socket:
        found = Client(socket, dialect)
        listening = asyncio.create_task(found.listen())
        try:
            yield found
        finally:
            await socket.close()
            await listening
            assert not found.problem, found.problem


@contextlib.asynccontextmanager
async def call(
    folder: Path, *, query: str = QUERY, dialect: str = "ga", **overrides: Any
) -> AsyncIterator[Client]:
    """A server and one client of it, after `session.created`."""
    async with serving(folder, **overrides) as served, talking(served, query, dialect=dialect) as c:
        await c.wait("session.created")
        yield c


def loud(data: bytes) -> bool:
    return bool(np.abs(np.frombuffer(data, "<i2")).max() > 100)
