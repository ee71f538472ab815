"""A simulated caller on `/ws/conversation`: speaks recordings in real time, listens, reports what it has played.

Faithful to what a browser does: 20 ms frames on a drift-free clock, silence between utterances, `played` reports ten
times a second, `clear` obeyed at once. Ships for benches and for users' own tests.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import numpy as np
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from antiphon.audio.framing import pcm_to_bytes
from antiphon.client.loudspeaker import Loudspeaker
from antiphon.errors import ProtocolError
from antiphon.models.ports import Pcm16

FRAME_MS = 20
_REPORT_S = 0.1
_EXTENSIONS = ["clear", "played", "floor", "heard", "turn", "items"]


@dataclass(slots=True)
class Received:
    at_s: float
    message: dict[str, Any]


@dataclass(slots=True)
class Utterance:
    """One thing that the caller said, on the loop's clock."""

    start_s: float
    end_s: float
    """When its last sample left."""


@dataclass(slots=True)
class Talker:
    """`async with Talker(url) as caller:` then `await caller.say(pcm)`."""

    url: str
    rate_hz: int = 16_000
    greeting: bool = False
    extensions: list[str] = field(default_factory=lambda: list(_EXTENSIONS))
    session_id: str = ""
    received: list[Received] = field(default_factory=list)
    playout: Loudspeaker = field(default_factory=lambda: Loudspeaker(24_000))
    format: str = "pcm_s16le"
    """How `start` announces what `pack` makes."""
    pack: Callable[[Pcm16], bytes] = pcm_to_bytes
    """The caller's samples -> the bytes to send now, if any."""
    api_key: str = field(default="", repr=False)
    _socket: ClientConnection | None = None
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)
    _speech: deque[tuple[Pcm16, asyncio.Future[Utterance]]] = field(default_factory=deque)
    _reply: str = ""
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    async def __aenter__(self) -> Talker:
        """Raises ProtocolError when the server refuses the call, OSError when there is none."""
        self._socket = await connect(
            self.url,
            max_size=16 << 20,
            compression=None,
            open_timeout=10,
            additional_headers={"Authorization": f"Bearer {self.api_key}"} if self.api_key else {},
        )
        start = {
            "type": "start",
            "format": self.format,
            "rate": self.rate_hz,
            "extensions": self.extensions,
            "greeting": self.greeting,
        }
        try:
            with contextlib.suppress(ConnectionClosed):  # what it said before is more useful
                await self._socket.send(json.dumps(start))
            self._tasks = [
                asyncio.create_task(step()) for step in (self._listen, self._speak, self._report)
            ]
            connected = await self.wait_for("connected", timeout_s=10)
        except BaseException:
            await self._hang_up()
            raise
        self.session_id = connected.message["session_id"]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._hang_up()

    async def _hang_up(self) -> None:
        assert self._socket is not None
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with contextlib.suppress(ConnectionClosed, OSError, TimeoutError):
            async with asyncio.timeout(3):
                await self._socket.send('{"type":"stop"}')
                await self._socket.close()

    @property
    def now_s(self) -> float:
        return asyncio.get_running_loop().time()

    async def say(self, pcm: Pcm16) -> Utterance:
        """Speak in real time; returns when the last sample has left. Raises ProtocolError when the line is cut."""
        done: asyncio.Future[Utterance] = asyncio.get_running_loop().create_future()
        self._speech.append((pcm, done))
        waiting: list[asyncio.Future[Any]] = [done, self._tasks[1]]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if not done.done():
            raise self._cut_off("everything was said")
        return done.result()

    async def wait_for(
        self, kind: str, *, after_s: float = 0.0, timeout_s: float = 15.0
    ) -> Received:
        """The first message of this type since `after_s`. Raises TimeoutError, ProtocolError when the line is cut."""
        async with asyncio.timeout(timeout_s):
            while True:
                for item in self.received:
                    if item.at_s >= after_s and item.message["type"] == kind:
                        return item
                if self._tasks and self._tasks[0].done():
                    raise self._cut_off(f"{kind!r} came")
                self._news.clear()
                await self._news.wait()

    def _cut_off(self, what: str) -> ProtocolError:
        errors = [message["message"] for message in self.messages("error")]
        reason = f": {errors[-1]}" if errors else ""
        return ProtocolError(f"the server closed the connection before {what}{reason}")

    def messages(self, kind: str, after_s: float = 0.0) -> list[dict[str, Any]]:
        return [r.message for r in self.received if r.message["type"] == kind and r.at_s >= after_s]

    async def _listen(self) -> None:
        assert self._socket is not None
        try:
            async for data in self._socket:
                now_s = self.now_s
                if isinstance(data, bytes):
                    self.playout.add(self._reply, np.frombuffer(data, "<i2"), now_s)
                else:
                    self._take(json.loads(data), now_s)
                self._news.set()
        except ConnectionClosed:
            pass  # whoever waits for something is told
        finally:
            asyncio.get_running_loop().call_soon(self._news.set)

    def _take(self, message: dict[str, Any], now_s: float) -> None:
        self.received.append(Received(now_s, message))
        if message["type"] == "ai_audio_start":
            self._reply = message.get("reply", "")
            if "from_ms" in message:
                self.playout.begin(self._reply, message["from_ms"])
        elif message["type"] == "clear":
            self.playout.clear(now_s)

    async def _speak(self) -> None:
        """Frames for ever: speech when there is some, silence otherwise, never drifting from the clock."""
        size = self.rate_hz * FRAME_MS // 1000
        silence = np.zeros(size, np.int16)
        current: Pcm16 | None = None
        done: asyncio.Future[Utterance] | None = None
        at, began_s, next_s = 0, 0.0, self.now_s
        while True:
            next_s += FRAME_MS / 1000
            if current is None and self._speech:
                current, done = self._speech.popleft()
                at, began_s = 0, next_s - FRAME_MS / 1000
            # A frame leaves when its last sample would have been recorded.
            await asyncio.sleep(max(next_s - self.now_s, 0))
            if current is None:
                await self._send(silence)
                continue
            piece = np.zeros(size, np.int16)
            part = current[at : at + size]
            piece[: len(part)] = part
            await self._send(piece)
            at += size
            if at >= len(current):
                assert done is not None
                if not done.done():
                    done.set_result(Utterance(began_s, began_s + len(current) / self.rate_hz))
                current = None

    async def _send(self, pcm: Pcm16) -> None:
        assert self._socket is not None
        data = self.pack(pcm)
        if data:
            await self._socket.send(data)

    async def _report(self) -> None:
        assert self._socket is not None
        told: dict[str, int] = {}
        while "played" in self.extensions:
            await asyncio.sleep(_REPORT_S)
            reply, now_s = self._reply, self.now_s
            played_ms = self.playout.played_ms(reply, now_s) if reply else 0
            if played_ms > told.get(reply, 0):
                told[reply] = played_ms
                report = {"type": "played", "reply": reply, "ms": played_ms}
                await self._socket.send(json.dumps(report))
