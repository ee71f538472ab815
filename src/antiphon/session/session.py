"""One call: take an event, give it to the Conversation, perform the actions, arm one timer.

The session is dumb on purpose. Events are handled at once, on the event loop, run to completion: there is no queue
between what happens and what is decided. It alone touches its Conversation. What is bounded, and what happens when it
is full:

- windows waiting for the VAD: `MAX_WINDOWS`; more audio is dropped and the client is told once;
- the caller's audio: the longest turn and a little more (`UtteranceBuffer` forgets the oldest);
- what the client has not read yet: bounded by its door, which then reports the client gone.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import Callable

import numpy as np

from antiphon.audio.framing import Framer
from antiphon.audio.resample import Resampler
from antiphon.core import actions as act
from antiphon.core import events as ev
from antiphon.core import trace
from antiphon.core.conversation import Conversation
from antiphon.core.floor import Floor
from antiphon.core.policy import Policy
from antiphon.core.record import TurnRecord
from antiphon.errors import AntiphonError, BusyError
from antiphon.models.pool import ModelSet
from antiphon.models.ports import Pcm16
from antiphon.session.door import Door
from antiphon.session.outlet import Outlet
from antiphon.session.runners import Agent, Runners
from antiphon.session.stall import StallClock
from antiphon.session.utterance import UtteranceBuffer

log = logging.getLogger(__name__)

MAX_WINDOWS = 4_000
"""Two minutes of audio that came faster than it can be scored."""
_IN_FLIGHT = 8
"""Windows of one call at the VAD at a time, so that one call's burst does not hold up the others."""

Observer = Callable[["Session", ev.Event | None, list[act.Action]], None]


class Session:
    """Lives in the event loop that it is made in. `run()` until the call is over; `post` and `feed_audio` meanwhile."""

    def __init__(
        self,
        call_id: str,
        models: ModelSet,
        door: Door,
        *,
        policy: Policy,
        agent: Agent,
        observers: tuple[Observer, ...] = (),
    ) -> None:
        self.call_id = call_id
        self.records: list[TurnRecord] = []
        self.conversation = Conversation(policy)
        self.door = door
        self.lines: list[str] | None = None
        """The call's trace, when `record_trace` was asked for."""
        self._loop = asyncio.get_running_loop()
        self._began_s = self._loop.time()
        self._models = models
        self._observers = observers
        self._rate_hz = 16_000 if 16_000 in models.vad.rates_hz else models.vad.rates_hz[0]
        self._window = models.vad.window_samples(self._rate_hz)
        self._framer = Framer(self._window)
        self._vad_state = models.vad.new_state(self._rate_hz)
        self._windows: deque[Pcm16] = deque()
        self._in_flight = 0
        self._scored = 0
        self._overflowed = False
        self._resampler: Resampler | None = None
        self._audio = UtteranceBuffer(self._rate_hz, policy.max_turn_ms + 30_000)
        self._outlet = Outlet(door, self._on_sent)
        self._runners = Runners(call_id, models, agent, self._audio, self._outlet, self.post)
        self._stall = StallClock(self._loop, self._fill_silence)
        self._timer: asyncio.TimerHandle | None = None
        self._due_ms: int | None = None
        self._waiting: deque[ev.Event | None] = deque()
        self._handling = False
        self._over = asyncio.Event()

    # -- life -----------------------------------------------------------------------------------

    @property
    def agent(self) -> Agent:
        return self._runners.agent

    @agent.setter
    def agent(self, agent: Agent) -> None:
        self._runners.agent = agent

    @property
    def now_ms(self) -> int:
        """Since the call began."""
        return int((self._loop.time() - self._began_s) * 1000)

    @property
    def ended(self) -> bool:
        return self._over.is_set()

    def record_trace(self) -> None:
        """Keep every event from now on in `lines`. Call it before the first one."""
        self.lines = [trace.header(self.conversation.policy)]

    async def run(self, *, greet: bool = True, max_s: float = 3600) -> None:
        """From the first word to the end of the call. Everything is freed when it returns, however it returns."""
        try:
            self.post(ev.Started(greet))
            async with asyncio.timeout(max_s):
                await self._over.wait()
        except TimeoutError:
            self.post(ev.Finish("the call reached its longest duration"))
        finally:
            await self._close()

    async def _close(self) -> None:
        if not self.ended:
            self.post(ev.HungUp("session closed"))
        if self._timer is not None:
            self._timer.cancel()
        self._stall.stop()
        self._outlet.forget()
        self._windows.clear()
        await self._runners.close()
        try:
            async with asyncio.timeout(5):
                await self._models.release(self.call_id)
        except (AntiphonError, TimeoutError) as error:
            log.warning("call %s: releasing its place in the models: %s", self.call_id, error)

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
        now_ms = self.now_ms
        try:
            if event is None:
                out = self.conversation.tick(now_ms)
            else:
                out = self.conversation.handle(event, now_ms)
        except Exception:  # a bug in the core ends this call, never the process
            log.exception("call %s: the conversation failed at %r", self.call_id, event)
            out = [
                act.Fault("internal_error", "the call failed; it is in the log"),
                act.Hangup("error"),
            ]
        if self.lines is not None and (out or event is not None):
            self.lines.append(trace.line(now_ms, event, out))
        for action in out:
            self._perform(action)
        for observe in self._observers:
            observe(self, event, out)

    def _arm(self) -> None:
        due_ms = None if self.ended else self.conversation.deadline()
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
        runners = self._runners
        match action:
            case act.Transcribe():
                runners.transcribe(action)
            case act.ScoreTurn():
                runners.score_turn(action)
            case act.WarmPrompt():
                runners.warm(action)
            case act.Generate():
                runners.generate(action)
            case act.Speak():
                runners.speak(action)
            case act.Abandon():
                runners.cancel(f"reply {action.reply}")
                self._outlet.abandon(action.reply)
            case act.Play():
                self._outlet.play(action.reply, action.from_ms)
            case act.Pause() | act.Silence():
                self._outlet.pause()
                self.door.drop_audio(action.reply)
            case _:
                self._notice(action)

    def _notice(self, action: act.Action) -> None:
        if isinstance(action, act.TurnRecorded):
            self.records.append(action.record)
        if isinstance(action, act.FloorChanged):
            listening = action.floor in (Floor.CALLER, Floor.DECIDING, Floor.CONTESTED)
            self._stall.watch(listening)
        self.door.notice(action)
        if isinstance(action, act.Hangup):
            self._over.set()
            self.door.hang_up(action.reason)

    def _on_sent(self, reply: str, sent_ms: int) -> None:
        self.post(ev.AudioSent(reply, sent_ms))

    # -- the caller's audio ---------------------------------------------------------------------

    @property
    def heard_ms(self) -> int:
        """Caller audio received so far, whole windows."""
        return self._audio.end_ms

    def feed_audio(self, pcm: Pcm16, rate_hz: int) -> None:
        """More of the caller's voice, any amount at any rate."""
        if self.ended or not len(pcm):
            return
        self._stall.arrived()
        self._feed(pcm, rate_hz)

    def _feed(self, pcm: Pcm16, rate_hz: int) -> None:
        if self._resampler is None or self._resampler.from_hz != rate_hz:
            self._resampler = Resampler(rate_hz, self._rate_hz)
        for window in self._framer.feed(self._resampler.process(pcm)):
            if len(self._windows) >= MAX_WINDOWS:
                self._refuse_audio()
                break
            self._overflowed = False
            self._audio.append(window)
            self._windows.append(window)
        self._submit()

    def _refuse_audio(self) -> None:
        if not self._overflowed:
            self._overflowed = True
            message = "audio arrives faster than it can be heard; some of it was dropped"
            self.door.notice(act.Fault("audio_overflow", message))

    def _submit(self) -> None:
        while self._windows and self._in_flight < _IN_FLIGHT:
            try:
                self._models.vad.submit(self._windows[0], self._vad_state, self._on_scored)
            except BusyError:
                self._loop.call_later(0.05, self._submit)
                return
            except AntiphonError as error:
                log.warning("call %s: voice activity: %s", self.call_id, error)
                self._windows.popleft()
                self._in_flight += 1
                self._loop.call_soon(self._on_scored, math.nan)
                continue
            self._windows.popleft()
            self._in_flight += 1

    def _on_scored(self, probability: float) -> None:
        self._in_flight -= 1
        self._scored += 1
        if self.ended:
            return
        if math.isnan(probability):  # the VAD failed for this window; the call goes on without it
            probability = 0.0
        end_ms = self._scored * self._window * 1000 // self._rate_hz
        self.post(ev.VadScored(probability, end_ms))
        self._audio.trim(self.conversation.needed_from_ms())
        self._submit()

    def flush_audio(self) -> None:
        """No more audio is coming for now: fill the last window up with silence, so that nothing is left waiting."""
        if self._resampler is not None:
            for window in self._framer.feed(self._resampler.flush()):
                self._audio.append(window)
                self._windows.append(window)
            self._resampler = None
        rest = self._framer.remainder
        self._framer.reset()
        if len(rest):
            last = np.zeros(self._window, np.int16)
            last[: len(rest)] = rest
            self._audio.append(last)
            self._windows.append(last)
        self._submit()

    def _fill_silence(self, duration_ms: int) -> None:
        """The client stopped sending in mid-turn: for the ear that is silence."""
        self._feed(np.zeros(duration_ms * self._rate_hz // 1000, np.int16), self._rate_hz)
