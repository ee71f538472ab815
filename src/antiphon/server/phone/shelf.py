"""Sound files that are fetched once or twice and then forgotten, by addresses that nobody can guess or reuse.

An address holds a name, the time at which it ends, and an HMAC-SHA256 over both, so that it opens one file for a short
while. The secret is made at start: addresses do not outlive the process, and neither do the files. Knows no call.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

KEEP_S = 600.0
MAX_BYTES = 64 << 20
"""Of all files together; the oldest give way."""


@dataclass(frozen=True, slots=True)
class Sound:
    data: bytes
    content_type: str
    ends_s: float


class Shelf:
    def __init__(
        self,
        *,
        max_bytes: int = MAX_BYTES,
        keep_s: float = KEEP_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._secret = secrets.token_bytes(32)
        self._max_bytes = max_bytes
        self._keep_s = keep_s
        self._clock = clock
        self._sounds: OrderedDict[str, Sound] = OrderedDict()
        self._size_bytes = 0

    def put(self, data: bytes, content_type: str, extension: str) -> str:
        """-> `name.wav?expires=...&signature=...`"""
        name = f"{secrets.token_urlsafe(16)}.{extension}"
        ends_s = self._clock() + self._keep_s
        self._sounds[name] = Sound(data, content_type, ends_s)
        self._size_bytes += len(data)
        self._make_room()
        expires = int(ends_s)
        return f"{name}?expires={expires}&signature={self._sign(name, str(expires))}"

    def get(self, name: str, expires: str, signature: str) -> Sound | None:
        """None: it is gone, or its time is over. Raises PermissionError for an address that was not given out."""
        right = self._sign(name, expires)
        if not hmac.compare_digest(right.encode(), signature.encode("utf-8", "replace")):
            raise PermissionError(name)
        sound = self._sounds.get(name)
        return sound if sound is not None and self._clock() < int(expires) else None

    def _sign(self, name: str, expires: str) -> str:
        text = f"{name}\n{expires}".encode("utf-8", "replace")
        return hmac.new(self._secret, text, hashlib.sha256).hexdigest()

    def _make_room(self) -> None:
        """The file that has just come stays, whatever its size."""
        now_s = self._clock()
        while len(self._sounds) > 1:
            name, oldest = next(iter(self._sounds.items()))
            if self._size_bytes <= self._max_bytes and oldest.ends_s > now_s:
                break
            del self._sounds[name]
            self._size_bytes -= len(oldest.data)
