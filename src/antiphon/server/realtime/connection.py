"""One Realtime session, from `session.created` to its end, over whatever carries text frames.

Owns the call, its reader and its writer, and frees everything however it ends. The transport is a websocket or a data
channel; the audio is in the events, or goes by a line of its own beside them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from antiphon.core import events as ev
from antiphon.core.policy import Policy
from antiphon.errors import AntiphonError, BusyError, ModelError
from antiphon.models.ports import Kind, Pcm16
from antiphon.server.calls import Calls, agent_of
from antiphon.server.client_secrets import Pinned
from antiphon.server.outbox import Outbox
from antiphon.server.realtime import wishes
from antiphon.server.realtime.conductor import Conductor
from antiphon.server.realtime.door import RealtimeDoor
from antiphon.server.realtime.intake import Intake
from antiphon.server.realtime.playout import Playout
from antiphon.session.runners import Agent
from antiphon.session.session import Session as Call
from antiphon.wire.realtime.codec import Codec, session_patch
from antiphon.wire.realtime.encoder import Encoder
from antiphon.wire.realtime.errors import PeerError
from antiphon.wire.realtime.items import Items
from antiphon.wire.realtime.names import Names
from antiphon.wire.realtime.session import Session, policy_of

log = logging.getLogger(__name__)

_LAST_WORDS_S = 10.0
"""For what is in the outbox when the session ends."""
_CLOSE_S = 2.0
_MAX_ERRORS = 200
"""A client that sends this much nonsense is shown the door."""
NORMAL, GOING_AWAY, POLICY, INTERNAL, BUSY = 1000, 1001, 1008, 1011, 1013
_MAX_REASON_BYTES = 123
_SHUTDOWN = "the server is shutting down"
_KEPT_MARGIN_MS = 30_000
"""Of the session's buffer, beyond the longest turn."""


class Transport(Protocol):
    """Text frames both ways. Sending raises one of `gone` when nobody is there any more."""

    gone: tuple[type[Exception], ...]

    async def receive(self) -> str | bytes | None:
        """The next frame; None once the client has left, and never asked again."""
        ...

    async def send_text(self, data: str) -> None: ...
    async def send_bytes(self, data: bytes) -> None:
        """A text frame, encoded."""
        ...

    async def close(self, code: int, reason: str) -> None: ...


class Line(Protocol):
    """Audio that goes beside the events, as WebRTC carries it."""

    playout: Playout

    def listen(self, hear: Callable[[Pcm16, int], None]) -> None:
        """Give what the caller says to `hear(pcm, rate_hz)` from now on."""
        ...


@dataclass(frozen=True, slots=True)
class Opening:
    """What the handshake says."""

    model: str = ""
    kind: str = "realtime"
    dialect: str = "auto"
    max_s: float = 3600.0
    pinned: tuple[Pinned, ...] = ()
    """Session objects that are applied at the beginning, in order: a client secret's, and that of the request."""


class Connection:
    """One session."""

    def __init__(
        self, transport: Transport, calls: Calls, opening: Opening, line: Line | None = None
    ) -> None:
        """`line`: carries the audio of both sides; None: it is in the events."""
        self._transport = transport
        self._line = line
        self._gone: tuple[type[Exception], ...] = (TimeoutError, *transport.gone)
        self._calls = calls
        self._opening = opening
        self._outbox = Outbox(calls.settings.server.max_outbox_bytes, self._on_stuck)
        self._codec = Codec(opening.dialect)
        self._names = Names(secrets.token_hex(8))
        playout = None if line is None else line.playout
        self._door = RealtimeDoor(self._outbox, self._codec, self._names, playout)
        self._call: Call | None = None
        self._close_code, self._close_reason = NORMAL, ""

    async def serve(self) -> None:
        try:
            await self._serve()
        except (BusyError, ModelError) as error:
            await self._refuse(error)
        finally:
            with contextlib.suppress(*self._gone):
                async with asyncio.timeout(_CLOSE_S):
                    await self._transport.close(self._close_code, short(self._close_reason))

    async def _serve(self) -> None:
        settings, opening = self._calls.settings, self._opening
        owner = agent_of(settings)
        session = Session(
            self._names.session,
            model=opening.model,
            instructions=owner.prompt,
            voice=owner.voice or "alloy",
            kind=opening.kind,
            expires_at=int(time.time() + opening.max_s),
        )
        bases: list[Policy] = []

        def adapt(policy: Policy) -> Policy:
            ahead_ms, reports = settings.realtime.speak_ahead_ms, self._line is not None
            policy = replace(policy, speak_ahead_ms=ahead_ms, client_reports_played=reports)
            bases.append(policy)
            return policy_of(session, bases[0])

        self._calls.check_room()
        voices = self._calls.models.info(Kind.TTS).voices
        agent = wishes.agent_of(session, owner, voices)
        async with self._calls.open(self._door, adapt, agent) as call:
            self._call = call
            conductor = self._conductor(call, session, (bases[0], owner))
            self._welcome(conductor, session)
            try:
                await self._converse(call, conductor)
            finally:
                await conductor.asides.close()

    def _conductor(self, call: Call, session: Session, owner: tuple[Policy, Agent]) -> Conductor:
        limits = self._calls.settings.realtime
        items = Items(limits.max_kept_audio_bytes)
        self._door.encoder = encoder = Encoder(session, self._names, items, self._door.emit)
        kept_ms = call.view.policy.max_turn_ms + _KEPT_MARGIN_MS
        intake = Intake(call, encoder.hearing, limits.max_append_bytes, kept_ms)
        encoder.hearing.clip, encoder.hearing.wire_ms = intake.clip, intake.wire_ms
        conductor = Conductor(call, self._calls.models, encoder, intake, self._codec, owner)
        conductor.strict_truncate = limits.strict_truncate
        if self._line is not None:
            self._take(self._line, call, conductor, intake)
        return conductor

    def _take(self, line: Line, call: Call, conductor: Conductor, intake: Intake) -> None:
        """The audio goes by this line."""
        self._door.encoder.tells_audio = False
        conductor.clear_line = line.playout.clear
        line.playout.played = lambda reply, ms: call.post(ev.Played(reply, ms))
        line.listen(intake.hear)

    def _welcome(self, conductor: Conductor, session: Session) -> None:
        problem: PeerError | None = None
        for pinned in self._opening.pinned:
            try:
                conductor.apply(session_patch(dict(pinned.session), pinned.dialect))
            except PeerError as error:
                problem = error
        self._door.emit("session.created", session=session.shown())
        if self._codec.beta is not None:
            conversation = {"id": self._names.conversation, "object": "realtime.conversation"}
            self._door.emit("conversation.created", conversation=conversation)
        if problem is not None:
            self._door.encoder.error(problem)

    async def _converse(self, call: Call, conductor: Conductor) -> None:
        """Everything that lives as long as the session, in one task group."""

        async def read() -> None:
            while (frame := await self._transport.receive()) is not None:
                try:
                    await conductor.take(frame)
                except Exception:  # a bug of ours ends this session and no other
                    log.exception("call %s: an event of the client", call.call_id)
                    self._door.failed = True
                    self._end(INTERNAL, "internal error")
                if self._door.encoder.faults >= _MAX_ERRORS:
                    self._end(POLICY, "too many senseless events")
            call.post(ev.HungUp())

        expiry = asyncio.get_running_loop().call_later(self._opening.max_s, self._expire)
        try:
            async with asyncio.TaskGroup() as group:
                reader = group.create_task(read())
                writer = group.create_task(self._write(call))
                await call.run(greet=False, max_s=self._opening.max_s + 60)
                reader.cancel()
                await conductor.asides.close()
                self._note_end()
                self._outbox.close()
                await asyncio.wait([writer], timeout=_LAST_WORDS_S)
                writer.cancel()
        finally:
            expiry.cancel()

    async def _write(self, call: Call) -> None:
        try:
            await self._outbox.drain(self._transport)
        except self._gone as gone:
            log.info("call %s: the client is gone: %s", call.call_id, gone or type(gone).__name__)
            self._outbox.abort()
            call.post(ev.HungUp("the client is gone"))

    # -- the end ----------------------------------------------------------------------------------

    def _end(self, code: int, reason: str) -> None:
        self._close_code, self._close_reason = code, reason
        if self._call is not None:
            self._call.post(ev.Finish(reason))

    def _expire(self) -> None:
        minutes = self._opening.max_s / 60
        reason = f"Your session hit the maximum duration of {minutes:g} minutes."
        self._door.encoder.error(PeerError(reason, "session_expired"))
        self._end(NORMAL, reason)

    def _on_stuck(self) -> None:
        self._end(BUSY, "the client stopped reading")

    def _note_end(self) -> None:
        if self._door.failed:
            self._close_code, self._close_reason = INTERNAL, "internal error"
        elif self._door.ended == _SHUTDOWN:
            self._close_code, self._close_reason = GOING_AWAY, _SHUTDOWN

    async def _refuse(self, error: AntiphonError) -> None:
        """One `error` event, then the end: the SDK takes an initial error for a refused admission."""
        self._close_code, self._close_reason = BUSY, str(error)
        body = PeerError(str(error), "rate_limit_exceeded", kind="server_error").body()
        event = {"event_id": self._names.event(), "type": "error", "error": body}
        with contextlib.suppress(*self._gone):
            async with asyncio.timeout(_CLOSE_S):
                for frame in self._codec.encode(event):
                    await self._transport.send_bytes(frame)


def short(reason: str) -> str:
    return reason.encode()[:_MAX_REASON_BYTES].decode(errors="ignore")
