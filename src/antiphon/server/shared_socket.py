"""The websocket `/ws`, which several families of clients use: the first frame tells whose protocol it is."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, WebSocket, WebSocketDisconnect

from antiphon.protocols.realtime.server import serve_accepted
from antiphon.protocols.realtime.unmute import is_typed
from antiphon.protocols.twilio import codec
from antiphon.protocols.twilio.phone_services import phone_of
from antiphon.protocols.twilio.server import MediaStreamCall
from antiphon.server.http_errors import RequestRefused
from antiphon.server.security import authorize, chosen_subprotocol

router = APIRouter()

_OPENING_S = 10.0
"""For the first frame."""
_CLOSE_UNSUPPORTED, _CLOSE_POLICY = 1003, 1008
_MAX_REASON_BYTES = 123
_GONE = (WebSocketDisconnect, TimeoutError, OSError, RuntimeError)


@router.websocket("/ws")
async def any_stream(socket: WebSocket) -> None:
    """A path that several families of clients use: the first frame tells telephone streams from Realtime events."""
    await socket.accept(subprotocol=chosen_subprotocol(socket))
    try:
        async with asyncio.timeout(_OPENING_S):
            first = (await socket.receive()).get("text")
        if is_typed(first):
            pass  # below: what goes wrong there is not for this function to forgive
        elif first is None or not codec.is_telephony(first):
            reason = "this path takes telephone streams; use /v1/realtime or /ws/conversation"
            await socket.close(_CLOSE_UNSUPPORTED, reason)
        else:
            await phone_of(socket).guard.upgrade(socket)
            await MediaStreamCall(socket, "", first).serve()
    except RequestRefused as error:
        await socket.close(_CLOSE_POLICY, str(error)[:_MAX_REASON_BYTES])
    except _GONE:
        return  # left before it said anything
    if first is not None and is_typed(first):
        try:
            await serve_accepted(socket, await authorize(socket), first)
        except RequestRefused as error:
            await socket.close(_CLOSE_POLICY, str(error)[:_MAX_REASON_BYTES])
