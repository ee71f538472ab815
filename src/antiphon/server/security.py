"""Who may connect. So far: web pages of other sites may not, unless they are listed.

Browsers send cookies and reach loopback on behalf of any page, so a websocket's Origin is checked here; programs send
none.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


def is_loopback(host: str) -> bool:
    return host in _LOOPBACK or host.startswith("127.")


def origin_allowed(headers: Mapping[str, str], allowed: tuple[str, ...]) -> bool:
    """No Origin, the server's own, or a listed one (`*`: any)."""
    origin = headers.get("origin")
    if origin is None or "*" in allowed or origin.rstrip("/") in {a.rstrip("/") for a in allowed}:
        return True
    return urlsplit(origin).netloc.lower() == headers.get("host", "").lower()
