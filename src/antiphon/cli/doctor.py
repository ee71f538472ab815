"""`antiphon doctor`: looks at everything that can be wrong before a call, and says for each what to do."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

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
from antiphon.cli.doctor_settings import check_folders, shown_settings
from antiphon.cli.settings import settings_with
from antiphon.errors import AntiphonError


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
