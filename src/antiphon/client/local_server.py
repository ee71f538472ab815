"""A server for one command: started on a free loopback port, ended by its process id.

Knows `antiphon serve` by its command line and its "Ready" line only; no protocol, no model.
"""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from antiphon.errors import ModelError

PATH = "/ws/conversation"
_READY = re.compile(r"^Ready: http://[^ ]*:(\d+)")
_END_S = 20.0
"""For calls that are on to be told."""


def _ignore(line: str) -> None:
    pass


@contextmanager
def server_for(
    url: str | None, sets: Sequence[str] = (), on_line: Callable[[str], None] = _ignore
) -> Iterator[tuple[str, int | None]]:
    """-> the websocket's address and the server's process id; with `url`, a running server and no id.

    `sets`: settings of the server that is started, each `section.name=value`. `on_line`: told each line that it
    writes until it is ready. Raises ModelError with its last line when it does not get there.
    """
    if url is not None:
        yield url, None
        return
    command = [sys.executable, "-m", "antiphon", "serve", "--host", "127.0.0.1", "--port", "0"]
    # The owner's keys, and the proxy that leads to their own server, are for other callers.
    command += ["--set", "security.local=true", "--set", "phone.public_url="]
    command += ["--set", "server.trusted_proxies="]
    for item in sets:
        command += ["--set", item]
    # In a session of its own: Ctrl-C is for the command, which still has a call to end.
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, errors="replace", start_new_session=True
    )
    try:
        yield f"ws://127.0.0.1:{_wait_for_port(process, on_line)}{PATH}", process.pid
    finally:
        _end(process)


def _wait_for_port(process: subprocess.Popen[str], on_line: Callable[[str], None]) -> int:
    assert process.stderr is not None
    last = ""
    for line in process.stderr:
        ready = _READY.match(line)
        if ready:
            threading.Thread(
                target=_read_on, args=[process], name="server log", daemon=True
            ).start()
            return int(ready[1])
        last = line.strip() or last
        on_line(line.rstrip())
    raise ModelError(f"the server did not start: {last.removeprefix('antiphon: ')}")


def _read_on(process: subprocess.Popen[str]) -> None:
    """A pipe that nobody reads would block the server's log."""
    assert process.stderr is not None
    for _ in process.stderr:
        pass


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(timeout=_END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
