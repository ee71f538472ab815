"""`antiphon serve` and `antiphon service`: the server, or one kind of model, until it is told to stop."""

from __future__ import annotations

import logging
import socket
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from antiphon.config import Settings
    from antiphon.core.turn_record import TurnRecord
    from antiphon.errors import AntiphonError
    from antiphon.models.ports import Kind, ModelStatus, WeightSource


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="TCP port; 0: any free one.")] = None,
    sets: Annotated[
        list[str] | None, typer.Option("--set", help="A setting, as section.name=value.")
    ] = None,
    trace: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Record every call's events here.")
    ] = None,
    record: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Record every call's sound here.")
    ] = None,
    debug_audio: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep callers' audio here as it came in.")
    ] = None,
) -> None:
    """Serve the page, the websocket and the HTTP interface."""
    from antiphon.cli.common import log_to_stderr, settings_with, weight_store
    from antiphon.server.lifecycle import inherited, listen

    settings = settings_with(
        sets or [],
        server__host=host,
        server__port=port,
        trace_dir=trace,
        recording_dir=record,
        debug_audio_dir=debug_audio,
    )
    log_to_stderr(settings.server.debug, settings.server.log_format)
    # The port first: a busy one is found out before anything is fetched or loaded.
    listener = inherited() or listen(settings.server.host, settings.server.port)
    try:
        _run(settings, listener, weight_store())
    finally:
        listener.close()


def _run(settings: Settings, listener: socket.socket, weights: WeightSource) -> None:
    from rich.console import Console

    from antiphon.observe import turn_table
    from antiphon.server.app import create_app
    from antiphon.server.lifecycle import Server

    startup = Startup(url_of(listener))
    failed: list[AntiphonError] = []

    def on_ready(error: AntiphonError | None) -> None:
        if error is None:
            startup.ready()
        else:
            failed.append(error)
            server.should_exit = True

    def on_model(status: ModelStatus) -> None:
        if not server.should_exit:
            startup.model(status)

    def on_call_end(records: list[TurnRecord]) -> None:
        if settings.server.log_format == "pretty" and any(r.kind == "answer" for r in records):
            turn_table.show(records, console)

    console = Console(stderr=True)
    app = create_app(
        settings, weights, on_model=on_model, on_ready=on_ready, on_call_end=on_call_end
    )
    server = Server(app, settings)
    server.run(sockets=[listener])
    if failed:
        raise failed[0]


def url_of(listener: socket.socket) -> str:
    """As a person on this machine would type it."""
    host, port = listener.getsockname()[:2]
    if host in ("127.0.0.1", "::1", "0.0.0.0", "::"):
        host = "localhost"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Startup:
    """What a person sees until the first call: a line per model, then where to go."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._began_s = time.monotonic()
        self._said: set[tuple[str, str, str]] = set()
        # They say what the lines below say, at greater length.
        self._loggers = [
            logging.getLogger(f"antiphon.models.{part}") for part in ("model_handle", "fallback")
        ]
        if not logging.getLogger().isEnabledFor(logging.DEBUG):
            for logger in self._loggers:
                logger.setLevel(logging.ERROR)

    def model(self, status: ModelStatus) -> None:
        """A model's status has changed; only the outcome is worth a line, and only once."""
        line = (status.kind.value, status.name, status.state)
        if status.state not in ("ready", "failed") or line in self._said:
            return
        self._said.add(line)
        if status.state == "ready":
            text, note = status.detail, f"  {status.load_s or 0:.1f} s"
        else:
            text, note = f"failed: {status.error}", ""
        self._say(f"  {status.kind.value:5} {status.name:12} {text}", note)

    def ready(self) -> None:
        for logger in self._loggers:
            logger.setLevel(logging.NOTSET)
        seconds = time.monotonic() - self._began_s
        typer.secho(f"Ready: {self._url}", err=True, bold=True, nl=False)
        typer.secho(f"  ({seconds:.1f} s; Ctrl-C stops)", err=True, dim=True)

    @staticmethod
    def _say(text: str, note: str) -> None:
        typer.echo(text, err=True, nl=False)
        typer.secho(note, err=True, dim=True)


PORTS = {"stt": 8090, "tts": 8089, "llm": 8091}
"""Where Kyutai's clients, and ours, look for them."""


class Served(StrEnum):
    STT = "stt"
    TTS = "tts"
    LLM = "llm"


def service(
    kind: Annotated[Served, typer.Argument(help="Which kind of model.")],
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[
        int | None, typer.Option(help="TCP port; stt 8090, tts 8089, llm 8091; 0: any free one.")
    ] = None,
    wyoming_port: Annotated[
        int | None, typer.Option(help="TCP port for Home Assistant (Wyoming); 0: off.")
    ] = None,
    sets: Annotated[
        list[str] | None, typer.Option("--set", help="A setting, as section.name=value.")
    ] = None,
) -> None:
    """Serve one kind of model to Antiphon on other machines, and to other people's clients."""
    from antiphon.cli.common import log_to_stderr, settings_with, weight_store
    from antiphon.models.ports import Kind
    from antiphon.server.lifecycle import listen

    settings = settings_with(
        sets or [], server__host=host, server__port=port, server__wyoming_port=wyoming_port
    )
    log_to_stderr(settings.server.debug, settings.server.log_format)
    chosen = settings.server.port
    if "port" not in settings.server.model_fields_set:  # the default is the orchestrator's
        chosen = PORTS[kind.value]
    listener = listen(settings.server.host, chosen)
    try:
        _run_service(settings, Kind(kind.value), listener, weight_store())
    finally:
        listener.close()


def _run_service(
    settings: Settings, kind: Kind, listener: socket.socket, weights: WeightSource
) -> None:
    from antiphon.cli.serve import Startup, url_of
    from antiphon.server.lifecycle import Server
    from antiphon.server.service_app import create_service

    startup = Startup(url_of(listener))
    failed: list[AntiphonError] = []

    def on_ready(error: AntiphonError | None) -> None:
        if error is None:
            startup.ready()
        else:
            failed.append(error)
            server.should_exit = True

    def on_model(status: ModelStatus) -> None:
        if not server.should_exit:
            startup.model(status)

    app = create_service(settings, kind, weights, on_model=on_model, on_ready=on_ready)
    server = Server(app, settings)
    server.run(sockets=[listener])
    if failed:
        raise failed[0]
