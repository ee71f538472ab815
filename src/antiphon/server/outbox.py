"""What a websocket client has not read yet: bounded, in order, and purgeable when the caller interrupts.

Knows frames, not protocols. When it is full the client has stopped reading: `on_full` is called once. Text frames are
numbered from 1 and the latest are kept, for a client whose connection breaks: `requeue` what it has not received.
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


def _ignore() -> None:
    pass


class Outbox:
    def __init__(self, max_bytes: int, on_full: Callable[[], None], remember: int = 0) -> None:
        """`remember`: this many text frames are kept after they were sent."""
        self._max_bytes = max_bytes
        self._texts = 0
        """Text frames that were given to a socket."""
        self._remembered: deque[tuple[int, str]] = deque(maxlen=remember)
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
            on_full = self._on_full
            self.abort()
            on_full()

    def purge(self, reply: str) -> None:
        """Forget audio of this reply that has not left yet."""
        self._frames = deque(f for f in self._frames if not reply or f[1] != reply)
        self._size_bytes = sum(len(frame) for frame, _ in self._frames)

    def next_number(self) -> int:
        """Of the text frame that is put in next."""
        return self._texts + 1 + sum(isinstance(frame, str) for frame, _ in self._frames)

    def requeue(
        self, received: int, welcome: Callable[[int], str], keep: Callable[[str], bool]
    ) -> None:
        """Another socket takes over, whose client has every text frame up to number `received`.

        `welcome(number)`: the frame that comes first. `keep`: which old text still means something; audio never does.
        """
        missed = [text for number, text in self._remembered if number > received]
        waiting = [frame for frame, _ in self._frames if isinstance(frame, str)]
        again = [text for text in (*missed, *waiting) if keep(text)]
        self._remembered.clear()
        self._frames = deque((text, "") for text in (welcome(self._texts + 1), *again))
        self._size_bytes = sum(len(frame) for frame, _ in self._frames)
        self._ready.set()

    def close(self) -> None:
        """No more frames; `drain` returns when what is here has been sent."""
        self._closed = True
        self._on_full = _ignore
        self._ready.set()

    def abort(self) -> None:
        """Send nothing more."""
        self._frames.clear()
        self._remembered.clear()
        self._size_bytes = 0
        self.close()

    async def drain(self, socket: Socket) -> None:
        """Send frames in order until closed. Raises what the socket raises, TimeoutError for one that is stuck."""
        while True:
            while self._frames:
                frame, _ = self._frames.popleft()
                self._size_bytes -= len(frame)
                if isinstance(frame, str):
                    self._texts += 1
                    self._remembered.append((self._texts, frame))
                async with asyncio.timeout(SEND_TIMEOUT_S):
                    if isinstance(frame, str):
                        await socket.send_text(frame)
                    else:
                        await socket.send_bytes(frame)
            if self._closed:
                return
            self._ready.clear()
            await self._ready.wait()
