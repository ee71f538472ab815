"""Audio files: whatever FFmpeg reads -> int16 mono, in memory and within a limit.

`decode_file` is for a file that is there as a whole. Its two relatives are offered here as well: `encode_file` and
`StreamEncoder` (module `encoding`), and `StreamDecoder` for recordings that arrive in pieces (module
`streaming`). Decoding happens in other processes (module `decoders`); no temporary file is written.
"""

from __future__ import annotations

import io
import json
import os
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from antiphon.audio import decoders
from antiphon.audio.decoder_link import MessageKind
from antiphon.audio.encoding import (
    CONTENT_TYPES,
    FORMATS,
    StreamEncoder,
    encode_file,
    format_of,
    wav_header,
)
from antiphon.audio.framing import Pcm16
from antiphon.audio.streaming_decoder import StreamDecoder
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
_MAX_RATE_HZ = 3_072_000


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

    Any rate, up to 8 channels, any sample format; a video file gives its sound. Channels are averaged. `rate_hz` None
    keeps the rate of the source. A file that breaks off gives what can be decoded of it. FFmpeg runs in a process of
    its own (`decoder_process`), so that no file can end this one or fill its memory. Blocking: a minute of MP3 takes
    about 0.1 s.

    Raises AudioError when nothing can be decoded, and, before more than the limit has been decoded, for audio
    longer than `max_duration_s`; BusyError when too many other files wait to be decoded.
    """
    if isinstance(source, (str, os.PathLike)):
        return _decode_path(Path(source), rate_hz, max_duration_s)
    if isinstance(source, (bytes, bytearray, memoryview)):
        if not len(source):
            raise AudioError("the audio file is empty; send a recording")
        source = io.BytesIO(source)
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
    most_bytes = 2 * (rate_hz or _MAX_RATE_HZ) * (max_duration_s + 1)
    samples = bytearray()
    with closing(decoders.decode_file(file, rate_hz, max_duration_s)) as messages:
        for kind, body in messages:
            if kind is MessageKind.PCM and len(samples) + len(body) <= most_bytes:
                samples += body
            elif kind is MessageKind.FACTS:
                return Decoded(_pcm(samples), **json.loads(body))
            else:
                raise decoders.DecoderLost("crashed")
    raise decoders.DecoderLost("crashed")


def _pcm(samples: bytearray) -> Pcm16:
    pcm: Pcm16 = np.frombuffer(samples or bytes(2), "<i2").astype(np.int16, copy=False)
    return pcm
