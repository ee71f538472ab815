"""What the telephone's slower half shares: REST client, memory, sounds, recorded and outbound calls.

Opened with the server and closed with it. Knows no route.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from fastapi import FastAPI
from starlette.requests import HTTPConnection

from antiphon.errors import ConfigError
from antiphon.server.calls import Calls
from antiphon.server.phone.audiosocket import AudioSocketServer
from antiphon.server.phone.compare import CallLog
from antiphon.server.phone.fetching import RecordingFetcher
from antiphon.server.phone.greeting_watch import GreetingWatch
from antiphon.server.phone.memory import CallMemory
from antiphon.server.phone.outbound import OutboundCalls
from antiphon.server.phone.recorded import RecordedCalls
from antiphon.server.phone.rest import TwilioRest
from antiphon.server.phone.shelf import Shelf
from antiphon.server.phone.spoken import Spoken
from antiphon.session.session import Session

log = logging.getLogger(__name__)


class Desk:
    def __init__(self, calls: Calls) -> None:
        """Raises ConfigError."""
        phone = calls.settings.phone
        has_account = bool(phone.account_sid and phone.auth_token.get_secret_value())
        self.calls = calls
        self.rest = TwilioRest(phone) if has_account else None
        self.log = CallLog()
        self.memory = CallMemory()
        self.shelf = Shelf()
        self.voice = Spoken(calls.models, self.shelf)
        self.fetcher = RecordingFetcher(phone)
        self.recorded = RecordedCalls(calls, self.voice, self.fetcher, self.memory, self.log)
        self.outbound = OutboundCalls(phone, self.rest)
        self.audiosocket = AudioSocketServer(calls, self.log)

    @contextmanager
    def following(self, call_sid: str, session: Session) -> Iterator[None]:
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

    def _watch(self, call_sid: str, session: Session) -> None:
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
        await self.audiosocket.close()
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


async def open_desk(app: FastAPI, calls: Calls) -> Desk:
    """For as long as the server runs; close it. A port that cannot be had is told in the log: the rest goes on."""
    desk = app.state.desk = Desk(calls)
    if desk.rest is not None:
        app.state.phone.lines = RestLines(desk.rest)
    try:
        await desk.audiosocket.listen()
    except ConfigError as error:
        log.error("%s", error)
    return desk


def desk_of(connection: HTTPConnection) -> Desk:
    desk = connection.app.state.desk
    assert isinstance(desk, Desk)
    return desk
