"""Where made speech outlives its process: a folder of this machine, or a Redis that several servers share.

What is kept is a convenience: a store that fails is logged and left alone for a while, and costs nothing else. All
methods block, shortly, and may be called from any thread.
"""

from __future__ import annotations

import logging
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from antiphon.errors import ConfigError

log = logging.getLogger(__name__)

_REDIS_PREFIX = "antiphon:speech:"
_REDIS_LIMIT_S = 0.25
"""For an answer: longer than that, the voice itself is not much slower."""
_REDIS_KEEP_S = 30 * 24 * 3600
"""After its last use. How much is kept in all is the server's own `maxmemory`."""
_AWAY_S = 30.0


class CacheStore(Protocol):
    @property
    def away(self) -> bool:
        """It has failed, and is not asked for the time being."""
        ...

    def read(self, key: str) -> bytes | None: ...

    def write(self, key: str, data: bytes) -> None: ...

    def drop(self, key: str) -> None:
        """What stands there is damaged."""
        ...

    def close(self) -> None: ...


class FolderStore:
    """One file each; what was used longest ago goes first."""

    def __init__(self, folder: Path, max_bytes: int = 256 << 20) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self.away = False

    def read(self, key: str) -> bytes | None:
        if self.away:
            return None
        path = self._folder / key
        try:
            data = path.read_bytes()
            os.utime(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            self._give_up(error)
            return None
        return data

    def write(self, key: str, data: bytes) -> None:
        """Whole or not at all: another process may read it."""
        if self.away:
            return
        part = self._folder / f"{key}.{secrets.token_hex(4)}.part"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            part.write_bytes(data)
            part.replace(self._folder / key)
            self._tidy()
        except OSError as error:
            self._give_up(error)

    def drop(self, key: str) -> None:
        (self._folder / key).unlink(missing_ok=True)

    def close(self) -> None:
        pass

    def _tidy(self) -> None:
        found = [
            (entry.stat(), entry.path) for entry in os.scandir(self._folder) if entry.is_file()
        ]
        total_bytes = sum(status.st_size for status, _ in found)
        for status, path in sorted(found, key=lambda item: item[0].st_mtime):
            if total_bytes <= self._max_bytes:
                return
            os.unlink(path)
            total_bytes -= status.st_size

    def _give_up(self, error: OSError) -> None:
        log.warning("speech is not kept in %s any more: %s", self._folder, error)
        self.away = True


class RedisStore:
    """Shared by all servers that name the same Redis; a server that is away is asked again after half a minute."""

    def __init__(self, url: str, *, now_s: Callable[[], float] = time.monotonic) -> None:
        """`url`: `redis://host:6379/0`, `rediss://...` or `unix://...`. Raises ConfigError."""
        try:
            import redis
        except ImportError:
            raise ConfigError(
                "speech is to be kept in Redis, for which a library is missing; run: pip install 'antiphon[redis]'"
            ) from None
        self._failures: tuple[type[Exception], ...] = (redis.RedisError, OSError)
        try:
            self._client = redis.Redis.from_url(
                url, socket_timeout=_REDIS_LIMIT_S, socket_connect_timeout=_REDIS_LIMIT_S
            )
        except ValueError:
            raise ConfigError(
                "models.speech_cache_redis is no address of a Redis; write redis://host:6379/0"
            ) from None
        self._now_s = now_s
        self._away_until_s = 0.0

    @property
    def away(self) -> bool:
        return self._now_s() < self._away_until_s

    def read(self, key: str) -> bytes | None:
        return self._try(lambda: self._client.getex(_REDIS_PREFIX + key, ex=_REDIS_KEEP_S))

    def write(self, key: str, data: bytes) -> None:
        self._try(lambda: self._client.set(_REDIS_PREFIX + key, data, ex=_REDIS_KEEP_S))

    def drop(self, key: str) -> None:
        self._try(lambda: self._client.delete(_REDIS_PREFIX + key))

    def close(self) -> None:
        self._client.close()

    def _try(self, ask: Callable[[], object]) -> bytes | None:
        if self.away:
            return None
        try:
            found = ask()
        except self._failures as error:
            # Its own words may hold the address, and with it a password.
            log.warning("the Redis that keeps speech is away (%s)", type(error).__name__)
            self._away_until_s = self._now_s() + _AWAY_S
            return None
        return found if isinstance(found, bytes) else None
