"""What uvicorn's HTTP and websocket protocols lack: headers that every answer has, and quiet answers to senseless
peers.

An answer that says something else itself is left as it is.
"""

from __future__ import annotations

import re
from typing import Any

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame, Opcode
from websockets.server import ServerProtocol

from antiphon.server.http_errors import error_body

_BAD_REQUEST = (
    b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: text/plain\r\n"
    b"Content-Length: 35\r\n\r\nthis is no request for a websocket\n"
)
_NO_TEXT = 1007


class _Frames(ServerProtocol):
    def recv_frame(self, frame: Frame) -> None:
        """A peer may close in the middle of a message (RFC 6455, 5.5.1): that is no error."""
        if frame.opcode is Opcode.CLOSE:
            self.current_size = None
        super().recv_frame(frame)


class Websocket(WebSocketsSansIOProtocol):
    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.conn = _Frames(max_size=self.config.ws_max_size, logger=self.conn.logger)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.conn.parser.close()  # a generator that refers to its object, which refers to it

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.handshake_exc is not None and not self.handshake_initiated:
            answer = b"".join(self.conn.data_to_send())
            self.transport.write(answer or _BAD_REQUEST)
            self.transport.close()

    def handle_ping(self) -> None:
        """A peer that does not read gets no pongs: they would be kept for it."""
        if self.writable.is_set():
            super().handle_ping()
        else:
            self.conn.data_to_send()

    def send_receive_event_to_app(self) -> None:
        """Text that is no UTF-8 ends the connection, and is not worth a traceback."""
        if self.curr_msg_data_type == "text" and not self.close_sent:
            text = b"".join(self.frames)
            try:
                text.decode()
            except UnicodeDecodeError as error:
                self.frames = []
                self.conn.fail(_NO_TEXT, f"{error.reason} at position {error.start}")
                self.handle_parser_exception()
                return
            self.frames = [text]
        super().send_receive_event_to_app()


_NOTHING = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
_DOCS = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' https://cdn.jsdelivr.net; "
    "style-src 'self' 'unsafe-inline' https://cdn.jsdelivr.net; img-src 'self' data: https:; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
"""FastAPI's page of `/docs` has a script of its own in it, and takes the rest from a CDN."""
_ALWAYS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"permissions-policy", b"microphone=(self), camera=(), geolocation=(), payment=(), usb=()"),
    (b"cross-origin-opener-policy", b"same-origin"),
)
_POLICY, _CACHE = b"content-security-policy", b"cache-control"
_STARTS = ("http.response.start", "websocket.http.response.start")
_PORT_MAX = 65_535
_HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]+(?:%[\w.~-]+)?\]|[\w.~-]*)(?::(?P<port>[0-9]{1,5}))?")


class Headers:
    """ASGI middleware, outside of everything, so that no answer is without them; 400 for a `Host` that is none."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        path: str = scope["path"]

        async def complete(message: Message) -> None:
            if message["type"] in _STARTS:
                message = {
                    **message,
                    "headers": [*message.get("headers", ()), *_missing(message, path)],
                }
            await send(message)

        if host_is_valid(dict(scope["headers"]).get(b"host", b"")):
            await self._app(scope, receive, complete)
            return
        reason = "the `Host` header is no name or address with a port"
        refusal = JSONResponse({"detail": reason, **error_body(400, reason)}, 400)
        await refusal(scope, receive, complete)


def host_is_valid(host: bytes) -> bool:
    """A name or an address, with a port or without."""
    found = _HOST.fullmatch(host)
    return found is not None and int(found["port"] or 0) <= _PORT_MAX


def _missing(message: Message, path: str) -> list[tuple[bytes, bytes]]:
    there = {bytes(name).lower() for name, _ in message.get("headers", ())}
    wanted = list(_ALWAYS)
    wanted.append((_POLICY, (_DOCS if path.startswith("/docs") else _NOTHING).encode()))
    if not path.startswith("/static/"):
        wanted.append((_CACHE, b"no-store"))
    return [(name, value) for name, value in wanted if name not in there]
