"""A server that serves the page and lets a test play the other side of its protocol.

It knows neither models nor conversations: it records what the page sends and sends what the test
says, so that a page test can ask for situations that a real server cannot be made to have at will
(a refusal, a lost connection, words that were not heard, a server of before the extensions).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Response, WebSocket, WebSocketDisconnect
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles

import antiphon

WEB = Path(antiphon.__file__).parent / "web"
WAIT_S = 15.0
EXTENSIONS = [
    "clear",
    "played",
    "floor",
    "heard",
    "turn",
    "items",
    "settings",
    "commit",
    "resume",
    "notice",
]
OPTIONS = {
    "agents": ["Tutor", "Receptionist"],
    "voices": ["anna", "ben"],
    "languages": ["de", "en", "fr"],
    "levels": ["beginner", "intermediate", "advanced"],
}


class Conversation:
    """One websocket of the page: what came, and the means to answer, for the test's thread."""

    def __init__(self, websocket: WebSocket, changed: threading.Condition) -> None:
        self._websocket = websocket
        self._changed = changed
        self._loop = asyncio.get_running_loop()
        self.messages: list[dict[str, Any]] = []
        self.frames: list[bytes] = []
        self.over = False

    def of_type(self, kind: str) -> list[dict[str, Any]]:
        return [message for message in self.messages if message.get("type") == kind]

    def wait(self, condition: Callable[[Conversation], object]) -> None:
        """Until the condition holds for what has come so far.

        Raises:
            AssertionError: it did not within 15 s.
        """
        with self._changed:
            held = self._changed.wait_for(lambda: bool(condition(self)), WAIT_S)
        assert held, f"the page sent {self.messages[-5:]} and {len(self.frames)} frames"

    def connected(self, **fields: Any) -> None:
        """Accepts the conversation as a server with all extensions does."""
        known: dict[str, Any] = {"session_id": "s1", "extensions": EXTENSIONS}
        self.send("connected", **{**known, **fields})

    def send(self, kind: str, **fields: Any) -> None:
        self.send_text(json.dumps({"type": kind, **fields}))

    def send_text(self, text: str) -> None:
        self._do(self._websocket.send_text(text))

    def send_audio(self, pcm: bytes, piece_bytes: int = 1920) -> None:
        async def send() -> None:
            for start in range(0, len(pcm), piece_bytes):
                await self._websocket.send_bytes(pcm[start : start + piece_bytes])

        self._do(send())

    def close(self, code: int = 1000) -> None:
        with contextlib.suppress(WebSocketDisconnect):  # the page may have closed it first
            self._do(self._websocket.close(code))

    def _do(self, work: Any) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(WAIT_S)

    async def read(self) -> None:
        """Records all that comes until the page goes away."""
        try:
            while True:
                message = await self._websocket.receive()
                if message["type"] == "websocket.disconnect":
                    return
                with self._changed:
                    if message.get("text") is not None:
                        self.messages.append(json.loads(message["text"]))
                    else:
                        self.frames.append(message["bytes"])
                    self._changed.notify_all()
        except (WebSocketDisconnect, RuntimeError):
            return
        finally:
            with self._changed:
                self.over = True
                self._changed.notify_all()


class FakeServer:
    """Serves `/`, `/static/*`, `/ready` and `/ws/conversation` on a loopback port until closed."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._conversations: list[Conversation] = []
        self._taken = 0
        self.refusing = False
        self.ready_status = 200
        self.level = ""
        # Listening before the thread starts: whoever connects early waits in the backlog.
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._socket.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}/"
        config = uvicorn.Config(self._app(), log_level="error", lifespan="off")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]})
        self._thread.start()

    def next_conversation(self) -> Conversation:
        """The next websocket that the page opened and the test has not seen yet."""
        with self._changed:
            came = self._changed.wait_for(lambda: len(self._conversations) > self._taken, WAIT_S)
            assert came, "the page did not connect"
            self._taken += 1
            return self._conversations[self._taken - 1]

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join(WAIT_S)
        self._socket.close()

    def _app(self) -> FastAPI:
        app = FastAPI()
        policy = {"Content-Security-Policy": "default-src 'self'"}

        @app.get("/")
        async def page() -> FileResponse:
            return FileResponse(WEB / "index.html", headers=policy)

        @app.get("/ready")
        async def ready() -> Response:
            return Response(status_code=self.ready_status)

        @app.get("/api/options")
        async def options() -> dict[str, object]:
            return {**OPTIONS, "level": self.level}

        @app.websocket("/ws/conversation")
        async def conversation(websocket: WebSocket) -> None:
            if self.refusing:
                await websocket.close()
                return
            await websocket.accept()
            talk = Conversation(websocket, self._changed)
            with self._changed:
                self._conversations.append(talk)
                self._changed.notify_all()
            await talk.read()

        app.mount("/static", StaticFiles(directory=WEB))
        return app
