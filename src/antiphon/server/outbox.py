"""What a websocket client has not read yet: bounded, in order, and purgeable when the caller interrupts.

Knows frames, not protocols. When it is full the client has stopped reading: `on_full` is called once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol

SEND_TIMEOUT_S = 20.0
"""A client that takes nothing for this long is gone."""


class Socket(Protocol):
    async def send_text(self, data: str) -> None: ...
    async def send_bytes(self, data: bytes) -> None: ...


class Outbox:
    def __init__(self, max_bytes: int, on_full: Callable[[], None]) -> None:
        self._max_bytes = max_bytes
        self._on_full = on_full
        self._frames: deque[tuple[str | bytes, str]] = deque()
        self._size_bytes = 0
        self._ready = asyncio.Event()
        self._closed = False

    def put(self, frame: str | bytes, reply: str = "") -> None:
        """Never waits. `reply`: whose audio it is, for `purge`."""
        if self._closed:
            return
        self._frames.append((frame, reply))
        self._size_bytes += len(frame)
        self._ready.set()
        if self._size_bytes > self._max_bytes:
            self.abort()
            self._on_full()

    def purge(self, reply: str) -> None:
        """Forget audio of this reply that has not left yet."""
        self._frames = deque(
            f for f in self._frames if not (f[1] == reply and isinstance(f[0], bytes))
        )
        self._size_bytes = sum(len(frame) for frame, _ in self._frames)

    def close(self) -> None:
        """No more frames; `drain` returns when what is here has been sent."""
        self._closed = True
        self._ready.set()

    def abort(self) -> None:
        """Send nothing more."""
        self._frames.clear()
        self._size_bytes = 0
        self.close()

    async def drain(self, socket: Socket) -> None:
        """Send frames in order until closed. Raises what the socket raises, TimeoutError for one that is stuck."""
        while True:
            while self._frames:
                frame, _ = self._frames.popleft()
                self._size_bytes -= len(frame)
                async with asyncio.timeout(SEND_TIMEOUT_S):
                    if isinstance(frame, str):
                        await socket.send_text(frame)
                    else:
                        await socket.send_bytes(frame)
            if self._closed:
                return
            self._ready.clear()
            await self._ready.wait()
