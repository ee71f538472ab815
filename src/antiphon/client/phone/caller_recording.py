"""A call as it sounded at the caller's end: two tracks on one clock, the caller left, the agent right."""

from __future__ import annotations

import io
import wave
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from antiphon.audio import g711
from antiphon.audio.framing import Pcm16
from antiphon.client.phone.clips import RATE_HZ, Clip


@dataclass(frozen=True, slots=True)
class SpokenQuestion:
    """Something the caller said, in samples of the recording."""

    question: str
    start: int
    """First sample of the clip."""
    speech_start: int
    """First sample that can be heard."""
    speech_end: int
    """The sample after the last that can be heard."""

    @classmethod
    def at(cls, clip: Clip, start: int) -> SpokenQuestion:
        return cls(clip.name, start, start + clip.speech_start, start + clip.speech_end)


@dataclass(frozen=True, slots=True)
class CallerRecording:
    caller: Pcm16
    """As sent, noise included, shape [samples] at 8 kHz."""
    agent: Pcm16
    """As heard, same shape."""
    fed: bytes
    """One byte per 20 ms: 1 where there was something of the agent to play, silent or not."""
    clears: tuple[int, ...] = ()
    """When the server had the rest of its audio dropped, in samples."""

    @classmethod
    def of(
        cls,
        caller: bytes | bytearray,
        agent: bytes | bytearray,
        fed: bytes | bytearray,
        clears: Sequence[int] = (),
    ) -> CallerRecording:
        """From mu-law tracks; what one is longer is cut off."""
        size = min(len(caller), len(agent))
        return cls(
            g711.decode_ulaw(bytes(caller[:size])),
            g711.decode_ulaw(bytes(agent[:size])),
            bytes(fed),
            tuple(clears),
        )

    @property
    def duration_s(self) -> float:
        return len(self.agent) / RATE_HZ

    def wav(self) -> bytes:
        """A stereo WAV file."""
        out = io.BytesIO()
        with wave.open(out, "wb") as file:
            file.setnchannels(2)
            file.setsampwidth(2)
            file.setframerate(RATE_HZ)
            file.writeframes(np.stack([self.caller, self.agent], axis=1).astype("<i2").tobytes())
        return out.getvalue()
