"""Files that commands write: known beforehand to be possible, and there complete or not at all."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from antiphon.errors import AudioError
from antiphon.files import open_private

_MAX_NAME_BYTES = 255
_MAX_NAME_CHARS = 50
"""Of the name that a file has while it is written: four bytes each at most."""


def check_place(path: Path) -> None:
    """An answer takes a while to make: know before whether it can be kept. Raises AudioError."""
    if len(os.fsencode(path.name)) > _MAX_NAME_BYTES:
        raise AudioError(
            f"cannot write {path.name[:40]}...: the name is longer than {_MAX_NAME_BYTES} bytes"
        )
    if os.path.isdir(path):
        raise AudioError(f"cannot write {path}: it is a folder")
    if os.path.exists(path) and not os.path.isfile(path):
        raise AudioError(f"cannot write {path}: it is no regular file")
    if not os.path.isdir(path.parent):
        raise AudioError(f"cannot write {path}: there is no folder {path.parent}")
    if not os.access(path.parent, os.W_OK):
        raise AudioError(f"cannot write {path}: the folder {path.parent} is not yours to write to")


def write_whole(path: Path, data: bytes, *, private: bool = False) -> None:
    """The file is there complete or not at all. `private`: only its owner can read it. Raises AudioError."""
    partial = path.with_name(f".{path.name[:_MAX_NAME_CHARS]}.part")
    try:
        if private:
            with os.fdopen(open_private(partial, os.O_WRONLY | os.O_TRUNC), "wb") as file:
                file.write(data)
        else:
            partial.write_bytes(data)
        os.replace(partial, path)
    except OSError as error:
        raise AudioError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
