"""Several addresses of one service: which is tried first, after some of them could not be reached."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from urllib.parse import urlsplit

from antiphon.errors import ModelError

_REST_S = 15.0
"""An address that could not be reached is not the first choice for so long."""

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 0.5
RETRY_S = 4.0
"""How long a client goes on trying, before a call is told that the service is gone."""


class Addresses:
    """Of one client. `text`: one or several URLs, separated by commas, best first. Raises ModelError for none."""

    def __init__(self, text: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.urls = tuple(url.strip().rstrip("/") for url in text.split(",") if url.strip())
        if not self.urls:
            raise ModelError("no address was given: set the option base_url")
        self._clock = clock
        self._rests_until_s = [0.0] * len(self.urls)
        self._gone = [True] * len(self.urls)
        self._hopeless_until_s = 0.0
        self._using = 0

    @property
    def url(self) -> str:
        """The one used last."""
        return self.urls[self._using]

    @property
    def where(self) -> str:
        """Host and port of the one used last."""
        return host_and_port(self.url)

    def in_turn(self) -> Iterator[int]:
        """Positions in `urls`, those that failed a moment ago last. Each is the one used while it is tried."""
        now_s = self._clock()
        for at in sorted(
            range(len(self.urls)), key=lambda at: (now_s < self._rests_until_s[at], at)
        ):
            self._using = at
            yield at

    async def tries(self, patience_s: float) -> AsyncIterator[int]:
        """As `in_turn`, again and again until `patience_s` have passed: a service that starts anew is back in seconds.

        Whoever was refused all that time is not waited for again so soon: something else may take its place.
        """
        until_s = self._clock() + patience_s
        pause_s = _FIRST_PAUSE_S
        while True:
            for at in self.in_turn():
                yield at
            now_s = self._clock()
            if not any(self._gone):
                return
            if now_s + pause_s > until_s or now_s < self._hopeless_until_s:
                self._hopeless_until_s = now_s + _REST_S
                return
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def failed(self, at: int, *, gone: bool = True) -> None:
        """`gone` False: it is there but does not do its work, so that waiting will not help."""
        self._rests_until_s[at] = self._clock() + _REST_S
        self._gone[at] = gone

    def served(self, at: int) -> None:
        self._rests_until_s[at] = self._hopeless_until_s = 0.0


def host_and_port(url: str) -> str:
    """Without user name and password."""
    parts = urlsplit(url)
    host = parts.hostname or url
    return f"{host}:{parts.port}" if parts.port else host
