"""Calls whose websocket is lost, and how another one takes their place.

A call has one seat for its client. A client that was given the seat's token may sit down again, on a new connection,
while the call waits for it or even while somebody sits there: the newest wins.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from contextlib import contextmanager

from fastapi import WebSocket, WebSocketDisconnect

from antiphon.protocols.browser import codec

CLOSE_NORMAL, CLOSE_POLICY, CLOSE_BUSY, CLOSE_TAKEN_OVER = 1000, 1008, 1013, 4001
GONE = (WebSocketDisconnect, TimeoutError, OSError, RuntimeError)
"""What Starlette and uvicorn raise when one sends to a connection that is no more."""
_CLOSE_S = 2.0
_MAX_REASON_BYTES = 123
_SECRET_BYTES = 24


class ClientSocket:
    """One websocket of a client."""

    def __init__(self, socket: WebSocket) -> None:
        self.socket = socket
        self.start = codec.StartCall()
        """What the client said of itself, once it is known."""
        self.disconnected = False
        self.left = False
        """The client closed it in good order: it is not coming back."""
        self._closing = False
        self._closed = asyncio.Event()
        self._accepted: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    async def receive(self) -> str | bytes | None:
        """The next frame; None once the client has disconnected, and never read after that."""
        if self.disconnected:
            return None
        message = await self.socket.receive()
        if message["type"] == "websocket.disconnect":
            self.disconnected, self.left = True, message.get("code") == CLOSE_NORMAL
            return None
        text: str | None = message.get("text")
        data: bytes | None = message.get("bytes")
        return text if text is not None else data

    async def close(self, code: int = CLOSE_NORMAL, reason: str = "", last_word: str = "") -> None:
        """Once; a socket that is closed already, or does not answer, is left to the system."""
        if self._closing:
            return
        self._closing = True
        cut = reason.encode()[:_MAX_REASON_BYTES].decode(errors="ignore")
        try:
            async with asyncio.timeout(_CLOSE_S):
                if last_word:
                    await self.socket.send_text(last_word)
                await self.socket.close(code, cut)
        except GONE:
            pass
        finally:
            self._closed.set()

    def answer(self, accepted: bool) -> None:
        """Whether the seat that it asked for is its own now."""
        if not self._accepted.done():
            self._accepted.set_result(accepted)

    async def carried(self) -> bool:
        """Until the call that took it over has closed it -> False when none did."""
        if not await self._accepted:
            return False
        await self._closed.wait()
        return True


class ResumableCall:
    """The client's place in one call."""

    def __init__(self, call_id: str) -> None:
        self.token = f"{call_id}.{secrets.token_urlsafe(_SECRET_BYTES)}"
        self._newcomer: ClientSocket | None = None
        self._came = asyncio.Event()

    def offer(self, link: ClientSocket) -> None:
        """Somebody with the token asks for the seat; whoever asked before and was not seated yet is turned away."""
        self.leave()
        self._newcomer = link
        self._came.set()

    async def wait(self) -> None:
        """Until somebody asks for the seat."""
        await self._came.wait()

    def take(self) -> ClientSocket | None:
        """Seat the newcomer, if there is one."""
        newcomer, self._newcomer = self._newcomer, None
        self._came.clear()
        if newcomer is not None:
            newcomer.answer(True)
        return newcomer

    def leave(self) -> None:
        """Nobody will be seated."""
        if self._newcomer is not None:
            self._newcomer.answer(False)
        self._newcomer = None


class ResumableCalls:
    """Of every call of this process whose client may come back."""

    def __init__(self, max_parked: int) -> None:
        self._max_parked = max_parked
        self._parked = 0
        self._seats: dict[str, ResumableCall] = {}

    @contextmanager
    def seat(self, call_id: str) -> Iterator[ResumableCall]:
        """For as long as the call lasts."""
        seat = self._seats[call_id] = ResumableCall(call_id)
        try:
            yield seat
        finally:
            del self._seats[call_id]
            seat.leave()

    def find(self, token: str) -> ResumableCall | None:
        """The seat that the token is for; None when that call is over, or never was."""
        seat = self._seats.get(token.partition(".")[0])
        if seat is None or not secrets.compare_digest(seat.token.encode(), token.encode()):
            return None
        return seat

    @contextmanager
    def parking(self) -> Iterator[bool]:
        """-> whether there is room for one more call without a client."""
        room = self._parked < self._max_parked
        self._parked += room
        try:
            yield room
        finally:
            self._parked -= room
