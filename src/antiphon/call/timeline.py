"""What both sides of a call sounded like, on the call's own clock: caller left, agent right as it was heard.

The caller's audio lies where it arrived. The agent's lies where the client played it: from the moment it was sent, or
as the client reported; what an interruption took back is cut at the word that history is cut at. Pure: milliseconds and
samples in, samples out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from antiphon.audio.levels import rms
from antiphon.audio.resample import Resampler
from antiphon.models.ports import Pcm16

HOLD_MS = 1_500
"""So much of the past may still change: reports of the client and interruptions come late."""
_GAP_MS = 200
"""Audio that comes this much later than expected follows a pause; less is jitter of the line."""
_AHEAD_MS = 500
"""After a stall audio comes faster than it is spoken: silence in it is left out until the clock is right again."""
_QUIET_RMS = 100.0
_MAX_AHEAD_MS = 120_000
"""Audio of more than two minutes in the future is dropped: no caller speaks that fast."""
_MAX_SHIFT_MS = 1_000
"""The first report moves a reply to where it was heard, not further than this."""


@dataclass(slots=True)
class _Piece:
    at: int
    """First sample on the call's clock."""
    pcm: Pcm16
    run: int = 0
    """Which uninterrupted stretch of the agent's voice it belongs to."""
    place: int = 0
    """Where it lies in that stretch, in samples."""

    @property
    def end(self) -> int:
        return self.at + len(self.pcm)


@dataclass(slots=True)
class _Run:
    """A stretch of one reply that was sent without a break: a reply that was paused and resumed has two."""

    number: int
    reply: str
    from_ms: int
    """Where in the reply it begins."""
    next_ms: float
    """Where in the reply the next piece is expected."""
    made: int = 0
    """Samples of it so far."""
    reported: bool = False
    cut: bool = False


class Timeline:
    """Both channels of one call at `rate_hz`. Call times never run backwards."""

    def __init__(self, rate_hz: int) -> None:
        self.rate_hz = rate_hz
        self.dropped = 0
        """Samples of the caller that could not be placed."""
        self._done = 0
        """Samples that `take` has given out."""
        self._caller: list[_Piece] = []
        self._agent: list[_Piece] = []
        self._caller_end = 0
        self._agent_end = 0
        self._run: _Run | None = None
        self._runs = 0
        self._in: Resampler | None = None
        self._out: Resampler | None = None

    # -- the caller ---------------------------------------------------------------------------------

    def heard(self, pcm: Pcm16, rate_hz: int, now_ms: int) -> None:
        """Audio of the caller that has just arrived whole."""
        if self._in is None or self._in.from_hz != rate_hz:
            self._in = Resampler(rate_hz, self.rate_hz)
        pcm = self._in.process(pcm)
        if not len(pcm):
            return
        now = self._samples(now_ms)
        began = now - len(pcm)
        ahead = self._caller_end + len(pcm) - now
        if ahead > self._samples(_MAX_AHEAD_MS):
            self.dropped += len(pcm)
            return
        if ahead > self._samples(_AHEAD_MS) and rms(pcm) < _QUIET_RMS:
            return
        if began - self._caller_end > self._samples(_GAP_MS):
            self._caller_end = began
        self._caller_end = max(self._caller_end, self._done)
        self._caller.append(_Piece(self._caller_end, pcm))
        self._caller_end += len(pcm)

    # -- the agent ----------------------------------------------------------------------------------

    def sent(self, reply: str, from_ms: float, pcm: Pcm16, rate_hz: int, now_ms: int) -> None:
        """A piece of a reply, beginning at `from_ms` in it, has left for the client."""
        run = self._run
        if run is None or run.reply != reply or run.cut or abs(from_ms - run.next_ms) > 1:
            self._runs += 1
            self._run = run = _Run(self._runs, reply, int(from_ms), from_ms)
            self._out = Resampler(rate_hz, self.rate_hz)
        run.next_ms = from_ms + 1000 * len(pcm) / rate_hz
        assert self._out is not None
        made = self._out.process(pcm)
        # After a gap in the supply the client's sound goes on when there is more.
        at = max(self._agent_end, self._samples(now_ms), self._done)
        self._agent.append(_Piece(at, made, run.number, run.made))
        run.made += len(made)
        self._agent_end = at + len(made)

    def reported(self, reply: str, played_ms: int, now_ms: int) -> None:
        """The client says how much of a reply it has played: the first word on it places the sound."""
        run = self._run
        if run is None or run.reply != reply or run.reported or played_ms <= run.from_ms:
            return
        run.reported = True
        place = self._samples(played_ms - run.from_ms)
        mine = [piece for piece in self._agent if piece.run == run.number]
        playing = next((p for p in mine if p.place <= place <= p.place + len(p.pcm)), None)
        if playing is None:
            return
        late = self._samples(now_ms) - (playing.at + place - playing.place)
        if not 0 < late <= self._samples(_MAX_SHIFT_MS):
            return
        for piece in mine:
            piece.at += late
            self._agent_end = max(self._agent_end, piece.end)

    def taken_back(self, reply: str, now_ms: int) -> None:
        """The client has been told to forget what it has not played."""
        run, now = self._run, self._samples(now_ms)
        if run is not None and run.reply == reply and not run.cut:
            self._cut(run, lambda piece: now - piece.at)

    def ended(self, reply: str, played_ms: int) -> None:
        """An interrupted reply is known to have been heard this far."""
        run = self._run
        if run is not None and run.reply == reply:
            heard = self._samples(max(played_ms - run.from_ms, 0))
            self._cut(run, lambda piece: heard - piece.place)

    def _cut(self, run: _Run, keep: Callable[[_Piece], int]) -> None:
        """`keep`: how many samples of a piece were heard."""
        run.cut = True
        for piece in self._agent:
            if piece.run == run.number:
                piece.pcm = piece.pcm[: max(keep(piece), 0)]
        self._agent = [piece for piece in self._agent if len(piece.pcm)]
        # The next reply does not wait for what nobody hears.
        self._agent_end = max((piece.end for piece in self._agent), default=0)

    # -- what is certain ----------------------------------------------------------------------------

    def ready(self, now_ms: int) -> int:
        """Samples that nothing will change any more and that were not taken yet."""
        return max(self._samples(now_ms - HOLD_MS) - self._done, 0)

    def take(self, count: int) -> Pcm16:
        """The next `count` samples of both sides, shape [count, 2]."""
        both = np.zeros((count, 2), np.int16)
        self._caller = self._pour(self._caller, both[:, 0])
        self._agent = self._pour(self._agent, both[:, 1])
        self._done += count
        return both

    def left(self, now_ms: int) -> int:
        """Samples to be taken when the call ends now: the agent's voice ends with it, the caller's is kept."""
        return max(self._samples(now_ms), self._caller_end) - self._done

    def _pour(self, pieces: list[_Piece], into: Pcm16) -> list[_Piece]:
        end, kept = self._done + len(into), []
        for piece in pieces:
            first, last = max(piece.at, self._done), min(piece.end, end)
            if first < last:
                into[first - self._done : last - self._done] = piece.pcm[
                    first - piece.at : last - piece.at
                ]
            if piece.end > end:
                kept.append(piece)
        return kept

    def _samples(self, ms: float) -> int:
        return int(ms * self.rate_hz / 1000)
