"""Entry point: collects the commands, and turns every expected failure into one line and a code."""

from __future__ import annotations

import os
import sys
import threading
from typing import Any, NoReturn

import typer

from antiphon.cli import (
    api_keys,
    bench,
    dial,
    doctor,
    install,
    phone_call,
    run,
    serve,
    talk,
    trace_files,
    weights,
)
from antiphon.errors import AntiphonError, SettingsError

app = typer.Typer(
    name="antiphon",
    help="Self-hosted voice agent server: speak and be answered, on your own machines.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command("serve")(serve.serve)
app.command("service")(serve.service)
app.command("run")(run.run)
app.command("talk")(talk.talk)
app.command("call")(phone_call.call)
app.command("dial")(dial.dial)
app.command("report")(trace_files.report)
app.command("replay")(trace_files.replay)
app.command("doctor")(doctor.doctor)
app.add_typer(weights.app, name="models")
app.add_typer(api_keys.app, name="keys")
app.add_typer(install.app, name="install")
app.add_typer(bench.app, name="bench")


@app.command("version")
def show_version() -> None:
    """Print the version."""
    from importlib.metadata import version

    typer.echo(version("antiphon"))


_UsageError: type[BaseException] = typer.BadParameter.__bases__[0]
_ClickError: type[BaseException] = _UsageError.__bases__[0]
"""Typer brings a Click of its own in some versions; these are the classes it raises, whichever it is."""


_MAX_ERROR_CHARS = 500


def main() -> None:
    """Run the command line. Errors that a user can act on are one line on stderr, with a code that is not 0."""
    try:
        code = app(standalone_mode=False)
    except SettingsError as error:
        code = _say(str(error), 2)
    except AntiphonError as error:
        code = _say(str(error), 1)
    except (
        OSError
    ) as error:  # of a path as no command expects it, or of a pipe that nobody reads any more
        code = _say(
            f"{error.filename or 'output'}: {error.strerror or error}"[:_MAX_ERROR_CHARS], 1
        )
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    except _ClickError as error:
        code = _explain(error)
    _leave(code if isinstance(code, int) else 0)


def _explain(error: Any) -> int:
    """What was wrong with the command line, or its help where it was empty."""
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
    else:
        _say(f"{error.format_message().rstrip('.')}; see --help", 2)
    return int(error.exit_code)


def _say(reason: str, code: int) -> int:
    typer.echo(f"antiphon: {' '.join(reason.split())}", err=True)
    return code


def _leave(code: int) -> NoReturn:
    """End the process. A model that was still being loaded is at work in native code on a thread of its own: an
    orderly end of the interpreter would take away what that code stands on, and the process would abort.
    """
    if any(thread.name.startswith("antiphon") for thread in threading.enumerate()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
