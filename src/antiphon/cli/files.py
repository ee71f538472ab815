"""Files that commands write: known beforehand to be possible, and there complete or not at all."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from antiphon.errors import AudioError


def check_place(path: Path) -> None:
    """An answer takes a while to make: know before whether it can be kept. Raises AudioError."""
    if path.is_dir():
        raise AudioError(f"cannot write {path}: it is a folder")
    if not path.parent.is_dir():
        raise AudioError(f"cannot write {path}: there is no folder {path.parent}")
    if not os.access(path.parent, os.W_OK):
        raise AudioError(f"cannot write {path}: the folder {path.parent} is not yours to write to")


def write_whole(path: Path, data: bytes) -> None:
    """The file is there complete or not at all. Raises AudioError."""
    partial = path.with_name(f".{path.name}.part")
    try:
        partial.write_bytes(data)
        os.replace(partial, path)
    except OSError as error:
        raise AudioError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
