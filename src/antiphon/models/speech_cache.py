"""Speech that was made before: greetings, fillers and confirmations are the same words in the same voice each time.

In memory first, then in a folder if there is one; both are bounded, and what was used longest ago goes first. What is
kept is a convenience: anything that goes wrong with the folder is logged once and costs nothing else. Knows no model
and no call.
"""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from antiphon.models.ports import Pcm16, SpeechRequest

log = logging.getLogger(__name__)

MAX_CHARS = 120
"""Longer texts are hardly ever said twice."""
_HEADER_BYTES = 4
"""Of a file: the sample rate, little-endian; then samples."""


@dataclass(frozen=True, slots=True)
class Spoken:
    """int16 samples [n] at `rate_hz`."""

    pcm: Pcm16
    rate_hz: int


class SpeechCache:
    """Of one process. `get` and `put` may be called from any thread; with a folder they read and write files."""

    def __init__(
        self, max_bytes: int, folder: Path | None = None, folder_max_bytes: int = 256 << 20
    ) -> None:
        self._max_bytes = max_bytes
        self._folder = folder
        self._folder_max_bytes = folder_max_bytes
        self._kept: OrderedDict[str, Spoken] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()
        self.hits = self.misses = 0

    @property
    def has_folder(self) -> bool:
        """Whether `get` and `put` may wait for a disk."""
        return self._folder is not None

    @staticmethod
    def key(model: str, request: SpeechRequest) -> str:
        """`model`: what made it, with its weights. Empty for a text that is not worth keeping."""
        text = " ".join(request.text.split())
        if not text or len(text) > MAX_CHARS:
            return ""
        parts = (model, request.voice, request.language, f"{request.speed:g}", text)
        return hashlib.blake2b("\0".join(parts).encode(), digest_size=16).hexdigest()

    def recall(self, key: str) -> Spoken | None:
        """From memory alone: never waits."""
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
                self.hits += 1
            return found

    def get(self, key: str) -> Spoken | None:
        """From memory or the folder."""
        found = self.recall(key)
        if found is None and self._folder is not None and (found := self._read(key)) is not None:
            self._keep(key, found)
            self.hits += 1
        if found is None:
            self.misses += 1
        return found

    def put(self, key: str, pieces: Sequence[Pcm16], rate_hz: int) -> None:
        pcm = np.concatenate(pieces) if pieces else np.zeros(0, np.int16)
        pcm.flags.writeable = False
        spoken = Spoken(pcm, rate_hz)
        self._keep(key, spoken)
        if self._folder is not None:
            self._write(key, spoken)

    def _keep(self, key: str, spoken: Spoken) -> None:
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

    # --- the folder ---------------------------------------------------------------------------------

    def _read(self, key: str) -> Spoken | None:
        assert self._folder is not None
        path = self._folder / key
        try:
            data = path.read_bytes()
            os.utime(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            self._give_up(error)
            return None
        rate_hz = int.from_bytes(data[:_HEADER_BYTES], "little")
        if not 8_000 <= rate_hz <= 48_000 or len(data) % 2:
            path.unlink(missing_ok=True)
            return None
        return Spoken(np.frombuffer(data, "<i2", offset=_HEADER_BYTES), rate_hz)

    def _write(self, key: str, spoken: Spoken) -> None:
        """Whole or not at all: another process may read it."""
        assert self._folder is not None
        data = spoken.rate_hz.to_bytes(_HEADER_BYTES, "little") + spoken.pcm.astype("<i2").tobytes()
        part = self._folder / f"{key}.{secrets.token_hex(4)}.part"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            part.write_bytes(data)
            part.replace(self._folder / key)
            self._tidy()
        except OSError as error:
            self._give_up(error)

    def _tidy(self) -> None:
        assert self._folder is not None
        found = [
            (entry.stat(), entry.path) for entry in os.scandir(self._folder) if entry.is_file()
        ]
        total_bytes = sum(status.st_size for status, _ in found)
        for status, path in sorted(found, key=lambda item: item[0].st_mtime):
            if total_bytes <= self._folder_max_bytes:
                return
            os.unlink(path)
            total_bytes -= status.st_size

    def _give_up(self, error: OSError) -> None:
        log.warning("speech is not kept in %s any more: %s", self._folder, error)
        self._folder = None
