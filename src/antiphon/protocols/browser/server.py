"""The route `/ws/conversation`: a call, and the websockets that carry it one after the other.

The handler of the first websocket owns the call to its end; one that resumes it lends its socket and waits. Messages
are understood by `protocols/browser/codec.py`, audio and actions translated by `server.py`; this module moves
frames, and frees what a connection holds however it ends.

Translates between the call and the codec (`protocols/browser/codec.py`); knows neither the socket nor when a call ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from fastapi import APIRouter, WebSocket
from msgspec import structs

from antiphon.audio.framing import ByteJoiner, pcm_to_bytes
from antiphon.audio.streaming_decoder import StreamDecoder
from antiphon.call.call import Call
from antiphon.call.model_tasks import Agent
from antiphon.call.transport import TransportAudio
from antiphon.core import actions as act
from antiphon.core import events as ev
from antiphon.core.actions import FloorChanged
from antiphon.core.floor import Floor
from antiphon.errors import AudioError, BusyError, ModelError, ProtocolError
from antiphon.models.ports import STT_RATE_HZ, Pcm16
from antiphon.protocols.browser import codec
from antiphon.protocols.browser.call_analysis import CallAnalysis
from antiphon.protocols.browser.client_options import ClientOptions, policy_for
from antiphon.protocols.browser.reconnect import (
    CLOSE_BUSY,
    CLOSE_NORMAL,
    CLOSE_POLICY,
    CLOSE_TAKEN_OVER,
    GONE,
    ClientSocket,
    ResumableCalls,
)
from antiphon.server.admission import Calls, agent_of
from antiphon.server.budget import OverBudget, WorkBudget
from antiphon.server.http_errors import RequestRefused
from antiphon.server.outbox import Outbox
from antiphon.server.security import (
    Principal,
    authorize,
    call_limit_s,
    chosen_subprotocol,
    session_of,
)

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
    link = ClientSocket(socket)
    try:
        await BrowserCall(link, calls, socket.app.state.seats, principal).serve()
    finally:
        await link.close()


class BrowserCall:
    """One call, from the websocket that began it to the last one that carried it."""

    def __init__(
        self, link: ClientSocket, calls: Calls, seats: ResumableCalls, principal: Principal
    ) -> None:
        self._link = link
        """The socket that the client is on now, or was last."""
        self._calls = calls
        self._seats = seats
        self._principal = principal
        limit_bytes = calls.settings.server.max_outbox_bytes
        self._outbox = Outbox(limit_bytes, self._on_stuck, _REMEMBERED_FRAMES)
        self._door = BrowserTransport(self._outbox)
        self._budget = WorkBudget()
        self._session: Call | None = None
        self._audio: CallerAudio | None = None
        self._started = False
        """`start` has come."""
        self._parked = False
        """Nobody is on the line."""
        self._wishes = ClientOptions(calls.settings.agent)
        outbox = self._outbox
        self._farewell = CallAnalysis(
            calls.models,
            calls.settings.agent.analysis_s,
            lambda found: outbox.put(codec.analysis(found.data())),
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
        except (BusyError, ModelError, RequestRefused) as error:
            await link.close(CLOSE_BUSY, str(error), codec.error(str(error)))

    async def _call(self, start: codec.StartCall, first: str | bytes | None, problem: str) -> None:
        self._door.use(codec.agreed(start))
        agent, unknown = self._agent(start, agent_of(self._calls.settings))
        async with self._calls.open(
            self._door, lambda policy: policy_for(start, policy), agent
        ) as call:
            self._session = call
            self._audio = CallerAudio(call, self._budget, self._complain)
            self._audio.use(start)
            with self._seats.seat(call.call_id) as self._seat:
                self._welcome(start, call)
                for complaint in filter(None, (problem, unknown)):
                    self._complain(complaint)
                try:
                    await self._converse(call, start, first)
                finally:
                    await self._farewell.close()
                    await self._audio.close()
                    self._outbox.close()

    def _agent(self, start: codec.StartCall, agent: Agent) -> tuple[Agent, str]:
        """-> who answers, and what is wrong with the wish: instead of an agent that there is not, the owner's does."""
        try:
            return self._wishes.agent(start, agent), ""
        except ProtocolError as error:
            return self._wishes.agent(structs.replace(start, agent=""), agent), str(error)

    def _start_from_url(self) -> tuple[codec.StartCall, str]:
        """-> what the URL says, and what is wrong with it."""
        try:
            return codec.start_from_query(self._link.socket.query_params), ""
        except ProtocolError as error:
            return codec.StartCall(), str(error)

    async def _first_message(self, patience_s: float) -> str | bytes | None:
        try:
            async with asyncio.timeout(patience_s):
                return await self._link.receive()
        except TimeoutError:
            return None

    def _welcome(self, start: codec.StartCall, call: Call) -> None:
        if start.extensions:
            self._outbox.put(self._started_frame(start, call, self._outbox.next_number()))
        else:
            self._outbox.put(codec.connected(call.call_id))

    def _started_frame(
        self, start: codec.StartCall, call: Call, number: int, *, resumed: bool = False
    ) -> str:
        extensions, resume_s = codec.agreed(start), self._calls.settings.server.resume_s
        fields = {}
        if "resume" in extensions and resume_s:
            fields = codec.resumption(self._seat.token, resume_s, number, resumed=resumed)
        return codec.started(call.call_id, extensions, **fields)

    async def _converse(
        self, call: Call, start: codec.StartCall, first: str | bytes | None
    ) -> None:
        """Everything that lives as long as the call, in one task group."""
        async with asyncio.TaskGroup() as group:
            clients = group.create_task(self._serve_clients(call, first))
            await call.run(greet=start.greeting, max_s=self._max_call_s)
            self._outbox.close()
            await asyncio.wait([clients], timeout=0 if self._parked else _LAST_WORDS_S)
            clients.cancel()

    # -- one socket after the other -------------------------------------------------------------

    async def _serve_clients(self, call: Call, first: str | bytes | None) -> None:
        try:
            while True:
                await self._carry(call, first)
                newcomer = None if call.ended else await self._next_client(call)
                if newcomer is None:
                    return
                self._seat_newcomer(newcomer, call)
                first = None
        finally:
            await self._link.close(self._close_code, self._close_reason)

    async def _carry(self, call: Call, first: str | bytes | None) -> None:
        """Until the socket is gone, somebody else asks for its place, or the last word has been sent."""
        link = self._link
        tasks = [
            asyncio.create_task(self._read(link, first)),
            asyncio.create_task(self._write(link, call)),
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

    async def _read(self, link: ClientSocket, first: str | bytes | None) -> None:
        message = first if first is not None else await link.receive()
        while message is not None:
            try:
                await self._take(message)
                if self._budget.due:
                    await self._budget.wait()
            except OverBudget as error:
                self._outbox.put(codec.error(str(error)))
                self._show_out(str(error))
                break
            message = await link.receive()
        if message is not None:
            await asyncio.Event().wait()  # nothing more is read; the end of the call cancels this

    async def _write(self, link: ClientSocket, call: Call) -> None:
        try:
            await self._outbox.drain(link.socket)
        except GONE as gone:
            reason = gone or type(gone).__name__
            log.info("call %s: the client is gone: %s", call.call_id, reason)

    async def _next_client(self, call: Call) -> ClientSocket | None:
        """Who carries on the call. None: nobody, and it has been ended."""
        lost, resume_s = self._link, self._calls.settings.server.resume_s
        newcomer = self._seat.take()
        if newcomer is not None:
            call.hold(0)
            await lost.close(
                CLOSE_TAKEN_OVER, _TAKEN_OVER, codec.frame("ended", reason=_TAKEN_OVER)
            )
            return newcomer
        await lost.close()
        if lost.left or not resume_s or "resume" not in codec.agreed(lost.start):
            call.post(ev.HungUp())
            return None
        call.hold(resume_s * 1000)
        with self._seats.parking() as room:
            if room:
                newcomer = await self._wait_for_return(call, resume_s)
        if newcomer is None:
            call.post(ev.HungUp("the client is gone"))
        return newcomer

    async def _wait_for_return(self, call: Call, resume_s: float) -> ClientSocket | None:
        log.info("call %s: the client is gone; it has %g s to return", call.call_id, resume_s)
        self._parked = True
        try:
            async with asyncio.timeout(resume_s):
                await self._seat.wait()
        except TimeoutError:
            return None
        finally:
            self._parked = False
        return self._seat.take()

    def _seat_newcomer(self, link: ClientSocket, call: Call) -> None:
        """The call goes on, on this socket."""
        log.info("call %s goes on with another connection", call.call_id)
        assert self._audio is not None
        start, self._link = link.start, link
        self._door.resume(codec.agreed(start))
        self._audio.use(start)
        self._outbox.requeue(
            start.frames,
            lambda number: self._started_frame(start, call, number, resumed=True),
            codec.outlives_its_connection,
        )
        self._door.notice(FloorChanged(call.view.floor))
        call.release()

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
                    self._obey(codec.decode(message))
        except OverBudget:
            raise
        except (AudioError, ProtocolError) as error:
            self._complain(str(error))

    def _obey(self, message: codec.Incoming) -> None:
        assert self._session is not None
        if not isinstance(message, codec.Ping | codec.PlayedReport):
            self._budget.request()
        match message:
            case codec.Ping():
                self._outbox.put(codec.frame("pong"))
            case codec.PlayedReport(reply=reply, ms=ms):
                self._session.post(ev.Played(reply, ms))
            case codec.TypedText(text=text):
                if not self._farewell.begun:
                    self._session.post(ev.UserText(text))
            case codec.EndCall():
                self._session.post(ev.HungUp())
            case codec.EndConversation():
                self._farewell.begin(self._session)
            case codec.SetLevel(level=level):
                self._session.agent = replace(self._session.agent, level=level)
            case codec.ChangeOptions():
                self._configure(message, self._session)
            case codec.Hold():
                if self._session.view.floor in _ANSWERING:
                    self._session.post(ev.RequestCancel())
            case codec.Commit():
                self._commit(self._session)
            case codec.StartCall():
                self._start_late(message, self._session)

    def _start_late(self, start: codec.StartCall, call: Call) -> None:
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
        self._door.use(codec.agreed(start))
        self._audio.use(start)
        call.agent, unknown = self._agent(start, call.agent)
        call.post(ev.Configure(policy_for(start, call.view.policy)))
        self._welcome(start, call)
        if unknown:
            self._complain(unknown)
        if not start.greeting:
            call.post(ev.RequestCancel())

    def _configure(self, wishes: codec.ChangeOptions, call: Call) -> None:
        call.agent = self._wishes.agent(wishes, call.agent)
        policy = call.view.policy
        auto_turns = policy.auto_turns if wishes.listen is None else wishes.listen == "open"
        if auto_turns != policy.auto_turns:
            if call.view.turn_open:  # nobody would end it now
                self._commit(call)
            call.post(ev.Configure(replace(policy, auto_turns=auto_turns)))

    def _commit(self, call: Call) -> None:
        call.flush_audio()
        call.post(ev.CommitInput(call.heard_ms, reply=True))

    def _complain(self, message: str) -> None:
        self._errors += 1
        self._outbox.put(codec.error(message))
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


def _as_start(text: str) -> codec.StartCall | None:
    """The message, if it is a `start` without fault; any other is read again, and complained about, in the call."""
    try:
        message = codec.decode(text)
    except ProtocolError:
        return None
    return message if isinstance(message, codec.StartCall) else None


_SLICE_MS = 200
"""Of audio that is worked on at a time: at most a millisecond or two, whatever its rate."""
_MAX_DECODED_S = 60.0


class BrowserTransport:
    """Translates for one client. Never blocks: everything goes to the outbox."""

    def __init__(self, outbox: Outbox) -> None:
        self.audio = TransportAudio(rate_hz=codec.OUTPUT_RATE_HZ)
        self._outbox = outbox
        self._encoder = codec.BrowserEncoder()

    def use(self, extensions: frozenset[str]) -> None:
        """What the client understands, from now on."""
        self._encoder.extensions = extensions

    def resume(self, extensions: frozenset[str]) -> None:
        """Another connection of the client takes over."""
        self._encoder.extensions = extensions
        self._encoder.resumed()

    def notice(self, action: act.Action) -> None:
        for frame in self._encoder.encode(action):
            self._outbox.put(frame)

    def send_audio(self, reply: str, pcm: Pcm16) -> None:
        begin = self._encoder.audio_start(reply)
        if begin is not None:
            self._outbox.put(begin)
        self._outbox.put(pcm_to_bytes(pcm), reply)

    def drop_audio(self, reply: str) -> None:
        frame = self._encoder.clear()
        if frame is not None:
            self._outbox.purge(reply)
            self._outbox.put(frame)

    def hang_up(self, reason: str) -> None:
        self._outbox.close()


def _ignore(problem: str) -> None:
    pass


class CallerAudio:
    """The client's binary frames -> PCM for the call: raw samples directly, containers through a decoder thread.

    All of it at the pace of the client's budget, and in pieces of `_SLICE_MS` between which others have their turn.
    """

    def __init__(self, call: Call, budget: WorkBudget, on_error: Callable[[str], None]) -> None:
        """`on_error`: told, on the event loop, of audio that a decoder could not read."""
        self._call = call
        self._budget = budget
        self._on_error = on_error
        self._rate_hz = STT_RATE_HZ
        self._sample_bytes = 2
        self._joiner: ByteJoiner | None = None
        self._decoder: StreamDecoder | None = None
        self._decoded: DecodedAudio | None = None
        self._loop = asyncio.get_running_loop()
        self.came = False
        """There was some audio already."""

    def use(self, start: codec.StartCall) -> None:
        """How the client's audio is encoded. Before the first of it."""
        self._rate_hz = start.rate
        self._joiner = None
        if start.format == "pcm_s16le":
            self._joiner, self._sample_bytes = ByteJoiner("s16le"), 2
        elif start.format == "pcm_f32le":
            self._joiner, self._sample_bytes = ByteJoiner("f32le"), 4

    async def feed(self, data: bytes) -> None:
        """Raises AudioError, to be told to the client, and OverBudget."""
        self.came = True
        if self._joiner is not None:
            await self._feed_raw(self._joiner, data)
            return
        with self._budget:
            if self._decoder is None:
                self._decoded = DecodedAudio(self._feed_pcm, self._budget, self._on_full)
                self._decoder = StreamDecoder(self._decoded.put, self._undecodable)
            self._decoder.feed(data)

    async def close(self) -> None:
        decoded, self._decoded = self._decoded, None
        if decoded is not None:
            await decoded.close()
        decoder, self._decoder = self._decoder, None
        self._on_error = _ignore
        if decoder is not None:
            # Waits for a thread that may be in the middle of a packet: not on the event loop.
            await asyncio.to_thread(decoder.close)

    async def _feed_raw(self, joiner: ByteJoiner, data: bytes) -> None:
        second_bytes = self._rate_hz * self._sample_bytes
        longest_s = self._budget.allowance.audio_s.burst
        if len(data) > longest_s * second_bytes:
            raise AudioError(
                f"one message holds {len(data) / second_bytes:.0f} s of audio, the limit is {longest_s:.0f} s; "
                "send it in smaller pieces"
            )
        step = second_bytes * _SLICE_MS // 1000
        for at in range(0, len(data), step):
            if self._budget.due:
                await self._budget.wait()
            with self._budget:
                self._feed_pcm(joiner.feed(data[at : at + step]), self._rate_hz)

    def _feed_pcm(self, pcm: Pcm16, rate_hz: int) -> None:
        self._budget.heard(len(pcm) / rate_hz)
        self._call.feed_audio(pcm, rate_hz)

    def _on_full(self) -> None:
        self._on_error("audio arrives faster than it can be heard; some of it was dropped")

    def _undecodable(self, error: AudioError) -> None:
        """From the decoder's thread."""
        _call_soon(self._loop, lambda: self._on_error(str(error)))


class DecodedAudio:
    """What a decoder's thread has made of a client's container, on its way to the event loop: bounded, at the pace of
    the client's budget. A few bytes of a container may be minutes of audio.

    `on_full()` is told on the event loop, once, when more than `_MAX_DECODED_S` wait; what comes then is dropped until
    half of it is heard.
    """

    def __init__(
        self, feed: Callable[[Pcm16, int], None], budget: WorkBudget, on_full: Callable[[], None]
    ) -> None:
        self._feed = feed
        self._budget = budget
        self._on_full = on_full
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._pieces: deque[Pcm16] = deque()
        self._samples = 0
        self._full = self._woken = self._closed = False
        self._task: asyncio.Task[None] | None = None

    @property
    def waiting_s(self) -> float:
        return self._samples / STT_RATE_HZ

    def put(self, pcm: Pcm16) -> None:
        """At `STT_RATE_HZ`. From the decoder's thread; never waits."""
        with self._lock:
            if self._full or self._closed:
                return
            self._pieces.append(pcm)
            self._samples += len(pcm)
            self._full = self.waiting_s > _MAX_DECODED_S
            wake, self._woken = not self._woken, True
        if self._full:
            _call_soon(self._loop, self._on_full)
        if wake:
            _call_soon(self._loop, self._wake)

    async def close(self) -> None:
        with self._lock:
            self._closed = True
            self._pieces.clear()
            self._samples = 0
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def _wake(self) -> None:
        if not self._closed and (self._task is None or self._task.done()):
            self._task = self._loop.create_task(self._pump(), name="decoded audio")

    async def _pump(self) -> None:
        """Until nothing waits."""
        with contextlib.suppress(
            OverBudget
        ):  # the connection's reader hears of it, and ends the call
            while (pcm := self._take()) is not None:
                with self._budget:
                    self._feed(pcm, STT_RATE_HZ)
                if self._budget.due:
                    await self._budget.wait()

    def _take(self) -> Pcm16 | None:
        """The next piece, of `_SLICE_MS` or a little more; None: there is nothing, and `put` will wake again."""
        slice_samples = STT_RATE_HZ * _SLICE_MS // 1000
        with self._lock:
            taken: list[Pcm16] = []
            count = 0
            while self._pieces and count < slice_samples:
                piece = self._pieces.popleft()
                if count + len(piece) > 2 * slice_samples:
                    self._pieces.appendleft(piece[slice_samples:])
                    piece = piece[:slice_samples]
                taken.append(piece)
                count += len(piece)
            self._samples -= count
            if self._full and self.waiting_s < _MAX_DECODED_S / 2:
                self._full = False
            if not taken:
                self._woken = False
                return None
        return np.concatenate(taken) if len(taken) > 1 else taken[0]


def _call_soon(loop: asyncio.AbstractEventLoop, step: Callable[[], None]) -> None:
    """From the decoder's thread. A loop that is closed has no use for it any more."""
    try:
        loop.call_soon_threadsafe(step)
    except RuntimeError:
        if not loop.is_closed():
            raise
