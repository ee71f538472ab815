"""How loud audio is, where speech starts and ends in it, and whether it was read in the wrong encoding.

Everything here measures; nothing decides what to do about it. There is no model in this module: whether sound
*is* speech is the VAD's business. The start and end of speech are acoustic, from energy against the noise floor
of the same recording, so that latency can be measured from what a person would hear as the last sound.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from math import log10, sqrt

import numpy as np
import numpy.typing as npt

from antiphon.audio import g711
from antiphon.audio.framing import Pcm16

FULL_SCALE = 32768.0

_FRAME_MS = 5
_SHORTEST_SOUND_MS = 30
"""A sound shorter than this is a click, not speech."""
_GAP_MS = 40
"""A pause within a syllable (a stop consonant) that does not split a sound."""
_FLOOR_PERCENTILE = 10
_SPEECH_PERCENTILE = 95
_ABOVE_FLOOR = 10 ** (10 / 20)
"""Speech is at least 10 dB above the noise floor."""
_WITHIN_SPEECH = 10 ** (-14 / 20)
"""Where the recording has digital silence, its noise is not trusted beyond 14 dB below the speech."""
_BELOW_SPEECH = 10 ** (-32 / 20)
"""What is 32 dB below the speech is not heard as part of it: breath, and the room of a clip that was padded."""
_QUIETEST_RMS = 10.0


class LevelBand(StrEnum):
    """What an RMS says at a glance (the bands of the talk backend's audio diagnosis)."""

    SILENCE = "silence"
    """Below 10: the microphone is off or muted."""
    QUIET = "quiet"
    NORMAL = "normal"
    """1000 to 8000: speech."""
    LOUD = "loud"
    NOISE = "noise"
    """Above 30000: noise or clipping, most often audio in the wrong encoding."""


@dataclass(frozen=True, slots=True)
class Levels:
    """Levels of one piece of audio."""

    rms: float
    """On the int16 scale, 0 to 32768."""
    peak: int
    """0 to 32768."""
    dbfs: float
    """RMS in dB below full scale; -inf for digital silence."""
    clipped_share: float
    """Share of samples at the ends of the scale, 0 to 1."""
    band: LevelBand


def rms(pcm: Pcm16) -> float:
    """Root mean square on the int16 scale (0 to 32768); 0.0 for no samples."""
    if not len(pcm):
        return 0.0
    samples = pcm.astype(np.float32)
    return sqrt(float(np.dot(samples, samples)) / len(samples))


def peak(pcm: Pcm16) -> int:
    """The largest magnitude, 0 to 32768; 0 for no samples."""
    return max(int(pcm.max()), -int(pcm.min())) if len(pcm) else 0


def dbfs(level: float) -> float:
    """An RMS or peak on the int16 scale -> dB relative to full scale; -inf for 0."""
    return 20 * log10(level / FULL_SCALE) if level > 0 else float("-inf")


def clipped_share(pcm: Pcm16) -> float:
    """Share of samples at the ends of the scale, 0 to 1."""
    if not len(pcm):
        return 0.0
    return float(np.count_nonzero((pcm >= 32767) | (pcm <= -32767))) / len(pcm)


def band_of(level: float) -> LevelBand:
    """The band of an RMS on the int16 scale."""
    if level < 10:
        return LevelBand.SILENCE
    if level < 1000:
        return LevelBand.QUIET
    if level <= 8000:
        return LevelBand.NORMAL
    if level <= 30000:
        return LevelBand.LOUD
    return LevelBand.NOISE


def measure(pcm: Pcm16) -> Levels:
    """All levels of `pcm`, shape [n]."""
    level = rms(pcm)
    return Levels(level, peak(pcm), dbfs(level), clipped_share(pcm), band_of(level))


# --- where speech starts and ends -------------------------------------------------------------------


def speech_bounds(pcm: Pcm16, rate_hz: int) -> tuple[int, int] | None:
    """First sample of speech and the sample after its last, or None where nothing stands out of the noise.

    Frames of 5 ms count as sound when their RMS is 10 dB above the noise floor (the 10th percentile of the
    recording). Sounds with pauses under 40 ms are one; sounds under 30 ms that stand alone are clicks and do
    not count. The bounds are then moved to the outermost samples above the limit.
    """
    frame = max(1, rate_hz * _FRAME_MS // 1000)
    usable = len(pcm) // frame * frame
    if usable < frame * (_SHORTEST_SOUND_MS // _FRAME_MS):
        return None
    levels = np.sqrt(np.mean(pcm[:usable].reshape(-1, frame).astype(np.float64) ** 2, axis=1))
    limit = _sound_limit(levels)
    if limit is None:
        return None
    sounds = _sounds(levels > limit)
    if not sounds:
        return None
    first = sounds[0][0] * frame
    end = min(len(pcm), sounds[-1][1] * frame)
    loud = np.flatnonzero(np.abs(pcm[first:end].astype(np.int32)) > limit)
    return first + int(loud[0]), first + int(loud[-1]) + 1


def _sound_limit(levels: npt.NDArray[np.float64]) -> float | None:
    """The RMS above which a frame is sound; None when nothing stands out."""
    floor = float(np.percentile(levels, _FLOOR_PERCENTILE))
    # Of the frames above the floor only, or a word in a long silence would be an outlier.
    raised = levels[levels > max(floor * 2, _QUIETEST_RMS)]
    if len(raised) < _SHORTEST_SOUND_MS // _FRAME_MS:
        return None
    speech = float(np.percentile(raised, _SPEECH_PERCENTILE))
    if speech < 2 * _QUIETEST_RMS:
        return None
    least = max(_QUIETEST_RMS, speech * _BELOW_SPEECH)
    if floor >= 1.0:
        return max(least, min(floor * _ABOVE_FLOOR, speech / 2))
    noise = float(np.percentile(levels[levels > 0], _FLOOR_PERCENTILE))
    return max(least, min(noise * _ABOVE_FLOOR, speech * _WITHIN_SPEECH))


def _sounds(active: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Runs of active frames as (first, after last), short pauses closed, lone clicks left out."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], active.astype(np.int8), [0]])))
    merged: list[tuple[int, int]] = []
    for first, end in edges.reshape(-1, 2).tolist():
        if merged and first - merged[-1][1] < _GAP_MS // _FRAME_MS:
            merged[-1] = (merged[-1][0], end)
        else:
            merged.append((first, end))
    shortest = _SHORTEST_SOUND_MS // _FRAME_MS
    return [(first, end) for first, end in merged if end - first >= shortest]


def speech_start_sample(pcm: Pcm16, rate_hz: int) -> int | None:
    """Index of the first sample of speech, or None: see `speech_bounds`."""
    bounds = speech_bounds(pcm, rate_hz)
    return bounds[0] if bounds else None


def speech_end_sample(pcm: Pcm16, rate_hz: int) -> int | None:
    """Index after the last sample of speech, or None: see `speech_bounds`."""
    bounds = speech_bounds(pcm, rate_hz)
    return bounds[1] if bounds else None


def trim_silence(pcm: Pcm16, rate_hz: int, keep_ms: int = 50) -> Pcm16:
    """`pcm` from `keep_ms` before its speech to `keep_ms` after it (a view); empty where there is no speech."""
    bounds = speech_bounds(pcm, rate_hz)
    if bounds is None:
        return pcm[:0]
    keep = rate_hz * keep_ms // 1000
    return pcm[max(0, bounds[0] - keep) : bounds[1] + keep]


# --- audio in the wrong encoding --------------------------------------------------------------------

_READERS = {
    "pcm_s16le": lambda data: np.frombuffer(data, "<i2", count=len(data) // 2),
    "pcm_s16be": lambda data: np.frombuffer(data, ">i2", count=len(data) // 2),
    "mulaw": g711.decode_ulaw,
    "alaw": g711.decode_alaw,
}
_NEEDED_BYTES = 1600
_SMOOTH = 0.75
"""Mean step between neighbours over mean magnitude: speech 0.1 to 0.7, white noise 1.4."""
_CLEARLY_SMOOTHER = 0.8
_SAME_BYTES = 0.85
"""Shared by the distributions of even and odd bytes: above 0.95 for G.711, below 0.7 for 16-bit speech."""
_WRONG_RMS = 3000.0


def _roughness(pcm: npt.NDArray[np.int16]) -> float:
    samples = pcm.astype(np.float64)
    samples -= samples.mean()
    level = float(np.abs(samples).mean())
    return float(np.abs(np.diff(samples)).mean()) / level if level > 20 else 0.0


def looks_like_wrong_encoding(data: bytes, declared: str) -> str:
    """The encoding that `data` is more likely to have than `declared`, or an empty string.

    `declared` and the result are `pcm_s16le`, `pcm_s16be`, `mulaw` or `alaw`. Read in the wrong encoding speech is
    white noise, and PCM silence read as mu-law sticks at full scale. Give it 100 ms or more of sound; of less
    than 1600 bytes, and of other names, it says nothing. A hint for a log line, not a decision.
    """
    if len(data) < _NEEDED_BYTES or declared not in _READERS:
        return ""
    heard = _READERS[declared](data)
    others_fit: tuple[str, ...] = ()
    if declared in ("mulaw", "alaw"):
        if data.count(0) > 0.9 * len(data):
            return "pcm_s16le"
        # One byte per sample, as it should be; an "s" alone is as rough as noise.
        if _bytes_alike(data):
            others_fit = ("alaw",) if declared == "mulaw" else ("mulaw",)
        else:
            others_fit = ("pcm_s16le", "pcm_s16be")
    elif data.count(g711.ULAW_SILENCE) > 0.9 * len(data):
        return "mulaw"
    elif data.count(g711.ALAW_SILENCE) > 0.9 * len(data):
        return "alaw"
    smooth = {name: _roughness(read(data)) for name, read in _READERS.items()}
    others = {name: value for name, value in smooth.items() if name != declared and value > 0}
    if declared in ("mulaw", "alaw"):
        others = {name: value for name, value in others.items() if name in others_fit}
    elif not (_bytes_alike(data) and rms(heard) > _WRONG_RMS):
        others = {name: value for name, value in others.items() if name.startswith("pcm")}
    else:
        # Two companded bytes read as one sample are nearly as smooth as the speech itself.
        companded = min(("mulaw", "alaw"), key=smooth.__getitem__)
        return companded if 0 < smooth[companded] < _SMOOTH else ""
    if not others:
        return ""
    best = min(others, key=others.__getitem__)
    likely = others[best] < min(_SMOOTH, _CLEARLY_SMOOTHER * smooth[declared])
    return best if likely else ""


def _bytes_alike(data: bytes) -> bool:
    """Even and odd bytes have the same distribution: one byte per sample. (High bytes of PCM cluster at 0.)"""
    octets = np.frombuffer(data, np.uint8, count=len(data) // 2 * 2)
    even, odd = (np.bincount(octets[start::2] >> 4, minlength=16) for start in (0, 1))
    return bool(np.minimum(even, odd).sum() > _SAME_BYTES * (len(octets) // 2))
