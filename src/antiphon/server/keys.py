"""API keys: made with 256 random bits, kept as SHA-256, found in constant time, read again when their file changes.

A slow password hash would protect nothing here: nobody can try 2**256 keys, and each request would pay for it.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
import os
import re
import secrets
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from antiphon.config.sections import HASHED_KEY, SecuritySettings
from antiphon.errors import ConfigError, SettingsError, suggest
from antiphon.files import private_folder, read_text
from antiphon.server.usage import UsageLimits

log = logging.getLogger(__name__)

PREFIX = "sk-antiphon-"
"""Some clients refuse to send a key that does not begin with `sk-`."""
MAX_KEY_CHARS = 200
MAX_KEYS_BYTES = 16 << 20
_NAME = re.compile(r"[\w.-]{1,64}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_LIMIT_NAMES = ("max_sessions", "minutes_per_day", "requests_per_minute")
_LOOK_EVERY_S = 0.5


@dataclass(frozen=True, slots=True)
class Key:
    """A key as it is kept: nobody can tell the key from it."""

    name: str
    digest: str
    """SHA-256, 64 hexadecimal digits."""
    created: str = ""
    """ISO 8601, UTC; empty: not known."""
    limits: UsageLimits | None = None
    """None: those of the settings."""

    @property
    def setting(self) -> str:
        """As an entry of the setting `security.keys`."""
        return f"{self.name}=sha256:{self.digest}"


def digest_of(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def new_key(name: str, limits: UsageLimits | None = None) -> tuple[str, Key]:
    """-> the key in clear text, which is nowhere kept, and what to keep. Raises ConfigError for a bad name."""
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{name[:64]!r} is no name for a key; use letters, digits, '-', '_', '.'")
    clear = PREFIX + secrets.token_urlsafe(32)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return clear, Key(name, digest_of(clear), now, limits)


# --- the file -----------------------------------------------------------------------------------


def read_keys(path: Path) -> tuple[Key, ...]:
    """The keys of a file; none if there is no file. Raises SettingsError."""
    if not os.path.lexists(path):
        return ()
    text = read_text(path, MAX_KEYS_BYTES, SettingsError)
    try:
        entries = json.loads(text)["keys"]
        return tuple(_as_key(entry) for entry in entries)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise SettingsError(
            f"{path} is not a file of `antiphon keys`; move it away and make the keys anew"
        ) from None


def _as_key(entry: Any) -> Key:
    name, digest, limits = entry["name"], entry["sha256"], entry.get("limits")
    if not _NAME.fullmatch(name) or not _DIGEST.fullmatch(digest):
        raise ValueError
    if limits is not None:
        if any(type(value) is not int or value < 0 for value in limits.values()):
            raise ValueError
        limits = UsageLimits(**limits)
    return Key(name, digest, str(entry.get("created", "")), limits)


def write_keys(path: Path, keys: Iterable[Key]) -> None:
    """Whole or not at all, for the owner's eyes only. Raises ConfigError."""
    entries = [
        {
            "name": key.name,
            "sha256": key.digest,
            "created": key.created,
            **({"limits": _as_json(key.limits)} if key.limits else {}),
        }
        for key in keys
    ]
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        private_folder(path.parent)
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(json.dumps({"keys": entries}, indent=2) + "\n")
        os.replace(partial, path)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def _as_json(limits: UsageLimits) -> dict[str, int]:
    return {name: getattr(limits, name) for name in _LIMIT_NAMES}


def add_key(path: Path, name: str, limits: UsageLimits | None = None) -> tuple[str, Key]:
    """Like `new_key`, and kept in the file. Raises ConfigError for a name that is taken."""
    clear, key = new_key(name, limits)
    keys = read_keys(path)
    if any(other.name == name for other in keys):
        raise ConfigError(f"there is a key {name!r} already; revoke it first, or use another name")
    write_keys(path, (*keys, key))
    return clear, key


def remove_key(path: Path, name: str) -> None:
    """Raises ConfigError when there is none of this name."""
    keys = read_keys(path)
    kept = tuple(key for key in keys if key.name != name)
    if len(kept) == len(keys):
        raise ConfigError(f"there is no key {name!r}{suggest(name, [k.name for k in keys])}")
    write_keys(path, kept)


# --- the server's view --------------------------------------------------------------------------


class KeyBook:
    """All keys that this server knows: of the settings, and of the file as it is now."""

    def __init__(self, settings: SecuritySettings) -> None:
        """Reads the file. Raises ConfigError."""
        self._path = settings.keys_file
        self._fixed = tuple(_from_settings(settings))
        self._stamp = _stamp(self._path)
        self._from_file = read_keys(self._path)
        self._seen_s = time.monotonic()
        self.look_every_s = _LOOK_EVERY_S
        self._required = bool(self._fixed) or self._stamp is not None

    @property
    def required(self) -> bool:
        """There are keys, or were: a file whose last key was revoked does not open the server."""
        return self._required

    async def find(self, clear: str) -> Key | None:
        """The key that this is. Takes as long whichever it is."""
        await self.refresh()
        if len(clear) > MAX_KEY_CHARS:
            return None
        digest, found = digest_of(clear), None
        for key in (*self._fixed, *self._from_file):
            if hmac.compare_digest(key.digest, digest):
                found = key
        return found

    def has(self, key: Key) -> bool:
        """It has not been revoked, as of the last look at the file."""
        return key in self._fixed or any(k.digest == key.digest for k in self._from_file)

    async def refresh(self) -> None:
        """Read the file again if it has changed. A file that cannot be read changes nothing."""
        if time.monotonic() - self._seen_s < self.look_every_s:
            return
        self._seen_s = time.monotonic()
        try:
            self._stamp, keys = await asyncio.to_thread(self._read_if_changed)
        except ConfigError as error:
            log.error("the keys stay as they were: %s", error)
            return
        if keys is not None:
            log.info("%s has changed: %d keys", self._path.name, len(keys))
            self._from_file, self._required = keys, True

    def _read_if_changed(self) -> tuple[tuple[int, int] | None, tuple[Key, ...] | None]:
        stamp = _stamp(self._path)
        return stamp, None if stamp == self._stamp else read_keys(self._path)


def _from_settings(settings: SecuritySettings) -> Iterable[Key]:
    clear = [part.strip() for part in settings.api_key.get_secret_value().split(",")]
    for number, key in enumerate(filter(None, clear), 1):
        yield Key("default" if number == 1 else f"default-{number}", digest_of(key))
    for entry in settings.keys:
        match = HASHED_KEY.fullmatch(entry)
        assert match is not None  # the settings have seen to it
        yield Key(match["name"], match["digest"])


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino
