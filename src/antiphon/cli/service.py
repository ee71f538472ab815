"""`antiphon service stt|tts|llm`: one kind of model, served to other machines, until it is told to stop."""

from __future__ import annotations

import socket
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from antiphon.config import Settings
    from antiphon.errors import AntiphonError
    from antiphon.models.ports import Kind, ModelStatus, WeightSource

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
    from antiphon.cli.settings import log_to_stderr, settings_with, weight_store
    from antiphon.models.ports import Kind
    from antiphon.server.serving import listen

    settings = settings_with(
        sets or [], server__host=host, server__port=port, server__wyoming_port=wyoming_port
    )
    log_to_stderr(settings.server.debug, settings.server.log_format)
    chosen = settings.server.port
    if "port" not in settings.server.model_fields_set:  # the default is the orchestrator's
        chosen = PORTS[kind.value]
    listener = listen(settings.server.host, chosen)
    try:
        _run(settings, Kind(kind.value), listener, weight_store())
    finally:
        listener.close()


def _run(settings: Settings, kind: Kind, listener: socket.socket, weights: WeightSource) -> None:
    from antiphon.cli.serve import Startup, url_of
    from antiphon.server.services.app import create_service
    from antiphon.server.serving import Server

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
