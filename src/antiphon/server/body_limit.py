"""Bodies of requests: those that are too large are refused before they are read, and those that come too slowly end.

The limits are for every request of the server, whatever its route makes of the body.
"""

from __future__ import annotations

import asyncio

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from antiphon.config.sections import ServerSettings
from antiphon.server.http_errors import error_body
from antiphon.server.traffic import HANG_UP

_FORM_BYTES = 64 << 10
"""What a multipart form may add to the file in it."""
_LINGER_S = 3.0
"""Most clients read the answer when they have sent everything: what comes is thrown away for so long, for a closed
connection would be all they see of it."""
_SLOWEST_BYTES_PER_S = 1 << 10
_CLOSE = {"Connection": "close"}


class BodyLimit:
    """ASGI middleware: 413 for a body that is, or turns out to be, too large; 408 for one that does not come."""

    def __init__(self, app: ASGIApp, settings: ServerSettings) -> None:
        self._app = app
        self._max_bytes = settings.max_upload_bytes + _FORM_BYTES
        self._timeout_s = settings.body_timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = _Body(scope, receive, self._max_bytes, self._timeout_s)

        async def lingering(message: Message) -> None:
            if body.ended or message["type"] != "http.response.body" or message.get("more_body"):
                await send(message)
                return
            await send({**message, "more_body": True})
            await body.discard()
            await send({"type": "http.response.body", "body": b""})
            if not body.ended and HANG_UP in scope:
                scope[HANG_UP]()

        if body.left_bytes < 0:
            reason = _too_large(self._max_bytes)
            refusal = JSONResponse({"detail": reason, **error_body(413, reason)}, 413, _CLOSE)
            await refusal(scope, receive, lingering)
        else:
            await self._app(scope, body.receive, lingering)


class _Body:
    """The body of one request."""

    def __init__(self, scope: Scope, receive: Receive, max_bytes: int, timeout_s: float) -> None:
        self._receive = receive
        self._max_bytes = max_bytes
        declared = _declared_bytes(scope)
        self.ended = declared == 0
        self.left_bytes = max_bytes - (declared or 0) if (declared or 0) > max_bytes else max_bytes
        """That may still come; negative: too many."""
        self._due_s = asyncio.get_running_loop().time() + timeout_s

    async def receive(self) -> Message:
        """Raises HTTPException."""
        if self.ended:  # what comes now is the end of the connection, whenever that is
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._due_s):
                message = await self._receive()
        except TimeoutError:
            reason = "the body of the request did not come in time; send it faster"
            raise HTTPException(408, reason, _CLOSE) from None
        self._note(message)
        if self.left_bytes < 0:
            raise HTTPException(413, _too_large(self._max_bytes), _CLOSE)
        return message

    async def discard(self) -> None:
        """Throw away the rest, as far as it comes soon."""
        left_bytes = self._max_bytes
        try:
            async with asyncio.timeout(_LINGER_S):
                while not self.ended and left_bytes > 0:
                    message = await self._receive()
                    left_bytes -= len(message.get("body", b""))
                    self._note(message)
        except TimeoutError:
            pass

    def _note(self, message: Message) -> None:
        size = len(message.get("body", b""))
        self.left_bytes -= size
        self._due_s += size / _SLOWEST_BYTES_PER_S
        self.ended = not message.get("more_body", False)


def _too_large(max_bytes: int) -> str:
    mebibytes = max_bytes / (1 << 20)
    return f"the request is larger than {mebibytes:.3g} MiB, the limit; send a shorter or compressed file"


def _declared_bytes(scope: Scope) -> int | None:
    """0: there is no body. None: nobody knows yet."""
    names = dict(scope["headers"])
    if b"transfer-encoding" in names:
        return None
    value: bytes = names.get(b"content-length", b"0")
    return int(value) if value.isdigit() else 0
