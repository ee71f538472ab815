"""`antiphon models`: list, pull, verify and remove weight files.

Shows what the store does and decides nothing itself. `progress_for` is for every command that may
fetch models: bars on a terminal, a line per file elsewhere.
"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable
from typing import Annotated, Any, ParamSpec

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.progress import Progress as Bars
from rich.table import Column, Table

from antiphon.errors import AntiphonError
from antiphon.models.store import PullReport, WeightStore
from antiphon.models.weight_sources import Progress, human

app = typer.Typer(
    no_args_is_help=True,
    help="Weight files: what there is, fetch, check and remove.",
)

_P = ParamSpec("_P")


class LineProgress:
    """A line when a file begins and one when it has come: for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._file = ""
        self._bytes = 0
        self._began = 0.0

    def start(self, file: str, total_bytes: int) -> None:
        self._file, self._bytes, self._began = file, 0, time.monotonic()
        self._say(f"{file}: fetching up to {human(total_bytes)}")

    def advance(self, n_bytes: int) -> None:
        self._bytes += n_bytes

    def done(self) -> None:
        if self._file:
            seconds = time.monotonic() - self._began
            self._say(f"{self._file}: {human(self._bytes)} in {seconds:.1f} s")
        self._file = ""

    def note(self, text: str) -> None:
        self._say(text)

    def _say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


class BarProgress:
    """A bar per file with size, speed and time left; drawn only while files are on their way."""

    def __init__(self, console: Console) -> None:
        self._bars = Bars(
            TextColumn("{task.description}", table_column=Column(ratio=1, no_wrap=True)),
            BarColumn(bar_width=16),
            DownloadColumn(table_column=Column(no_wrap=True)),
            TransferSpeedColumn(table_column=Column(no_wrap=True)),
            TimeRemainingColumn(compact=True, table_column=Column(no_wrap=True)),
            expand=True,
            console=console,
        )
        self._task: TaskID | None = None

    def start(self, file: str, total_bytes: int) -> None:
        self._bars.start()
        self._task = self._bars.add_task(file, total=total_bytes)

    def advance(self, n_bytes: int) -> None:
        if self._task is not None:
            self._bars.advance(self._task, n_bytes)

    def done(self) -> None:
        self._bars.stop()
        if self._task is not None:
            # What stop() has drawn last stays on the screen; kept, it would be drawn again.
            self._bars.remove_task(self._task)
        self._task = None

    def note(self, text: str) -> None:
        self._bars.console.print(text, style="dim", markup=False, highlight=False)


def progress_for(console: Console) -> Progress:
    """Bars on a terminal, plain lines elsewhere."""
    return BarProgress(console) if console.is_terminal else LineProgress(console)


def one_line_errors(command: Callable[_P, None]) -> Callable[_P, None]:
    """Let a command end with one line and a code instead of a traceback."""

    @functools.wraps(command)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except AntiphonError as error:
            typer.echo(f"antiphon: {error}", err=True)
            raise typer.Exit(1) from None
        except KeyboardInterrupt:
            typer.echo("antiphon: interrupted; what has come is kept", err=True)
            raise typer.Exit(130) from None

    return run


Names = Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", show_default=False)]


@app.command("list")
@one_line_errors
def list_models(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON list.")] = False,
) -> None:
    """Show every model of the catalogue and whether it is here."""
    store = WeightStore()
    rows = [_row(store, entry.name) for entry in store.catalogue]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    table = Table("name", "kind", "size", "licence", "default", "state", box=None)
    for row in rows:
        default = "yes" if row["default"] else ""
        size = human(row["size_bytes"])
        table.add_row(row["name"], row["kind"], size, row["licence"], default, row["state"])
    console = Console()
    console.print(table)
    console.print(f"in {store.home}", style="dim", markup=False, highlight=False, soft_wrap=True)


def _row(store: WeightStore, name: str) -> dict[str, Any]:
    entry = store.catalogue[name]
    return {
        "name": entry.name,
        "kind": entry.kind.value,
        "title": entry.title,
        "size_bytes": entry.size_bytes,
        "licence": entry.licence,
        "default": entry.default,
        "note": entry.note,
        "state": store.state(name),
        "files": [file.name for file in entry.files],
    }


@app.command()
@one_line_errors
def pull(names: Names = None) -> None:
    """Fetch models that are not here yet; without names, the default set."""
    store = WeightStore(progress=progress_for(Console(stderr=True)))
    typer.echo(summary(store.pull(names or None)))


def summary(report: PullReport) -> str:
    """One line, e.g. `5 models ready: 8 files fetched, 604 MB downloaded in 61.0 s`."""
    ready = f"{len(report.entries)} model{'s' if len(report.entries) != 1 else ''} ready"
    if not report.fetched:
        return f"{ready}: nothing to fetch"
    files = f"{len(report.fetched)} file{'s' if len(report.fetched) != 1 else ''} fetched"
    came = f"{human(report.downloaded_bytes)} downloaded in {report.seconds:.1f} s"
    return f"{ready}: {files}, {came}"


@app.command()
@one_line_errors
def verify(
    names: Names = None,
    fix: Annotated[bool, typer.Option("--fix", help="Remove files that are wrong.")] = False,
) -> None:
    """Read files again and compare their digests; without names, all that are here."""
    checks = WeightStore().verify(names or None, fix=fix)
    for check in checks:
        detail = f" ({check.detail})" if check.detail else ""
        typer.echo(f"{check.state:8}{check.entry}/{check.file}{detail}")
    if not checks:
        typer.echo("no models are here")
    # Half an entry is as useless as a wrong one, but only the wrong one is a surprise.
    wrong = sum(check.state == "wrong" for check in checks)
    missing = sum(check.state == "missing" for check in checks)
    if wrong:
        done = "removed; fetch it again" if fix else "run with --fix, and fetch it again"
        typer.echo(f"antiphon: {wrong} of {len(checks)} files wrong: {done} with pull", err=True)
    if wrong or (missing and names):
        raise typer.Exit(1)


@app.command()
@one_line_errors
def rm(names: Annotated[list[str], typer.Argument(metavar="NAME...")]) -> None:
    """Remove models; files that another model uses stay."""
    typer.echo(f"{human(WeightStore().remove(names))} freed")
