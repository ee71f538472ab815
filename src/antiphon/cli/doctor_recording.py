"""What `antiphon doctor RECORDING` says of a recording: is it audio, is it loud enough, clipped, read wrongly?"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from antiphon.audio.containers import Decoded, decode_file
from antiphon.audio.framing import Pcm16, pcm_to_bytes
from antiphon.audio.g711 import encode_alaw, encode_ulaw
from antiphon.audio.levels import (
    LevelBand,
    looks_like_wrong_encoding,
    measure,
    speech_bounds,
)
from antiphon.cli.doctor_checks import FAIL, OK, WARN, Finding
from antiphon.errors import AntiphonError

_MAX_S = 600.0
_LITTLE_CLIPPING = 0.001
_MUCH_CLIPPING = 0.01
_PHONE_RATE_HZ = 8_000
_WAV_CODECS = {6: "alaw", 7: "mulaw"}
_LEVELS = {
    LevelBand.SILENCE: (FAIL, "is the microphone on, and is it the right one?"),
    LevelBand.QUIET: (WARN, "raise the input level, or speak closer to the microphone"),
    LevelBand.NORMAL: (OK, ""),
    LevelBand.LOUD: (WARN, "lower the input level before it clips"),
    LevelBand.NOISE: (FAIL, "this is noise: check encoding and byte order of what was recorded"),
}


def check_recording(path: Path) -> Iterator[Finding]:
    """A line per question. An unreadable file is one line that fails."""
    try:
        decoded = decode_file(path, rate_hz=None, max_duration_s=_MAX_S)
    except AntiphonError as error:
        yield Finding("recording", FAIL, str(error), "record it again, as WAV for instance")
        return
    pcm = decoded.pcm
    if not len(pcm):
        yield Finding("recording", FAIL, "it holds no sound", "record it again")
        return
    yield _check_form(decoded)
    yield from _check_encoding(path, pcm)
    yield from _check_levels(pcm, decoded.rate_hz)


def _check_form(decoded: Decoded) -> Finding:
    found = (
        f"{decoded.source_format}, {decoded.source_rate_hz} Hz, {decoded.channels} "
        f"channel{'s' * (decoded.channels != 1)}, {decoded.duration_s:.1f} s"
    )
    if decoded.source_rate_hz < _PHONE_RATE_HZ:
        return Finding("recording", WARN, found, "record at 8000 Hz or more, better at 16000")
    return Finding("recording", OK, found)


def _check_encoding(path: Path, pcm: Pcm16) -> Iterator[Finding]:
    declared = _wav_codec(path)
    data = {"mulaw": encode_ulaw, "alaw": encode_alaw}.get(declared, pcm_to_bytes)(pcm)
    likely = looks_like_wrong_encoding(data, declared)
    if likely:
        todo = f"whoever wrote it has {likely}, and called it {declared}: correct that there"
        yield Finding("encoding", FAIL, f"{declared}, but it looks like {likely}", todo)
    else:
        yield Finding("encoding", OK, "reads as sound")


def _wav_codec(path: Path) -> str:
    """`mulaw` or `alaw` where a WAV file says so; all else has been decoded to plain samples."""
    with path.open("rb") as file:
        head = file.read(22)
    if len(head) < 22 or head[:4] != b"RIFF" or head[12:16] != b"fmt ":
        return "pcm_s16le"
    return _WAV_CODECS.get(struct.unpack("<H", head[20:22])[0], "pcm_s16le")


def _check_levels(pcm: Pcm16, rate_hz: int) -> Iterator[Finding]:
    bounds = speech_bounds(pcm, rate_hz)
    # Pauses around it would make any speech look quiet.
    levels = measure(pcm if bounds is None else pcm[slice(*bounds)])
    state, todo = _LEVELS[levels.band]
    found = f"{levels.band}: RMS {levels.rms:.0f} ({levels.dbfs:.0f} dBFS), peak {levels.peak}"
    yield Finding("level", state, found, todo)
    share = levels.clipped_share
    state = FAIL if share > _MUCH_CLIPPING else WARN if share > _LITTLE_CLIPPING else OK
    todo = "" if state == OK else "lower the input level: clipped speech is understood badly"
    yield Finding("clipping", state, f"{100 * share:.2f} % of the samples", todo)
    if levels.band is LevelBand.SILENCE:
        return
    if bounds is None:
        todo = "less noise, or a closer microphone"
        yield Finding("speech", WARN, "nothing stands out of the noise", todo)
        return
    start_s, end_s = (place / rate_hz for place in bounds)
    yield Finding("speech", OK, f"sound from {start_s:.1f} to {end_s:.1f} s")
