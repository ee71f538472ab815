"""Many callers at once, each in a conversation of its own: ask, wait, hear the answer to its end, rest, ask again.

One timer per caller and no task, so that the driver costs far less than the server. Every turn is measured from what
the caller hears: voice to voice from the last audible sample of the question to the first audible sample of the answer.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from antiphon.audio import g711
from antiphon.client.bench.load_stream import MediaStream, connect
from antiphon.client.loudspeaker import AUDIBLE
from antiphon.client.phone.carrier_playback import Playback
from antiphon.client.phone.carrier_webhooks import PhoneNumbers
from antiphon.client.phone.clips import (
    FRAME_BYTES,
    FRAME_MS,
    FRAME_S,
    RATE_HZ,
    SILENCE,
    Clip,
    ClipFrame,
)

_SILENT = ClipFrame.of(SILENCE)
_BURST_S = 0.003
"""Messages that come closer together than this are one delivery."""
_LATE_EVERY_STEPS = 25


@dataclass(frozen=True, slots=True)
class CallerBehaviour:
    """How the callers behave."""

    clips: Sequence[Clip]
    quiet_ms: int = 600
    """The agent has finished when it was silent for this long."""
    answer_limit_s: float = 8.0
    """Then the turn counts as unanswered, and the caller asks again."""
    rest_s: tuple[float, float] = (0.2, 1.4)
    """Between an answer's end and the next question, at random."""
    first_s: float = 1.0
    """The first question comes within this time, at random."""
    turns: int | None = None
    """The caller hangs up after so many; None: never."""


@dataclass(frozen=True, slots=True)
class LoadTurn:
    ended_s: float
    """Loop time at which the turn was over."""
    voice_to_voice_ms: float | None
    """None where there was no answer, or it began before the caller had finished."""
    answered: bool
    talked_over: bool
    """Something of the agent was heard while the caller spoke: the turn was taken for over too early."""
    gaps: int
    """How often the answer ran dry for 40 ms or more."""
    jitter_ms: tuple[float, ...] = ()
    """Of each delivery of the answer, how far it was from the time that its audio lasts."""


@dataclass(slots=True)
class Tally:
    """What all callers of a fleet report."""

    turns: list[LoadTurn] = field(default_factory=list)
    late_ms: list[float] = field(default_factory=list)
    """How late frames left, a sample of them: where this is large, the driver was too busy to measure."""
    lost: list[str] = field(default_factory=list)
    """Why calls broke off."""


class LoadCaller:
    """One caller. `begin` when the stream is open; `hang_up` at the end."""

    def __init__(
        self,
        stream: MediaStream,
        behaviour: CallerBehaviour,
        tally: Tally,
        seed: int,
        on_done: Callable[[], None],
    ) -> None:
        self.stream = stream
        self.over = False
        self._manner = behaviour
        self.tally = tally
        self._random = random.Random(seed)
        self._on_done = on_done
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._begun_s = 0.0
        self._step = 0
        self._turns = 0
        self._clip: Clip | None = None
        self._clip_step = 0
        """At which the question began, or the next one will."""
        self._said: tuple[int, int] | None = None
        """First and last audible sample of the question that waits for its answer, from the call's start."""
        self._forgotten = 0
        """Steps of the call that the playback no longer has."""
        self._deliveries: list[tuple[float, int]] = []
        """When audio came, and how many bytes, since the question."""
        self._playback = Playback(0.0)
        stream.on_media = self._on_media
        stream.on_mark = self._on_mark
        stream.on_clear = self._on_clear

    def begin(self) -> None:
        """Say who calls, and go on until told to stop."""
        self.stream.start()
        self._begun_s = self._loop.time()
        self._playback = Playback(self._begun_s)
        self._clip_step = int(self._random.uniform(0, self._manner.first_s) / FRAME_S)
        self._arm()

    def hang_up(self) -> None:
        """Idempotent. A turn that is open is not counted: nobody knows whether it would have been answered."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self.over:
            self.over = True
            self.stream.close()
            self._on_done()

    # -- every 20 ms ----------------------------------------------------------------------------

    def _arm(self) -> None:
        self._timer = self._loop.call_at(self._begun_s + (self._step + 1) * FRAME_S, self._tick)

    def _tick(self) -> None:
        if self.stream.closed:
            self.tally.lost.append(self.stream.closed)
            self.hang_up()
            return
        now_s = self._loop.time()
        if self._step % _LATE_EVERY_STEPS == 0:
            self.tally.late_ms.append(1000 * (now_s - self._begun_s - (self._step + 1) * FRAME_S))
        self.stream.send_frame(self._next_frame())
        self._advance(now_s)
        self._step += 1
        if self._said is not None and self._is_over(self._said[1]):
            self._finish_turn(now_s)
        if not self.over:
            self._arm()

    def _next_frame(self) -> ClipFrame:
        if self._clip is None and self._said is None and self._step >= self._clip_step:
            self._clip, self._clip_step = self._random.choice(self._manner.clips), self._step
            self._forgotten += self._playback.forget()
            self._deliveries.clear()
        if self._clip is None:
            return _SILENT
        clip, at = self._clip, self._step - self._clip_step
        if at + 1 == len(clip.frames):
            begun = self._clip_step * FRAME_BYTES
            self._said = (begun + clip.speech_start, begun + clip.speech_end)
            self._clip = None
        return clip.frames[at]

    def _is_over(self, end_sample: int) -> bool:
        """The answer has been heard to its end, or will not come."""
        playback, behaviour = self._playback, self._manner
        end_step = end_sample // FRAME_BYTES
        if playback.audible.find(1, max(end_step - self._forgotten, 0)) < 0:
            return (self._step - end_step) * FRAME_S > behaviour.answer_limit_s
        quiet = bytes(max(behaviour.quiet_ms // FRAME_MS, 1))
        return not playback.buffered_ms and playback.audible.endswith(quiet)

    def _finish_turn(self, now_s: float) -> None:
        assert self._said is not None
        begun = self._forgotten * FRAME_BYTES
        said = (self._said[0] - begun, self._said[1] - begun)
        self.tally.turns.append(turn_of(self._playback, said, now_s, self._deliveries))
        self._said = None
        self._turns += 1
        self._clip_step = self._step + int(self._random.uniform(*self._manner.rest_s) / FRAME_S)
        if self._turns == self._manner.turns:
            self.hang_up()

    # -- what comes -----------------------------------------------------------------------------

    def _advance(self, now_s: float) -> None:
        for name in self._playback.advance(now_s):
            self.stream.echo(name)

    def _on_media(self, codes: bytes) -> None:
        now_s = self._loop.time()
        self._advance(now_s)
        self._playback.add(codes)
        self._deliveries.append((now_s, len(codes)))

    def _on_mark(self, name: str) -> None:
        for due in self._playback.mark(name):
            self.stream.echo(due)

    def _on_clear(self) -> None:
        for due in self._playback.clear():
            self.stream.echo(due)


def turn_of(
    playback: Playback,
    said: tuple[int, int],
    now_s: float,
    deliveries: Sequence[tuple[float, int]] = (),
) -> LoadTurn:
    """One turn, from what was heard. `said`: first and last audible sample of the question, in the playback."""
    heard = g711.decode_ulaw(bytes(playback.heard))
    start, end = max(said[0], 0), max(said[1], 0)
    loud = np.flatnonzero(np.abs(heard[start:].astype(np.int32)) > AUDIBLE) + start
    early = loud[loud < end]
    later = loud[loud >= end]
    # What goes on beyond the question's end began before the caller had finished.
    running = len(early) > 0 and len(later) > 0 and later[0] - early[-1] < RATE_HZ // 10
    voice_to_voice_ms = None
    if len(later) and not running:
        voice_to_voice_ms = round(1000 * float(later[0] - end) / RATE_HZ, 1)
    gaps = 0
    if len(later):
        fed = playback.fed[int(later[0]) // FRAME_BYTES : int(later[-1]) // FRAME_BYTES + 1]
        gaps = sum(len(dry) >= 2 for dry in bytes(fed).split(b"\1"))
    jitter = tuple(jitter_ms(deliveries))
    return LoadTurn(now_s, voice_to_voice_ms, len(later) > 0, len(early) > 0, gaps, jitter)


def jitter_ms(deliveries: Sequence[tuple[float, int]]) -> list[float]:
    """How far the time between two deliveries is from what the second one's audio lasts, from the third one on: the
    first ones are the lead.
    """
    bursts: list[tuple[float, int]] = []
    last_s = -1.0
    for at_s, size in deliveries:
        if bursts and at_s - last_s < _BURST_S:
            bursts[-1] = (bursts[-1][0], bursts[-1][1] + size)
        else:
            bursts.append((at_s, size))
        last_s = at_s
    steady = bursts[1:-1]  # the last one is what is left
    waits = [later[0] - before[0] for before, later in pairwise(steady)]
    sizes = [size for _, size in steady[1:]]
    return [
        round(abs(1000 * wait - 1000 * size / RATE_HZ), 2)
        for wait, size in zip(waits, sizes, strict=True)
    ]


class Fleet:
    """Callers that come and go. `resize`, listen, `close`."""

    def __init__(self, url: str, behaviour: CallerBehaviour, seed: int = 1) -> None:
        self.tally = Tally()
        self._url = url
        self._manner = behaviour
        self._seed = seed
        self._callers: list[LoadCaller] = []
        self._changed = asyncio.Event()

    @property
    def calls(self) -> int:
        """That are on."""
        return len(self._callers)

    async def resize(self, calls: int, spread_s: float = 1.0) -> None:
        """Dial or hang up until so many are on; new ones come evenly within `spread_s`. Raises ProtocolError."""
        for caller in self._callers[calls:]:
            caller.hang_up()
        missing = calls - len(self._callers)
        for _ in range(missing):
            await self.dial()
            await asyncio.sleep(spread_s / missing)

    async def dial(self) -> LoadCaller:
        """One more caller. Raises ProtocolError when there is no call to be had."""
        stream = await connect(self._url, PhoneNumbers())
        self._seed += 1
        caller: LoadCaller | None = None

        def done() -> None:
            if caller in self._callers:
                self._callers.remove(caller)
            self._changed.set()

        caller = LoadCaller(stream, self._manner, self.tally, self._seed, done)
        self._callers.append(caller)
        caller.begin()
        return caller

    async def until(self, calls: int, limit_s: float) -> bool:
        """Wait until no more than so many are on -> False after `limit_s`."""
        try:
            async with asyncio.timeout(limit_s):
                while len(self._callers) > calls:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return False
        return True

    def tell(self, tally: Tally) -> None:
        """From now on, callers report there. What an open turn comes to is told there as well."""
        self.tally = tally
        for caller in self._callers:
            caller.tally = tally

    def close(self) -> None:
        """Everybody hangs up."""
        for caller in list(self._callers):
            caller.hang_up()
