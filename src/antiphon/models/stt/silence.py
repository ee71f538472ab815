"""Where speech is quiet: nothing to transcribe at all, or a place to cut a long recording.

Knows samples at 16 kHz.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from antiphon.models.ports import STT_RATE_HZ, Pcm16

_FRAME_SAMPLES = STT_RATE_HZ // 50
_QUIET_FRAMES = 10
_SILENCE_RMS = 33.0
"""-60 dBFS: nothing above it in any frame is no speech; models would make words up."""


def is_silent(audio: Pcm16) -> bool:
    """int16 [n] without a frame of 20 ms above -60 dBFS."""
    return audio.size == 0 or bool(_frame_rms(audio).max() < _SILENCE_RMS)


def split_at_quiet(audio: Pcm16, shortest_s: int = 10, longest_s: int = 16) -> list[Pcm16]:
    """Pieces of at most `longest_s`, in order; each cut lies in the quietest 200 ms after `shortest_s`."""
    shortest, longest = shortest_s * STT_RATE_HZ, longest_s * STT_RATE_HZ
    pieces: list[Pcm16] = []
    while audio.size > longest:
        rms = _frame_rms(audio[shortest:longest])
        loudness = np.convolve(rms, np.ones(_QUIET_FRAMES), mode="valid")
        cut = shortest + (int(loudness.argmin()) + _QUIET_FRAMES // 2) * _FRAME_SAMPLES
        pieces.append(audio[:cut])
        audio = audio[cut:]
    pieces.append(audio)
    return pieces


def _frame_rms(audio: Pcm16) -> npt.NDArray[np.float32]:
    """RMS of each 20 ms, [ceil(n / 320)]; the last frame is filled up with zeros."""
    frames = -(-audio.size // _FRAME_SAMPLES)
    padded = np.zeros(frames * _FRAME_SAMPLES, np.float32)
    padded[: audio.size] = audio
    power = np.square(padded).reshape(frames, _FRAME_SAMPLES).mean(axis=1)
    rms: npt.NDArray[np.float32] = np.sqrt(power)
    return rms
