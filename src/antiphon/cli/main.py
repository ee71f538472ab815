"""Entry point: collects the commands, and turns every expected failure into one line and a code."""

from __future__ import annotations

import sys

import typer

from antiphon.cli import bench, models, run, serve
from antiphon.errors import AntiphonError

app = typer.Typer(
    name="antiphon",
    help="Self-hosted voice agent server: speak and be answered, on your own machines.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command("serve")(serve.serve)
app.command("run")(run.run)
app.add_typer(models.app, name="models")
app.add_typer(bench.app, name="bench")


@app.command("version")
def show_version() -> None:
    """Print the version."""
    from importlib.metadata import version

    typer.echo(version("antiphon"))


def main() -> None:
    """Run the command line. Errors that a user can act on are one line on stderr; the exit code is then 1."""
    try:
        app()
    except AntiphonError as error:
        typer.echo(f"antiphon: {error}", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
