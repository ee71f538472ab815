"""Files that people name: read whole within a limit, and written so that only their owner can read them.

Whatever lies at a path (a folder, a pipe, a device without an end, a link loop, bytes that are no text, brackets
without end) becomes one line that says so. Pipes and devices are not read: that might never end.
"""

from __future__ import annotations

import errno
import os
import stat
import tomllib
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from antiphon.errors import AntiphonError, ConfigError

MAX_SETTINGS_BYTES = 4 << 20
MAX_TRACE_BYTES = 64 << 20
"""A call of an hour takes about a fifth of it."""
PRIVATE_FILE, PRIVATE_FOLDER = 0o600, 0o700
_KINDS = {
    stat.S_IFDIR: os.strerror(errno.EISDIR),
    stat.S_IFIFO: "it is a pipe",
    stat.S_IFSOCK: "it is a socket",
    stat.S_IFCHR: "it is a device",
    stat.S_IFBLK: "it is a device",
}


def open_regular(path: Path, error: type[AntiphonError] = AntiphonError) -> IO[bytes]:
    """The file at `path`, open for reading. Raises `error` for what is no file, and for one that cannot be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0))
    except (OSError, ValueError) as found:  # ValueError: a NUL in its name
        raise error(f"cannot read {_shown(path)}: {_reason(found)}; check the path") from None
    kind = stat.S_IFMT(os.fstat(descriptor).st_mode)
    if kind != stat.S_IFREG:
        os.close(descriptor)
        reason = _KINDS.get(kind, "it is no file")
        raise error(f"cannot read {_shown(path)}: {reason}; name a regular file")
    return os.fdopen(descriptor, "rb")


def read_bytes(path: Path, max_bytes: int, error: type[AntiphonError] = AntiphonError) -> bytes:
    """All of a regular file. Raises `error`, also when it has more than `max_bytes`."""
    try:
        with open_regular(path, error) as file:
            data = file.read(max_bytes + 1)
    except OSError as found:
        raise error(f"cannot read {_shown(path)}: {_reason(found)}") from None
    if len(data) > max_bytes:
        raise error(
            f"{_shown(path)} is too large: more than {_size(max_bytes)}, the limit for such a file; is it right?"
        )
    return data


def read_text(path: Path, max_bytes: int, error: type[AntiphonError] = AntiphonError) -> str:
    """The same as text, without the mark that some editors put before it. Raises `error`."""
    data = read_bytes(path, max_bytes, error)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as found:
        raise error(
            f"cannot read {_shown(path)}: it is not text in UTF-8 (byte {found.start + 1} is "
            f"{data[found.start]:#04x}); save it as UTF-8"
        ) from None


def read_toml(
    path: Path, max_bytes: int = MAX_SETTINGS_BYTES, error: type[AntiphonError] = ConfigError
) -> dict[str, Any]:
    """A TOML file. Raises `error`."""
    text = read_text(path, max_bytes, error)
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise error(f"{_shown(path)} is nested too deeply; settings need three levels") from None
    except ValueError as found:
        raise error(f"{_shown(path)} is not valid TOML: {found}") from None


# --- for the owner's eyes only ------------------------------------------------------------------


def private_folder(path: Path) -> None:
    """Make it, and those above it, if they are not there: for its owner only. Raises OSError."""
    if path.is_dir():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)


def open_private(path: Path, flags: int) -> int:
    """A descriptor of a file that only its owner can read, one that was there before included, whatever the umask.

    `flags`: of `os.open`, `O_CREAT` is added. Raises OSError.
    """
    descriptor = os.open(path, flags | os.O_CREAT | os.O_CLOEXEC, PRIVATE_FILE)
    with suppress(OSError):  # another's file, or a file system without modes
        os.fchmod(descriptor, PRIVATE_FILE)
    return descriptor


def write_private(path: Path, text: str, *, append: bool = False) -> None:
    """Raises OSError."""
    how = os.O_APPEND if append else os.O_TRUNC
    with os.fdopen(open_private(path, os.O_WRONLY | how), "w", encoding="utf-8") as file:
        file.write(text)


def make_private(folder: Path, extensions: Iterable[str]) -> None:
    """What earlier versions have left readable for others: files of ours with these extensions, and the folder if it
    holds nothing else. Files of other users stay as they are.
    """
    ours, only_ours = tuple(extensions), True
    try:
        entries = list(os.scandir(folder))
        for entry in entries:
            found = entry.stat(follow_symlinks=False)
            if not (stat.S_ISREG(found.st_mode) and entry.name.endswith(ours)):
                only_ours = False
            elif found.st_uid == os.geteuid() and found.st_mode & 0o077:
                os.chmod(entry.path, PRIVATE_FILE)
        found = folder.stat()
        if entries and only_ours and found.st_uid == os.geteuid() and found.st_mode & 0o077:
            folder.chmod(PRIVATE_FOLDER)
    except OSError:
        return  # not there yet, or not ours to change


def _shown(path: Path) -> str:
    text = str(path)
    shown = text if len(text) <= 200 else f"{text[:100]}...{text[-80:]}"
    return shown.encode("utf-8", "backslashreplace").decode()


def _reason(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _size(count: int) -> str:
    return f"{count >> 20} MiB" if count >= 1 << 20 else f"{count} bytes"
