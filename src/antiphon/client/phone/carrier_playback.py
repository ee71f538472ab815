"""What the caller hears of the agent: Twilio's buffer, played in steps of 20 ms, with its marks and `clear`.

Everything that arrives is buffered and played in order. A mark is due when the audio before it has been played; `clear`
drops the buffer and makes all marks due at once; the 20 ms that already left for the telephone are still heard. Time is
an argument, in seconds of one clock.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np

from antiphon.audio import g711
from antiphon.client.loudspeaker import AUDIBLE
from antiphon.client.phone.clips import FRAME_BYTES, FRAME_S, RATE_HZ, SILENCE

MAX_BUFFER_BYTES = 600 * RATE_HZ
"""Twilio keeps ten minutes and drops what comes beyond (warning 31931)."""
_MAX_CLEARS = 10_000

_EVERY_CODE = bytes(range(256))
_QUIET = bytes(
    np.flatnonzero(np.abs(g711.decode_ulaw(_EVERY_CODE).astype(np.int32)) <= AUDIBLE)
    .astype(np.uint8)
    .tolist()
)


def is_audible(codes: bytes) -> bool:
    """Whether any of these mu-law samples is above -40 dBFS."""
    return bool(codes.translate(None, _QUIET))


@dataclass(slots=True)
class Playback:
    """Call `advance` with the time before anything else, and often enough for marks to be echoed on time."""

    start_s: float
    """When the first step begins."""
    heard: bytearray = field(default_factory=bytearray)
    """Mu-law, from the start on, silence included: what was heard."""
    audible: bytearray = field(default_factory=bytearray)
    """One byte a step: 1 where something could be heard."""
    fed: bytearray = field(default_factory=bytearray)
    """One byte a step: 1 where there was something to play, silent or not."""
    dropped_bytes: int = 0
    clears: list[int] = field(default_factory=list)
    """Where `clear` came, in samples heard; the first 10,000."""
    _buffer: bytearray = field(default_factory=bytearray)
    _put: int = 0
    """Bytes ever put into the buffer."""
    _taken: int = 0
    """Bytes ever taken out, played or dropped."""
    _marks: deque[tuple[int, str]] = field(default_factory=deque)

    @property
    def steps(self) -> int:
        """That have begun."""
        return len(self.fed)

    @property
    def buffered_ms(self) -> float:
        return 1000 * len(self._buffer) / RATE_HZ

    def next_step_s(self) -> float:
        """When the next step begins."""
        return self.start_s + self.steps * FRAME_S

    def advance(self, now_s: float) -> list[str]:
        """Play every step that has begun by now -> the marks that came due, in order."""
        due: list[str] = []
        while self.next_step_s() <= now_s:
            due += self._passed_marks()
            piece = bytes(self._buffer[:FRAME_BYTES])
            del self._buffer[:FRAME_BYTES]
            self._taken += len(piece)
            self.fed.append(bool(piece))
            self.audible.append(is_audible(piece))
            self.heard += piece.ljust(FRAME_BYTES, SILENCE[:1])
        return due

    def forget(self) -> int:
        """Drop what was heard, for calls without an end -> how many steps that were. What is buffered stays."""
        steps = self.steps
        self.start_s += steps * FRAME_S
        for track in (self.heard, self.audible, self.fed):
            track.clear()
        self.clears.clear()
        return steps

    def add(self, codes: bytes) -> bool:
        """Audio arrived -> whether all of it found room."""
        room = max(MAX_BUFFER_BYTES - len(self._buffer), 0)
        kept = codes[:room]
        self._buffer += kept
        self._put += len(kept)
        self.dropped_bytes += len(codes) - len(kept)
        return len(kept) == len(codes)

    def mark(self, name: str) -> list[str]:
        """A mark arrived -> the marks that are due now: this one if nothing is being played, else none."""
        self._marks.append((self._put, name))
        return [] if self.fed and self.fed[-1] else self._passed_marks()

    def clear(self) -> list[str]:
        """-> all marks that were waiting."""
        if len(self.clears) < _MAX_CLEARS:
            self.clears.append(len(self.heard))
        self._taken += len(self._buffer)
        self._buffer.clear()
        return self._passed_marks()

    def _passed_marks(self) -> list[str]:
        due: list[str] = []
        while self._marks and self._marks[0][0] <= self._taken:
            due.append(self._marks.popleft()[1])
        return due
