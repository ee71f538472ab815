"""The calls that this process holds: admission, a name for each, and an orderly end for all.

Knows no protocol: every door opens its calls here.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from antiphon.config import Settings
from antiphon.core import events as ev
from antiphon.core.policy import Policy
from antiphon.core.record import TurnRecord
from antiphon.errors import BusyError, ModelError
from antiphon.models.pool import ModelSet
from antiphon.session.door import Door
from antiphon.session.runners import Agent
from antiphon.session.session import Session

log = logging.getLogger(__name__)

MAX_FILES = 4
"""Recordings answered at the same time: each takes as much of the models as a busy call."""


@dataclass(slots=True)
class Counters:
    """Since the process started."""

    calls: int = 0
    refused: int = 0
    turns: int = 0
    interruptions: int = 0


def agent_of(settings: Settings) -> Agent:
    """Who answers, by the settings."""
    chosen = settings.agent
    return Agent(
        prompt=chosen.prompt,
        voice=chosen.voice,
        language=chosen.language,
        temperature=chosen.temperature,
        max_tokens=chosen.max_tokens,
        speed=chosen.speed,
    )


class Calls:
    def __init__(self, settings: Settings, models: ModelSet) -> None:
        self.settings = settings
        self.models = models
        self.counters = Counters()
        self._sessions: dict[str, Session] = {}
        self._files = 0
        self._draining = False
        self._empty = asyncio.Event()
        self._empty.set()

    def __len__(self) -> int:
        return len(self._sessions)

    def check_room(self) -> None:
        """Raises BusyError or ModelError, with what to tell the client, when no call can be taken now."""
        if self._draining:
            self.counters.refused += 1
            raise BusyError("the server is shutting down; call again in a minute")
        if not self.models.ready:
            raise ModelError("the models are still loading; try again in a moment")
        if len(self._sessions) >= self.settings.server.max_calls:
            self.counters.refused += 1
            raise BusyError(f"all {self.settings.server.max_calls} lines are busy; try again soon")

    @asynccontextmanager
    async def open(
        self,
        door: Door,
        adapt: Callable[[Policy], Policy] | None = None,
        agent: Agent | None = None,
    ) -> AsyncIterator[Session]:
        """A call, for as long as the context lasts. Raises like `check_room`.

        `adapt`: what the client's abilities change in the configured policy.
        """
        self.check_room()
        policy = replace(
            self.settings.conversation, use_turn_detector=bool(self.settings.models.turn)
        )
        if not self.models.partials:
            policy = replace(policy, partial_every_ms=0)
        call_id = secrets.token_hex(8)
        session = Session(
            call_id,
            self.models,
            door,
            policy=adapt(policy) if adapt else policy,
            agent=agent or agent_of(self.settings),
        )
        if self.settings.trace_dir is not None:
            session.record_trace()
        self._sessions[call_id] = session
        self._empty.clear()
        self.counters.calls += 1
        log.info("call %s began", call_id)
        try:
            yield session
        finally:
            del self._sessions[call_id]
            if not self._sessions:
                self._empty.set()
            self._note_end(session)

    def _note_end(self, session: Session) -> None:
        records = session.records
        self.counters.turns += sum(1 for r in records if r.kind == "answer")
        self.counters.interruptions += sum(1 for r in records if r.interrupted)
        log.info(
            "call %s ended after %.1f s, %s",
            session.call_id,
            session.now_ms / 1000,
            _summary(records),
        )
        if self.settings.trace_dir is not None and session.lines:
            _write_trace(self.settings.trace_dir, session)

    @contextmanager
    def file_place(self) -> Iterator[None]:
        """Room for one recording to be answered. Raises like `check_room`, and when several are at work already."""
        self.check_room()
        if self._files >= MAX_FILES:
            raise BusyError("several recordings are being answered already; try again soon")
        self._files += 1
        try:
            yield
        finally:
            self._files -= 1

    async def drain(self, patience_s: float) -> None:
        """Take no more calls, let those that are on end by themselves, then end the rest."""
        self._draining = True
        try:
            async with asyncio.timeout(patience_s):
                await self._empty.wait()
        except TimeoutError:
            for session in tuple(self._sessions.values()):
                session.post(ev.Finish("the server is shutting down"))


def _summary(records: list[TurnRecord]) -> str:
    delays = sorted(r.voice_to_voice_ms for r in records if r.voice_to_voice_ms is not None)
    middle = f", median voice to voice {delays[len(delays) // 2]} ms" if delays else ""
    return f"{sum(1 for r in records if r.kind == 'answer')} turns{middle}"


def _write_trace(folder: Path, session: Session) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{session.call_id}.jsonl").write_text("\n".join(session.lines or []) + "\n")
    except OSError as error:
        log.error("call %s: its trace could not be written: %s", session.call_id, error)
