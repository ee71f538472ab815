"""The real server with scripted models, in a thread, for what the page and the server must do together."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

from tests.support import NoWeights, settings

from antiphon.server.app import create_app
from antiphon.server.lifecycle import Server, listen

WAIT_S = 15.0


class RealServer:
    """Ready when made; serves until closed."""

    def __init__(self, folder: Path, **overrides: Any) -> None:
        chosen = settings(folder, **overrides)
        ready = threading.Event()
        app = create_app(chosen, NoWeights(), on_ready=lambda _error: ready.set())
        self._server = Server(app, chosen, drain_s=0.0)
        self._listener = listen("127.0.0.1", 0)
        self.url = "http://{}:{}/".format(*self._listener.getsockname())
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        assert ready.wait(WAIT_S), "the server does not start"

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._server.serve([self._listener]))

    def drop_connections(self) -> None:
        """As a network does that fails: no word of goodbye."""
        done = threading.Event()

        def drop() -> None:
            for connection in tuple(self._server.server_state.connections):
                connection.transport.abort()  # type: ignore[union-attr]
            done.set()

        self._loop.call_soon_threadsafe(drop)
        assert done.wait(WAIT_S)

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join(WAIT_S)
        self._listener.close()
