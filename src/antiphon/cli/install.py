"""`antiphon install systemd`: writes the units of the server and of the model services. Starts nothing."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from antiphon.errors import ConfigError

app = typer.Typer(help="Make a service of this installation.", no_args_is_help=True)

_SYSTEM, _SYSTEM_SETTINGS = Path("/etc/systemd/system"), Path("/etc/antiphon")
_HOMES = ("/home", "/root", "/run/user")
"""Hidden from units with ProtectHome=yes."""


@app.command("systemd")
def systemd(
    user: Annotated[
        bool, typer.Option("--user", help="For your own manager, systemctl --user; no root.")
    ] = False,
    folder: Annotated[
        Path | None, typer.Option("--dir", metavar="DIR", help="Write the units here.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be written, and write nothing.")
    ] = False,
    gpu: Annotated[bool, typer.Option("--gpu", help="Let it reach the GPU's devices.")] = False,
    host: Annotated[str, typer.Option(help="Address of the server's port.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="TCP port of the server.")] = 8000,
    drain_s: Annotated[
        int, typer.Option(min=0, max=3600, help="Seconds for which calls may go on at a stop.")
    ] = 120,
    program: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="The command antiphon; default: that of this Python."),
    ] = None,
) -> None:
    """Write antiphon.socket, antiphon.service and antiphon-service@.service (stt, tts, llm)."""
    from antiphon.cli.systemd_units import Choice, environment_file, units

    command = _program(program)
    if not user and not dry_run and folder is None:
        _check_reachable(command)
    choice = Choice(str(command), host, port, user, gpu, drain_s)
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    place = folder or (home / "systemd/user" if user else _SYSTEM)
    wanted = {place / name: text for name, text in units(choice).items()}
    if dry_run:
        for path, text in wanted.items():
            typer.echo(f"# {path}\n{text}")
        return
    for path, text in wanted.items():
        _write(path, text)
    if folder is None:
        settings = home / "antiphon" if user else _SYSTEM_SETTINGS
        _write_once(settings / "antiphon.env", environment_file(choice))
        _say_what_next(user, settings)


def _program(given: Path | None) -> Path:
    if given is not None:
        if not given.is_absolute():
            raise ConfigError(f"--program takes an absolute path; got {given}")
        return given
    beside = Path(sys.executable).parent / "antiphon"
    found = str(beside) if beside.exists() else shutil.which("antiphon")
    if found is None:
        raise ConfigError("the command antiphon is not installed; name it with --program PATH")
    return Path(found).absolute()


def _check_reachable(command: Path) -> None:
    """The unit's user has no home and sees none."""
    if any(command.is_relative_to(home) for home in _HOMES):
        raise ConfigError(
            f"{command} is in a home folder, which a system service cannot see; install into /opt/antiphon "
            "(docs/howto/bare-metal.md), or use --user"
        )


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"cannot write {path}: {error.strerror}; run it as root, or use --user or --dir DIR"
        ) from None
    typer.echo(f"wrote {path}")


def _write_once(path: Path, text: str) -> None:
    """Readable for its owner only, from the first byte on; what is there already stays."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        typer.echo(f"kept {path}")
        return
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from None
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    typer.echo(f"wrote {path}")


def _say_what_next(user: bool, settings: Path) -> None:
    systemctl = "systemctl --user" if user else "systemctl"
    journal = "journalctl --user-unit" if user else "journalctl -u"
    typer.echo(f"""
Put settings into {settings}/antiphon.env, then:
  {systemctl} daemon-reload
  {systemctl} enable --now antiphon.socket antiphon.service
  {systemctl} enable --now antiphon-service@tts    # a model service, where you want one
  {journal} antiphon -f -o cat""")
