"""The caller's voice on its way in: pieces in order, gaps as silence, G.711 as samples.

Pieces of 20 ms are collected until they complete a window of voice activity detection (32 ms): what comes between
would only be put aside there. Knows the session by its ear only.
"""

from __future__ import annotations

import numpy as np

from antiphon.audio import g711
from antiphon.models.ports import Pcm16
from antiphon.server.budget import Bucket, Rate, WorkBudget
from antiphon.session.session import Session
from antiphon.wire.media_order import MediaOrder, Piece
from antiphon.wire.twilio import AudioFormat, Media

_GAP_SLACK_MS = 10
"""Timestamps are rounded."""
_SILENCE_S = Rate(per_s=1.0, burst=10.0)
"""That gaps may be filled with: time that nobody spoke has passed on our clock too. A peer whose timestamps jump is not
believed beyond that, or each jump would be seconds of work."""


class CallerVoice:
    """Of one stream."""

    def __init__(self, session: Session, audio: AudioFormat, budget: WorkBudget) -> None:
        """`budget`: is told of all audio, silence for gaps included."""
        self.order = MediaOrder()
        self.filled_ms = 0
        """Silence that was put in place of audio that did not come."""
        self._session = session
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
            self.order.take(Piece(media.payload, duration_ms, media.chunk, media.timestamp_ms))
        )

    def end(self) -> None:
        """No more is coming."""
        self._feed(self.order.flush())
        self._hand_over()
        self._session.flush_audio()

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
            self._wanted = self._session.wanted_audio(self._audio.rate_hz)

    def _fill(self, gap_ms: int) -> None:
        """Silence for time that passed without audio, unless the session has put some there by its own clock."""
        self._hand_over()
        missing_ms = min(gap_ms, int(self._position_ms) + gap_ms - self._session.heard_ms)
        self._position_ms += gap_ms - max(missing_ms, 0)
        missing_ms = round(1000 * self._silence.take(missing_ms / 1000, self._budget.clock()))
        self.filled_ms += missing_ms
        if missing_ms > 0:
            self._feed_pcm(np.zeros(missing_ms * self._audio.rate_hz // 1000, np.int16))

    def _feed_pcm(self, pcm: Pcm16) -> None:
        self._position_ms += len(pcm) * 1000 / self._audio.rate_hz
        self._budget.heard(len(pcm) / self._audio.rate_hz)
        self._session.feed_audio(pcm, self._audio.rate_hz)
