"""What the commands share: settings with the command line's word on top, weights with progress, logging, files."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Console

from antiphon.cli.weights import progress_for
from antiphon.config import Settings, load
from antiphon.errors import AudioError, ConfigError
from antiphon.files import open_private
from antiphon.models.store import WeightStore
from antiphon.observe import logs


def settings_with(sets: list[str], **named: Any) -> Settings:
    """`sets`: `--set section.name=value` as typed. `named`: options of a command (dots as double underscores)."""
    overrides: dict[str, Any] = {}
    for item in sets:
        name, equals, value = item.partition("=")
        if not equals or not name:
            raise ConfigError(
                f"--set takes name=value, for instance server.port=9000; got {item!r}"
            )
        overrides[name.strip()] = value
    for name, value in named.items():
        if value is not None:
            overrides[name.replace("__", ".")] = value
    return load(overrides)


def weight_store() -> WeightStore:
    """Fetches with bars on a terminal, with a line per file elsewhere."""
    return WeightStore(progress=progress_for(Console(stderr=True)))


def log_to_stderr(debug: bool, form: str = "pretty") -> None:
    """For a server: a line per event, with its time and its call. `form`: `pretty` or `json`."""
    logs.setup(form, level=logging.DEBUG if debug else logging.INFO)


def quiet_log(debug: bool) -> None:
    """For a command that has a result, or one line that says why not: warnings would stand in between."""
    log_to_stderr(debug)
    if not debug:
        logging.getLogger().setLevel(logging.CRITICAL)


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
