"""The client's audio on its way in: base64 to samples, at a pace at which it can be heard, and counted.

Positions in events count the audio that was received, not the time that passed; the session also hears silence of its
own making where a client stops sending, so the two clocks are kept apart here. Knows no event but `append`.
"""

from __future__ import annotations

import asyncio

import numpy as np

from antiphon.models.ports import STT_RATE_HZ, Pcm16
from antiphon.session.session import Session as Call
from antiphon.wire.realtime import audio as formats
from antiphon.wire.realtime.errors import PeerError
from antiphon.wire.realtime.hearing import Hearing
from antiphon.wire.realtime.unmute import Ears, starts_ogg

_UNSCORED_MS = 30_000
"""A client that sends a file is read as fast as it is heard."""
_POLL_S = 0.02


class Intake:
    """Of one session."""

    def __init__(self, call: Call, hearing: Hearing, max_append_bytes: int, kept_ms: int) -> None:
        """`kept_ms`: how much uncommitted audio is kept."""
        self.audio = formats.InputAudio()
        self.received_ms = 0.0
        self._call = call
        self._hearing = hearing
        self._max_append_bytes = max_append_bytes
        self._kept_ms = kept_ms
        self._offset_ms = 0
        """What the session has heard beyond what was received."""
        self._told_full = False
        self._ears: Ears | None = None
        """For a client that sends Ogg Opus."""

    async def append(self, text: str) -> None:
        """Raises PeerError for what is no audio, or too much of it."""
        if len(text) > self._max_append_bytes * 4 // 3 + 4:
            raise PeerError(
                f"audio: more than {self._max_append_bytes >> 20} MiB in one event; send less at a time",
                param="audio",
            )
        pcm, rate_hz = self._decoded(formats.from_base64(text))
        for start in range(0, len(pcm), rate_hz):
            # Rare, so it polls: the ear tells nobody that it has caught up.
            while self._call.unscored_ms > _UNSCORED_MS and not self._call.ended:  # noqa: ASYNC110
                await asyncio.sleep(_POLL_S)
            self.hear(pcm[start : start + rate_hz], rate_hz)
        self._check_room()

    def _decoded(self, data: bytes) -> tuple[Pcm16, int]:
        """Samples and their rate. Ogg Opus is understood whatever the session says, for no samples begin like that."""
        if not self.received_ms and starts_ogg(data):
            self._ears = Ears()
        if self._ears is None:
            return self.audio.feed(data), self.audio.rate_hz
        pcm = self._ears.feed(data)
        return (np.empty(0, np.int16) if pcm is None else pcm), STT_RATE_HZ

    def hear(self, pcm: Pcm16, rate_hz: int) -> None:
        """More of the caller's voice, as it is spoken."""
        self._offset_ms = max(self._call.heard_ms - int(self.received_ms), 0)
        self.received_ms += len(pcm) * 1000 / rate_hz
        self._call.feed_audio(pcm, rate_hz)

    def _check_room(self) -> None:
        waiting_ms = self.received_ms - self._hearing.taken_ms
        turn_open = self._call.view.policy.auto_turns
        if turn_open or waiting_ms <= self._kept_ms or self._told_full:
            return
        self._told_full = True
        raise PeerError(
            f"the input audio buffer holds {self._kept_ms // 1000} s; older audio was dropped: commit or clear it",
            "input_audio_buffer_full",
            "audio",
        )

    def taken(self) -> None:
        """All of it has become an item."""
        self._hearing.taken_ms = self.received_ms
        self._told_full = False

    def cleared(self) -> None:
        self.audio.reset()
        self.taken()

    def wire_ms(self, heard_ms: int) -> int:
        """A position on the session's audio clock -> in what was received."""
        return max(min(heard_ms - self._offset_ms, int(self.received_ms)), 0)

    def clip(self, start_ms: int, end_ms: int) -> bytes:
        """The caller's audio between two positions of the session's clock, as `formats.HEARD`."""
        pcm = self._call.heard_audio(start_ms, min(end_ms, self._call.heard_ms))
        assert formats.RATES_HZ[formats.HEARD] == STT_RATE_HZ
        return pcm.astype("<i2", copy=False).tobytes()
