"""`antiphon doctor`: looks at everything that can be wrong before a call, and says for each what to do.

Only looks: a folder that is not there yet is not made.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel, SecretStr

from antiphon.cli.common import settings_with
from antiphon.cli.doctor_checks import (
    FAIL,
    OK,
    Finding,
    check_endpoints,
    check_machine,
    check_models,
    check_packages,
    check_port,
    check_python,
    check_sound,
)
from antiphon.config import NEGOTIATED, Settings
from antiphon.config.values import hide_secrets
from antiphon.errors import AntiphonError
from antiphon.observe.redact import redact


def doctor(
    recording: Annotated[
        Path | None, typer.Argument(help="An audio file to be looked at as well.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    sets: Annotated[
        list[str] | None, typer.Option("--set", help="A setting, as section.name=value.")
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Show every setting, not only those that were changed.")
    ] = False,
    phone: Annotated[
        bool, typer.Option("--phone", help="Check the telephone from outside in as well.")
    ] = False,
) -> None:
    """Check installation, settings, models, machine and a recording. Ends with 1 when anything fails."""
    findings: list[Finding] = []
    for finding in examine(recording, sets or [], everything=everything, phone=phone):
        findings.append(finding)
        if not as_json:
            typer.echo(as_line(finding))
    failed = sum(finding.state == FAIL for finding in findings)
    if as_json:
        checks = [dataclasses.asdict(finding) for finding in findings]
        typer.echo(json.dumps({"ok": not failed, "checks": checks}, ensure_ascii=False, indent=2))
    if failed:
        raise typer.Exit(1)


def examine(
    recording: Path | None, sets: list[str], *, everything: bool = False, phone: bool = False
) -> Iterator[Finding]:
    """Every check in turn. Without valid settings those that need them are left out."""
    yield from check_python()
    yield from check_packages()
    try:
        settings = settings_with(sets)
    except AntiphonError as error:
        yield Finding("settings", FAIL, str(error), "correct it and run this again")
    else:
        yield Finding("settings", OK, "valid")
        yield from shown_settings(settings, everything=everything)
        yield from check_models(settings)
        yield from check_endpoints(settings)
        yield from check_port(settings)
        yield from check_folders(settings)
        if phone:
            from antiphon.cli.doctor_phone import check_phone

            yield from check_phone(settings)
    yield from check_machine()
    yield from check_sound()
    if recording is not None:
        from antiphon.cli.doctor_recording import check_recording

        yield from check_recording(recording)


def as_line(finding: Finding) -> str:
    """`fail  port: 127.0.0.1:8000: address already in use -> choose another`."""
    todo = f" -> {finding.todo}" if finding.todo else ""
    return f"{finding.state:<5} {finding.check}: {finding.found}{todo}"


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
