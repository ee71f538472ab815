"""The caller's media frames on their way in: put into order, gaps filled with silence, G.711 decoded.

A piece whose number is ahead waits until a few more have come; a number that has been given out is dropped. Time that
no piece covers is reported, to be filled with silence: phone networks send nothing while the line is quiet, and a voice
with its pauses cut out is not understood.

Pieces of 20 ms are collected until they complete a window of voice activity detection (32 ms): what comes between
would only be put aside there. Knows the call by its ear only.
"""

from __future__ import annotations

import msgspec
import numpy as np

from antiphon.audio import g711
from antiphon.call.call import Call
from antiphon.models.ports import Pcm16
from antiphon.protocols.twilio.codec import AudioFormat, Media
from antiphon.server.budget import Bucket, WorkBudget, WorkRate

HELD = 5
"""Pieces (100 ms of a telephone's) that may wait for one that is missing."""
_NO_NUMBERS = 50
"""So many pieces in a row that come "again": their numbers mean nothing."""
_LONGEST_GAP_MS = 10_000


class MediaPiece(msgspec.Struct, frozen=True):
    payload: bytes
    duration_ms: int
    number: int | None = None
    at_ms: int | None = None
    """Where it begins, counted from anywhere."""


class ReorderBuffer:
    """Of one track of one stream."""

    def __init__(self) -> None:
        self.dropped = 0
        """Pieces that came twice, or too late."""
        self.filled_ms = 0
        """Time that no piece covered, so far."""
        self._next: int | None = None
        self._held: dict[int, MediaPiece] = {}
        self._stale = 0
        self._end_ms: int | None = None

    def take(self, piece: MediaPiece) -> list[tuple[int, bytes]]:
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

    def _release(self) -> list[MediaPiece]:
        """From the first piece that is here as far as they follow each other."""
        number = min(self._held)
        out: list[MediaPiece] = []
        while number in self._held:
            out.append(self._held.pop(number))
            number += 1
        self._next = number
        return out

    def _give(self, pieces: list[MediaPiece]) -> list[tuple[int, bytes]]:
        return [(self._gap_ms(piece), piece.payload) for piece in pieces]

    def _gap_ms(self, piece: MediaPiece) -> int:
        if piece.at_ms is None:
            return 0
        gap_ms = 0 if self._end_ms is None else piece.at_ms - self._end_ms
        self._end_ms = piece.at_ms + piece.duration_ms
        if not 0 < gap_ms <= _LONGEST_GAP_MS:
            gap_ms = 0 if gap_ms <= 0 else _LONGEST_GAP_MS
        self.filled_ms += gap_ms
        return gap_ms


_GAP_SLACK_MS = 10
"""Timestamps are rounded."""
_SILENCE_S = WorkRate(per_s=1.0, burst=10.0)
"""That gaps may be filled with: time that nobody spoke has passed on our clock too. A peer whose timestamps jump is not
believed beyond that, or each jump would be seconds of work."""


class CallerAudioInput:
    """Of one stream."""

    def __init__(self, call: Call, audio: AudioFormat, budget: WorkBudget) -> None:
        """`budget`: is told of all audio, silence for gaps included."""
        self.order = ReorderBuffer()
        self.filled_ms = 0
        """Silence that was put in place of audio that did not come."""
        self._call = call
        self._budget = budget
        self._silence = Bucket(_SILENCE_S, budget.clock())
        self._audio = audio
        self._decode = g711.decode_alaw if audio.encoding == "alaw" else g711.decode_ulaw
        self._codes = bytearray()
        """In order, and not yet handed over."""
        self._wanted = 1
        """So many of them are worth it."""
        self._position_ms = 0.0
        """Of the stream, so far: what was heard, and what was not sent."""

    def take(self, media: Media) -> None:
        duration_ms = len(media.payload) * 1000 // self._audio.rate_hz
        self._feed(
            self.order.take(MediaPiece(media.payload, duration_ms, media.chunk, media.timestamp_ms))
        )

    def end(self) -> None:
        """No more is coming."""
        self._feed(self.order.flush())
        self._hand_over()
        self._call.flush_audio()

    def _feed(self, pieces: list[tuple[int, bytes]]) -> None:
        for gap_ms, payload in pieces:
            if gap_ms > _GAP_SLACK_MS:
                self._fill(gap_ms)
            self._codes += payload
            if len(self._codes) >= self._wanted:
                self._hand_over()

    def _hand_over(self) -> None:
        if self._codes:
            self._feed_pcm(self._decode(bytes(self._codes)))
            self._codes.clear()
            self._wanted = self._call.wanted_audio(self._audio.rate_hz)

    def _fill(self, gap_ms: int) -> None:
        """Silence for time that passed without audio, unless the call has put some there by its own clock."""
        self._hand_over()
        missing_ms = min(gap_ms, int(self._position_ms) + gap_ms - self._call.heard_ms)
        self._position_ms += gap_ms - max(missing_ms, 0)
        missing_ms = round(1000 * self._silence.take(missing_ms / 1000, self._budget.clock()))
        self.filled_ms += missing_ms
        if missing_ms > 0:
            self._feed_pcm(np.zeros(missing_ms * self._audio.rate_hz // 1000, np.int16))

    def _feed_pcm(self, pcm: Pcm16) -> None:
        self._position_ms += len(pcm) * 1000 / self._audio.rate_hz
        self._budget.heard(len(pcm) / self._audio.rate_hz)
        self._call.feed_audio(pcm, self._audio.rate_hz)
