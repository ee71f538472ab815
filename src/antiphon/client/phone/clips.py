"""What a caller says: an audio file made ready for the line before the call, so that the call itself costs little.

The acoustic bounds of the speech are found here, from the energy of the clean file: latency counts from the last sample
that a person would hear.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from antiphon.audio import g711
from antiphon.audio.containers import decode_file
from antiphon.audio.framing import Pcm16
from antiphon.audio.levels import rms, speech_bounds
from antiphon.audio.resample import resample
from antiphon.client.phone.impairments import noise
from antiphon.errors import AudioError

RATE_HZ = 8_000
FRAME_MS = 20
FRAME_S = FRAME_MS / 1000
FRAME_BYTES = RATE_HZ * FRAME_MS // 1000
"""One byte a sample, in mu-law."""
SILENCE = bytes([g711.ULAW_SILENCE]) * FRAME_BYTES
MAX_CLIP_S = 600.0
_BED_S = 10
"""Noise between the utterances repeats after this long."""


@dataclass(frozen=True, slots=True)
class ClipFrame:
    """20 ms of the caller's side."""

    codes: bytes
    """Mu-law."""
    payload: bytes
    """The same in base64, as it goes out."""

    @classmethod
    def of(cls, codes: bytes) -> ClipFrame:
        return cls(codes, base64.b64encode(codes))


def frames_of(pcm: Pcm16) -> tuple[ClipFrame, ...]:
    """8 kHz samples -> frames; the last one is filled up with silence."""
    codes = g711.encode_ulaw(pcm)
    pieces = (codes[at : at + FRAME_BYTES] for at in range(0, len(codes), FRAME_BYTES))
    return tuple(ClipFrame.of(piece.ljust(FRAME_BYTES, SILENCE[:1])) for piece in pieces)


@dataclass(frozen=True)
class Clip:
    """One utterance at 8 kHz."""

    name: str
    pcm: Pcm16
    """Clean, as it would be said in a quiet room."""
    speech_start: int
    """First sample of the speech."""
    speech_end: int
    """The sample after its last."""
    noise_snr_db: float | None = None

    @cached_property
    def level(self) -> float:
        """RMS of the speech alone."""
        return rms(self.pcm[self.speech_start : self.speech_end])

    @cached_property
    def sent(self) -> Pcm16:
        """With the noise of the line."""
        if self.noise_snr_db is None:
            return self.pcm
        bed = noise(len(self.pcm), self.level, self.noise_snr_db)
        mixed: Pcm16 = np.clip(self.pcm.astype(np.int32) + bed, -32768, 32767).astype(np.int16)
        return mixed

    @cached_property
    def frames(self) -> tuple[ClipFrame, ...]:
        """What is sent, frame by frame."""
        return frames_of(self.sent)

    @property
    def duration_s(self) -> float:
        return len(self.pcm) / RATE_HZ


def load_clip(path: Path, noise_snr_db: float | None = None) -> Clip:
    """Any audio file -> a clip. Blocking. Raises AudioError, also where there is no speech in the file."""
    decoded = decode_file(path, rate_hz=RATE_HZ, max_duration_s=MAX_CLIP_S)
    return make_clip(path.name, decoded.pcm, RATE_HZ, noise_snr_db)


def make_clip(name: str, pcm: Pcm16, rate_hz: int, noise_snr_db: float | None = None) -> Clip:
    """Samples at any rate -> a clip, framed and measured. Raises AudioError where there is nothing to hear in them."""
    at_line_rate = resample(pcm, rate_hz, RATE_HZ)
    bounds = speech_bounds(at_line_rate, RATE_HZ) or _bounds_without_pause(at_line_rate)
    if bounds is None:
        raise AudioError(f"nothing can be heard in {name}; give a recording of somebody who speaks")
    clip = Clip(name, at_line_rate, *bounds, noise_snr_db)
    _ = clip.frames  # now, not in the call
    return clip


def _bounds_without_pause(pcm: Pcm16) -> tuple[int, int] | None:
    """Of speech that was cut so closely that no noise floor can be told: against silence."""
    room = np.zeros(RATE_HZ // 2, np.int16)
    bounds = speech_bounds(np.concatenate([room, pcm, room]), RATE_HZ)
    if bounds is None:
        return None
    first, end = (min(max(at - len(room), 0), len(pcm)) for at in bounds)
    return first, end


def background(clips: list[Clip]) -> tuple[ClipFrame, ...]:
    """What the line carries while nobody speaks: silence, or the noise of the loudest clip."""
    noisy = [clip for clip in clips if clip.noise_snr_db is not None]
    if not noisy:
        return (ClipFrame.of(SILENCE),)
    loudest = max(noisy, key=lambda clip: clip.level)
    assert loudest.noise_snr_db is not None
    return frames_of(noise(_BED_S * RATE_HZ, loudest.level, loudest.noise_snr_db))
