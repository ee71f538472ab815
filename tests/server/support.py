"""The real server on a real socket, in the test's own event loop, and a plain client of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI
from tests.support import NoWeights, say, settings, until
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from antiphon.errors import AntiphonError
from antiphon.models.model_set import ModelSet
from antiphon.models.ports import Pcm16
from antiphon.server.admission import Calls
from antiphon.server.app import create_app
from antiphon.server.lifecycle import Server, listen

QUESTION = say(440, 640, silence_ms=1200)
START = {"type": "start", "format": "pcm_s16le", "rate": 16_000}


@dataclass(slots=True)
class Served:
    app: FastAPI
    server: Server
    address: str
    http: httpx.AsyncClient
    serving: asyncio.Task[None]
    ready: list[AntiphonError | None] = field(default_factory=list)

    @property
    def calls(self) -> Calls:
        calls = self.app.state.calls
        assert isinstance(calls, Calls)
        return calls

    @property
    def models(self) -> ModelSet:
        return self.calls.models

    @property
    def ws(self) -> str:
        return f"ws://{self.address}/ws/conversation"


@contextlib.asynccontextmanager
async def serving(
    folder: Path,
    *,
    wait: bool = True,
    drain_s: float = 0.0,
    narrow: bool = False,
    stuck_peer_ms: int = 60_000,
    **overrides: Any,
) -> AsyncIterator[Served]:
    """`overrides`: settings as `section__name=value`. `wait`: until calls can be taken.

    `narrow`: the system buffers little of what is sent.
    """
    chosen = settings(folder, **overrides)
    ready: list[AntiphonError | None] = []
    app = create_app(chosen, NoWeights(), on_ready=ready.append)
    server = Server(app, chosen, drain_s)
    listener = listen("127.0.0.1", 0, stuck_peer_ms)
    if narrow:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)
    address = "{}:{}".format(*listener.getsockname())
    task = asyncio.create_task(server.serve([listener]))
    try:
        async with httpx.AsyncClient(base_url=f"http://{address}", timeout=20) as http:
            await until(lambda: server.started and (ready or not wait), "the server does not start")
            yield Served(app, server, address, http, task, ready)
    finally:
        server.should_exit = True
        await task
        listener.close()


@dataclass(slots=True)
class Client:
    """Writes down what comes: text frames as objects, binary frames as bytes."""

    socket: ClientConnection
    frames: list[dict[str, Any] | bytes] = field(default_factory=list)
    closed: tuple[int, str] | None = None

    async def listen(self) -> None:
        try:
            async for frame in self.socket:
                self.frames.append(frame if isinstance(frame, bytes) else json.loads(frame))
        except ConnectionClosed:
            pass
        self.closed = (self.socket.close_code or 0, self.socket.close_reason or "")

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [f for f in self.frames if isinstance(f, dict) and f["type"] == kind]

    async def wait(self, kind: str, count: int = 1) -> dict[str, Any]:
        """-> the message of this type that comes as number `count`."""
        await until(lambda: len(self.of(kind)) >= count or self.closed, f"no {kind}: {self.frames}")
        assert len(self.of(kind)) >= count, f"closed {self.closed} before {kind}: {self.frames}"
        return self.of(kind)[count - 1]

    async def wait_closed(self) -> tuple[int, str]:
        await until(lambda: self.closed, f"not closed: {self.frames[-5:]}")
        assert self.closed is not None
        return self.closed

    async def send(self, **message: Any) -> None:
        await self.socket.send(json.dumps(message))

    async def speak(self, pcm: Pcm16, piece_bytes: int = 640) -> None:
        await self.send_pieces(pcm.astype("<i2").tobytes(), piece_bytes)

    async def send_pieces(self, data: bytes, piece_bytes: int = 1_200) -> None:
        for at in range(0, len(data), piece_bytes):
            await self.socket.send(data[at : at + piece_bytes])

    def kinds(self) -> list[str]:
        """Types in order, runs of the same one once."""
        kinds = [f["type"] if isinstance(f, dict) else "(pcm)" for f in self.frames]
        return [kind for n, kind in enumerate(kinds) if n == 0 or kinds[n - 1] != kind]


@contextlib.asynccontextmanager
async def client(
    served: Served, query: str = "", *, start: dict[str, Any] | None = None, **options: Any
) -> AsyncIterator[Client]:
    """`start`: sent first, so that the server knows the audio; None: an older client."""
    async with connect(served.ws + query, compression=None, max_size=None, **options) as socket:
        found = Client(socket)
        listening = asyncio.create_task(found.listen())
        try:
            if start is not None:
                await found.send(**start)
            yield found
        finally:
            await socket.close()
            await listening
