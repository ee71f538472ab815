"""`antiphon keys`: make, list and revoke the keys with which others use this server.

The key itself is printed once and kept nowhere; a server that runs sees a change of the file within a second.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="API keys of this server.", no_args_is_help=True)

File = Annotated[
    Path | None,
    typer.Option("--file", help="File of keys; default: the setting security.keys_file."),
]


@app.command("create")
def create(
    name: Annotated[str, typer.Argument(help="Whose key it is: letters, digits, '-', '_', '.'.")],
    max_sessions: Annotated[
        int | None, typer.Option(min=0, help="Calls at a time; 0: any.")
    ] = None,
    minutes_per_day: Annotated[
        int | None, typer.Option(min=0, help="Minutes of calls and audio in a day; 0: any.")
    ] = None,
    requests_per_minute: Annotated[
        int | None, typer.Option(min=0, help="Requests in a minute; 0: any.")
    ] = None,
    file: File = None,
) -> None:
    """Make a key: it goes to stdout, and is shown only now. Limits that are not named are those of the settings."""
    from antiphon.server.keys import add_key
    from antiphon.server.usage import UsageLimits

    asked = (max_sessions, minutes_per_day, requests_per_minute)
    path, defaults = _path_and_defaults(file)
    limits = None
    if any(value is not None for value in asked):
        limits = UsageLimits(*(d if v is None else v for v, d in zip(asked, defaults, strict=True)))
    clear, key = add_key(path, name, limits)
    typer.echo(f"Key {name!r}, kept as a digest in {path}. Shown once:", err=True)
    typer.echo(clear)
    typer.secho(f"Where there is no file: security.keys = {key.setting}", err=True, dim=True)


@app.command("list")
def show(file: File = None) -> None:
    """Names, dates and limits; the keys themselves are not known any more."""
    from antiphon.server.keys import read_keys

    path, _ = _path_and_defaults(file)
    keys = read_keys(path)
    if not keys:
        typer.echo(f"There are no keys in {path}.", err=True)
    for key in keys:
        limits = key.limits
        said = (
            "limits of the settings"
            if limits is None
            else f"{_limit(limits.max_sessions)} calls, {_limit(limits.minutes_per_day)} min/day, "
            f"{_limit(limits.requests_per_minute)} requests/min"
        )
        typer.echo(f"{key.name:20} {key.created or '-':26} {said}")


@app.command("revoke")
def revoke(
    name: Annotated[str, typer.Argument(help="As it was created.")], file: File = None
) -> None:
    """No new request or call with this key; calls that are on go on to their end."""
    from antiphon.server.keys import remove_key

    path, _ = _path_and_defaults(file)
    remove_key(path, name)
    typer.echo(f"Key {name!r} is revoked.", err=True)


def _limit(value: int) -> str:
    return str(value) if value else "any"


def _path_and_defaults(file: Path | None) -> tuple[Path, tuple[int, int, int]]:
    from antiphon.config import load

    chosen = load().security
    defaults = (chosen.max_sessions, chosen.minutes_per_day, chosen.requests_per_minute)
    return file or chosen.keys_file, defaults
