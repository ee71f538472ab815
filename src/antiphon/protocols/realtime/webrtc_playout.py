"""The agent's voice on its way into a WebRTC track: what is still to be played, taken in real time.

What has been taken has been sent, so this is where the truth about playback comes from: it reports positions to the
core, and tells the client when the buffer starts, runs out or is cleared. Its size is bounded by the policy, which has
speech made no more than `speak_ahead_ms` beyond what was reported.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from antiphon.audio.framing import Pcm16
from antiphon.protocols.realtime.audio_formats import VOICE_RATE_HZ

_REPORT_EVERY = VOICE_RATE_HZ // 10
"""Samples between two reports of a position: 100 ms."""


@dataclass(slots=True)
class _Piece:
    reply: str
    """The core's name for it."""
    response: str
    """The client's."""
    at: int
    """Position in the reply of what is next, in samples."""
    pcm: Pcm16


class TrackPlayout:
    """What one session plays. All positions in samples at `VOICE_RATE_HZ`."""

    def __init__(
        self, emit: Callable[[str, str], None], played: Callable[[str, int], None]
    ) -> None:
        """`emit(kind, response_id)`: told `started`, `stopped` or `cleared`, and of which response.

        `played(reply, played_ms)`: told how far a reply has been played.
        """
        self.emit = emit
        self.played = played
        self._pieces: deque[_Piece] = deque()
        self._filling = ("", 0)
        """The reply that is being given, and the position of what comes next."""
        self._sounding = ("", "")
        """Reply and response that the client has been told of as started."""
        self._complete: set[str] = set()
        """Replies that are sounding or waiting, and of which no more will come."""
        self._position = self._reported = 0

    # -- what is to be played ---------------------------------------------------------------------

    def begin(self, reply: str, from_ms: int) -> None:
        """The reply's audio follows, from this position on."""
        self._filling = (reply, from_ms * VOICE_RATE_HZ // 1000)

    def add(self, reply: str, response: str, pcm: Pcm16) -> None:
        known, at = self._filling
        at = at if known == reply else 0
        self._pieces.append(_Piece(reply, response, at, pcm))
        self._filling = (reply, at + len(pcm))

    def finish(self, reply: str) -> None:
        """No more of this reply will come."""
        if self._sounding[0] == reply or any(piece.reply == reply for piece in self._pieces):
            self._complete.add(reply)
            self._settle()

    def clear(self) -> None:
        """Play nothing of what is here."""
        response = self._sounding[1]
        if not response and self._pieces:
            response = self._pieces[0].response
        self._pieces.clear()
        self._complete.clear()
        self._sounding = ("", "")
        if response:
            self.emit("cleared", response)

    # -- what is played ---------------------------------------------------------------------------

    def take(self, samples: int) -> Pcm16:
        """The next `samples` of the track: silence where there is nothing to say."""
        out = np.zeros(samples, np.int16)
        filled = 0
        while filled < samples and self._pieces:
            piece = self._pieces[0]
            self._start(piece)
            part = piece.pcm[: samples - filled]
            out[filled : filled + len(part)] = part
            filled += len(part)
            piece.pcm = piece.pcm[len(part) :]
            piece.at += len(part)
            self._position = piece.at
            if not len(piece.pcm):
                self._pieces.popleft()
                self._settle()
        if filled and self._position - self._reported >= _REPORT_EVERY:
            self._report()
        return out

    def _start(self, piece: _Piece) -> None:
        reply, response = self._sounding
        if reply == piece.reply:
            return
        if response:
            self._stop()
        self._sounding = (piece.reply, piece.response)
        self._position = self._reported = piece.at
        self.emit("started", piece.response)

    def _settle(self) -> None:
        """What follows once there is no more of the reply that is sounding."""
        reply = self._sounding[0]
        if not reply or any(piece.reply == reply for piece in self._pieces):
            return
        if self._position > self._reported:
            self._report()
        if reply in self._complete:
            self._stop()

    def _stop(self) -> None:
        reply, response = self._sounding
        self._sounding = ("", "")
        self._complete.discard(reply)
        self.emit("stopped", response)

    def _report(self) -> None:
        self._reported = self._position
        self.played(self._sounding[0], self._position * 1000 // VOICE_RATE_HZ)
