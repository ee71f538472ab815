"""Requests that are too large are refused before they are read.

Knows no route: the limit is for every request body of the server.
"""

from __future__ import annotations

import asyncio

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from antiphon.server.refusal import error_body

FORM_BYTES = 64 << 10
"""What a multipart form may add to the file in it."""
_LINGER_S = 3.0
"""Most clients read the answer when they have sent everything: what comes is thrown away for so long, for a closed
connection would be all they see of it."""


class BodyLimit:
    """ASGI middleware: 413 for a body that is, or turns out to be, larger than `max_bytes`."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        left_bytes = self._max_bytes

        async def counted() -> Message:
            nonlocal left_bytes
            message = await receive()
            left_bytes -= len(message.get("body", b""))
            if left_bytes < 0:
                raise HTTPException(413, self._reason(), {"Connection": "close"})
            return message

        async def lingering(message: Message) -> None:
            if left_bytes >= 0 or message["type"] != "http.response.body":
                await send(message)
                return
            await send({**message, "more_body": True})
            if not message.get("more_body"):
                await _discard(receive)
                await send({"type": "http.response.body", "body": b""})

        if _declared_bytes(scope) > self._max_bytes:
            left_bytes = -1
            body = {"detail": self._reason(), **error_body(413, self._reason())}
            refusal = JSONResponse(body, 413, {"Connection": "close"})
            await refusal(scope, receive, lingering)
        else:
            await self._app(scope, counted, lingering)

    def _reason(self) -> str:
        mebibytes = self._max_bytes / (1 << 20)
        return f"the request is larger than {mebibytes:.3g} MiB, the limit; send a shorter or compressed file"


async def _discard(receive: Receive) -> None:
    try:
        async with asyncio.timeout(_LINGER_S):
            while (await receive()).get("more_body"):
                pass
    except TimeoutError:
        pass


def _declared_bytes(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value)
    return 0
