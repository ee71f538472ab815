"""The agent's voice as a WebRTC track: 20 ms at a time, by the event loop's clock, silence between.

Knows no session: what is played is `Playout`'s. Opus and its 48 kHz are aiortc's, in its own threads.
"""

from __future__ import annotations

import asyncio
from fractions import Fraction

import numpy as np
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from av import AudioFrame

from antiphon.audio.framing import Pcm16, mix_to_mono, pcm_to_bytes
from antiphon.server.realtime.playout import Playout
from antiphon.wire.realtime.audio import VOICE_RATE_HZ

_FRAME_S = 0.02
_FRAME_SAMPLES = VOICE_RATE_HZ // 50
_LATE_S = 0.2
"""A loop that was busy for longer does not catch up: that would be a burst, and the listener's delay for good."""
_TIME_BASE = Fraction(1, VOICE_RATE_HZ)


class VoiceTrack(MediaStreamTrack):
    kind = "audio"

    def __init__(self, playout: Playout) -> None:
        super().__init__()
        self._playout = playout
        self._now_s = asyncio.get_running_loop().time
        self._due_s: float | None = None
        """Loop time at which the next frame is to leave."""
        self._sent = 0
        """Samples."""

    async def recv(self) -> AudioFrame:
        if self.readyState != "live":
            raise MediaStreamError
        now_s = self._now_s()
        if self._due_s is None or now_s - self._due_s > _LATE_S:
            self._due_s = now_s
        await asyncio.sleep(self._due_s - now_s)
        self._due_s += _FRAME_S
        frame = AudioFrame(format="s16", layout="mono", samples=_FRAME_SAMPLES)
        frame.planes[0].update(pcm_to_bytes(self._playout.take(_FRAME_SAMPLES)))
        frame.sample_rate = VOICE_RATE_HZ
        frame.time_base = _TIME_BASE
        frame.pts = self._sent
        self._sent += _FRAME_SAMPLES
        return frame


def mono(frame: AudioFrame) -> Pcm16:
    """What aiortc's Opus decoder gives: packed 16-bit samples, two channels."""
    channels = len(frame.layout.channels)
    return mix_to_mono(np.asarray(frame.to_ndarray(), np.int16).reshape(-1, channels))
