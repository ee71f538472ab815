"""Many callers at once, each in a conversation of its own: ask, wait, hear the answer to its end, rest, ask again.

One timer per caller and no task, so that the driver costs far less than the server. Every turn is measured from what the
caller hears: voice to voice from the last audible sample of the question to the first audible sample of the answer.
Knows no server's name and no process.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from antiphon.audio import g711
from antiphon.client.bench.stream import MediaStream, connect
from antiphon.client.phone.clips import FRAME_BYTES, FRAME_MS, FRAME_S, RATE_HZ, SILENCE, Clip, Frame
from antiphon.client.phone.playback import Playback
from antiphon.client.phone.webhook import Line
from antiphon.client.playout import AUDIBLE
from antiphon.errors import ProtocolError

_SILENT = Frame.of(SILENCE)
_BURST_S = 0.003
"""Messages that come closer together than this are one delivery."""
_KEPT_STEPS = 3_000
"""A minute of what was heard; a call may last longer."""


@dataclass(frozen=True, slots=True)
class Manner:
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
        self, stream: MediaStream, manner: Manner, tally: Tally, seed: int, on_done: Callable[[], None]
    ) -> None:
        self.stream = stream
        self.over = False
        self._manner = manner
        self._tally = tally
        self._random = random.Random(seed)  # noqa: S311 - behaviour, not secrets
        self._on_done = on_done
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._begun_s = 0.0
        self._step = 0
        self._asked = 0
        self._clip: Clip | None = None
        self._clip_step = 0
        """At which the clip began, or the next one will."""
        self._end_step = -1
        """The step that holds the end of the question that waits for its answer; -1: none does."""
        self._arrivals: list[tuple[float, int]] = []
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

    def _arm(self) -> None:
        due_s = self._begun_s + (self._step + 1) * FRAME_S
        self._timer = self._loop.call_at(due_s, self._tick)

    # -- every 20 ms ----------------------------------------------------------------------------

    def _tick(self) -> None:
        if self.stream.closed:
            self._tally.lost.append(self.stream.closed)
            self.hang_up()
            return
        now_s = self._loop.time()
        if self._step % 25 == 0:
            self._tally.late_ms.append(1000 * (now_s - self._begun_s - (self._step + 1) * FRAME_S))
        self.stream.send_frame(self._frame())
        self._advance(now_s)
        self._step += 1
        if self._end_step >= 0 and self._is_answered():
            self._finish_turn(now_s)
        if not self.over:
            self._arm()

    def _frame(self) -> Frame:
        if self._clip is None and self._end_step < 0 and self._step >= self._clip_step:
            self._clip = self._random.choice(self._manner.clips)
            self._clip_step = self._step
            self._arrivals.clear()
            self._forget()
        if self._clip is None:
            return _SILENT
        frames, at = self._clip.frames, self._step - self._clip_step
        if at + 1 == len(frames):
            clip, self._clip = self._clip, None
            self._end_step = self._clip_step + clip.speech_end // FRAME_BYTES
            self._asked_at = (self._clip_step * FRAME_BYTES + clip.speech_start,
                              self._clip_step * FRAME_BYTES + clip.speech_end)
        return frames[at]

    def _is_answered(self) -> bool:
        """The answer has been heard to its end, or will not come."""
        playback, manner = self._playback, self._manner
        since = self._end_step - self._dropped
        if playback.audible.find(1, max(since, 0)) < 0:
            return (self._step - self._end_step) * FRAME_S > manner.answer_limit_s
        quiet = manner.quiet_ms // FRAME_MS
        return not playback.buffered_ms and not any(playback.audible[-quiet:])
