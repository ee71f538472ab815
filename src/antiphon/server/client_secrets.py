"""Client secrets: keys that live for minutes, made with a real key for somebody who should not have that one.

Each pins the session that it opens. Kept in memory, hashed, and never more than `MAX_SECRETS`.
"""

from __future__ import annotations

import hmac
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from antiphon.server.http_errors import RequestRefused
from antiphon.server.keys import Key, digest_of

PREFIX = "ek_"
LIFE_S = 600
LIFE_RANGE_S = (10, 7_200)
MAX_SECRETS = 10_000


@dataclass(frozen=True, slots=True)
class Pinned:
    """What the maker of a secret has decided for the sessions that it opens."""

    session: Mapping[str, Any] = field(default_factory=dict)
    """As it was given, to be applied like the client's first `session.update`."""
    dialect: str = "ga"
    """`ga` or `beta`: the shape of `session`."""


@dataclass(frozen=True, slots=True)
class ClientSecret:
    digest: str
    expires_at_s: float
    """Seconds since 1970."""
    key: Key | None
    """On whose account; None: made where no key is needed."""
    pinned: Pinned


class ClientSecrets:
    def __init__(
        self, now_s: Callable[[], float] = time.time, max_secrets: int = MAX_SECRETS
    ) -> None:
        self.now_s = now_s
        self._max_secrets = max_secrets
        self._secrets: OrderedDict[str, ClientSecret] = OrderedDict()

    def __len__(self) -> int:
        return len(self._secrets)

    def create(self, key: Key | None, pinned: Pinned, life_s: int = LIFE_S) -> tuple[str, int]:
        """-> the secret and when it expires, seconds since 1970. Raises Refused (429) when there are too many."""
        self._forget_expired()
        if len(self._secrets) >= self._max_secrets:
            raise RequestRefused(
                429,
                "too many client secrets are valid; let them live for a shorter time",
                "rate_limit_exceeded",
                retry_after_s=60,
            )
        clear = PREFIX + secrets.token_urlsafe(32)
        expires_at_s = int(self.now_s()) + life_s
        digest = digest_of(clear)
        self._secrets[digest] = ClientSecret(digest, expires_at_s, key, pinned)
        return clear, expires_at_s

    def find(self, clear: str) -> ClientSecret | None:
        """None: unknown or expired. Found by its digest, of which a guess at the secret tells nothing."""
        found = self._secrets.get(digest_of(clear))
        if found is None or not hmac.compare_digest(found.digest, digest_of(clear)):
            return None
        return found if self.now_s() < found.expires_at_s else None

    def _forget_expired(self) -> None:
        now_s = self.now_s()
        for digest in [d for d, s in self._secrets.items() if s.expires_at_s <= now_s]:
            del self._secrets[digest]
