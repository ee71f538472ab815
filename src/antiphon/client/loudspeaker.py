"""A loudspeaker without a sound card: places received audio on the time line as a caller would hear it.

An ideal player: sound begins when it arrives, or when what came before has been played. Times are seconds of one
clock; knows no protocol.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from antiphon.models.ports import Pcm16

AUDIBLE = 330
"""A sample above this (-40 dBFS) can be heard."""


@dataclass(slots=True)
class PlacedAudio:
    reply: str
    start_s: float
    """When its first sample is heard."""
    pcm: Pcm16
    offset_ms: float
    """Where it lies in its reply."""


@dataclass(slots=True)
class Loudspeaker:
    rate_hz: int
    pieces: list[PlacedAudio] = field(default_factory=list)
    _end_s: float = 0.0
    _made_ms: dict[str, float] = field(default_factory=dict)

    def add(self, reply: str, pcm: Pcm16, now_s: float) -> None:
        """Audio arrived at `now_s`."""
        start_s = max(now_s, self._end_s)
        before_ms = self._made_ms.get(reply, 0.0)
        self.pieces.append(PlacedAudio(reply, start_s, pcm, before_ms))
        self._made_ms[reply] = before_ms + 1000 * len(pcm) / self.rate_hz
        self._end_s = start_s + len(pcm) / self.rate_hz

    def begin(self, reply: str, from_ms: float = 0.0) -> None:
        """The next audio of this reply lies at `from_ms` in it."""
        self._made_ms[reply] = from_ms

    def clear(self, now_s: float) -> None:
        """Drop what has not been heard by `now_s`."""
        kept: list[PlacedAudio] = []
        for piece in self.pieces:
            heard = int(max(now_s - piece.start_s, 0) * self.rate_hz)
            if heard < len(piece.pcm):
                piece.pcm = piece.pcm[:heard]
                self._made_ms[piece.reply] = piece.offset_ms + 1000 * heard / self.rate_hz
            if len(piece.pcm):
                kept.append(piece)
        self.pieces = kept
        self._end_s = min(self._end_s, now_s)

    @property
    def end_s(self) -> float:
        """When everything received so far has been heard."""
        return self._end_s

    def played_ms(self, reply: str, now_s: float) -> int:
        """How much of this reply has been heard."""
        position = 0.0
        for piece in self.pieces:
            if piece.reply == reply and piece.start_s < now_s:
                heard_ms = min(now_s - piece.start_s, len(piece.pcm) / self.rate_hz) * 1000
                position = piece.offset_ms + heard_ms
        return int(position)

    def first_audible_s(self, after_s: float) -> float | None:
        """When the first sound at or after `after_s` is heard."""
        for piece in self.pieces:
            skip = max(int((after_s - piece.start_s) * self.rate_hz), 0)
            loud = np.flatnonzero(np.abs(piece.pcm[skip:].astype(np.int32)) > AUDIBLE)
            if len(loud):
                return piece.start_s + (skip + int(loud[0])) / self.rate_hz
        return None

    def last_audible_s(self, before_s: float) -> float | None:
        """When the last sound before `before_s` was heard."""
        for piece in reversed(self.pieces):
            until = min(max(int((before_s - piece.start_s) * self.rate_hz), 0), len(piece.pcm))
            loud = np.flatnonzero(np.abs(piece.pcm[:until].astype(np.int32)) > AUDIBLE)
            if len(loud):
                return piece.start_s + int(loud[-1]) / self.rate_hz
        return None

    def render(self, from_s: float, to_s: float) -> Pcm16:
        """What was heard between two times, silence included."""
        out = np.zeros(max(int((to_s - from_s) * self.rate_hz), 0), np.int16)
        for piece in self.pieces:
            at = int((piece.start_s - from_s) * self.rate_hz)
            first, last = max(at, 0), min(at + len(piece.pcm), len(out))
            if first < last:
                out[first:last] = piece.pcm[first - at : last - at]
        return out
