"""The session's side of `/ws/conversation`: what the agent says on its way out, what the caller says on its way in.

Translates between the session and the codec (`wire/conversation.py`); knows neither the socket nor when a call ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable

import numpy as np

from antiphon.audio.framing import ByteJoiner, pcm_to_bytes
from antiphon.audio.streaming import StreamDecoder
from antiphon.core import actions as act
from antiphon.errors import AudioError
from antiphon.models.ports import STT_RATE_HZ, Pcm16
from antiphon.server.budget import OverBudget, WorkBudget
from antiphon.server.outbox import Outbox
from antiphon.session.door import DoorAudio
from antiphon.session.session import Session
from antiphon.wire import conversation as wire

_SLICE_MS = 200
"""Of audio that is worked on at a time: at most a millisecond or two, whatever its rate."""
_MAX_DECODED_S = 60.0


class ConversationDoor:
    """Translates for one client. Never blocks: everything goes to the outbox."""

    def __init__(self, outbox: Outbox) -> None:
        self.audio = DoorAudio(rate_hz=wire.OUTPUT_RATE_HZ)
        self._outbox = outbox
        self._encoder = wire.Encoder()

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
    """The client's binary frames -> PCM for the session: raw samples directly, containers through a decoder thread.

    All of it at the pace of the client's budget, and in pieces of `_SLICE_MS` between which others have their turn.
    """

    def __init__(
        self, session: Session, budget: WorkBudget, on_error: Callable[[str], None]
    ) -> None:
        """`on_error`: told, on the event loop, of audio that a decoder could not read."""
        self._session = session
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

    def use(self, start: wire.Start) -> None:
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
        self._session.feed_audio(pcm, rate_hz)

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
