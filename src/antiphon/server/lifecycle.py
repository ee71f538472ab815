"""The listening socket, uvicorn around the application, and an orderly end.

Source of the protocol: sd_listen_fds(3).
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import uvicorn
from fastapi import FastAPI

from antiphon.config import Settings
from antiphon.errors import ConfigError
from antiphon.protocols.twilio.signature import hide_stream_keys
from antiphon.server.admission import Calls
from antiphon.server.http_protocol import Headers, Websocket
from antiphon.server.traffic import Strangers
from antiphon.server.valve import Valves

_GRACEFUL_S = 10
_KEEP_ALIVE_S = 75
"""Longer than our clients keep an idle connection, so that none is closed under their hands."""
_STUCK_PEER_MS = 60_000
"""The system drops a connection whose peer takes nothing for this long. uvicorn would wait for it for ever."""


def listen(host: str, port: int, stuck_peer_ms: int = _STUCK_PEER_MS) -> socket.socket:
    """A listening socket. Raises ConfigError when the address cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with suppress(AttributeError):  # Linux only; connections inherit it
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, stuck_peer_ms)
        listener.bind((host, port))
        listener.listen(128)
    except (OSError, ValueError) as error:  # ValueError: a name that IDNA cannot write
        listener.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(
            f"cannot listen on {host} port {port}: {reason}; choose another with --host and --port"
        ) from None
    listener.setblocking(False)
    return listener


class Server(uvicorn.Server):
    """uvicorn's, but calls end before their sockets do, and being told to stop is no failure."""

    def __init__(self, app: FastAPI, settings: Settings, drain_s: float | None = None) -> None:
        """`drain_s`: None takes `server.drain_s`."""
        self.strangers = Strangers(
            settings.server, settings.server.trusted_proxies + settings.phone.trusted_proxies
        )
        valves = Valves(Headers(app), self.strangers)
        config = uvicorn.Config(
            valves,
            http=valves.protocol(),
            ws=Websocket,
            h11_max_incomplete_event_size=settings.server.max_head_bytes,
            log_config=None,
            log_level="info" if settings.server.debug else "warning",
            ws_max_size=settings.server.max_message_bytes,
            ws_per_message_deflate=False,
            timeout_graceful_shutdown=_GRACEFUL_S,
            timeout_keep_alive=_KEEP_ALIVE_S,
            lifespan="on",
            proxy_headers=False,  # who is believed is said by `server.trusted_proxies`
        )
        super().__init__(config)
        for name in ("uvicorn.error", "uvicorn.access"):
            logging.getLogger(name).addFilter(hide_stream_keys)
        self._fastapi = app
        self._drain_s = settings.server.drain_s if drain_s is None else drain_s

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more calls and let those that are on end, then close the connections."""
        calls: Calls | None = getattr(self._fastapi.state, "calls", None)
        if calls is not None:
            await calls.drain(self._drain_s, lambda: self.force_exit)
        await super().shutdown(sockets)
        if self.force_exit:  # uvicorn would leave the models to the end of the process
            await self.lifespan.shutdown()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As in uvicorn, except that the signal is not raised again afterwards: it was obeyed."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self.handle_exit) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


_FIRST_DESCRIPTOR = 3
_VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")


def inherited() -> socket.socket | None:
    """The socket, None when this process was not started with one. It stays open elsewhere when we close it.

    Raises ConfigError for a socket that cannot be served.
    """
    asked = {name: os.environ.get(name, "") for name in _VARIABLES}
    if asked["LISTEN_PID"] != str(os.getpid()):
        return None
    for name in _VARIABLES:
        os.environ.pop(name, None)  # not for programs that we start
    if asked["LISTEN_FDS"] != "1":
        raise ConfigError(
            f"systemd passed {asked['LISTEN_FDS']} sockets; one ListenStream= is enough"
        )
    os.set_inheritable(_FIRST_DESCRIPTOR, False)
    listener = socket.socket(fileno=_FIRST_DESCRIPTOR)
    if listener.family not in (socket.AF_INET, socket.AF_INET6):
        listener.close()
        raise ConfigError("systemd passed no TCP socket; write ListenStream=127.0.0.1:8000")
    listener.setblocking(False)
    return listener
