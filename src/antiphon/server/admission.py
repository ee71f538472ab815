"""The calls that this process holds: admission, a name for each, and an orderly end for all."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from antiphon.call.call import Call
from antiphon.call.model_tasks import Agent
from antiphon.call.tools import Tool
from antiphon.call.transport import Transport
from antiphon.config import Settings
from antiphon.core import events as ev
from antiphon.core.policy import Policy
from antiphon.core.turn_record import TurnRecord
from antiphon.errors import BusyError, NotReadyError
from antiphon.files import private_folder, write_private
from antiphon.models.model_set import ModelSet
from antiphon.models.ports import Kind, ModelStatus
from antiphon.observe.call_trace import CallTrace
from antiphon.observe.logs import in_call
from antiphon.observe.metrics import Metrics
from antiphon.observe.trace_redact import redact
from antiphon.observe.turn_sink import TurnSink
from antiphon.server.load_shedding import LoadShedder
from antiphon.server.memory_trimmer import MemoryTrimmer
from antiphon.server.recordings import Recordings

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider

log = logging.getLogger(__name__)

_HANG_UP_S = 5.0
_POLL_S = 0.1
MAX_FILES = 4
"""Recordings answered at the same time: each takes as much of the models as a busy call."""


@dataclass(slots=True)
class Counters:
    """Since the process started."""

    refused: int = 0


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
        level=chosen.level,
    )


class Calls:
    def __init__(
        self,
        settings: Settings,
        models: ModelSet,
        *,
        spans: TracerProvider | None = None,
        on_end: Callable[[list[TurnRecord]], None] | None = None,
    ) -> None:
        """`spans`: where spans go, None: nowhere. `on_end`: given the turns of each call that has ended."""
        self.settings = settings
        self.models = models
        self.metrics = Metrics(models)
        self._hub = TurnSink(self.metrics, provider=spans, models=self._model_names)
        self._on_end = on_end
        self.counters = Counters()
        self.load_shedder = LoadShedder(
            settings.server.max_loop_lag_ms, settings.server.max_model_wait_ms
        )
        self.recordings = Recordings(settings)
        self._trimmer = MemoryTrimmer()
        self.tools: Callable[[], Sequence[Tool]] = tuple
        """The configured functions, asked for whenever a call begins."""
        self._sessions: dict[str, Call] = {}
        self._files = 0
        self._draining = False
        self._empty = asyncio.Event()
        self._empty.set()

    def __len__(self) -> int:
        return len(self._sessions)

    def check_room(self) -> None:
        """Raises BusyError or NotReadyError, with what to tell the client, when no call can be taken now."""
        if self._draining:
            self._refused()
            raise BusyError("the server is shutting down; call again in a minute")
        if not self.models.ready:
            self._refused()
            raise NotReadyError(self._why_not_ready())
        if len(self._sessions) >= self.settings.server.max_calls:
            self._refused()
            raise BusyError(f"all {self.settings.server.max_calls} lines are busy; try again soon")
        if self._sessions and (shortage := self.load_shedder.shortage()):
            self._refused()
            raise BusyError(f"{shortage}; try again soon")

    def _refused(self) -> None:
        self.counters.refused += 1
        self.metrics.refused()

    def _why_not_ready(self) -> str:
        failed = failed_kinds(self.models.status())
        if failed:
            return f"the server cannot take calls: no {failed[0]} model could be loaded; see /ready"
        return "the models are still loading; try again in a moment"

    @property
    def draining(self) -> bool:
        """The server is about to end: no more calls are taken."""
        return self._draining

    @asynccontextmanager
    async def open(
        self,
        transport: Transport,
        adapt: Callable[[Policy], Policy] | None = None,
        agent: Agent | None = None,
        tools: Sequence[Tool] = (),
    ) -> AsyncIterator[Call]:
        """A call, for as long as the context lasts. Raises like `check_room`.

        `adapt`: what the client's abilities change in the configured policy. `tools`: functions of this call that we
        run, beside the configured ones.
        """
        self.check_room()
        call_id, policy = secrets.token_hex(8), self._policy(adapt)
        watch, tap = self._hub.watch(call_id), self.recordings.tap(call_id)
        trace = CallTrace(policy, call_id) if self.settings.trace_dir is not None else None
        call = Call(
            call_id,
            self.models,
            transport,
            policy=policy,
            agent=agent or agent_of(self.settings),
            observers=(lambda _call, _event, out: watch.take(out), tap.observe),
            denoise=self.settings.audio.denoise,
            trace=trace.take if trace is not None else None,
        )
        call.listen_in(tap)
        call.offer((*self.tools(), *tools))
        self._sessions[call_id] = call
        self._empty.clear()
        log.info("call %s began", call_id)
        try:
            with in_call(call_id):
                yield call
        finally:
            watch.end(call.now_ms, self.recordings.end(tap, call.now_ms).fields())
            self._forget(call)
            if trace is not None:
                await self._keep_trace(call_id, trace.lines)

    def _policy(self, adapt: Callable[[Policy], Policy] | None) -> Policy:
        """The configured policy, with what the models and the client cannot do taken out of it."""
        settings = self.settings
        policy = replace(settings.conversation, use_turn_detector=bool(settings.models.turn))
        if not self.models.partials:
            policy = replace(policy, partial_every_ms=0)
        return adapt(policy) if adapt else policy

    def _forget(self, call: Call) -> None:
        """The call is over."""
        del self._sessions[call.call_id]
        call.let_go()
        self._trimmer.call_ended(len(self._sessions))
        if not self._sessions:
            self._empty.set()
        self._note_end(call)
        if self._on_end is not None:
            self._on_end(call.records)

    def _note_end(self, call: Call) -> None:
        records = call.records
        log.info(
            "call %s ended after %.1f s, %s",
            call.call_id,
            call.now_ms / 1000,
            _summary(records),
        )

    def _model_names(self) -> dict[str, str]:
        return {s.kind.value: s.name for s in self.models.status() if s.in_use}

    async def _keep_trace(self, call_id: str, lines: list[str]) -> None:
        folder = self.settings.trace_dir
        if folder is not None:
            # Off the event loop: an hour of call takes seconds to redact.
            await asyncio.to_thread(_write_trace, folder, call_id, lines, self.settings.trace_text)

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

    async def drain(self, patience_s: float, hurry: Callable[[], bool] = lambda: False) -> None:
        """Take no more calls, let those that are on end by themselves, then end the rest.

        `hurry`: asked now and then whether to be patient no longer.
        """
        self._draining = True
        if self._sessions:
            log.info("waiting up to %g s for %d calls to end", patience_s, len(self._sessions))
        until_s = asyncio.get_running_loop().time() + patience_s
        while self._sessions and not hurry() and asyncio.get_running_loop().time() < until_s:
            await self._wait_empty(_POLL_S)
        for call in tuple(self._sessions.values()):
            call.post(ev.Finish("the server is shutting down"))
        await self._wait_empty(_HANG_UP_S)
        await self._trimmer.close()

    async def _wait_empty(self, limit_s: float) -> None:
        try:
            async with asyncio.timeout(limit_s):
                await self._empty.wait()
        except TimeoutError:
            pass


def failed_kinds(status: list[ModelStatus]) -> list[Kind]:
    """Kinds of model without which there are no calls, and of which every one has failed."""
    states: dict[Kind, list[str]] = {}
    for link in status:
        states.setdefault(link.kind, []).append(link.state)
    return [
        kind
        for kind, found in states.items()
        if kind is not Kind.TURN and all(state == "failed" for state in found)
    ]


def _summary(records: list[TurnRecord]) -> str:
    delays = sorted(r.voice_to_voice_ms for r in records if r.voice_to_voice_ms is not None)
    middle = f", median voice to voice {delays[len(delays) // 2]} ms" if delays else ""
    return f"{len({r.number for r in records if r.number})} turns{middle}"


def _write_trace(folder: Path, call_id: str, lines: list[str], with_text: bool) -> None:
    """The words of the call are replaced unless asked otherwise; it replays all the same."""
    try:
        private_folder(folder)
        kept = lines if with_text else redact(lines)
        write_private(folder / f"{call_id}.jsonl", "\n".join(kept) + "\n")
    except OSError as error:
        log.error("call %s: its trace could not be written: %s", call_id, error)
