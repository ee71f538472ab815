"""`antiphon serve`: the server, until it is told to stop."""

from __future__ import annotations

import socket
import sys
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from antiphon.config import Settings
    from antiphon.errors import AntiphonError
    from antiphon.models.ports import ModelStatus


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="TCP port; 0: any free one.")] = None,
    sets: Annotated[
        list[str] | None, typer.Option("--set", help="A setting, as section.name=value.")
    ] = None,
) -> None:
    """Serve the page, the websocket and the HTTP interface."""
    from antiphon.cli.settings import log_to_stderr, settings_with, weight_store

    settings = settings_with(sets or [], server__host=host, server__port=port)
    log_to_stderr(settings.server.debug)
    listener = _listen(settings)
    _run(settings, listener, weight_store())


def _listen(settings: Settings) -> socket.socket:
    """The port first: a busy one is found out before anything is fetched or loaded."""
    from antiphon.errors import ConfigError

    host, port = settings.server.host, settings.server.port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        reason = error.strerror or str(error)
        raise ConfigError(
            f"cannot listen on {host} port {port}: {reason}; choose another with --port"
        ) from None
    listener.setblocking(False)
    return listener


def _run(settings: Settings, listener: socket.socket, weights: object) -> None:
    import uvicorn

    from antiphon.server.app import create_app

    host, port = listener.getsockname()[:2]
    shown = "localhost" if host in ("127.0.0.1", "::1", "0.0.0.0", "::") else host
    failed: list[AntiphonError] = []

    def on_model(status: ModelStatus) -> None:
        _say_model(status)

    def on_ready(error: AntiphonError | None) -> None:
        if error is None:
            typer.echo(f"Antiphon is ready: http://{shown}:{port}", err=True)
        else:
            failed.append(error)
            server.should_exit = True

    app = create_app(settings, weights, on_model=on_model, on_ready=on_ready)  # type: ignore[arg-type]
    config = uvicorn.Config(
        app,
        log_level="info" if settings.server.debug else "warning",
        ws_max_size=settings.server.max_message_bytes,
        ws_per_message_deflate=False,
        timeout_graceful_shutdown=10,
        lifespan="on",
    )
    server = uvicorn.Server(config)
    server.run(sockets=[listener])
    if failed:
        typer.echo(f"antiphon: {failed[0]}", err=True)
        sys.exit(1)


def _say_model(status: ModelStatus) -> None:
    if status.state == "ready":
        typer.echo(
            f"  {status.kind:4} {status.name}: {status.detail} ({status.load_s or 0:.1f} s)",
            err=True,
        )
    elif status.state == "failed":
        typer.echo(f"  {status.kind:4} {status.name}: {status.error}", err=True)
