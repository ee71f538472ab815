"""`antiphon replay` and `antiphon report`: what can be done with the trace of a call."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from antiphon.errors import AntiphonError
from antiphon.files import MAX_TRACE_BYTES, read_text
from antiphon.observe import call_trace


def replay(
    path: Annotated[
        Path, typer.Argument(metavar="TRACE", help="A call's trace, as `trace_dir` keeps it.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Run a call's trace through the core. Ends with 1 when it decides differently than was recorded."""
    lines = read_text(path, MAX_TRACE_BYTES).split("\n")
    try:
        difference = call_trace.replay(lines)
        steps = sum(1 for _ in call_trace.read(lines)[1])
    except call_trace.TraceError as error:
        raise AntiphonError(f"{path} cannot be replayed: {error}") from None
    if as_json:
        typer.echo(json.dumps(_result(path, steps, difference), ensure_ascii=False, indent=2))
    elif difference is None:
        typer.echo(f"{steps} events, no difference")
    else:
        typer.echo(str(difference))
    if difference is not None:
        raise typer.Exit(1)


def _result(path: Path, steps: int, difference: call_trace.Difference | None) -> dict[str, Any]:
    found = None
    if difference is not None:
        found = {
            "line": difference.line_number,
            "at_ms": difference.now_ms,
            "recorded": difference.expected,
            "replayed": difference.actual,
        }
    return {"trace": str(path), "events": steps, "difference": found}


def report(
    call: Annotated[str, typer.Argument(metavar="CALL", help="A call's id, or its trace file.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The page; default: CALL.html here.")
    ] = None,
    recording: Annotated[
        Path | None, typer.Option(help="Recording of both; default: the call's in recording_dir.")
    ] = None,
    caller: Annotated[Path | None, typer.Option(help="Recording of the caller alone.")] = None,
    agent: Annotated[Path | None, typer.Option(help="Recording of the agent alone.")] = None,
) -> None:
    """Write one HTML file that shows a call: who spoke when, every step of every turn, every word."""
    from antiphon.call.recording import find_recording
    from antiphon.cli.common import settings_with
    from antiphon.errors import AntiphonError
    from antiphon.files import write_private
    from antiphon.observe.report import report_file

    path, settings = Path(call), settings_with([])
    if not os.path.lexists(path):
        folder = settings.trace_dir
        if folder is None:
            raise AntiphonError(f"there is no file {call}; name a trace, or set trace_dir")
        path = folder / f"{Path(call).name}.jsonl"
    if recording is None and settings.recording_dir is not None:
        recording = find_recording(settings.recording_dir, path.stem)
    html = report_file(path, caller, agent, recording)
    target = output or Path(f"{path.stem}.html")
    try:
        write_private(target, html)  # it holds the words of the call
    except OSError as error:
        raise AntiphonError(f"cannot write {target}: {error.strerror or error}") from None
    typer.echo(f"wrote   {target}")
