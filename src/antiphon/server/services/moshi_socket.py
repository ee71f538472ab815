"""What the two moshi websockets share: frames in and out within time limits, and how one is refused.

Knows no audio and no model.
"""

from __future__ import annotations

import asyncio

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from antiphon.errors import ProtocolError, told
from antiphon.wire import moshi

_SEND_S = 10.0
"""A client that takes nothing for so long is gone."""
_NORMAL, _UNSUPPORTED, _BUSY = 1000, 1003, 1013


class MoshiPeer:
    """A client, once its websocket has been accepted."""

    def __init__(self, socket: WebSocket, idle_s: float) -> None:
        """`idle_s`: the longest silence of the client."""
        self._socket = socket
        self._idle_s = idle_s

    async def receive(self) -> moshi.Message | None:
        """The next message; None when the client is gone or has been silent too long. Raises ProtocolError.

        A text frame is text, and a binary frame of one zero byte the end of it, as older clients have it.
        """
        try:
            async with asyncio.timeout(self._idle_s):
                frame = await self._socket.receive()
        except TimeoutError:
            return None
        if frame["type"] == "websocket.disconnect":
            return None
        if (text := frame.get("text")) is not None:
            return moshi.Text(text)
        data: bytes = frame.get("bytes") or b""
        return moshi.Eos() if data == b"\0" else moshi.decode(data)

    async def until_gone(self) -> None:
        """The client has no more to say: whatever comes is ignored, however long it is silent."""
        while (await self._socket.receive())["type"] != "websocket.disconnect":
            pass

    async def send(self, *messages: moshi.Message) -> None:
        """Raises WebSocketDisconnect or TimeoutError when the client is gone."""
        for message in messages:
            await self.send_bytes(moshi.encode(message))

    async def send_bytes(self, data: bytes) -> None:
        """Raises like `send`."""
        async with asyncio.timeout(_SEND_S):
            try:
                await self._socket.send_bytes(data)
            except RuntimeError:  # Starlette's word for a socket that was closed meanwhile
                raise WebSocketDisconnect(1006) from None

    async def close(self, error: Exception | None = None, *, said: bool = True) -> None:
        """The end. `said` False: the format has no way to name an error."""
        if self._socket.client_state is not WebSocketState.CONNECTED:
            return
        code = _NORMAL
        try:
            if error is not None:
                code = _UNSUPPORTED if isinstance(error, ProtocolError) else _BUSY
                if said:
                    await self.send(moshi.Error(told(error)))
            async with asyncio.timeout(_SEND_S):
                await self._socket.close(code)
        except (WebSocketDisconnect, RuntimeError, TimeoutError, OSError):
            pass
