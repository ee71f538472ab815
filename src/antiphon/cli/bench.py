"""`antiphon bench`: measurements, each a command with a JSON result."""

from __future__ import annotations

import typer

app = typer.Typer(no_args_is_help=True, help="Measure latency and capacity; results are JSON.")


@app.callback()
def bench() -> None:
    """Measure latency and capacity; results are JSON."""
