"""A connection in Unmute's dialect, from its first `session.update` to its end; docs/protocols/realtime.md.

The conversation is the owner's own, endpointing and interruptions included: the dialect has no settings for them. The
agent speaks first, once it knows who it is and the microphone is on. Knows no transport.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from dataclasses import replace

from antiphon.core import events as ev
from antiphon.core.history import Item
from antiphon.core.policy import Policy
from antiphon.errors import BusyError, ModelError
from antiphon.models.ports import STT_RATE_HZ, Kind
from antiphon.server.budget import OverBudget, WorkBudget
from antiphon.server.calls import Calls, agent_of
from antiphon.server.outbox import Outbox
from antiphon.server.realtime.connection import INTERNAL, NORMAL, POLICY, Transport, short
from antiphon.server.realtime.unmute_door import UnmuteDoor
from antiphon.session.session import Session as Call
from antiphon.wire.realtime import unmute as wire
from antiphon.wire.realtime.errors import PeerError
from antiphon.wire.realtime.names import Names

log = logging.getLogger(__name__)

LEARNED = "custom:"
"""What names of learned voices begin with."""
_LAST_WORDS_S = 10.0
_CLOSE_S = 2.0
_MAX_ERRORS = 200
_SILENCE_MS = 7_000
"""Then the agent goes on by itself."""
_OPENING = (Item("opening", "user", "Hello."),)
"""What the first reply answers; it is no part of the history."""


class UnmuteConnection:
    """One call."""

    def __init__(self, transport: Transport, calls: Calls, max_s: float) -> None:
        self._transport = transport
        self._gone: tuple[type[Exception], ...] = (TimeoutError, *transport.gone)
        self._calls = calls
        self._max_s = max_s
        self._outbox = Outbox(calls.settings.server.max_outbox_bytes, self._on_stuck)
        self._door = UnmuteDoor(self._outbox, Names(secrets.token_hex(8)))
        self._ears = wire.Ears()
        self._budget = WorkBudget()
        self._call: Call | None = None
        self._updated = self._began = False
        self._errors = 0
        self._close_code, self._close_reason = NORMAL, ""

    async def serve(self) -> None:
        try:
            agent = agent_of(self._calls.settings)
            async with self._calls.open(self._door, _policy_for, agent) as call:
                self._call = self._door.call = call
                await self._converse(call)
        except (BusyError, ModelError) as error:
            self._close_code, self._close_reason = INTERNAL, str(error)
            self._door.error(PeerError(f"There are too many people here now: {error}"), "fatal")
            self._outbox.close()
            with contextlib.suppress(*self._gone):
                await self._outbox.drain(self._transport)
        finally:
            self._door.close()
            with contextlib.suppress(*self._gone):
                async with asyncio.timeout(_CLOSE_S):
                    await self._transport.close(self._close_code, short(self._close_reason))

    async def _converse(self, call: Call) -> None:
        async def read() -> None:
            budget = self._budget
            while (frame := await self._transport.receive()) is not None:
                try:
                    with budget.message(len(frame)):
                        self._take(call, frame)
                    if budget.due:
                        await budget.wait()
                except PeerError as error:
                    self._complain(error)
                except OverBudget as error:
                    self._close_code, self._close_reason = POLICY, str(error)
                    break
            call.post(ev.HungUp())

        async with asyncio.TaskGroup() as group:
            reader = group.create_task(read())
            writer = group.create_task(self._write(call))
            await call.run(greet=False, max_s=self._max_s)
            reader.cancel()
            if self._door.failed:
                self._close_code, self._close_reason = INTERNAL, "internal error"
                self._door.error(PeerError("the call failed", "internal_error"), "fatal")
            self._outbox.close()
            await asyncio.wait([writer], timeout=_LAST_WORDS_S)
            writer.cancel()

    async def _write(self, call: Call) -> None:
        try:
            await self._outbox.drain(self._transport)
        except self._gone as gone:
            log.info("call %s: the client is gone: %s", call.call_id, gone or type(gone).__name__)
            self._outbox.abort()
            call.post(ev.HungUp("the client is gone"))

    # -- what the client says -----------------------------------------------------------------------

    def _take(self, call: Call, frame: str | bytes) -> None:
        match wire.decode(frame):
            case wire.Update() as update:
                self._update(call, update)
            case wire.Append(data):
                pcm = self._ears.feed(data)
                if pcm is not None:
                    self._budget.heard(len(pcm) / STT_RATE_HZ)
                    call.feed_audio(pcm, STT_RATE_HZ)
                    self._begin(call)

    def _update(self, call: Call, update: wire.Update) -> None:
        owner = agent_of(self._calls.settings)
        name = update.voice.removeprefix(LEARNED)
        voices = self._calls.models.info(Kind.TTS).voices
        call.agent = replace(
            owner,
            prompt=update.prompt or owner.prompt,
            voice=name if name in voices else owner.voice,
            language=update.language or owner.language,
        )
        self._door.voice = update.voice
        self._updated = True
        self._door.emit("session.updated", session=update.session)

    def _begin(self, call: Call) -> None:
        """Once: the microphone is on, and the agent knows who it is."""
        if self._updated and not self._began:
            self._began = True
            call.post(ev.RequestReply({"input": _OPENING}))

    def _complain(self, error: PeerError) -> None:
        self._errors += 1
        self._door.error(error)
        if self._errors >= _MAX_ERRORS and self._call is not None:
            self._close_code, self._close_reason = POLICY, "too many senseless events"
            self._call.post(ev.HungUp(self._close_reason))

    def _on_stuck(self) -> None:
        if self._call is not None:
            self._call.post(ev.HungUp("the client stopped reading"))


def _policy_for(policy: Policy) -> Policy:
    return replace(
        policy,
        greeting="",
        goodbye="",
        client_can_clear=False,
        client_reports_played=False,
        idle_prompt_after_ms=_SILENCE_MS,
        idle_answer=True,
    )
