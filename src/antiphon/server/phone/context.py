"""What the telephone's routes share: one per application. Knows no route."""

from __future__ import annotations

from typing import Protocol

from starlette.requests import HTTPConnection

from antiphon.config import Settings
from antiphon.server.phone.signature import Guard
from antiphon.server.phone.tokens import StreamTokens


class Lines(Protocol):
    """The phone company's switchboard, for calls that are on."""

    async def transfer(self, call_id: str, number: str) -> None:
        """Connect this call with that number; its stream ends. Raises AntiphonError when it is refused."""
        ...


class Phone:
    def __init__(self, settings: Settings) -> None:
        """Raises ConfigError for settings that cannot work."""
        self.settings = settings.phone
        self.guard = Guard(settings.phone, settings.server)
        self.tokens = StreamTokens()
        self.lines: Lines | None = None
        """None: calls cannot be transferred."""


def phone_of(connection: HTTPConnection) -> Phone:
    phone = connection.app.state.phone
    assert isinstance(phone, Phone)
    return phone
