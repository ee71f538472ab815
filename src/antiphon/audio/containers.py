"""Audio files: whatever FFmpeg reads -> int16 mono, in memory and within a limit.

`decode_file` is for a file that is there as a whole. Its two relatives are offered here as well: `encode_file` and
`StreamEncoder` (module `encoding`), and `StreamDecoder` for recordings that arrive in pieces (module
`streaming`). Nothing here knows who sends the audio or what becomes of it, and nothing runs a program or
writes a temporary file.
"""

from __future__ import annotations

import io
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import av
import av.container
import av.error
import numpy as np

from antiphon.audio._frames import MonoSink, decoded_frames, open_input
from antiphon.audio.encoding import (
    CONTENT_TYPES,
    FORMATS,
    StreamEncoder,
    encode_file,
    format_of,
    wav_header,
)
from antiphon.audio.framing import Pcm16
from antiphon.audio.streaming import StreamDecoder
from antiphon.errors import AudioError
from antiphon.files import open_regular

__all__ = [
    "CONTENT_TYPES",
    "FORMATS",
    "MAX_DURATION_S",
    "Decoded",
    "StreamDecoder",
    "StreamEncoder",
    "decode_file",
    "encode_file",
    "format_of",
    "wav_header",
]

MAX_DURATION_S = 1800.0
"""Longest file by default: half an hour, 58 MB at 16 kHz."""

# Formats whose declared length can be believed. That of MP3 and AAC is a guess from the bit rate, that of WAV is
# 0 or 2**32 - 1 wherever somebody streamed it.
_HONEST_FORMATS = frozenset({"flac", "ogg", "matroska,webm", "mov,mp4,m4a,3gp,3g2,mj2"})


@dataclass(frozen=True, slots=True)
class Decoded:
    """A decoded file."""

    pcm: Pcm16
    """Mono, shape [samples]."""
    rate_hz: int
    """Of `pcm`."""
    source_format: str
    """FFmpeg's name of the container, e.g. `wav`, `matroska,webm`."""
    source_rate_hz: int
    channels: int
    """Of the source."""
    duration_s: float
    """Of what could be decoded."""


def decode_file(
    source: bytes | bytearray | memoryview | str | os.PathLike[str] | IO[bytes],
    *,
    rate_hz: int | None = 16_000,
    max_duration_s: float = MAX_DURATION_S,
) -> Decoded:
    """Decode the first audio stream of a file: bytes, a path, or an open binary file.

    Any rate, channel count and sample format; a video file gives its sound. Channels are averaged. `rate_hz` None
    keeps the rate of the source. A file that breaks off gives what can be decoded of it. Blocking: a minute of MP3
    takes about 0.1 s.

    Raises AudioError when nothing can be decoded, and, before more than the limit has been decoded, for audio
    longer than `max_duration_s`.
    """
    if isinstance(source, (str, os.PathLike)):
        return _decode_path(Path(source), rate_hz, max_duration_s)
    if isinstance(source, (bytes, bytearray, memoryview)):
        if not len(source):
            raise AudioError("the audio file is empty; send a recording")
        return _decode_open(io.BytesIO(source), rate_hz, max_duration_s)
    return _decode_open(source, rate_hz, max_duration_s)


def _decode_path(path: Path, rate_hz: int | None, max_duration_s: float) -> Decoded:
    try:
        with open_regular(path, AudioError) as file:
            if not os.fstat(file.fileno()).st_size:
                raise AudioError(f"{path} is empty; give a recording")
            return _decode_open(file, rate_hz, max_duration_s)
    except OSError as error:
        raise AudioError(
            f"cannot read {path}: {error.strerror or error}; check the path"
        ) from error


def _decode_open(file: IO[bytes], rate_hz: int | None, max_duration_s: float) -> Decoded:
    try:
        container = open_input(file)
    except (av.error.FFmpegError, ValueError) as error:
        # Not "from error": FFmpeg's errors are OSErrors too, and would be taken for those of the file.
        reason = getattr(error, "strerror", None) or str(error)
        raise AudioError(
            f"this is not audio that can be read ({reason}); send WAV, MP3, Ogg, FLAC, MP4 or WebM"
        ) from None
    with container:
        if not container.streams.audio:
            raise AudioError("the file holds no audio; send one with a sound track")
        return _decode_stream(container, rate_hz, max_duration_s)


def _decode_stream(
    container: av.container.InputContainer, rate_hz: int | None, max_duration_s: float
) -> Decoded:
    stream = container.streams.audio[0]
    name = container.format.name
    declared_s = (container.duration or 0) / av.time_base
    if name in _HONEST_FORMATS and declared_s > max_duration_s:
        raise _too_long(max_duration_s)
    sink = MonoSink(rate_hz, "VHQ")
    pieces: list[Pcm16] = []
    duration_s = 0.0
    source_rate_hz = channels = 0
    with suppress(av.error.FFmpegError):  # where the file is damaged for good, it ends
        for frame in decoded_frames(container, stream):
            duration_s += frame.samples / frame.sample_rate
            if duration_s > max_duration_s:
                raise _too_long(max_duration_s)
            source_rate_hz = source_rate_hz or frame.sample_rate
            channels = channels or frame.layout.nb_channels
            pieces += sink.feed(frame)
    pieces += sink.flush()
    if not duration_s:
        raise AudioError(
            "no audio could be decoded: the file is damaged or holds none; record it again"
        )
    pcm = np.concatenate(pieces) if pieces else np.zeros(1, np.int16)
    return Decoded(pcm, sink.rate_hz or source_rate_hz, name, source_rate_hz, channels, duration_s)


def _too_long(max_duration_s: float) -> AudioError:
    return AudioError(
        f"the audio is longer than {max_duration_s:g} s, the limit; send it in shorter files"
    )
