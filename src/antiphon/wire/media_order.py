"""Pieces of a caller's voice into their order: numbered, sometimes swapped, repeated or missing.

A piece whose number is ahead waits until a few more have come; a number that has been given out is dropped. Time that
no piece covers is reported, to be filled with silence: phone networks send nothing while the line is quiet, and a voice
with its pauses cut out is not understood.

Knows no encoding, no clock and no protocol: numbers and positions are arguments, payloads are opaque.
"""

from __future__ import annotations

import msgspec

HELD = 5
"""Pieces (100 ms of a telephone's) that may wait for one that is missing."""
_NO_NUMBERS = 50
"""So many pieces in a row that come "again": their numbers mean nothing."""
_LONGEST_GAP_MS = 10_000


class Piece(msgspec.Struct, frozen=True):
    payload: bytes
    duration_ms: int
    number: int | None = None
    at_ms: int | None = None
    """Where it begins, counted from anywhere."""


class MediaOrder:
    """Of one track of one stream."""

    def __init__(self) -> None:
        self.dropped = 0
        """Pieces that came twice, or too late."""
        self.filled_ms = 0
        """Time that no piece covered, so far."""
        self._next: int | None = None
        self._held: dict[int, Piece] = {}
        self._stale = 0
        self._end_ms: int | None = None

    def take(self, piece: Piece) -> list[tuple[int, bytes]]:
        """-> what can be heard now, in order: (silence before it in ms, payload)."""
        number = piece.number
        if number is None or self._stale >= _NO_NUMBERS:
            return self._give([piece])
        if self._next is None:
            self._next = number
        if number == self._next and not self._held:  # as nearly always
            self._next += 1
            self._stale = 0
            return [(self._gap_ms(piece), piece.payload)]
        if number < self._next or number in self._held:
            self._stale += 1
            self.dropped += 1
            return []
        self._stale = 0
        self._held[number] = piece
        if number != self._next and len(self._held) < HELD:
            return []
        return self._give(self._release())

    def flush(self) -> list[tuple[int, bytes]]:
        """The stream is over: what still waits."""
        pieces = [self._held[number] for number in sorted(self._held)]
        self._held.clear()
        return self._give(pieces)

    def _release(self) -> list[Piece]:
        """From the first piece that is here as far as they follow each other."""
        number = min(self._held)
        out: list[Piece] = []
        while number in self._held:
            out.append(self._held.pop(number))
            number += 1
        self._next = number
        return out

    def _give(self, pieces: list[Piece]) -> list[tuple[int, bytes]]:
        return [(self._gap_ms(piece), piece.payload) for piece in pieces]

    def _gap_ms(self, piece: Piece) -> int:
        if piece.at_ms is None:
            return 0
        gap_ms = 0 if self._end_ms is None else piece.at_ms - self._end_ms
        self._end_ms = piece.at_ms + piece.duration_ms
        if not 0 < gap_ms <= _LONGEST_GAP_MS:
            gap_ms = 0 if gap_ms <= 0 else _LONGEST_GAP_MS
        self.filled_ms += gap_ms
        return gap_ms
