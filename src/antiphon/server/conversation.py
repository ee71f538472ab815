"""The route `/ws/conversation`: a call, and the websockets that carry it one after the other.

The handler of the first websocket owns the call to its end; one that resumes it lends its socket and waits. Messages
are understood by `wire/conversation.py`, audio and actions translated by `conversation_door.py`; this module moves
frames, and frees what a connection holds however it ends.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace

from fastapi import APIRouter, WebSocket
from msgspec import structs

from antiphon.core import events as ev
from antiphon.core.actions import FloorChanged
from antiphon.core.floor import Floor
from antiphon.errors import AudioError, BusyError, ModelError, ProtocolError
from antiphon.server.budget import OverBudget, WorkBudget
from antiphon.server.calls import Calls, agent_of
from antiphon.server.conversation_door import CallerAudio, ConversationDoor
from antiphon.server.farewell import Farewell
from antiphon.server.outbox import Outbox
from antiphon.server.refusal import Refused
from antiphon.server.resuming import (
    CLOSE_BUSY,
    CLOSE_NORMAL,
    CLOSE_POLICY,
    CLOSE_TAKEN_OVER,
    GONE,
    Link,
    Seats,
)
from antiphon.server.security import (
    Principal,
    authorize,
    call_limit_s,
    chosen_subprotocol,
    session_of,
)
from antiphon.server.wishes import Wishes, policy_for
from antiphon.session.runners import Agent
from antiphon.session.session import Session
from antiphon.wire import conversation as wire

log = logging.getLogger(__name__)
router = APIRouter()

_START_PATIENCE_S = 0.25
"""A client that knows `start` sends it at once; an older one never does, and waits for `connected`."""
_START_SURE_S = 10.0
"""A client that announced its `start` in the URL is waited for."""
_LAST_WORDS_S = 10.0
"""For what is in the outbox when the call ends."""
_MAX_ERRORS = 50
"""A client that sends this many senseless messages is shown the door."""
_REMEMBERED_FRAMES = 400
"""Text frames that a client which comes back may have missed."""
_ANSWERING = (Floor.THINKING, Floor.AGENT, Floor.OVERLAP)
_TAKEN_OVER = "taken over by another tab"


@router.websocket("/ws/conversation")
async def conversation(socket: WebSocket) -> None:
    """The talk protocol; see docs/protocols/conversation.md."""
    calls: Calls = socket.app.state.calls
    principal = await authorize(socket)
    await socket.accept(subprotocol=chosen_subprotocol(socket))
    link = Link(socket)
    try:
        await Connection(link, calls, socket.app.state.seats, principal).serve()
    finally:
        await link.close()


class Connection:
    """One call, from the websocket that began it to the last one that carried it."""

    def __init__(self, link: Link, calls: Calls, seats: Seats, principal: Principal) -> None:
        self._link = link
        """The socket that the client is on now, or was last."""
        self._calls = calls
        self._seats = seats
        self._principal = principal
        limit_bytes = calls.settings.server.max_outbox_bytes
        self._outbox = Outbox(limit_bytes, self._on_stuck, _REMEMBERED_FRAMES)
        self._door = ConversationDoor(self._outbox)
        self._budget = WorkBudget()
        self._session: Session | None = None
        self._audio: CallerAudio | None = None
        self._started = False
        """`start` has come."""
        self._parked = False
        """Nobody is on the line."""
        self._wishes = Wishes(calls.settings.agent)
        outbox = self._outbox
        self._farewell = Farewell(
            calls.models,
            calls.settings.agent.analysis_s,
            lambda found: outbox.put(wire.analysis(found.data())),
        )
        self._errors = 0
        self._close_code, self._close_reason = CLOSE_NORMAL, ""

    async def serve(self) -> None:
        link = self._link
        try:
            link.start, problem = self._start_from_url()
            sure = "start" in link.socket.query_params
            if not sure:  # a client that comes back has its place, however busy the others are
                self._calls.check_room()
            first = await self._first_message(_START_SURE_S if sure else _START_PATIENCE_S)
            if link.disconnected:
                return
            if isinstance(first, str) and (asked := _as_start(first)) is not None:
                link.start, first, self._started = asked, None, True
            seat = self._seats.find(link.start.resume)
            if seat is not None:
                seat.offer(link)
                if await link.carried():
                    return
            with session_of(link.socket, self._principal) as account:
                self._max_call_s = call_limit_s(self._calls.settings.server.max_call_s, account)
                await self._call(link.start, first, problem)
        except (BusyError, ModelError, Refused) as error:
            await link.close(CLOSE_BUSY, str(error), wire.error(str(error)))

    async def _call(self, start: wire.Start, first: str | bytes | None, problem: str) -> None:
        self._door.use(wire.agreed(start))
        agent, unknown = self._agent(start, agent_of(self._calls.settings))
        async with self._calls.open(
            self._door, lambda policy: policy_for(start, policy), agent
        ) as session:
            self._session = session
            self._audio = CallerAudio(session, self._budget, self._complain)
            self._audio.use(start)
            with self._seats.seat(session.call_id) as self._seat:
                self._welcome(start, session)
                for complaint in filter(None, (problem, unknown)):
                    self._complain(complaint)
                try:
                    await self._converse(session, start, first)
                finally:
                    await self._farewell.close()
                    await self._audio.close()
                    self._outbox.close()

    def _agent(self, start: wire.Start, agent: Agent) -> tuple[Agent, str]:
        """-> who answers, and what is wrong with the wish: instead of an agent that there is not, the owner's does."""
        try:
            return self._wishes.agent(start, agent), ""
        except ProtocolError as error:
            return self._wishes.agent(structs.replace(start, agent=""), agent), str(error)

    def _start_from_url(self) -> tuple[wire.Start, str]:
        """-> what the URL says, and what is wrong with it."""
        try:
            return wire.start_from_query(self._link.socket.query_params), ""
        except ProtocolError as error:
            return wire.Start(), str(error)

    async def _first_message(self, patience_s: float) -> str | bytes | None:
        try:
            async with asyncio.timeout(patience_s):
                return await self._link.receive()
        except TimeoutError:
            return None

    def _welcome(self, start: wire.Start, session: Session) -> None:
        if start.extensions:
            self._outbox.put(self._started_frame(start, session, self._outbox.next_number()))
        else:
            self._outbox.put(wire.connected(session.call_id))

    def _started_frame(
        self, start: wire.Start, session: Session, number: int, *, resumed: bool = False
    ) -> str:
        extensions, resume_s = wire.agreed(start), self._calls.settings.server.resume_s
        fields = {}
        if "resume" in extensions and resume_s:
            fields = wire.resumption(self._seat.token, resume_s, number, resumed=resumed)
        return wire.started(session.call_id, extensions, **fields)

    async def _converse(
        self, session: Session, start: wire.Start, first: str | bytes | None
    ) -> None:
        """Everything that lives as long as the call, in one task group."""
        async with asyncio.TaskGroup() as group:
            clients = group.create_task(self._serve_clients(session, first))
            await session.run(greet=start.greeting, max_s=self._max_call_s)
            self._outbox.close()
            await asyncio.wait([clients], timeout=0 if self._parked else _LAST_WORDS_S)
            clients.cancel()

    # -- one socket after the other -------------------------------------------------------------

    async def _serve_clients(self, session: Session, first: str | bytes | None) -> None:
        try:
            while True:
                await self._carry(session, first)
                newcomer = None if session.ended else await self._next_client(session)
                if newcomer is None:
                    return
                self._seat_newcomer(newcomer, session)
                first = None
        finally:
            await self._link.close(self._close_code, self._close_reason)

    async def _carry(self, session: Session, first: str | bytes | None) -> None:
        """Until the socket is gone, somebody else asks for its place, or the last word has been sent."""
        link = self._link
        tasks = [
            asyncio.create_task(self._read(link, first)),
            asyncio.create_task(self._write(link, session)),
            asyncio.create_task(self._seat.wait()),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _read(self, link: Link, first: str | bytes | None) -> None:
        message = first if first is not None else await link.receive()
        while message is not None:
            try:
                await self._take(message)
                if self._budget.due:
                    await self._budget.wait()
            except OverBudget as error:
                self._outbox.put(wire.error(str(error)))
                self._show_out(str(error))
                break
            message = await link.receive()
        if message is not None:
            await asyncio.Event().wait()  # nothing more is read; the end of the call cancels this

    async def _write(self, link: Link, session: Session) -> None:
        try:
            await self._outbox.drain(link.socket)
        except GONE as gone:
            reason = gone or type(gone).__name__
            log.info("call %s: the client is gone: %s", session.call_id, reason)

    async def _next_client(self, session: Session) -> Link | None:
        """Who carries on the call. None: nobody, and it has been ended."""
        lost, resume_s = self._link, self._calls.settings.server.resume_s
        newcomer = self._seat.take()
        if newcomer is not None:
            session.hold(0)
            await lost.close(CLOSE_TAKEN_OVER, _TAKEN_OVER, wire.frame("ended", reason=_TAKEN_OVER))
            return newcomer
        await lost.close()
        if lost.left or not resume_s or "resume" not in wire.agreed(lost.start):
            session.post(ev.HungUp())
            return None
        session.hold(resume_s * 1000)
        with self._seats.parking() as room:
            if room:
                newcomer = await self._wait_for_return(session, resume_s)
        if newcomer is None:
            session.post(ev.HungUp("the client is gone"))
        return newcomer

    async def _wait_for_return(self, session: Session, resume_s: float) -> Link | None:
        log.info("call %s: the client is gone; it has %g s to return", session.call_id, resume_s)
        self._parked = True
        try:
            async with asyncio.timeout(resume_s):
                await self._seat.wait()
        except TimeoutError:
            return None
        finally:
            self._parked = False
        return self._seat.take()

    def _seat_newcomer(self, link: Link, session: Session) -> None:
        """The call goes on, on this socket."""
        log.info("call %s goes on with another connection", session.call_id)
        assert self._audio is not None
        start, self._link = link.start, link
        self._door.resume(wire.agreed(start))
        self._audio.use(start)
        self._outbox.requeue(
            start.frames,
            lambda number: self._started_frame(start, session, number, resumed=True),
            wire.outlives_its_connection,
        )
        self._door.notice(FloorChanged(session.view.floor))
        session.release()

    # -- what the client says -------------------------------------------------------------------

    async def _take(self, message: str | bytes) -> None:
        """Raises OverBudget."""
        assert self._audio is not None
        try:
            if isinstance(message, bytes):
                self._budget.message(len(message))
                if not self._farewell.begun:
                    await self._audio.feed(message)
            else:
                with self._budget.message(len(message)):
                    self._obey(wire.decode(message))
        except OverBudget:
            raise
        except (AudioError, ProtocolError) as error:
            self._complain(str(error))

    def _obey(self, message: wire.Incoming) -> None:
        assert self._session is not None
        if not isinstance(message, wire.Ping | wire.PlayedReport):
            self._budget.request()
        match message:
            case wire.Ping():
                self._outbox.put(wire.frame("pong"))
            case wire.PlayedReport(reply=reply, ms=ms):
                self._session.post(ev.Played(reply, ms))
            case wire.Text(text=text):
                if not self._farewell.begun:
                    self._session.post(ev.UserText(text))
            case wire.Stop():
                self._session.post(ev.HungUp())
            case wire.EndConversation():
                self._farewell.begin(self._session)
            case wire.SetLevel(level=level):
                self._session.agent = replace(self._session.agent, level=level)
            case wire.Configure():
                self._configure(message, self._session)
            case wire.Hold():
                if self._session.view.floor in _ANSWERING:
                    self._session.post(ev.RequestCancel())
            case wire.Commit():
                self._commit(self._session)
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
        if start.resume:
            raise ProtocolError("a `start` that resumes must come first: add ?start=1 to the URL")
        self._started, self._link.start = True, start
        self._door.use(wire.agreed(start))
        self._audio.use(start)
        session.agent, unknown = self._agent(start, session.agent)
        session.post(ev.Configure(policy_for(start, session.view.policy)))
        self._welcome(start, session)
        if unknown:
            self._complain(unknown)
        if not start.greeting:
            session.post(ev.RequestCancel())

    def _configure(self, wishes: wire.Configure, session: Session) -> None:
        session.agent = self._wishes.agent(wishes, session.agent)
        policy = session.view.policy
        auto_turns = policy.auto_turns if wishes.listen is None else wishes.listen == "open"
        if auto_turns != policy.auto_turns:
            if session.view.turn_open:  # nobody would end it now
                self._commit(session)
            session.post(ev.Configure(replace(policy, auto_turns=auto_turns)))

    def _commit(self, session: Session) -> None:
        session.flush_audio()
        session.post(ev.CommitInput(session.heard_ms, reply=True))

    def _complain(self, message: str) -> None:
        self._errors += 1
        self._outbox.put(wire.error(message))
        if self._errors >= _MAX_ERRORS:
            self._show_out("too many senseless messages")

    def _show_out(self, reason: str) -> None:
        """The client does what no client may."""
        if self._session is not None:
            self._close_code, self._close_reason = CLOSE_POLICY, reason
            self._session.post(ev.HungUp(reason))

    # -- the end --------------------------------------------------------------------------------

    def _on_stuck(self) -> None:
        if self._session is not None:
            self._session.post(ev.HungUp("the client stopped reading"))


def _as_start(text: str) -> wire.Start | None:
    """The message, if it is a `start` without fault; any other is read again, and complained about, in the call."""
    try:
        message = wire.decode(text)
    except ProtocolError:
        return None
    return message if isinstance(message, wire.Start) else None
