"""A websocket to a moshi-server, opened within time limits at the first address that has a free slot.

Shared by the speech-to-text and text-to-speech clients.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from pydantic import SecretStr
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus, WebSocketException

from antiphon.errors import ModelError, ProtocolError
from antiphon.models.addresses import Addresses
from antiphon.protocols.moshi import codec as moshi

_STALE_FRAMES = 10
"""A slot may still give out what it made for its last client, before it is ready for the next."""
_CLOSE_S = 2.0
_MAX_FRAME_BYTES = 4 << 20


class MoshiSocket:
    """`addresses`: `ws://host:port` each. `key`: sent as `kyutai-api-key`."""

    def __init__(
        self, addresses: Addresses, path: str, key: SecretStr, connect_s: float, silence_s: float
    ) -> None:
        """`connect_s`: to be told Ready by one address. `silence_s`: between two messages."""
        self._addresses = addresses
        self._path = path
        self._key = key
        self._connect_s, self._silence_s = connect_s, silence_s

    @property
    def where(self) -> str:
        return self._addresses.where

    @asynccontextmanager
    async def open(self, retry_s: float = 0.0) -> AsyncIterator[ClientConnection]:
        """A connection that has been told Ready. Raises ModelError when no address has a slot within `retry_s`."""
        problem = ""
        async for at in self._addresses.tries(retry_s):
            try:
                socket = await self._begin(self._addresses.urls[at] + self._path)
            except InvalidStatus as error:
                self._addresses.failed(at)
                problem = _refused(error)
                continue
            except (OSError, TimeoutError, WebSocketException, ModelError) as error:
                self._addresses.failed(at)
                problem = " ".join(str(error).split())[:200] or "it did not answer in time"
                continue
            self._addresses.served(at)
            try:
                yield socket
            finally:
                await _end(socket)
            return
        raise ModelError(f"moshi-server at {self.where} cannot be used: {problem}")

    async def _begin(self, url: str) -> ClientConnection:
        async with asyncio.timeout(self._connect_s):
            socket = await connect(
                url,
                additional_headers={"kyutai-api-key": self._key.get_secret_value()},
                max_size=_MAX_FRAME_BYTES,
                compression=None,
                proxy=None,
            )
            try:
                await self._until_ready(socket)
            except BaseException:
                await socket.close()
                raise
            return socket

    async def _until_ready(self, socket: ClientConnection) -> None:
        for _ in range(_STALE_FRAMES):
            message = await self.receive(socket)
            if isinstance(message, moshi.Ready):
                return
            if isinstance(message, moshi.Error):
                raise ModelError(message.message or "it is at capacity")
        raise ModelError("it never said that it is ready")

    async def receive(self, socket: ClientConnection) -> moshi.Message:
        """The next message. Raises ModelError when none comes, and ConnectionClosed."""
        try:
            async with asyncio.timeout(self._silence_s):
                frame = await socket.recv()
        except TimeoutError:
            raise ModelError(f"moshi-server at {self.where} was silent") from None
        try:
            return moshi.decode(frame if isinstance(frame, bytes) else frame.encode())
        except ProtocolError as error:
            raise ModelError(f"moshi-server at {self.where}: {error}") from None


async def _end(socket: ClientConnection) -> None:
    """Close it while reading on: behind a line of messages that nobody reads, the answer would not be seen for 10 s,
    and the server's slot would be taken for as long.
    """
    closing = asyncio.ensure_future(socket.close())
    with suppress(Exception):  # the work is over, however its connection ends
        async with asyncio.timeout(_CLOSE_S):
            while True:
                await socket.recv()
    if not closing.done():
        socket.transport.abort()
    await asyncio.gather(closing, return_exceptions=True)


def _refused(error: InvalidStatus) -> str:
    status = error.response.status_code
    if status in (401, 403):
        return f"it refuses the key ({status}): set the option key"
    return f"it answered {status}"
