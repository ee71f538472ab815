"""PCM -> audio files and audio streams: WAV, MP3, Opus in Ogg, FLAC, AAC, WebM, raw.

A stream is a file whose end is not known when its first bytes are sent: no sizes, no index, small pages. This
module knows nothing of HTTP (but it knows the content type of each format) and of where the audio comes from.
"""

from __future__ import annotations

import io
import os
import struct
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import PurePath
from typing import IO, Any

import av
import av.error

from antiphon.audio.framing import Pcm16, pcm_to_bytes
from antiphon.audio.resample import Resampler
from antiphon.errors import AudioError, suggest

MIN_BITRATE_KBPS = 8
MAX_BITRATE_KBPS = 320

_UNKNOWN_SIZE = 0xFFFFFFFF

_OPUS_RATES_HZ = (8_000, 12_000, 16_000, 24_000, 48_000)
_MP3_RATES_HZ = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
_AAC_RATES_HZ = (7_350, *_MP3_RATES_HZ, 64_000, 88_200, 96_000)


@dataclass(frozen=True, slots=True)
class _Spec:
    """How one format is made with FFmpeg. No muxer: the samples themselves."""

    content_type: str
    muxer: str = ""
    codec: str = ""
    rates_hz: tuple[int, ...] = ()
    """Rates the codec takes; empty: any."""
    max_kbps: int = MAX_BITRATE_KBPS
    """What the encoder takes for one channel."""
    stream_options: dict[str, str] = field(default_factory=dict)
    """What makes the muxer give out its bytes early."""


_SPECS = {
    "wav": _Spec("audio/wav"),
    "mp3": _Spec(
        "audio/mpeg",
        "mp3",
        "libmp3lame",
        _MP3_RATES_HZ,
        stream_options={"write_xing": "0", "id3v2_version": "0"},
    ),
    "opus": _Spec("audio/ogg", "ogg", "libopus", _OPUS_RATES_HZ, 256, {"page_duration": "20000"}),
    "flac": _Spec("audio/flac", "flac", "flac"),
    "aac": _Spec("audio/aac", "adts", "aac", _AAC_RATES_HZ),
    "pcm": _Spec("audio/pcm"),
    "webm": _Spec(
        "audio/webm",
        "webm",
        "libopus",
        _OPUS_RATES_HZ,
        256,
        {"live": "1", "cluster_time_limit": "20"},
    ),
}

FORMATS = tuple(_SPECS)
"""Names of the formats that can be written."""
CONTENT_TYPES = {name: spec.content_type for name, spec in _SPECS.items()}

_EXTENSIONS = {f".{name}": name for name in FORMATS} | {
    ".wave": "wav",
    ".ogg": "opus",
    ".oga": "opus",
    ".weba": "webm",
    ".raw": "pcm",
}


def format_of(path: str | os.PathLike[str]) -> str:
    """The format that a file name asks for by its extension. Raises AudioError for one that cannot be written."""
    extension = PurePath(path).suffix.lower()
    if extension in _EXTENSIONS:
        return _EXTENSIONS[extension]
    if not extension:
        raise AudioError(
            f"{path} has no extension to tell its format; use {', '.join(_EXTENSIONS)}"
        )
    raise AudioError(f"cannot write {extension} audio{suggest(extension, _EXTENSIONS)}")


def wav_header(rate_hz: int, data_bytes: int | None, channels: int = 1) -> bytes:
    """The 44 bytes before 16-bit samples.

    `data_bytes` None: not known yet; both sizes are then 2**32 - 1, which players and FFmpeg read as "to the end".
    """
    size = _UNKNOWN_SIZE if data_bytes is None else data_bytes
    return struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        *(b"RIFF", min(_UNKNOWN_SIZE, size + 36), b"WAVE", b"fmt ", 16, 1, channels),
        *(rate_hz, rate_hz * 2 * channels, 2 * channels, 16, b"data", min(_UNKNOWN_SIZE, size)),
    )


def encode_file(pcm: Pcm16, rate_hz: int, fmt: str, bitrate_kbps: int = 64) -> bytes:
    """Mono PCM of shape [n] -> the bytes of a whole file with its length in the header.

    `bitrate_kbps` matters to mp3, opus, aac and webm; the codec may lower it to what the rate allows. A rate
    that the codec lacks is raised to the next it has. Raises AudioError for unknown formats, rates and bit rates.
    """
    spec = _checked(fmt, rate_hz, bitrate_kbps)
    if not spec.muxer:
        data = pcm_to_bytes(pcm)
        return (wav_header(rate_hz, len(data)) if fmt == "wav" else b"") + data
    if not len(pcm):
        raise AudioError(f"there is no audio to write as {fmt}; give one sample or more")
    file = io.BytesIO()
    muxer = _Muxer(file, spec, rate_hz, bitrate_kbps, {}, "VHQ")
    muxer.write(pcm)
    muxer.close()
    return file.getvalue()


class StreamEncoder:
    """PCM in, bytes of one file out, as early as the format allows. Not for several threads at once.

    Held back at most, 64 kbit/s and 24 kHz: nothing for wav and pcm, 40 ms for opus, 60 ms for webm, 90 ms for mp3
    and aac, 0.2 s for flac.
    """

    def __init__(self, fmt: str, rate_hz: int, bitrate_kbps: int = 64) -> None:
        """Raises AudioError for unknown formats, rates and bit rates."""
        spec = _checked(fmt, rate_hz, bitrate_kbps)
        self.content_type = spec.content_type
        self._sink = _Sink()
        self._muxer: _Muxer | None = None
        if spec.muxer:
            options = {"flush_packets": "1"} | spec.stream_options
            self._muxer = _Muxer(self._sink, spec, rate_hz, bitrate_kbps, options, "auto")
        elif fmt == "wav":
            self._sink.write(wav_header(rate_hz, None))

    def encode(self, pcm: Pcm16) -> bytes:
        """The bytes that are ready after `pcm` of shape [n]; the first ones include the header."""
        if self._muxer is None:
            self._sink.write(pcm_to_bytes(pcm))
        elif len(pcm):
            self._muxer.write(pcm)
        return self._sink.take()

    def finish(self) -> bytes:
        """The last bytes. A stream that never had a sample ends as an empty one."""
        if self._muxer is not None:
            self._muxer.close()
            self._muxer = None
        return self._sink.take()


def _checked(fmt: str, rate_hz: int, bitrate_kbps: int) -> _Spec:
    if fmt not in _SPECS:
        raise AudioError(f"unknown audio format {fmt!r}{suggest(fmt, FORMATS)}")
    if not 1_000 <= rate_hz <= 384_000:
        raise AudioError(f"cannot write audio at {rate_hz} Hz; use 1000 to 384000")
    if not MIN_BITRATE_KBPS <= bitrate_kbps <= MAX_BITRATE_KBPS:
        raise AudioError(
            f"a bit rate of {bitrate_kbps} kbit/s cannot be written; "
            f"use {MIN_BITRATE_KBPS} to {MAX_BITRATE_KBPS}"
        )
    return _SPECS[fmt]


class _Sink:
    """The file PyAV writes to. It cannot seek, so nothing that was taken is ever changed."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def write(self, data: bytes) -> int:
        self._bytes += data
        return len(data)

    def take(self) -> bytes:
        ready = bytes(self._bytes)
        self._bytes.clear()
        return ready


class _Muxer:
    """One encoder and one container around it."""

    def __init__(
        self,
        file: IO[bytes] | _Sink,
        spec: _Spec,
        rate_hz: int,
        bitrate_kbps: int,
        options: dict[str, str],
        quality: str,
    ) -> None:
        rates = spec.rates_hz
        self._rate_hz = min((r for r in rates if r >= rate_hz), default=max(rates, default=rate_hz))
        if not rates:
            self._rate_hz = rate_hz
        self._resampler = Resampler(rate_hz, self._rate_hz, quality)
        self._container = av.open(file, "w", format=spec.muxer, options=options)
        stream: Any = self._container.add_stream(spec.codec, rate=self._rate_hz)
        stream.layout = "mono"
        stream.bit_rate = min(bitrate_kbps, spec.max_kbps) * 1000
        self._stream: av.AudioStream = stream
        self._samples = 0

    def write(self, pcm: Pcm16) -> None:
        self._write(self._resampler.process(pcm))

    def close(self) -> None:
        self._write(self._resampler.flush())
        if self._samples:
            self._container.mux(self._stream.encode(None))
        self._container.close()

    def _write(self, pcm: Pcm16) -> None:
        if not len(pcm):
            return
        frame = av.AudioFrame.from_ndarray(pcm.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate = self._rate_hz
        frame.pts = self._samples
        frame.time_base = Fraction(1, self._rate_hz)
        self._samples += len(pcm)
        try:
            self._container.mux(self._stream.encode(frame))
        except av.error.FFmpegError as error:
            raise AudioError(
                f"cannot encode audio ({error.strerror}); try another bit rate"
            ) from error
