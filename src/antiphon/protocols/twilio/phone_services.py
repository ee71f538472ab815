"""What the telephone's routes share: guard, tokens, REST client, recorded and outbound calls.

Opened with the server and closed with it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from fastapi import FastAPI
from starlette.requests import HTTPConnection

from antiphon.call.call import Call
from antiphon.config import Settings
from antiphon.protocols.twilio.media_store import MediaStore, PlayVerbs
from antiphon.protocols.twilio.outbound import OutboundCalls
from antiphon.protocols.twilio.recorded_calls import CallMemory, RecordedCalls
from antiphon.protocols.twilio.recording_fetcher import RecordingFetcher
from antiphon.protocols.twilio.rest import TwilioRest
from antiphon.protocols.twilio.signature import Guard
from antiphon.protocols.twilio.stream_tokens import StreamTokens
from antiphon.server.admission import Calls
from antiphon.telephony.answering_machine import GreetingWatch
from antiphon.telephony.call_log import CallLog


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


log = logging.getLogger(__name__)


class PhoneServices:
    def __init__(self, calls: Calls) -> None:
        """Raises ConfigError."""
        phone = calls.settings.phone
        has_account = bool(phone.account_sid and phone.auth_token.get_secret_value())
        self.calls = calls
        self.rest = TwilioRest(phone) if has_account else None
        self.log = CallLog()
        self.memory = CallMemory()
        self.media_store = MediaStore()
        self.voice = PlayVerbs(calls.models, self.media_store)
        self.fetcher = RecordingFetcher(phone)
        self.recorded = RecordedCalls(calls, self.voice, self.fetcher, self.memory, self.log)
        self.outbound = OutboundCalls(phone, self.rest)

    @contextmanager
    def following(self, call_sid: str, session: Call) -> Iterator[None]:
        """A streamed call, as long as it lasts.

        One that we made may have been taken by a machine. What was said is kept for a while after it, should the call
        go on as a recorded one.
        """
        self._watch(call_sid, session)
        try:
            yield
        finally:
            self.log.add_records("stream", call_sid or session.call_id, session.records)
            if call_sid:
                self.memory.keep(call_sid, session.view.history.snapshot())

    def _watch(self, call_sid: str, session: Call) -> None:
        call = self.outbound.of_sid(call_sid)
        if call is None or call.answered_by:  # Twilio has listened already
            return
        found = call
        what, message = self.outbound.voicemail(found)
        if what != "ignore":
            GreetingWatch(
                session,
                message if what == "message" else "",
                lambda: self.outbound.note(found, found.status, answered_by="machine_heard"),
            )

    async def close(self) -> None:
        await self.recorded.close()
        await self.fetcher.close()
        if self.rest is not None:
            await self.rest.close()


class RestLines:
    """The switchboard of calls that are on, by REST: what `Phone.lines` asks for."""

    def __init__(self, rest: TwilioRest) -> None:
        self._rest = rest

    async def transfer(self, call_id: str, number: str) -> None:
        """Raises TwilioError, ProtocolError."""
        await self._rest.transfer(call_id, number)


def open_phone_services(app: FastAPI, calls: Calls) -> PhoneServices:
    """For as long as the server runs; close it."""
    services = app.state.services = PhoneServices(calls)
    if services.rest is not None:
        app.state.phone.lines = RestLines(services.rest)
    return services


def phone_services_of(connection: HTTPConnection) -> PhoneServices:
    services = connection.app.state.services
    assert isinstance(services, PhoneServices)
    return services
