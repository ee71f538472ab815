"""The websocket `/v1/realtime`: who may open it, which dialect it speaks, and its frames.

Everything after the handshake is `connection.py`'s.
"""

from __future__ import annotations

from fastapi import APIRouter, WebSocket, WebSocketDisconnect

from antiphon.server.calls import Calls
from antiphon.server.realtime.connection import Connection, Opening
from antiphon.server.security import (
    Principal,
    authorize,
    call_limit_s,
    chosen_subprotocol,
    session_of,
)

router = APIRouter()

_BETA_HEADER, _BETA_VALUE = "openai-beta", "realtime=v1"
_BETA_ITEM = "openai-beta.realtime-v1"


@router.websocket("/v1/realtime")
async def realtime(socket: WebSocket) -> None:
    """The OpenAI Realtime protocol; see docs/protocols/realtime.md."""
    calls: Calls = socket.app.state.calls
    principal = await authorize(socket)
    with session_of(socket, principal) as seat:
        limit_s = min(
            calls.settings.realtime.max_session_s,
            call_limit_s(calls.settings.server.max_call_s, seat),
        )
        opening = _opening(socket, principal, calls.settings.realtime.dialect, limit_s)
        await socket.accept(subprotocol=chosen_subprotocol(socket))
        await Connection(WebsocketTransport(socket), calls, opening).serve()


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

    async def receive(self) -> str | bytes | None:
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
