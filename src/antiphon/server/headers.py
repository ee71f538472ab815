"""Headers of HTTP: those that every answer has, for the browsers that read it, and the one that no request may garble.

An answer that says something else itself is left as it is.
"""

from __future__ import annotations

import re

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from antiphon.server.refusal import error_body

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
