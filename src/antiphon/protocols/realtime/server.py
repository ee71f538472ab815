"""The websocket `/v1/realtime`: who may open it, which dialect it speaks, and its frames.

Everything after the handshake is `connection.py`'s, or `unmute_server.py`'s. docs/protocols/realtime.md.
"""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, WebSocket, WebSocketDisconnect

from antiphon.protocols.realtime.connection import Opening, RealtimeConnection
from antiphon.protocols.realtime.unmute import is_unmute
from antiphon.protocols.realtime.unmute_server import UnmuteConnection
from antiphon.server.admission import Calls
from antiphon.server.security import (
    Principal,
    authorize,
    call_limit_s,
    chosen_subprotocol,
    presented_key,
    session_of,
)

router = APIRouter()

_BETA_HEADER, _BETA_VALUE = "openai-beta", "realtime=v1"
_BETA_ITEM = "openai-beta.realtime-v1"
_FIRST_WORD_S = 1.0
"""For a client that may be Unmute's, which wants nothing before its first event, to send that. Others wait as long for
`session.created`, so it is short."""


@router.websocket("/v1/realtime")
@router.websocket("/api/v1/realtime")
async def realtime(socket: WebSocket) -> None:
    """The OpenAI Realtime protocol; see docs/protocols/realtime.md."""
    calls: Calls = socket.app.state.calls
    principal = await authorize(socket)
    with session_of(socket, principal) as seat:
        await socket.accept(subprotocol=chosen_subprotocol(socket))
        left_s = call_limit_s(calls.settings.server.max_call_s, seat)
        await _serve(socket, WebsocketTransport(socket), principal, left_s)


async def serve_accepted(socket: WebSocket, principal: Principal, first: str) -> None:
    """A websocket of another path whose first frame turned out to be an event. Raises Refused."""
    calls: Calls = socket.app.state.calls
    with session_of(socket, principal) as seat:
        left_s = call_limit_s(calls.settings.server.max_call_s, seat)
        transport = WebsocketTransport(socket)
        transport.put_back(first)
        await _serve(socket, transport, principal, left_s)


async def _serve(
    socket: WebSocket, transport: WebsocketTransport, principal: Principal, left_s: float
) -> None:
    calls: Calls = socket.app.state.calls
    chosen = calls.settings.realtime
    limit_s = min(chosen.max_session_s, left_s)
    opening = _opening(socket, principal, chosen.dialect, limit_s)
    try:
        if _may_be_unmute(socket, opening) and is_unmute(await transport.peek(_FIRST_WORD_S)):
            await UnmuteConnection(transport, calls, limit_s).serve()
        else:
            await RealtimeConnection(transport, calls, opening).serve()
    finally:
        transport.forget()


def _may_be_unmute(socket: WebSocket, opening: Opening) -> bool:
    plain = not opening.model and opening.kind == "realtime" and opening.dialect == "auto"
    return plain and not presented_key(socket) and chosen_subprotocol(socket) == "realtime"


def _opening(socket: WebSocket, principal: Principal, dialect: str, max_s: float) -> Opening:
    query = socket.query_params
    if dialect == "auto" and _asks_beta(socket):
        dialect = "beta"
    pinned = principal.pinned
    return Opening(
        model=query.get("model") or query.get("deployment") or "",
        kind="transcription" if query.get("intent") == "transcription" else "realtime",
        dialect=dialect,
        max_s=max_s,
        pinned=() if pinned is None else (pinned,),
    )


def _asks_beta(socket: WebSocket) -> bool:
    offered: list[str] = socket.scope.get("subprotocols") or []
    header = socket.headers.get(_BETA_HEADER, "")
    return _BETA_ITEM in offered or _BETA_VALUE in header.replace(" ", "")


class WebsocketTransport:
    """A Starlette websocket that has been accepted."""

    gone: tuple[type[Exception], ...] = (WebSocketDisconnect, OSError, RuntimeError)
    """What Starlette and uvicorn raise when one sends to a connection that is no more."""

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket
        self._first: list[str | bytes | None] = []
        """Frames that were looked at, or read by somebody else."""
        self._peeking: asyncio.Task[str | bytes | None] | None = None

    def put_back(self, frame: str) -> None:
        self._first.append(frame)

    async def peek(self, limit_s: float) -> str | bytes | None:
        """The next frame, which `receive` will give as well; None when none comes in time."""
        if self._first:
            return self._first[0]
        self._peeking = asyncio.create_task(self._next(), name="first frame")
        await asyncio.wait([self._peeking], timeout=limit_s)
        return self._peeking.result() if self._peeking.done() else None

    def forget(self) -> None:
        """Nobody will receive any more."""
        if self._peeking is not None:
            self._peeking.cancel()

    async def receive(self) -> str | bytes | None:
        if self._first:
            return self._first.pop()
        peeking, self._peeking = self._peeking, None
        return await (self._next() if peeking is None else peeking)

    async def _next(self) -> str | bytes | None:
        message = await self._socket.receive()
        if message["type"] == "websocket.disconnect":
            return None
        text: str | None = message.get("text")
        data: bytes | None = message.get("bytes")
        return text if text is not None else data

    async def send_text(self, data: str) -> None:
        await self._socket.send_text(data)

    async def send_bytes(self, data: bytes) -> None:
        await self._socket.send_text(data.decode())

    async def close(self, code: int, reason: str) -> None:
        await self._socket.close(code, reason)
