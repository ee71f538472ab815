"""The telephone's slower half as routes: recorded calls, calls that we make, the comparison. Knows no call."""

from __future__ import annotations

from fastapi import FastAPI

from antiphon.config import Settings
from antiphon.server.phone import compare, outbound_webhooks, recorded_webhooks
from antiphon.server.phone.audiosocket import check_peers


def include(app: FastAPI, settings: Settings) -> None:
    """Raises ConfigError for settings that cannot work, before anything is loaded."""
    check_peers(settings.phone)
    app.include_router(compare.router)  # before `/calls/{key}`
    app.include_router(recorded_webhooks.router)
    app.include_router(outbound_webhooks.dialling)
    app.include_router(outbound_webhooks.router)
