"""What `antiphon doctor` says of the settings: their effective values, secrets hidden, and the folders that they name.

Only looks: a folder that is not there yet is not made.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, SecretStr

from antiphon.cli.doctor_checks import FAIL, OK, Finding
from antiphon.config import NEGOTIATED, Settings
from antiphon.config.text import hide_secrets
from antiphon.observe.redact import redact

_LONGEST = 90
_FOLDERS = ("trace_dir", "recording_dir", "debug_audio_dir")


def shown_settings(settings: Settings, *, everything: bool) -> Iterator[Finding]:
    """A line per setting: those that differ from the default, or all."""
    defaults = dict(_values("", Settings.model_construct()))
    count = 0
    for name, value in _values("", settings):
        changed = name not in defaults or value != defaults[name]
        if changed or everything:
            count += 1
            yield Finding(f"setting {name}", OK, _shown(value) + ("" if changed else "  (default)"))
    if not count:
        yield Finding("settings", OK, "all at their defaults; --all shows them")


def _values(prefix: str, section: Any) -> Iterator[tuple[str, Any]]:
    """(dotted name, value) of everything in a section, in order."""
    if isinstance(section, BaseModel):
        inner = [(name, getattr(section, name)) for name in type(section).model_fields]
    else:
        names = (field.name for field in dataclasses.fields(section))
        inner = [(name, getattr(section, name)) for name in names if name not in NEGOTIATED]
    for name, value in inner:
        if isinstance(value, BaseModel) or dataclasses.is_dataclass(value):
            yield from _values(f"{prefix}{name}.", value)
        else:
            yield prefix + name, value


def _shown(value: Any) -> str:
    """In one line, and never a secret: neither one that is declared nor one that looks like one."""
    if isinstance(value, SecretStr):
        return "(set, hidden)" if value.get_secret_value() else "(not set)"
    if isinstance(value, Mapping):
        value = hide_secrets(dict(value))
    if isinstance(value, tuple | list | set | frozenset):
        text = ", ".join(_shown(inner) for inner in value) or "(none)"
    elif isinstance(value, bool):
        text = str(value).lower()
    else:
        text = "(none)" if value is None or value == "" else str(value)
    text = redact(" ".join(text.split()))
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def check_folders(settings: Settings) -> Iterator[Finding]:
    """Can recordings, traces and debug audio be written where they are wanted?"""
    for name in _FOLDERS:
        folder: Path | None = getattr(settings, name)
        if folder is not None:
            yield _check_folder(name, folder)


def _check_folder(name: str, folder: Path) -> Finding:
    if folder.exists() and not folder.is_dir():
        return Finding(name, FAIL, f"{folder} is a file", f"set {name} to a folder")
    nearest = folder.absolute()
    while not nearest.exists():
        nearest = nearest.parent
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        todo = f"give the server's user the right to write there, or set {name} to another folder"
        return Finding(name, FAIL, f"{nearest} cannot be written to", todo)
    free_mib = _free_mib(nearest)
    where = f"{folder} is writable" if nearest == folder.absolute() else f"{folder} will be made"
    if free_mib is not None and free_mib < 500:
        todo = "make room: a call takes 0.5 MB a minute as opus, 4 as wav"
        return Finding(name, FAIL, f"only {free_mib} MiB are free at {folder}", todo)
    return Finding(name, OK, where)


def _free_mib(folder: Path) -> int | None:
    try:
        found = os.statvfs(folder)
    except (OSError, AttributeError):  # not everywhere
        return None
    return found.f_bavail * found.f_frsize >> 20
