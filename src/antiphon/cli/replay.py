"""`antiphon replay`: run a recorded call through the core, and show the first thing that it now does differently."""

from __future__ import annotations

import json
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
