"""One call: take an event, give it to the Conversation, perform the actions, arm one timer.

The call is dumb on purpose. Events are handled at once, on the event loop, run to completion: there is no queue
between what happens and what is decided. It alone touches its Conversation. What is bounded, and what happens when it
is full:

- audio waiting for the VAD: `audio_input.MAX_WINDOWS`; more audio is dropped and the client is told once;
- the caller's audio: the longest turn and a little more (`AudioBuffer` forgets the oldest);
- what the client has not read yet: bounded by its transport, which then reports the client gone;
- the call's trace: `call_trace.MAX_TRACE_CHARS`; it ends there, which is logged, and the call goes on.

A bug, in the core or in a transport, ends this call and no other.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from antiphon.call.audio_input import AudioInput, GapFiller
from antiphon.call.audio_output import AudioOutput
from antiphon.call.model_tasks import Agent, ModelTasks
from antiphon.call.tools import Tool
from antiphon.call.transport import Nobody, Transport
from antiphon.core import actions as act
from antiphon.core import events as ev
from antiphon.core.conversation import Conversation, ConversationView
from antiphon.core.floor import Floor
from antiphon.core.playout import REPORT_TRUST_MS
from antiphon.core.policy import Policy
from antiphon.core.turn_record import TurnRecord
from antiphon.errors import AntiphonError
from antiphon.models.model_set import ModelSet
from antiphon.models.ports import Pcm16

if TYPE_CHECKING:
    from antiphon.call.audio_observer import AudioObserver

log = logging.getLogger(__name__)

_LISTENING = (Floor.CALLER, Floor.DECIDING, Floor.OVERLAP)
_RELEASE_S = 5.0

TraceSink = Callable[[int, ev.Event | None, list[act.Action]], None]
"""Told every step: when it was, the event (None: time passed), and what came of it."""
Observer = Callable[["Call", ev.Event | None, list[act.Action]], None]


class Call:
    """Lives in the event loop that it is made in. `run()` until the call is over; `post` and `feed_audio` meanwhile."""

    def __init__(
        self,
        call_id: str,
        models: ModelSet,
        transport: Transport,
        *,
        policy: Policy,
        agent: Agent,
        observers: tuple[Observer, ...] = (),
        denoise: int = 0,
        frank: bool = False,
        trace: TraceSink | None = None,
    ) -> None:
        """`frank`: tell why a model failed, addresses and all. Only where the owner alone is told."""
        self.call_id = call_id
        self.records: list[TurnRecord] = []
        self._conversation = Conversation(policy)
        self.view: ConversationView = self._conversation.view
        self.transport: Transport = transport
        self._loop = asyncio.get_running_loop()
        self._began_s = self._loop.time()
        self._models = models
        self._observers = observers
        self._trace = trace
        self._denoise = denoise
        self._audio_input = AudioInput(
            call_id,
            models,
            policy.max_turn_ms + 30_000,
            self._on_scored,
            self._on_overflow,
            denoise,
            transport.audio.listen_hz,
        )
        self._audio_output = AudioOutput(transport, self._on_sent)
        self._model_tasks = ModelTasks(
            call_id, models, agent, self._audio_input.kept, self._audio_output, self.post
        )
        self._model_tasks.limit_replies(policy)
        self._model_tasks.frank = frank
        self._gap_filler = GapFiller(self._loop, self._audio_input.feed_silence)
        self._audio_observer: AudioObserver | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._due_ms: int | None = None
        self._waiting: deque[ev.Event | None] = deque()
        self._handling = False
        self._over = asyncio.Event()
        self._closing: asyncio.Task[None] | None = None
        self._present_policy = policy
        """The policy while the client is there."""

    # -- life -----------------------------------------------------------------------------------

    @property
    def agent(self) -> Agent:
        return self._model_tasks.agent

    @agent.setter
    def agent(self, agent: Agent) -> None:
        self._model_tasks.agent = agent

    def offer(self, tools: Iterable[Tool]) -> None:
        """Functions that the agent may call and that we run, from its next reply on. The client need not know them."""
        self._model_tasks.toolbox.offer(tools)

    def observe(self, observer: Observer) -> None:
        """Show it every event and what came of it, from now on."""
        self._observers = (*self._observers, observer)

    def runs(self, name: str) -> bool:
        """Whether a function of this name is one that we run."""
        return name in self._model_tasks.toolbox

    @property
    def now_ms(self) -> int:
        """Since the call began."""
        return int((self._loop.time() - self._began_s) * 1000)

    @property
    def ended(self) -> bool:
        return self._over.is_set()

    def listen_in(self, tap: AudioObserver) -> None:
        """Have all audio of both sides told to `tap` as well. Call it before the first one."""
        self._audio_observer = tap
        self._audio_output.on_audio = lambda reply, from_ms, pcm: tap.sent(
            reply, from_ms, pcm, self.transport.audio.rate_hz, self.now_ms
        )

    async def run(self, *, greet: bool = True, max_s: float = 3600) -> None:
        """From the first word to the end of the call. Everything is freed when it returns, however it returns."""
        try:
            self.post(ev.Started(greet))
            async with asyncio.timeout(max_s):
                await self._over.wait()
        except TimeoutError:
            self.post(ev.Finish("the call reached its longest duration"))
        finally:
            # Shielded: a caller who is cancelled twice must not leave a place in the models taken.
            self._closing = self._loop.create_task(self._close(), name=f"close {self.call_id}")
            await asyncio.shield(self._closing)

    async def _close(self) -> None:
        if not self.ended:
            self.post(ev.HungUp("session closed"))
        if self._timer is not None:
            self._timer.cancel()
        self._gap_filler.stop()
        self._audio_input.close()
        self._audio_output.close()
        await self._model_tasks.close()
        try:
            async with asyncio.timeout(_RELEASE_S):
                await self._models.release(self.call_id)
        except (AntiphonError, TimeoutError) as error:
            log.warning("call %s: releasing its place in the models: %s", self.call_id, error)

    def let_go(self) -> None:
        """After `run`: forget the client and whoever watched, so that the call is freed without a garbage collection.

        Its records and its history can still be read.
        """
        self._over.set()
        self.transport = Nobody()
        self._audio_observer, self._observers = None, ()
        self._audio_input.close()
        self._audio_output.close()

    # -- the loop -------------------------------------------------------------------------------

    def post(self, event: ev.Event | None) -> None:
        """Something happened (None: time passed). Handled now, or right after what is being handled."""
        self._waiting.append(event)
        if self._handling:
            return
        self._handling = True
        try:
            while self._waiting:
                self._step(self._waiting.popleft())
        finally:
            self._handling = False
        self._arm()

    def _step(self, event: ev.Event | None) -> None:
        if self.ended:
            return
        try:
            now_ms, conversation = self.now_ms, self._conversation
            out = conversation.tick(now_ms) if event is None else conversation.handle(event, now_ms)
            if self._trace is not None:
                self._trace(now_ms, event, out)
            for action in out:
                self._perform(action)
            for observe in self._observers:
                observe(self, event, out)
        except Exception:
            log.exception("call %s failed at %r", self.call_id, event)
            self._fail()

    def _fail(self) -> None:
        """End the call after a bug, with a word to the client if the transport still works."""
        if self.ended:
            return
        self._over.set()
        try:
            self.transport.notice(act.Fault("internal_error", "the call failed; the log says why"))
            self.transport.notice(act.Hangup("error"))
            self.transport.hang_up("error")
        except Exception:
            log.exception("call %s: its transport failed as well", self.call_id)

    def _arm(self) -> None:
        try:
            due_ms = None if self.ended else self._conversation.deadline()
        except Exception:
            log.exception("call %s: no deadline", self.call_id)
            self._fail()
            due_ms = None
        if due_ms == self._due_ms and self._timer is not None:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._due_ms = due_ms
        if due_ms is not None:
            self._timer = self._loop.call_at(self._began_s + due_ms / 1000 + 0.001, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self.post(None)

    # -- actions --------------------------------------------------------------------------------

    def _perform(self, action: act.Action) -> None:
        model_tasks = self._model_tasks
        match action:
            case act.Transcribe():
                model_tasks.transcribe(action)
            case act.ScoreTurn():
                model_tasks.score_turn(action)
            case act.WarmPrompt():
                model_tasks.warm(action)
            case act.Generate():
                model_tasks.generate(action)
            case act.Synthesize():
                model_tasks.synthesize(action)
            case act.RunTool():
                model_tasks.run_tool(action)
            case act.CancelReply():
                model_tasks.cancel(f"reply {action.reply}")
                self._audio_output.abandon(action.reply)
            case act.Play():
                self.transport.notice(action)
                self._audio_output.play(action.reply, action.from_ms)
            case act.Pause() | act.StopPlayout():
                self._audio_output.pause()
                if self._audio_observer is not None and self.view.policy.client_can_clear:
                    self._audio_observer.taken_back(action.reply, self.now_ms)
                self.transport.drop_audio(action.reply)
            case _:
                self._notice(action)

    def _notice(self, action: act.Action) -> None:
        if isinstance(action, act.TurnRecorded):
            self.records.append(action.record)
        if isinstance(action, act.ReplyGenerated) and action.finish == "length":
            log.info("call %s: reply %s ended at its limit", self.call_id, action.reply)
        if isinstance(action, act.FloorChanged):
            self._gap_filler.watch(action.floor in _LISTENING)
        self.transport.notice(action)
        if isinstance(action, act.Hangup):
            self._over.set()
            self.transport.hang_up(action.reason)

    def _on_sent(self, reply: str, sent_ms: int) -> None:
        self.post(ev.AudioSent(reply, sent_ms))

    # -- a client that is away -------------------------------------------------------------------

    def hold(self, limit_ms: int) -> None:
        """The client is lost and may come back within `limit_ms`: the agent's voice waits, and does not ask why."""
        policy = self._present_policy = self.view.policy
        self._audio_output.hold()
        patience_ms = policy.reply_timeout_ms + limit_ms
        waiting = replace(policy, idle_prompt_after_ms=0, reply_timeout_ms=patience_ms)
        self.post(ev.Configure(waiting))

    def release(self) -> None:
        """A client is there again: speak on, from the word that was last known to be heard."""
        self.post(ev.Configure(self._present_policy))
        playing, reply = self._audio_output.release(), self.view.reply
        if reply is not None and playing == reply.id:
            heard_ms = reply.playout.position(self.now_ms) - REPORT_TRUST_MS
            self._perform(act.Play(reply.id, reply.playout.word_start(max(heard_ms, 0))))

    # -- the caller's audio ---------------------------------------------------------------------

    @property
    def heard_ms(self) -> int:
        """Caller audio received so far, whole windows."""
        return self._audio_input.heard_ms

    @property
    def unscored_windows(self) -> int:
        """Windows of caller audio for which voice activity detection failed."""
        return self._audio_input.unscored

    def heard_audio(self, start_ms: int, end_ms: int) -> Pcm16:
        """The caller's voice between two positions at `STT_RATE_HZ`; what is no longer kept is left out."""
        return self._audio_input.kept.slice(start_ms, end_ms)

    @property
    def unscored_ms(self) -> int:
        """Caller audio that waits for voice activity detection: a client that sends a file should wait, too."""
        return self._audio_input.waiting_ms

    def wanted_audio(self, rate_hz: int) -> int:
        """Samples at this rate after which there is something to decide; a transport may collect that many."""
        return self._audio_input.wanted(rate_hz)

    def denoise(self, level: int | None) -> None:
        """Noise suppression from now on; None: as the owner has it. Raises ConfigError when it is not installed."""
        if not self.ended:
            self._audio_input.denoise(self._denoise if level is None else level)

    def feed_audio(self, pcm: Pcm16, rate_hz: int) -> None:
        """More of the caller's voice, any amount at any rate."""
        if self.ended or not len(pcm):
            return
        self._gap_filler.arrived()
        warning = (
            self._audio_observer.heard(pcm, rate_hz, self.now_ms)
            if self._audio_observer is not None
            else ""
        )
        self._audio_input.feed(pcm, rate_hz)
        if warning:
            self.transport.notice(act.Fault("audio_quality", warning))

    def flush_audio(self) -> None:
        """No more audio is coming for now: what is left of the last window is scored as well."""
        self._audio_input.flush()

    def _on_scored(self, probability: float, end_ms: int) -> None:
        if self.ended:
            return
        self.post(ev.VadScored(probability, end_ms))
        try:
            self._audio_input.kept.trim(self.view.needed_from_ms())
        except Exception:
            log.exception("call %s: what it needs of the caller's audio", self.call_id)
            self._fail()

    def _on_overflow(self) -> None:
        message = "audio arrives faster than it can be heard; some of it was dropped"
        self.transport.notice(act.Fault("audio_overflow", message))
