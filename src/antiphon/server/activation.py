"""The listening socket that systemd holds for us, so that a restart refuses nobody.

Source of the protocol: sd_listen_fds(3). Knows neither units nor HTTP.
"""

from __future__ import annotations

import os
import socket

from antiphon.errors import ConfigError

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
