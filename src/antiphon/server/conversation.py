"""The route `/ws/conversation`: one websocket, from its first frame to its last, and the call that it carries.

Messages are understood by `wire/conversation.py`, audio and actions translated by `conversation_door.py`; this module
moves frames, and frees what a connection holds however it ends.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace

from fastapi import APIRouter, WebSocket, WebSocketDisconnect

from antiphon.core import events as ev
from antiphon.core.policy import Policy
from antiphon.errors import AntiphonError, AudioError, BusyError, ModelError, ProtocolError
from antiphon.server.calls import Calls, agent_of
from antiphon.server.conversation_door import CallerAudio, ConversationDoor
from antiphon.server.outbox import Outbox
from antiphon.server.security import origin_allowed
from antiphon.session.runners import Agent
from antiphon.session.session import Session
from antiphon.wire import conversation as wire

log = logging.getLogger(__name__)
router = APIRouter()

_START_PATIENCE_S = 0.25
"""A client that knows `start` sends it at once; an older one never does, and waits for `connected`."""
_LAST_WORDS_S = 10.0
"""For what is in the outbox when the call ends."""
_CLOSE_S = 2.0
_MAX_ERRORS = 50
"""A client that sends this many senseless messages is shown the door."""
_CLOSE_NORMAL, _CLOSE_POLICY, _CLOSE_BUSY = 1000, 1008, 1013
_MAX_REASON_BYTES = 123
_GONE = (WebSocketDisconnect, TimeoutError, OSError, RuntimeError)
"""What Starlette and uvicorn raise when one sends to a connection that is no more."""


@router.websocket("/ws/conversation")
async def conversation(socket: WebSocket) -> None:
    """The talk protocol; see docs/protocols/conversation.md."""
    calls: Calls = socket.app.state.calls
    if not origin_allowed(socket.headers, calls.settings.server.cors_origins):
        reason = "this origin is not allowed; add it to server.cors_origins"
        await socket.close(_CLOSE_POLICY, reason)
        return
    await socket.accept()
    await Connection(socket, calls).serve()


class Connection:
    """One websocket, from `connected` to its end."""

    def __init__(self, socket: WebSocket, calls: Calls) -> None:
        self._socket = socket
        self._calls = calls
        self._outbox = Outbox(calls.settings.server.max_outbox_bytes, self._on_stuck)
        self._door = ConversationDoor(self._outbox)
        self._session: Session | None = None
        self._audio: CallerAudio | None = None
        self._started = False
        """`start` has come."""
        self._disconnected = False
        self._errors = 0
        self._close_code, self._close_reason = _CLOSE_NORMAL, ""

    async def serve(self) -> None:
        try:
            self._calls.check_room()
            await self._call()
        except (BusyError, ModelError) as error:
            await self._refuse(error)
        finally:
            await self._close_socket()

    async def _call(self) -> None:
        start, problem = self._start_from_url()
        first = await self._first_message()
        if self._disconnected:
            return
        if isinstance(first, str) and (asked := _as_start(first)) is not None:
            start, first, self._started = asked, None, True
        self._door.use(wire.agreed(start))
        async with self._calls.open(
            self._door,
            lambda policy: _policy_for(start, policy),
            _agent_for(start, agent_of(self._calls.settings)),
        ) as session:
            self._session, self._audio = session, CallerAudio(session, self._complain)
            self._audio.use(start)
            self._welcome(start, session)
            if problem:
                self._complain(problem)
            try:
                await self._converse(session, start, first)
            finally:
                await self._audio.close()

    def _start_from_url(self) -> tuple[wire.Start, str]:
        """-> what the URL says, and what is wrong with it."""
        try:
            return wire.start_from_query(self._socket.query_params), ""
        except ProtocolError as error:
            return wire.Start(), str(error)

    async def _first_message(self) -> str | bytes | None:
        try:
            async with asyncio.timeout(_START_PATIENCE_S):
                return await self._receive()
        except TimeoutError:
            return None

    def _welcome(self, start: wire.Start, session: Session) -> None:
        if start.extensions:
            self._outbox.put(wire.started(session.call_id, wire.agreed(start)))
        else:
            self._outbox.put(wire.connected(session.call_id))

    async def _converse(
        self, session: Session, start: wire.Start, first: str | bytes | None
    ) -> None:
        """Everything that lives as long as the call, in one task group."""

        async def read() -> None:
            message = first if first is not None else await self._receive()
            while message is not None:
                self._take(message)
                message = await self._receive()
            session.post(ev.HungUp())

        async with asyncio.TaskGroup() as group:
            reader = group.create_task(read())
            writer = group.create_task(self._write(session))
            await session.run(greet=start.greeting, max_s=self._calls.settings.server.max_call_s)
            reader.cancel()
            self._outbox.close()
            await asyncio.wait([writer], timeout=_LAST_WORDS_S)
            writer.cancel()

    async def _write(self, session: Session) -> None:
        try:
            await self._outbox.drain(self._socket)
        except _GONE as gone:
            log.info(
                "call %s: the client is gone: %s", session.call_id, gone or type(gone).__name__
            )
            self._outbox.abort()
            session.post(ev.HungUp("the client is gone"))

    async def _receive(self) -> str | bytes | None:
        """The next frame; None once the client has disconnected, and never read after that."""
        if self._disconnected:
            return None
        message = await self._socket.receive()
        if message["type"] == "websocket.disconnect":
            self._disconnected = True
            return None
        text: str | None = message.get("text")
        data: bytes | None = message.get("bytes")
        return text if text is not None else data

    # -- what the client says -------------------------------------------------------------------

    def _take(self, message: str | bytes) -> None:
        assert self._audio is not None
        try:
            if isinstance(message, bytes):
                self._audio.feed(message)
            else:
                self._obey(wire.decode(message))
        except (AudioError, ProtocolError) as error:
            self._complain(str(error))

    def _obey(self, message: wire.Incoming) -> None:
        assert self._session is not None
        match message:
            case wire.Ping():
                self._outbox.put(wire.frame("pong"))
            case wire.PlayedReport(reply=reply, ms=ms):
                self._session.post(ev.Played(reply, ms))
            case wire.Text(text=text):
                self._session.post(ev.Typed(text))
            case wire.Stop() | wire.EndConversation():
                self._session.post(ev.HungUp())
            case wire.SetLevel():
                pass
            case wire.Start():
                self._start_late(message, self._session)

    def _start_late(self, start: wire.Start, session: Session) -> None:
        """The client's `start` was longer on its way than we waited: the call has begun without it.

        Raises ProtocolError when it comes twice, or after audio.
        """
        assert self._audio is not None
        if self._started or self._audio.came:
            raise ProtocolError(
                "`start` must come once, before any audio; open a new connection to change it"
            )
        self._started = True
        self._door.use(wire.agreed(start))
        self._audio.use(start)
        session.agent = _agent_for(start, session.agent)
        session.post(ev.Configure(_policy_for(start, session.conversation.policy)))
        self._welcome(start, session)
        if not start.greeting:
            session.post(ev.CancelReply())

    def _complain(self, message: str) -> None:
        self._errors += 1
        self._outbox.put(wire.error(message))
        if self._errors >= _MAX_ERRORS and self._session is not None:
            self._close_code, self._close_reason = _CLOSE_POLICY, "too many senseless messages"
            self._session.post(ev.HungUp(self._close_reason))

    # -- the end --------------------------------------------------------------------------------

    def _on_stuck(self) -> None:
        if self._session is not None:
            self._session.post(ev.HungUp("the client stopped reading"))

    async def _refuse(self, error: AntiphonError) -> None:
        reason = str(error).encode()[:_MAX_REASON_BYTES].decode(errors="ignore")
        self._close_code, self._close_reason = _CLOSE_BUSY, reason
        try:
            async with asyncio.timeout(_CLOSE_S):
                await self._socket.send_text(wire.error(str(error)))
        except _GONE:
            pass

    async def _close_socket(self) -> None:
        try:
            async with asyncio.timeout(_CLOSE_S):
                await self._socket.close(self._close_code, self._close_reason)
        except _GONE:
            pass  # closed already


def _as_start(text: str) -> wire.Start | None:
    """The message, if it is a `start` without fault; any other is read again, and complained about, in the call."""
    try:
        message = wire.decode(text)
    except ProtocolError:
        return None
    return message if isinstance(message, wire.Start) else None


def _policy_for(start: wire.Start, policy: Policy) -> Policy:
    extensions = wire.agreed(start)
    return replace(
        policy,
        client_can_clear="clear" in extensions,
        client_reports_played="played" in extensions,
    )


def _agent_for(start: wire.Start, agent: Agent) -> Agent:
    return replace(
        agent, voice=start.voice or agent.voice, language=start.language or agent.language
    )
