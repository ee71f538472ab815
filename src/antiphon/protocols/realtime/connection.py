"""One Realtime session, from `session.created` to its end, over whatever carries text frames.

What events mean is the codec's. The connection owns the call, its reader and its writer, is the call's door, does what
the codec asks for, and frees everything however it ends. The transport is a websocket or a data channel; the audio is
in the events, or goes by a line of its own beside them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Any, Protocol

from antiphon.call.call import Call
from antiphon.call.model_tasks import Agent
from antiphon.call.prompt_messages import messages
from antiphon.call.transport import TransportAudio
from antiphon.core import actions as act
from antiphon.core import events as ev
from antiphon.core.history import HistoryView
from antiphon.core.policy import Policy
from antiphon.errors import AntiphonError, BusyError, ConfigError, ModelError
from antiphon.models.model_set import Work
from antiphon.models.ports import STT_RATE_HZ, Kind, LlmRequest, Pcm16
from antiphon.protocols.realtime import audio_formats as formats
from antiphon.protocols.realtime import effects as do
from antiphon.protocols.realtime.client_events import SessionLimits
from antiphon.protocols.realtime.codec import RealtimeCodec
from antiphon.protocols.realtime.frames import Send
from antiphon.protocols.realtime.ids import Ids
from antiphon.protocols.realtime.items import ItemAudio
from antiphon.protocols.realtime.out_of_band import OutOfBand
from antiphon.protocols.realtime.schema import RealtimeError
from antiphon.protocols.realtime.session_config import (
    AgentParams,
    SessionConfig,
    agent_params,
    known_voice,
    policy_of,
)
from antiphon.protocols.realtime.webrtc_playout import TrackPlayout
from antiphon.server.admission import Calls, agent_of
from antiphon.server.budget import Allowance, OverBudget, WorkBudget, WorkRate
from antiphon.server.client_secrets import Pinned
from antiphon.server.outbox import Outbox

log = logging.getLogger(__name__)

_LAST_WORDS_S = 10.0
"""For what is in the outbox when the session ends."""
_CLOSE_S = 2.0
_MAX_ERRORS = 200
"""A client that sends this much nonsense is shown the door."""
NORMAL, GOING_AWAY, POLICY, INTERNAL, BUSY = 1000, 1001, 1008, 1011, 1013
_MAX_REASON_BYTES = 123
_SHUTDOWN = "the server is shutting down"
ALLOWANCE = Allowance(requests=WorkRate(10, 200))
"""Clients that come back send the spoken items of an earlier session at once."""
_KEPT_MARGIN_MS = 30_000
"""Uncommitted audio that is kept beyond the longest turn."""
_TRANSCRIBE_S = 20.0
_UNSCORED_MS = 30_000
"""A client that sends a file is read as fast as it is heard."""
_POLL_S = 0.02
_TURN = 4
"""Going round the event loop costs as much as an event or two, so it is not done each time the budget is looked at."""


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


class AudioLine(Protocol):
    """Audio that goes beside the events, as WebRTC carries it."""

    def begin(self, hear: Callable[[Pcm16, int], None], take: Callable[[int], Pcm16]) -> None:
        """From now on give what the caller says to `hear(pcm, rate_hz)`, and play what `take(samples)` returns."""
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


class ObservedCall:
    """A call as the codec may see it."""

    def __init__(self, call: Call, calls: Calls, policy: Policy, owner: Agent) -> None:
        """`policy`, `owner`: as the settings have them."""
        self.owner_policy = policy
        self.owner_voice = owner.voice
        self._call = call
        self._calls = calls

    @property
    def heard_ms(self) -> int:
        return self._call.heard_ms

    @property
    def auto_turns(self) -> bool:
        return self._call.view.policy.auto_turns

    @property
    def history(self) -> HistoryView:
        return self._call.view.history

    @property
    def live_reply(self) -> tuple[str, str] | None:
        live = self._call.view.reply
        return (live.id, live.item) if live is not None and live.committed else None

    @property
    def voices(self) -> Collection[str]:
        return self._calls.models.info(Kind.TTS).voices

    def is_taken(self, core_id: str) -> bool:
        return self._call.view.is_taken(core_id)

    def runs(self, name: str) -> bool:
        return self._call.runs(name)

    def heard_audio(self, start_ms: int, end_ms: int) -> Pcm16:
        return self._call.heard_audio(start_ms, end_ms)


def agent_with(params: AgentParams, owner: Agent, voices: Collection[str]) -> Agent:
    """`owner`: by the settings. `voices`: those that text to speech has."""
    return replace(
        owner,
        prompt=params.prompt,
        voice=known_voice(params.voice, owner.voice, voices),
        language=owner.language if params.language is None else params.language,
        temperature=owner.temperature if params.temperature is None else params.temperature,
        max_tokens=params.max_tokens,
        speed=params.speed,
        tools=params.tools,
        tool_choice=params.tool_choice,
    )


class RealtimeConnection:
    """One session. The door of its call.

    Not paced: clients of this protocol buffer, and so does the track of WebRTC. How far speech runs ahead of the ear is
    bounded by the policy.
    """

    def __init__(
        self, transport: Transport, calls: Calls, opening: Opening, line: AudioLine | None = None
    ) -> None:
        """`line`: carries the audio of both sides; None: it is in the events."""
        self.audio = TransportAudio(rate_hz=formats.VOICE_RATE_HZ, paced=False)
        self._transport = transport
        self._line = line
        self._gone: tuple[type[Exception], ...] = (TimeoutError, *transport.gone)
        self._calls = calls
        self._opening = opening
        self._owner = agent_of(calls.settings)
        self._outbox = Outbox(calls.settings.server.max_outbox_bytes, self._on_stuck)
        self._budget = WorkBudget(ALLOWANCE)
        self._settled = 0
        self._codec = self._new_codec()
        self._playout: TrackPlayout | None = None
        self._call: Call | None = None
        self._failed = False
        self._ended = ""
        """Why the call ended."""
        self._close_code, self._close_reason = NORMAL, ""

    def _new_codec(self) -> RealtimeCodec:
        limits, opening = self._calls.settings.realtime, self._opening
        ids = Ids(secrets.token_hex(8))
        session = SessionConfig(
            ids.session,
            model=opening.model,
            instructions=self._owner.prompt,
            voice=self._owner.voice or "alloy",
            kind=opening.kind,
            expires_at=int(time.time() + opening.max_s),
        )
        return RealtimeCodec(
            session,
            ids,
            dialect=opening.dialect,
            limits=SessionLimits(
                max_append_bytes=limits.max_append_bytes,
                max_kept_audio_bytes=limits.max_kept_audio_bytes,
                max_session_bytes=limits.max_session_bytes,
                kept_ms=self._calls.settings.conversation.max_turn_ms + _KEPT_MARGIN_MS,
                strict_truncate=limits.strict_truncate,
            ),
            tracks=self._line is not None,
        )

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
        session = self._codec.session
        bases: list[Policy] = []

        def adapt(policy: Policy) -> Policy:
            ahead_ms, reports = self._calls.settings.realtime.speak_ahead_ms, self._line is not None
            policy = replace(policy, speak_ahead_ms=ahead_ms, client_reports_played=reports)
            bases.append(policy)
            return policy_of(session, policy)

        self._calls.check_room()
        voices = self._calls.models.info(Kind.TTS).voices
        agent = agent_with(agent_params(session), self._owner, voices)
        async with self._calls.open(self, adapt, agent) as call:
            self._call = call
            self._view = ObservedCall(call, self._calls, bases[0], self._owner)
            self._out_of_band = OutOfBand(
                call.call_id, self._calls.models, self._flush, bases[0].max_reply_chars
            )
            try:
                if self._line is not None:
                    self._playout = TrackPlayout(self._on_playout, self._on_played)
                    self._line.begin(self._hear, self._playout.take)
                pinned = [(dict(p.session), p.dialect) for p in self._opening.pinned]
                await self._carry_out(self._codec.begin(pinned, self._view))
                await self._converse(call)
            finally:
                await self._out_of_band.close()
                self._outbox.close()
                # They refer to each other, and are freed without a garbage collection this way.
                del self._view, self._out_of_band
                self._call = self._playout = None

    async def _converse(self, call: Call) -> None:
        """Everything that lives as long as the session, in one task group."""
        expiry = asyncio.get_running_loop().call_later(self._opening.max_s, self._expire)
        try:
            async with asyncio.TaskGroup() as group:
                reader = group.create_task(self._read(call))
                writer = group.create_task(self._write(call))
                await call.run(greet=False, max_s=self._opening.max_s + 60)
                reader.cancel()
                await self._out_of_band.close()
                self._note_end()
                self._outbox.close()
                await asyncio.wait([writer], timeout=_LAST_WORDS_S)
                writer.cancel()
        finally:
            expiry.cancel()

    async def _read(self, call: Call) -> None:
        while (frame := await self._transport.receive()) is not None:
            try:
                self._budget.message(len(frame))
                steps = self._codec.receive(frame, self._view)
                await self._carry_out(steps, self._budget.weight)
                if self._budget.due:
                    await self._pay()
            except OverBudget as error:
                self._end(POLICY, str(error))
                break
            except Exception:  # a bug of ours ends this session and no other
                log.exception("call %s: an event of the client", call.call_id)
                self._failed = True
                self._end(INTERNAL, "internal error")
            if self._codec.faults >= _MAX_ERRORS:
                self._end(POLICY, "too many senseless events")
        call.post(ev.HungUp())

    async def _pay(self) -> None:
        """Wait for what was asked for too much. Without a debt others have their turn only now and then."""
        delay_s = self._budget.settle()
        self._settled += 1
        if delay_s or self._settled % _TURN == 0:
            self._budget.waited_s += delay_s
            await self._budget.sleep(delay_s)

    async def _write(self, call: Call) -> None:
        try:
            await self._outbox.drain(self._transport)
        except self._gone as gone:
            log.info("call %s: the client is gone: %s", call.call_id, gone or type(gone).__name__)
            self._outbox.abort()
            call.post(ev.HungUp("the client is gone"))

    # -- what the codec asks for ------------------------------------------------------------------

    async def _carry_out(self, steps: do.Steps, weight: int = 1) -> None:
        """Each effect before the next. `weight`: how often the time that it takes counts; 0: it is not measured."""
        answer: Any = None
        cpu = self._budget.cpu if weight else _no_time
        begun_s = cpu()
        with contextlib.closing(steps):
            while (effect := next_of(steps, answer)) is not None:
                if not isinstance(effect, _SLOW):
                    answer = self._do(effect)
                elif not isinstance(effect, do.AwaitRoom) or self._must_wait:
                    self._budget.worked((cpu() - begun_s) * weight)
                    answer = await self._do_slowly(effect)
                    begun_s = cpu()
        self._budget.worked((cpu() - begun_s) * weight)

    @property
    def _must_wait(self) -> bool:
        """Before more of the client's audio."""
        assert self._call is not None
        return self._budget.due or self._call.unscored_ms > _UNSCORED_MS

    def _do(self, effect: do.Effect) -> Any:
        """-> its answer."""
        assert self._call is not None
        match effect:
            case do.Hear(pcm, rate_hz):
                self._budget.heard(len(pcm) / rate_hz)
                self._call.feed_audio(pcm, rate_hz)
            case Send(data, response):
                self._outbox.put(data, response)
            case do.Post(event):
                if isinstance(event, ev.RequestReply):
                    self._budget.request()
                self._call.post(event)
            case do.FlushAudio():
                self._call.flush_audio()
            case do.UseAgent(params):
                self._call.agent = agent_with(params, self._owner, self._view.voices)
            case do.Denoise(level):
                self._denoise(self._call, level)
            case do.RespondOutOfBand():
                return self._respond_out_of_band(self._call, effect)
            case do.CancelOutOfBand(response_id):
                return self._out_of_band.cancel(response_id)
            case do.ClearPlayback():
                if self._playout is not None:
                    self._playout.clear()
        return None

    async def _do_slowly(self, effect: do.Effect) -> Any:
        """-> its answer."""
        assert self._call is not None
        match effect:
            case do.AwaitRoom():
                # Rare, so it polls: the ear tells nobody that it has caught up.
                while self._call.unscored_ms > _UNSCORED_MS and not self._call.ended:  # noqa: ASYNC110
                    await asyncio.sleep(_POLL_S)
                if self._budget.due:
                    await self._pay()
            case do.Breathe():
                await asyncio.sleep(0)
            case do.TranscribeSpeech(data, kind):
                return await self._transcribe(self._call, data, kind)
            case do.ToBase64(data, kind, wanted):
                return await asyncio.to_thread(ItemAudio(kind, bytearray(data)).as_sent, wanted)
        return None

    def _denoise(self, call: Call, level: int | None) -> None:
        try:
            call.denoise(level)
        except ConfigError as error:  # heard as it is: clients that ask for it can do without
            log.info("call %s: %s", call.call_id, error)

    def _respond_out_of_band(self, call: Call, asked: do.RespondOutOfBand) -> RealtimeError | None:
        self._budget.request()
        agent, options = call.agent, asked.options
        request = LlmRequest(
            messages=messages(options.get("instructions", agent.prompt), asked.history),
            max_tokens=options.get("max_tokens", agent.max_tokens),
            temperature=options.get("temperature", agent.temperature),
            tools=options.get("tools", agent.tools),
            tool_choice=options.get("tool_choice", agent.tool_choice),
        )
        agent = replace(agent, voice=options.get("voice", agent.voice))
        try:
            self._out_of_band.start(asked.response, request, agent)
        except RealtimeError as error:
            return error
        return None

    async def _transcribe(self, call: Call, data: bytes, kind: str) -> str | None:
        """None: it could not be done."""
        self._budget.request()
        self._budget.heard(formats.duration_ms(kind, len(data)) / 1000)
        pcm = await asyncio.to_thread(formats.decode, kind, data, STT_RATE_HZ)
        work = Work(call.call_id, int(asyncio.get_running_loop().time() * 1000))
        try:
            async with asyncio.timeout(_TRANSCRIBE_S):
                heard = await self._calls.models.transcribe(
                    pcm, language=call.agent.language or None, partial=False, work=work
                )
        except (AntiphonError, TimeoutError):
            return None
        return heard.text.strip()

    # -- the door of the call ---------------------------------------------------------------------

    def notice(self, action: act.Action) -> None:
        if isinstance(action, act.Fault) and action.code == "internal_error":
            self._failed = True
        for effect in self._codec.notice(action, self._view):
            self._do(effect)
        if self._playout is None:
            return
        match action:
            case act.Play(reply, from_ms):
                self._playout.begin(reply, from_ms)
            case act.ReplyEnded(reply, status="cancelled"):
                self._playout.clear()
            case act.ReplyGenerated(reply) | act.ReplyEnded(reply):
                self._playout.finish(reply)

    def send_audio(self, reply: str, pcm: Pcm16) -> None:
        self._send(self._codec.voice(pcm))
        if self._playout is not None:
            self._playout.add(reply, self._codec.audible, pcm)

    def drop_audio(self, reply: str) -> None:
        self._outbox.purge(self._codec.audible)
        if self._playout is not None:
            self._playout.clear()

    def hang_up(self, reason: str) -> None:
        """The outbox is closed later, once all responses have had their end."""
        self._ended = reason

    def _send(self, frames: list[Send]) -> None:
        for frame in frames:
            self._outbox.put(frame.data, frame.response)

    def _flush(self) -> None:
        self._send(self._codec.waiting())

    # -- the line -----------------------------------------------------------------------------------

    def _hear(self, pcm: Pcm16, rate_hz: int) -> None:
        if self._call is not None and not self._call.ended:
            self._codec.hear(pcm, rate_hz, self._view)
            self._call.feed_audio(pcm, rate_hz)

    def _on_playout(self, kind: str, response_id: str) -> None:
        self._send(self._codec.playback(kind, response_id))

    def _on_played(self, reply: str, played_ms: int) -> None:
        if self._call is not None:
            self._call.post(ev.Played(reply, played_ms))

    # -- the end ----------------------------------------------------------------------------------

    def _end(self, code: int, reason: str) -> None:
        self._close_code, self._close_reason = code, reason
        if self._call is not None:
            self._call.post(ev.Finish(reason))

    def _expire(self) -> None:
        minutes = self._opening.max_s / 60
        reason = f"Your session hit the maximum duration of {minutes:g} minutes."
        self._send(self._codec.error(RealtimeError(reason, "session_expired")))
        self._end(NORMAL, reason)

    def _on_stuck(self) -> None:
        self._end(BUSY, "the client stopped reading")

    def _note_end(self) -> None:
        if self._failed:
            self._close_code, self._close_reason = INTERNAL, "internal error"
        elif self._ended == _SHUTDOWN:
            self._close_code, self._close_reason = GOING_AWAY, _SHUTDOWN

    async def _refuse(self, error: AntiphonError) -> None:
        """One `error` event, then the end: the SDK takes an initial error for a refused admission."""
        self._close_code, self._close_reason = BUSY, str(error)
        refused = RealtimeError(str(error), "rate_limit_exceeded", kind="server_error")
        with contextlib.suppress(*self._gone):
            async with asyncio.timeout(_CLOSE_S):
                for frame in self._codec.refusal(refused):
                    await self._transport.send_bytes(frame.data)


_SLOW = (do.AwaitRoom, do.Breathe, do.TranscribeSpeech, do.ToBase64)


def _no_time() -> float:
    return 0.0


def next_of(steps: do.Steps, answer: Any) -> do.Effect | None:
    """The next effect; None: there is none."""
    try:
        effect: do.Effect = steps.send(answer)
    except StopIteration:
        return None
    return effect


def short(reason: str) -> str:
    return reason.encode()[:_MAX_REASON_BYTES].decode(errors="ignore")
