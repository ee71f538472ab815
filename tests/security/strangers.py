"""Strangers who attack over a plain socket: a bounded number of small things, as fast as the server takes them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

TEXT, BINARY, CONTINUATION, CLOSE, PING, PONG = 1, 2, 0, 8, 9, 10
KEY = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
PATIENCE_S = 20.0


def frame(
    opcode: int, payload: bytes = b"", *, final: bool = True, length: int | None = None
) -> bytes:
    """A masked frame, key zero. `length`: what its header says, whatever comes."""
    size = len(payload) if length is None else length
    first = bytes([(0x80 if final else 0) | opcode])
    if size < 126:
        head = bytes([0x80 | size])
    elif size < 1 << 16:
        head = b"\xfe" + size.to_bytes(2, "big")
    else:
        head = b"\xff" + size.to_bytes(8, "big")
    return first + head + bytes(4) + payload


def upgrade(path: str, more: str = "") -> bytes:
    head = (
        f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    )
    return f"{head}{KEY}{more}\r\n".encode()


@dataclass(slots=True)
class Line:
    """A connection, and what came back on it."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    sent_bytes: int = 0
    """That the server's side of the network took."""
    got: bytearray = field(default_factory=bytearray)

    async def send(self, data: bytes, limit_s: float = PATIENCE_S) -> bool:
        """-> all of it was taken; else the server has closed, or does not read."""
        try:
            async with asyncio.timeout(limit_s):
                self.writer.write(data)
                await self.writer.drain()
        except (OSError, TimeoutError):
            return False
        self.sent_bytes += len(data)
        return True

    async def flood(self, piece: bytes, most: int, limit_s: float = PATIENCE_S) -> None:
        """The same again and again, until the server closes, `most` were sent or the time is over."""
        end_s = asyncio.get_running_loop().time() + limit_s
        for _ in range(most):
            left_s = end_s - asyncio.get_running_loop().time()
            if left_s <= 0 or self.reader.at_eof() or not await self.send(piece, left_s):
                return

    async def head(self) -> bytes:
        """The status line and the headers of an answer."""
        async with asyncio.timeout(PATIENCE_S):
            return await self.reader.readuntil(b"\r\n\r\n")

    async def to_the_end(self, limit_s: float = PATIENCE_S) -> bytes:
        """All that comes until the server closes. Raises TimeoutError when it does not."""
        async with asyncio.timeout(limit_s):
            with contextlib.suppress(OSError):
                while data := await self.reader.read(1 << 16):
                    self.got += data
        return bytes(self.got)

    async def closed_with(self) -> int:
        """The code of the server's close frame; 0: it closed without one."""
        codes = [
            payload for opcode, payload in frames_of(await self.to_the_end()) if opcode == CLOSE
        ]
        return int.from_bytes(codes[0][:2], "big") if codes and codes[0] else 0


@contextlib.asynccontextmanager
async def line(address: str) -> AsyncIterator[Line]:
    host, _, port = address.partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield Line(reader, writer)
    finally:
        writer.transport.abort()


@contextlib.asynccontextmanager
async def socket(address: str, path: str, more: str = "") -> AsyncIterator[Line]:
    """An open websocket."""
    async with line(address) as found:
        await found.send(upgrade(path, more))
        head = await found.head()
        assert b" 101 " in head, head
        yield found


def frames_of(data: bytes) -> list[tuple[int, bytes]]:
    """Of what a server sent: unmasked, whole -> opcode and payload."""
    found, at = [], 0
    while at + 2 <= len(data):
        size, head = data[at + 1] & 0x7F, 2
        if size > 125:
            head = 4 if size == 126 else 10
            size = int.from_bytes(data[at + 2 : at + head], "big")
        found.append((data[at] & 0x0F, data[at + head : at + head + size]))
        at += head + size
    return found
