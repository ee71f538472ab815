"""A model service on a real socket, in the test's own event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from fastapi import FastAPI
from tests.support import NoWeights, settings, until
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from antiphon.models.ports import Kind
from antiphon.protocols.moshi import codec as moshi
from antiphon.server.lifecycle import Server, listen
from antiphon.server.model_streams import ModelStreams
from antiphon.server.service_app import create_service


@dataclass(slots=True)
class Service:
    app: FastAPI
    server: Server
    port: int
    http: httpx.AsyncClient
    task: asyncio.Task[None]

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    @property
    def ws(self) -> str:
        return f"ws://{self.address}"

    @property
    def streams(self) -> ModelStreams:
        streams = self.app.state.calls
        assert isinstance(streams, ModelStreams)
        return streams

    def backend(self, kind: Kind) -> Any:
        return self.streams.models.backend(kind)


@contextlib.asynccontextmanager
async def service(
    folder: Path,
    kind: Kind,
    *,
    port: int = 0,
    drain_s: float = 0.0,
    wait: bool = True,
    weights: Any = None,
    **overrides: Any,
) -> AsyncIterator[Service]:
    """`overrides`: settings as `section__name=value`. `wait`: until the model is loaded."""
    chosen = settings(folder, **overrides)
    ready: list[Any] = []
    app = create_service(chosen, kind, weights or NoWeights(), on_ready=ready.append)
    server = Server(app, chosen, drain_s)
    listener = listen("127.0.0.1", port)
    found = listener.getsockname()[1]
    task = asyncio.create_task(server.serve([listener]))
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{found}", timeout=20) as http:
            await until(lambda: server.started and (ready or not wait), "the service hangs")
            yield Service(app, server, found, http, task)
    finally:
        server.should_exit = True
        await task
        listener.close()


@dataclass(slots=True)
class Moshi:
    """A client that speaks moshi and nothing else of ours."""

    socket: ClientConnection

    async def send(self, *messages: moshi.Message) -> None:
        for message in messages:
            await self.socket.send(moshi.encode(message))

    async def receive(self) -> moshi.Message | None:
        """None: the server has closed."""
        try:
            async with asyncio.timeout(10):
                frame = await self.socket.recv()
        except ConnectionClosed:
            return None
        assert isinstance(frame, bytes)
        return moshi.decode(frame)

    async def until(self, kind: type[Any]) -> list[moshi.Message]:
        """Everything up to the first message of this kind."""
        found: list[moshi.Message] = []
        while (message := await self.receive()) is not None:
            found.append(message)
            if isinstance(message, kind):
                return found
        raise AssertionError(f"closed before {kind.__name__}: {found[-5:]}")

    async def rest(self) -> list[moshi.Message]:
        """Everything until the server closes."""
        found: list[moshi.Message] = []
        while (message := await self.receive()) is not None:
            found.append(message)
        return found


@contextlib.asynccontextmanager
async def moshi_client(url: str, **options: Any) -> AsyncIterator[Moshi]:
    async with connect(url, compression=None, max_size=None, **options) as socket:
        yield Moshi(socket)


def frames(pcm: Any) -> list[moshi.Audio]:
    """int16 at 24 kHz as messages of one frame each, the last one filled up."""
    padded = np.pad(pcm, (0, -len(pcm) % moshi.FRAME_SAMPLES)).astype(np.float32) / 32768
    return [moshi.Audio(frame) for frame in padded.reshape(-1, moshi.FRAME_SAMPLES)]


ZEROS = moshi.Audio(np.zeros(moshi.FRAME_SAMPLES, np.float32))
