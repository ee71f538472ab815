"""`antiphon report`: one call as one HTML page."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer


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
    from antiphon.cli.settings import settings_with
    from antiphon.errors import AntiphonError
    from antiphon.files import write_private
    from antiphon.observe.report import report_file
    from antiphon.session.call_recording import find_recording

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
