"""What decoding a file and decoding a stream share: opening with PyAV, and frames of any kind -> int16 mono.

Mixing down and resampling are done here and not by FFmpeg's resampler: it refuses channel layouts that it has
no name for, and its state cannot take silence for gaps. All of this runs in a decoder process (`decoder_process`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Any, Protocol

import av
import av.container
import av.error
import numpy as np
import numpy.typing as npt
from av.stream import Discard

from antiphon.audio.framing import Pcm16, float_to_pcm, mix_to_mono
from antiphon.audio.resample import Resampler
from antiphon.errors import AudioError

# Demuxers that read nothing but the bytes they are given. FFmpeg's others include playlists (HLS, concat, DASH),
# which would open local files and network addresses on a stranger's word.
_DEMUXERS = (
    "aac,ac3,act,adx,aea,aiff,alaw,amr,amrnb,amrwb,ape,apm,asf,ast,au,avi,bit,caf,daud,dsf,dts,dtshd,dv,eac3,"
    "epaf,f32be,f32le,f64be,f64le,flac,flv,g722,g723_1,g729,gsm,gxf,iff,ilbc,ircam,loas,lvf,matroska,mca,mlp,"
    "mov,mp3,mpc,mpc8,mpeg,mpegts,msf,mtv,mulaw,mxf,nistsphere,nsv,nut,ogg,oma,pvf,qcp,rm,rsd,rso,shn,sln,sol,sox,"
    "spdif,swf,tak,truehd,tta,vag,voc,vqf,w64,wav,wsd,wv,xa,xwma"
)


# Up to version 18 PyAV refuses a file whose tags are not UTF-8, unless told to pass over it; 19 always does.
_TAG_ERRORS: dict[str, Any] = (
    {"metadata_errors": "ignore"} if int(av.__version__.split(".")[0]) < 19 else {}
)
_SAMPLE_TYPES = {"u8": "u1", "s16": "i2", "s32": "i4", "flt": "f4", "dbl": "f8"}
"""FFmpeg's names -> NumPy's."""
_MOST_FAILURES = 50
"""Damaged packets in a row after which a recording is given up."""
_MOST_STREAMS = 64
"""Tracks of a file, of all kinds. Films have some dozens with their subtitles."""
MAX_CHANNELS = 8
_RATES_HZ = range(1_000, 3_072_001)
"""From the slowest telemetry to DSD512."""
_MAX_FRAME_SAMPLES = 1 << 21
"""Of one channel. The longest frames of real formats have some 300,000."""
_layouts: list[object] = []
"""Of tracks, and of frames of more than one channel, until the process ends. PyAV frees the map of a layout that is
not one of FFmpeg's own (7.1 in AIFF) with its Python object, and FFmpeg frees the same map with the frame."""


def demuxers() -> tuple[str, ...]:
    """FFmpeg's names of the containers that are read."""
    return tuple(_DEMUXERS.split(","))


class ByteSource(Protocol):
    """All that is needed of a stream that cannot seek."""

    def read(self, size: int) -> bytes: ...


def _refuse(url: str, flags: int, options: Any) -> Any:
    raise av.error.PermissionError(1, f"audio files must not refer to others ({url})")


def open_input(
    source: IO[bytes] | ByteSource, demuxer: str = "", *, live: bool = False
) -> av.container.InputContainer:
    """Open audio that is read from `source`.

    `live`: the demuxer is known and nothing is probed, so that the first audio comes out with the first piece.
    ("fflags nobuffer" would make FFmpeg throw away the first packet.) Raises av.error.FFmpegError.
    """
    options = {"format_whitelist": _DEMUXERS, "max_streams": str(_MOST_STREAMS)}
    if live:
        options |= {"probesize": "32", "analyzeduration": "0"}
    if demuxer == "wav":
        options["max_size"] = "1024"  # bytes per packet: 32 ms at 16 kHz
    container: av.container.InputContainer = av.open(
        source,
        "r",
        format=demuxer or None,
        options=options,
        buffer_size=8192 if live else 32768,
        io_open=_refuse,
        **_TAG_ERRORS,
    )
    return container


def sound_track(container: av.container.InputContainer) -> av.AudioStream | None:
    """The first track of sound; all others are passed over unread. Raises AudioError for one of too many channels."""
    if not container.streams.audio:
        return None
    sound = container.streams.audio[0]
    for stream in container.streams:
        if stream.index != sound.index:
            stream.discard = Discard.all
    sound.codec_context.thread_count = 1
    layout = sound.codec_context.layout
    _layouts.append(layout)
    if layout.nb_channels > MAX_CHANNELS:
        raise _too_many_channels(layout.nb_channels)
    return sound


def decoded_frames(
    container: av.container.InputContainer, stream: av.AudioStream
) -> Iterator[av.AudioFrame]:
    """All frames that can be had; damaged packets are left out.

    Raises av.error.FFmpegError when the container itself is damaged beyond finding the next packet, AudioError for
    frames of a shape that no sound has.
    """
    failures = 0
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
            if packet is None:
                return
            frames = stream.decode(packet)
        except (av.error.EOFError, EOFError):
            return
        except av.error.FFmpegError:
            failures += 1
            if failures > _MOST_FAILURES:
                raise
            packets = container.demux(stream)
            continue
        failures = 0
        for frame in frames:
            _check(frame)
            yield frame


def _check(frame: av.AudioFrame) -> None:
    """A stream may change its shape with every frame, whatever its header says."""
    if frame.layout.nb_channels > 1:
        _layouts.append(frame.layout)
    if frame.layout.nb_channels > MAX_CHANNELS:
        raise _too_many_channels(frame.layout.nb_channels)
    if frame.layout.nb_channels < 1 or frame.samples > _MAX_FRAME_SAMPLES:
        raise AudioError(
            f"a frame of {frame.layout.nb_channels} channels and {frame.samples} samples is no sound; send WAV"
        )
    if frame.sample_rate not in _RATES_HZ:
        raise AudioError(
            f"the audio has {frame.sample_rate} samples a second; send {_RATES_HZ[0]} to {_RATES_HZ[-1]}"
        )


def _too_many_channels(channels: int) -> AudioError:
    return AudioError(
        f"the audio has {channels} channels, and {MAX_CHANNELS} is the most; send mono or stereo"
    )


def frame_to_mono(frame: av.AudioFrame) -> Pcm16:
    """A frame of any sample format and up to 8 channels -> the mean of its channels, shape [frame.samples]."""
    by_channel = _samples(frame)
    if by_channel.dtype == np.int16:
        return mix_to_mono(by_channel)
    mixed = by_channel.mean(axis=1, dtype=np.float64)
    if by_channel.dtype == np.uint8:
        mixed = (mixed - 128) / 128
    elif by_channel.dtype == np.int32:
        mixed /= 2.0**31
    return float_to_pcm(mixed)


def _samples(frame: av.AudioFrame) -> npt.NDArray[Any]:
    """Shape [samples, channels]. Not `frame.to_ndarray`: with 8 planes or more it reads beyond the last one."""
    kind = _SAMPLE_TYPES.get(frame.format.name.removesuffix("p"))
    if kind is None:
        raise AudioError(f"sample format {frame.format.name} is not supported; send WAV")
    channels = frame.layout.nb_channels
    if not frame.format.is_planar:
        count = frame.samples * channels
        return np.frombuffer(memoryview(frame.planes[0]), kind, count).reshape(-1, channels)
    planes = frame.planes[:channels]
    samples = [np.frombuffer(memoryview(plane), kind, frame.samples) for plane in planes]
    return np.stack(samples).T


class MonoSink:
    """Frames in, int16 mono at one rate out, even where a file changes its rate or channels on the way."""

    def __init__(self, rate_hz: int | None, quality: str) -> None:
        """`rate_hz`: None keeps the rate of the first frame."""
        self.rate_hz = rate_hz
        self._quality = quality
        self._resampler: Resampler | None = None

    def feed(self, frame: av.AudioFrame) -> list[Pcm16]:
        """The audio that is ready, in pieces of shape [n]."""
        return self._process(frame_to_mono(frame), frame.sample_rate)

    def silence(self, duration_s: float) -> list[Pcm16]:
        """As `feed`, for a gap. Nothing before the first frame."""
        if self._resampler is None:
            return []
        rate_hz = self._resampler.from_hz
        return self._process(np.zeros(round(duration_s * rate_hz), np.int16), rate_hz)

    def _process(self, pcm: Pcm16, from_hz: int) -> list[Pcm16]:
        ready: list[Pcm16] = []
        if self._resampler is None or self._resampler.from_hz != from_hz:
            ready += self.flush()
            self.rate_hz = self.rate_hz or from_hz
            self._resampler = Resampler(from_hz, self.rate_hz, self._quality)
        ready.append(self._resampler.process(pcm))
        return [piece for piece in ready if len(piece)]

    def flush(self) -> list[Pcm16]:
        """What the resampler held back. The next frame begins a new stream."""
        if self._resampler is None:
            return []
        rest = self._resampler.flush()
        return [rest] if len(rest) else []
