"""The last touches on synthesised speech: silence trimmed, loudness set, ends faded.

Knows samples and the punctuation of the text they speak.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from antiphon.models.ports import Pcm16

Float32 = npt.NDArray[np.float32]

_FRAME_MS = 5
_AUDIBLE = 0.01
"""-40 dB below the loudest frame: what is quieter at either end is taken for silence."""
_LEAD_MS = 10
_TAIL_MS = {"sentence": 120, "clause": 70, "none": 30}
_FADE_IN_MS, _FADE_OUT_MS = 2, 8
_KNEE = 0.8
_FULL_SCALE = 32_767.0


def finish(audio: Float32, gain: float, text: str, rate_hz: int) -> Pcm16:
    """Samples [n] of a spoken `text` -> int16 [m], ready to be played after another clause.

    About 10 ms of silence stay in front, and after it what the last character of the text asks for:
    120 ms after a sentence, 70 after a comma, 30 in mid-phrase.
    """
    trimmed = _trim(audio, _TAIL_MS[_ending(text)], rate_hz) * np.float32(gain)
    limit(trimmed)
    _fade(trimmed, rate_hz)
    pcm: Pcm16 = np.rint(trimmed * _FULL_SCALE).astype(np.int16)
    return pcm


def active_rms(audio: Float32) -> float:
    """RMS of what is not silence, 0..1."""
    loudest = float(np.abs(audio).max(initial=0.0))
    spoken = audio[np.abs(audio) > loudest * _AUDIBLE]
    return float(np.sqrt(np.mean(np.square(spoken)))) if spoken.size else 0.0


def limit(audio: Float32) -> None:
    """Bend what is louder than 0.8 smoothly under 1.0, in place: rare peaks neither clip nor turn a
    clause down as a whole.
    """
    loud = np.abs(audio) > _KNEE
    if loud.any():
        room = 1.0 - _KNEE
        peaks = audio[loud]
        bent = _KNEE + room * np.tanh((np.abs(peaks) - _KNEE) / room)
        audio[loud] = np.copysign(bent, peaks)


def _ending(text: str) -> str:
    last = text.rstrip("\"')”’ ")[-1:]
    if last and last in ".!?":
        return "sentence"
    return "clause" if last and last in ",;:" else "none"


def _trim(audio: Float32, tail_ms: int, rate_hz: int) -> Float32:
    """A copy without long silence at its ends; zeros are added where the tail is too short."""
    frame = rate_hz * _FRAME_MS // 1000
    frames = -(-audio.size // frame)
    padded = np.zeros(frames * frame, np.float32)
    padded[: audio.size] = audio
    peaks = np.abs(padded).reshape(frames, frame).max(axis=1)
    audible = np.flatnonzero(peaks > peaks.max() * _AUDIBLE)
    first, last = (int(audible[0]), int(audible[-1])) if audible.size else (0, frames - 1)
    start = max(0, first * frame - rate_hz * _LEAD_MS // 1000)
    end = (last + 1) * frame + rate_hz * tail_ms // 1000
    trimmed = np.zeros(end - start, np.float32)
    kept = padded[start:end]
    trimmed[: kept.size] = kept
    return trimmed


def _fade(audio: Float32, rate_hz: int) -> None:
    """Ramps at both ends, in place: no click where two clauses meet."""
    for ms, edge in ((_FADE_IN_MS, audio), (_FADE_OUT_MS, audio[::-1])):
        ramp = edge[: rate_hz * ms // 1000]
        ramp *= np.linspace(0.0, 1.0, ramp.size, dtype=np.float32)
