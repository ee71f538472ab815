"""What stands between a socket and the web server: it reads no faster than the client's rate allows.

To the transport it is the protocol, to uvicorn's protocol it is the transport, as a TLS layer would be. Bytes are
handed on in slices that take well under a millisecond to parse, one slice a turn of the event loop; what is over the
rate waits here while the socket is not read, so that the network slows the sender down. A stranger who stays over it is
sent away.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import Any, cast

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.utils import get_remote_addr
from uvicorn.server import ServerState

from antiphon.server.traffic import (
    ADMIT,
    CLIENT,
    HANG_UP,
    REQUEST_UNITS,
    STRANGER,
    Address,
    ReadPace,
    Strangers,
)
from antiphon.server.websocket_frames import POLICY, FrameRefused, FrameScanner

log = logging.getLogger(__name__)

_SLICE_UNITS = 32
"""Frames or lines that are parsed before others have their turn."""
_SLICE_BYTES = 4 << 10
"""Of an HTTP head or a chunked body."""
_PATIENCE_S = 5.0
"""A stranger who has been over the rate for so long is sent away."""
_LAST_READ_S, _LAST_READ_BYTES = 1.0, 1 << 20
"""Who is sent away is read from for so long, and nothing is done with it: a socket that is closed with something unread
in it takes the answer with it."""
_STRANGERS_FRAGMENTS, _CLIENTS_FRAGMENTS = 64, 4_096
"""Fragments that a message may have."""
_HEAD, _BODY, _CHUNKS, _OPENING, _FRAMES = range(5)
"""What is read: the head of a request, a body of known length, one in chunks; nothing, for a websocket waits for its
answer; frames."""
_CLOSE_FRAME = 0x88
_ANSWERS = {408: "Request Timeout", 429: "Too Many Requests"}

Peer = tuple[str, int]


class Valve(asyncio.Protocol):
    """One connection. Made for each by uvicorn, in the place of its own protocol."""

    def __init__(
        self,
        valves: Valves,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._inner: asyncio.Protocol = H11Protocol(config, server_state, app_state, _loop)
        self._valves = valves
        self._strangers = valves.strangers
        self._settings = valves.strangers.settings
        self._loop = _loop or asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._peer: Peer | None = None
        self._address: Address | None = None
        """What a stranger shares with others; None: let in."""
        self._rate = STRANGER
        self._pace = ReadPace(STRANGER)
        self._spent = 0.0
        self._scanner = FrameScanner(self._settings.max_stranger_bytes, _STRANGERS_FRAGMENTS)
        self._reads = _HEAD
        self._held = b""
        self._at = 0
        """In `_held`: where that begins which was not handed on yet."""
        self._next: asyncio.Handle | None = None
        """Of the next slice."""
        self._head_due: asyncio.Handle | None = None
        self._behind_s: float | None = None
        """Since when the connection has been over its rate."""
        self._inner_paused = False
        self._paused = False
        self._wanted = True
        """The application asks for the next message. A stranger's messages are parsed one by one: what one of them
        allows is decided before the next one is looked at."""
        self._leaving = False
        """We have closed the websocket: nobody asks for messages any more, and the peer's close is waited for."""
        self._requests = 0
        """At work."""
        self._answered = False
        """Something was written since the request began."""
        self._closed = False
        self._last_read_bytes = _LAST_READ_BYTES
        self._lost = asyncio.Event()

    # -- as the transport's protocol ------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._peer = get_remote_addr(self._transport) or ("", 0)
        now_s = self._loop.time()
        self._address = self._strangers.enter(self, self._peer[0], now_s)
        self._inner.connection_made(Outlet(self, self._transport))
        if self._address is None:
            log.debug("no place for another connection of %s", self._peer[0])
            self.drop()
            return
        self._spend(REQUEST_UNITS, now_s)
        self._valves.add(self._peer, self)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost.set()
        self._strangers.leave(self)
        if self._peer is not None:
            self._valves.remove(self._peer, self)
        self._cancel_head()
        self._cancel_next()
        self._held, self._at = b"", 0
        inner, self._inner = self._inner, asyncio.Protocol()  # they refer to each other
        inner.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._closed:
            self._last_read_bytes -= len(data)
            if self._last_read_bytes < 0 and self._transport is not None:
                self._transport.close()
            return
        rest = self._held[self._at :] if self._at < len(self._held) else b""
        self._held, self._at = (rest + data if rest else data), 0
        if self._reads == _HEAD and not self._requests and self._head_due is None:
            self._await_head()
        if self._next is None:
            self._pass_on()

    def eof_received(self) -> bool | None:
        return self._inner.eof_received()

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    # -- handing on -----------------------------------------------------------------------------

    def _pass_on(self) -> None:
        """One slice, if it may be now; and when the next one may be."""
        self._next = None
        blocked = False
        if self._closed or self._at >= len(self._held):
            self._behind_s = None
        elif self._inner_paused or self._reads == _OPENING or not self._may_read_frames():
            blocked = True
        else:
            now_s = self._loop.time()
            wait_s = self.wait_s(now_s)
            if wait_s > 0:
                blocked = self._hold_back(wait_s, now_s)
            else:
                blocked = self._slice(now_s)
        self._settle(blocked)

    def _slice(self, now_s: float) -> bool:
        """-> more could be handed on."""
        try:
            end, units = self._cut()
        except FrameRefused as refused:
            self._send_away(refused.code, str(refused))
            return True
        if end == self._at:  # the beginning of a frame's header
            return False
        piece = self._held if end - self._at == len(self._held) else self._held[self._at : end]
        self._spend(units + len(piece) / self._rate.unit_bytes, now_s)
        self._at = end
        if end == len(self._held):
            self._held, self._at, self._behind_s = b"", 0, None
        self._inner.data_received(piece)
        if self._at >= len(self._held) or self._closed:
            return False
        self._soon()
        return True

    def _cut(self) -> tuple[int, int]:
        """-> the end of the next slice, and its frames or lines. Raises FrameRefused."""
        held, at = self._held, self._at
        if self._reads == _FRAMES:
            end, frames, message = self._scanner.scan(held, at, _SLICE_UNITS)
            if message and self._address is not None:
                self._wanted = False
            return end, frames
        if self._reads == _BODY:
            return len(held), 0
        end = min(len(held), at + _SLICE_BYTES)
        if self._reads == _HEAD:
            blank = held.find(b"\r\n\r\n", at, end)
            end = end if blank < 0 else blank + 4
        lines = held.count(b"\n", at, end)
        if lines > _SLICE_UNITS:
            end -= len(held[at:end].split(b"\n", _SLICE_UNITS)[-1])
            lines = _SLICE_UNITS
        return end, lines

    def _may_read_frames(self) -> bool:
        return self._reads != _FRAMES or self._wanted or self._leaving or self._address is None

    def _hold_back(self, wait_s: float, now_s: float) -> bool:
        if self._behind_s is None:
            self._behind_s = now_s
        elif now_s - self._behind_s > _PATIENCE_S and self._address is not None:
            self._send_away(POLICY, "too much, too fast", 429)
            return True
        self._next = self._loop.call_later(min(wait_s, 1.0), self._pass_on)
        return True

    def _soon(self) -> None:
        if self._next is None and not self._closed:
            self._next = self._loop.call_soon(self._pass_on)

    def _settle(self, blocked: bool) -> None:
        """Read from the socket, or not. `blocked`: something is held that may not be handed on yet.

        While nothing is held the socket is read, though uvicorn pauses after each message: to stop and start reading
        for each of them costs more than to parse it, and what is held meanwhile is one read at most.
        """
        paused = blocked and not self._closed
        if paused is self._paused or self._transport is None or self._transport.is_closing():
            return
        self._paused = paused
        if paused:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def _cancel_next(self) -> None:
        if self._next is not None:
            self._next.cancel()
            self._next = None

    # -- rates ----------------------------------------------------------------------------------

    def wait_s(self, now_s: float) -> float:
        """Until this connection may do more; 0 or less: now."""
        wait_s = self._pace.wait_s(now_s)
        if self._address is None:
            return wait_s
        shared_s = max(self._address.pace.wait_s(now_s), self._strangers.pace.wait_s(now_s))
        return max(wait_s, shared_s)

    def _spend(self, units: float, now_s: float) -> None:
        self._pace.spend(units, now_s)
        if self._address is not None:
            self._spent += units
            self._address.pace.spend(units, now_s)
            self._strangers.pace.spend(units, now_s)

    def admit(self) -> None:
        """It is known who this is. Idempotent."""
        if self._address is None or self._lost.is_set():
            return
        self._strangers.leave(self)
        self._address.pace.give_back(self._spent)
        self._strangers.pace.give_back(self._spent)
        self._address, self._behind_s = None, None
        self._rate, self._pace = CLIENT, ReadPace(CLIENT)
        self._scanner.max_bytes = self._settings.max_message_bytes
        self._scanner.max_fragments = _CLIENTS_FRAGMENTS
        self._cancel_next()
        self._soon()

    # -- what the application does --------------------------------------------------------------

    def began(self, scope: Scope) -> None:
        """A request, or a websocket that wants to be opened."""
        self._cancel_head()
        self._requests += 1
        self._answered = False
        if scope["type"] == "http":
            names = {name for name, _ in scope["headers"]}
            chunks = b"transfer-encoding" in names
            self._reads = _CHUNKS if chunks else _BODY if b"content-length" in names else _HEAD
        if self._address is not None:
            self._spend(REQUEST_UNITS, self._loop.time())

    async def turn(self) -> bool:
        """Wait until the request may be served -> False: it may not."""
        while not self._closed and (wait_s := self.wait_s(self._loop.time())) > 0:
            if wait_s > _PATIENCE_S and self._address is not None:
                self._send_away(POLICY, "too much, too fast", 429)
                break
            await asyncio.sleep(wait_s)
        if self._closed:
            await self._lost.wait()
        return not self._lost.is_set()

    def ended(self) -> None:
        self._requests -= 1
        self._answered = False
        if self._reads in (_BODY, _CHUNKS):
            self._reads = _HEAD

    def wants(self) -> None:
        """The application asks for the next message."""
        if not self._wanted:
            self._wanted = True
            self._soon()

    @property
    def idle(self) -> bool:
        return not self._requests

    # -- the head's time ------------------------------------------------------------------------

    def _await_head(self) -> None:
        self._head_due = self._loop.call_later(self._settings.head_timeout_s, self._too_slow)

    def _cancel_head(self) -> None:
        if self._head_due is not None:
            self._head_due.cancel()
            self._head_due = None

    def _too_slow(self) -> None:
        self._head_due = None
        self._send_away(POLICY, "the head of the request did not come in time", 408)

    # -- the end --------------------------------------------------------------------------------

    def _send_away(self, code: int, reason: str, status: int = 0) -> None:
        """With a close frame, or an HTTP answer where there was none yet. What is held is forgotten."""
        if self._closed or self._transport is None or self._transport.is_closing():
            return
        if self._address is not None and self._peer is not None:
            log.info("a stranger at %s was sent away: %s", self._peer[0], reason)
        if self._reads == _FRAMES:
            payload = code.to_bytes(2, "big") + reason.encode()[:123]
            self._transport.write(bytes((0x88, len(payload))) + payload)
        elif status and not self._answered:
            text = _ANSWERS[status]
            head = f"HTTP/1.1 {status} {text}\r\nConnection: close\r\nContent-Type: text/plain"
            body = reason + "\n"
            head = f"{head}\r\nContent-Length: {len(body)}\r\n\r\n{body}"
            self._transport.write(head.encode())
        self._shut()
        self._transport.write_eof()
        self._settle(False)
        self._next = self._loop.call_later(_LAST_READ_S, self._transport.close)

    def hang_up(self) -> None:
        """When everything was sent."""
        self._shut()
        if self._transport is not None:
            self._transport.close()

    def drop(self) -> None:
        """Break it off without a word."""
        self._shut()
        if self._transport is not None:
            self._transport.abort()

    def _shut(self) -> None:
        self._closed = True
        self._held, self._at = b"", 0
        self._strangers.leave(self)
        self._cancel_head()
        self._cancel_next()

    # -- as the transport of uvicorn's protocol -------------------------------------------------

    def wrote(self, data: bytes) -> bool:
        """-> it may be sent."""
        self._answered = True
        if self._reads == _OPENING and data.startswith(b"HTTP/1.1 101"):
            self._reads = _FRAMES
            self._soon()
        elif self._reads == _FRAMES and data[0] == _CLOSE_FRAME:
            self._leaving = True
            self._soon()
        return not self._closed

    def upgraded(self, protocol: asyncio.Protocol) -> None:
        self._inner = protocol
        self._reads = _OPENING

    def pause_inner(self, paused: bool) -> None:
        self._inner_paused = paused
        if not paused and self._held:
            self._soon()


class Outlet(asyncio.Transport):
    """The transport, as uvicorn's protocol sees it."""

    def __init__(self, valve: Valve, transport: asyncio.Transport) -> None:
        super().__init__()
        self._valve = valve
        self._transport = transport

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        if data and self._valve.wrote(cast(bytes, data)):
            self._transport.write(data)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._valve.upgraded(cast(asyncio.Protocol, protocol))

    def pause_reading(self) -> None:
        self._valve.pause_inner(True)

    def resume_reading(self) -> None:
        self._valve.pause_inner(False)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._transport.get_extra_info(name, default)

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def close(self) -> None:
        self._transport.close()

    def abort(self) -> None:
        self._transport.abort()


class Valves:
    """The connections of a server, and the application as it is served through them."""

    def __init__(self, app: ASGIApp, strangers: Strangers) -> None:
        self.strangers = strangers
        self._app = app
        self._open: dict[Peer, Valve] = {}

    def protocol(self) -> Any:
        """What uvicorn makes for each connection."""
        return partial(Valve, self)

    def add(self, peer: Peer, valve: Valve) -> None:
        self._open[peer] = valve

    def remove(self, peer: Peer, valve: Valve) -> None:
        if self._open.get(peer) is valve:
            del self._open[peer]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI application."""
        valve = self._open.get(scope.get("client") or ("", 0))
        if valve is None:
            await self._app(scope, receive, send)
            return

        async def wanted() -> Message:
            valve.wants()
            return await receive()

        scope[ADMIT], scope[HANG_UP] = valve.admit, valve.hang_up
        valve.began(scope)
        try:
            if await valve.turn():
                await self._app(scope, wanted, send)
        finally:
            valve.ended()
