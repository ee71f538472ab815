"""Speech that was made before: greetings, fillers and confirmations are the same words in the same voice each time.

In memory first, bounded, what was used longest ago goes first; then on the stores that there are (`speech_shelves`).
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from antiphon.models.cache_stores import CacheStore
from antiphon.models.ports import Pcm16, SpeechRequest

MAX_CHARS = 120
"""Longer texts are hardly ever said twice."""
_HEADER_BYTES = 4
"""Of what stands on a store: the sample rate, little-endian; then samples."""


@dataclass(frozen=True, slots=True)
class CachedSpeech:
    """int16 samples [n] at `rate_hz`."""

    pcm: Pcm16
    rate_hz: int


class SpeechCache:
    """Of one process. `get` and `put` may be called from any thread; with stores they may wait."""

    def __init__(self, max_bytes: int, shelves: Sequence[CacheStore] = ()) -> None:
        """`shelves`: the nearest first."""
        self._max_bytes = max_bytes
        self._shelves = tuple(shelves)
        self._kept: OrderedDict[str, CachedSpeech] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()
        self.hits = self.misses = 0

    @property
    def waits(self) -> bool:
        """Whether `get` and `put` may wait for a disk or a network."""
        return any(not media_store.away for media_store in self._shelves)

    @staticmethod
    def key(model: str, request: SpeechRequest) -> str:
        """`model`: what made it, with its weights. Empty for a text that is not worth keeping."""
        text = " ".join(request.text.split())
        if not text or len(text) > MAX_CHARS:
            return ""
        parts = (model, request.voice, request.language, f"{request.speed:g}", text)
        return hashlib.blake2b("\0".join(parts).encode(), digest_size=16).hexdigest()

    def recall(self, key: str) -> CachedSpeech | None:
        """From memory alone: never waits."""
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
                self.hits += 1
            return found

    def get(self, key: str) -> CachedSpeech | None:
        """From memory or the first store that has it."""
        found = self.recall(key)
        for media_store in self._shelves:
            if found is None and (found := self._fetch(media_store, key)) is not None:
                self._keep(key, found)
                self.hits += 1
        if found is None:
            self.misses += 1
        return found

    def _fetch(self, media_store: CacheStore, key: str) -> CachedSpeech | None:
        data = media_store.read(key)
        found = None if data is None else _unpacked(data)
        if data is not None and found is None:
            media_store.drop(key)
        return found

    def put(self, key: str, pieces: Sequence[Pcm16], rate_hz: int) -> None:
        pcm = np.concatenate(pieces) if pieces else np.zeros(0, np.int16)
        pcm.flags.writeable = False
        spoken = CachedSpeech(pcm, rate_hz)
        self._keep(key, spoken)
        for media_store in self._shelves:
            media_store.write(key, _packed(spoken))

    def _keep(self, key: str, spoken: CachedSpeech) -> None:
        if spoken.pcm.nbytes > self._max_bytes // 4:
            return
        with self._lock:
            if key in self._kept:
                return
            self._kept[key] = spoken
            self._bytes += spoken.pcm.nbytes
            while self._bytes > self._max_bytes:
                _, gone = self._kept.popitem(last=False)
                self._bytes -= gone.pcm.nbytes

    def close(self) -> None:
        for media_store in self._shelves:
            media_store.close()


def _packed(spoken: CachedSpeech) -> bytes:
    return spoken.rate_hz.to_bytes(_HEADER_BYTES, "little") + spoken.pcm.astype("<i2").tobytes()


def _unpacked(data: bytes) -> CachedSpeech | None:
    """None: damaged."""
    rate_hz = int.from_bytes(data[:_HEADER_BYTES], "little")
    if not 8_000 <= rate_hz <= 48_000 or len(data) % 2:
        return None
    return CachedSpeech(np.frombuffer(data, "<i2", offset=_HEADER_BYTES), rate_hz)
