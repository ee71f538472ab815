"""A call without a network: a real call on a real loop, and a transport that writes down what comes to it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
from tests.support import loaded, until

from antiphon.call.call import Call
from antiphon.call.model_tasks import Agent
from antiphon.call.transport import TransportAudio
from antiphon.core import actions as act
from antiphon.core import events as ev
from antiphon.core.floor import Floor
from antiphon.core.policy import Policy
from antiphon.models.model_set import ModelSet
from antiphon.models.ports import Pcm16
from antiphon.observe.call_trace import CallTrace

A = TypeVar("A")
POLICY = Policy(greeting="", idle_prompt_after_ms=0, client_can_clear=True)


@dataclass(slots=True)
class Sent:
    reply: str
    start: int
    """Where in the reply it lies, in samples."""
    pcm: Pcm16
    at_s: float


@dataclass(slots=True)
class RecordingDoor:
    audio: TransportAudio = field(default_factory=lambda: TransportAudio(rate_hz=16_000))
    actions: list[act.Action] = field(default_factory=list)
    sent: list[Sent] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    hung_up: str = ""
    plays: list[tuple[act.Play, float]] = field(default_factory=list)
    _at: int = 0

    def notice(self, action: act.Action) -> None:
        self.actions.append(action)
        if isinstance(action, act.Play):
            self.plays.append((action, asyncio.get_running_loop().time()))
            self._at = action.from_ms * self.audio.rate_hz // 1000

    def send_audio(self, reply: str, pcm: Pcm16) -> None:
        now_s = asyncio.get_running_loop().time()
        self.sent.append(Sent(reply, self._at, pcm.copy(), now_s))
        self._at += len(pcm)

    def drop_audio(self, reply: str) -> None:
        self.dropped.append(reply)

    def hang_up(self, reason: str) -> None:
        self.hung_up = reason

    def all(self, kind: type[A]) -> list[A]:
        return [action for action in self.actions if isinstance(action, kind)]

    def heard(self, reply: str) -> Pcm16:
        """What a client that obeys has in its hands: later pieces replace what lies after their beginning."""
        whole = np.empty(0, np.int16)
        for piece in self.sent:
            if piece.reply == reply:
                assert piece.start <= len(whole), "a gap in the audio"
                whole = np.concatenate([whole[: piece.start], piece.pcm])
        return whole

    def sent_ms(self, reply: str) -> int:
        pieces = [piece for piece in self.sent if piece.reply == reply]
        end = pieces[-1].start + len(pieces[-1].pcm) if pieces else 0
        return end * 1000 // self.audio.rate_hz


@dataclass(slots=True)
class CallHarness:
    session: Call
    transport: RecordingDoor
    models: ModelSet
    running: asyncio.Task[None]
    trace: list[str]

    @property
    def floor(self) -> Floor:
        return self.session.view.floor

    async def ended(self, count: int = 1) -> act.ReplyEnded:
        """Wait until so many replies are over -> the last of them."""
        await until(
            lambda: len(self.transport.all(act.ReplyEnded)) >= count, f"{self.transport.actions}"
        )
        return self.transport.all(act.ReplyEnded)[count - 1]

    async def playing(self, reply: str = "r1", ms: int = 200) -> None:
        await until(lambda: self.transport.sent_ms(reply) > ms, f"{reply} is not heard")


@contextlib.asynccontextmanager
async def call(
    models: ModelSet | None = None,
    *,
    policy: Policy = POLICY,
    transport: RecordingDoor | None = None,
    greet: bool = False,
    max_s: float = 60,
    **changes: Any,
) -> AsyncIterator[CallHarness]:
    """A call that is on. `changes` are to the policy. Models that were not given are loaded and freed here."""
    if models is None:
        async with (
            loaded() as models,
            call(
                models, policy=policy, transport=transport, greet=greet, max_s=max_s, **changes
            ) as line,
        ):
            yield line
        return
    transport = transport or RecordingDoor()
    policy = replace(policy, **changes)
    recorded = CallTrace(policy)
    session = Call(
        "call", models, transport, policy=policy, agent=Agent("Be brief."), trace=recorded.take
    )
    running = asyncio.create_task(session.run(greet=greet, max_s=max_s))
    try:
        yield CallHarness(session, transport, models, running, recorded.lines)
    finally:
        session.post(ev.HungUp("test is over"))
        await running
