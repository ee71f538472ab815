"""A small voice agent behind a real socket, which speaks Twilio's protocol and does as it is told.

It hears speech by its level, answers with a tone some frames after the caller fell silent, and stops when it is
interrupted. It writes down everything it is sent.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect
from tests.support import say, until

from antiphon.audio.encoding import encode_file
from antiphon.audio.g711 import decode_ulaw, encode_ulaw
from antiphon.server.lifecycle import listen

Step = Callable[["FakeCall"], Awaitable[None]]


def payload(ms: int, hz: int = 660) -> str:
    return base64.b64encode(encode_ulaw(say(hz, ms, rate_hz=8_000))).decode()


@dataclass
class Behaviour:
    answer_ms: int = 400
    after_frames: int = 5
    """Of silence, until it answers."""
    greeting_ms: int = 0
    stops: bool = True
    """When it is interrupted."""
    hang_up_after: int = 0
    """Answers; 0: never."""
    status: int = 101
    on_start: Step | None = None


@dataclass
class FakeCall:
    socket: WebSocket
    behaviour: Behaviour
    headers: dict[str, str] = field(default_factory=dict)
    messages: list[dict[str, Any]] = field(default_factory=list)
    stream: str = ""
    answers: int = 0
    spoke: int = 0
    quiet: int = 0
    closed: bool = False

    def of(self, event: str) -> list[dict[str, Any]]:
        return [m for m in self.messages if m["event"] == event]

    async def send(self, event: str, **content: Any) -> None:
        await self.socket.send_text(
            json.dumps({"event": event, "streamSid": self.stream, **content})
        )

    async def speak(self, ms: int) -> None:
        for at in range(0, ms, 100):
            await self.send("media", media={"payload": payload(min(100, ms - at))})
            await self.send("mark", mark={"name": f"a{self.answers}:{at}"})

    async def serve(self) -> None:
        while True:
            message = json.loads(await self.socket.receive_text())
            self.messages.append(message)
            if message["event"] == "start":
                self.stream = message["streamSid"]
                if self.behaviour.on_start is not None:
                    await self.behaviour.on_start(self)
                if self.behaviour.greeting_ms:
                    await self.speak(self.behaviour.greeting_ms)
            elif message["event"] == "media":
                await self.hear(base64.b64decode(message["media"]["payload"]))
            elif message["event"] == "stop":
                return
            if 0 < self.behaviour.hang_up_after <= self.answers:
                return

    async def hear(self, codes: bytes) -> None:
        loud = int(np.abs(decode_ulaw(codes).astype(np.int32)).max()) > 1_000
        if loud:
            self.spoke, self.quiet = self.spoke + 1, 0
            if self.spoke == 3 and self.behaviour.stops:
                await self.send("clear")
            return
        self.quiet += 1
        if self.quiet == self.behaviour.after_frames and self.spoke >= 3:
            self.spoke = 0
            if self.behaviour.answer_ms:
                self.answers += 1
                await self.speak(self.behaviour.answer_ms)


@dataclass
class FakeAgent:
    behaviour: Behaviour
    address: str = ""
    calls: list[FakeCall] = field(default_factory=list)
    forms: list[tuple[str, dict[str, str], str]] = field(default_factory=list)
    """Path, form and signature of every webhook."""
    twiml: str = ""
    recordings: list[bytes] = field(default_factory=list)
    """As fetched by the recording flow."""

    @property
    def ws(self) -> str:
        return f"ws://{self.address}/media-stream"

    @property
    def http(self) -> str:
        return f"http://{self.address}/voice-stream"

    async def stream(self, socket: WebSocket) -> None:
        if self.behaviour.status != 101:
            await socket.send_denial_response(Response(status_code=self.behaviour.status))
            return
        await socket.accept()
        call = FakeCall(socket, self.behaviour, dict(socket.headers))
        self.calls.append(call)
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):
            await call.serve()
            await socket.close()
        call.closed = True

    async def webhook(self, request: Request) -> Response:
        await self._note(request)
        return Response(self.twiml.format(address=self.address), media_type="text/xml")

    async def _note(self, request: Request) -> dict[str, str]:
        form = {name: str(value) for name, value in (await request.form()).items()}
        signature = request.headers.get("x-twilio-signature", "")
        self.forms.append((request.url.path, form, signature))
        return form

    async def voice(self, request: Request) -> Response:
        form = await self._note(request)
        record = '<Record action="/voice" timeout="1" playBeep="false"/>'
        if "RecordingUrl" in form:
            async with httpx.AsyncClient() as http:
                found = await http.get(form["RecordingUrl"])
                self.recordings.append(found.content)
            record = f"<Play>/answer.wav</Play>{record}"
        return Response(f"<Response>{record}</Response>", media_type="text/xml")

    async def answer(self, request: Request) -> Response:
        wav = encode_file(say(660, 300), 16_000, "wav")
        return Response(wav, media_type="audio/wav")


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        yield


@contextlib.asynccontextmanager
async def fake_agent(**behaviour: Any) -> AsyncIterator[FakeAgent]:
    agent = FakeAgent(Behaviour(**behaviour))
    routes = [
        WebSocketRoute("/media-stream", agent.stream),
        Route("/voice-stream", agent.webhook, methods=["POST", "GET"]),
        Route("/status", agent.webhook, methods=["POST"]),
        Route("/voice", agent.voice, methods=["POST"]),
        Route("/answer.wav", agent.answer),
        Route("/plain", lambda _: PlainTextResponse("hello"), methods=["POST"]),
    ]
    config = uvicorn.Config(Starlette(routes=routes), log_config=None, lifespan="off")
    server = _Server(config)
    listener: socket.socket = listen("127.0.0.1", 0)
    agent.address = "{}:{}".format(*listener.getsockname())
    task = asyncio.create_task(server.serve([listener]))
    try:
        await until(lambda: server.started, "the fake agent does not start")
        yield agent
    finally:
        server.should_exit = True
        await task
        listener.close()
