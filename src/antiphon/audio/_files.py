"""A whole file -> int16 mono, piece by piece, in a decoder process."""

from __future__ import annotations

import errno
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import IO

import av
import av.container
import av.error

from antiphon.audio._frames import MonoSink, decoded_frames, open_input, sound_track
from antiphon.audio.framing import Pcm16
from antiphon.errors import AudioError

# Formats whose declared length can be believed. That of MP3 and AAC is a guess from the bit rate, that of WAV is
# 0 or 2**32 - 1 wherever somebody streamed it.
_HONEST_FORMATS = frozenset({"flac", "ogg", "matroska,webm", "mov,mp4,m4a,3gp,3g2,mj2"})


@dataclass(frozen=True, slots=True)
class Facts:
    """What a file was."""

    rate_hz: int
    """Of the decoded audio."""
    source_format: str
    source_rate_hz: int
    channels: int
    duration_s: float


def decode(
    file: IO[bytes],
    rate_hz: int | None,
    max_duration_s: float,
    give: Callable[[Pcm16], None],
    on_duration: Callable[[float], None],
) -> Facts:
    """Decode the first sound track; `give` gets the pieces, each of shape [n], `on_duration` the seconds so far.

    Raises AudioError, and MemoryError for a file that wants more than this process may take.
    """
    try:
        container = open_input(file)
    except (av.error.FFmpegError, ValueError) as error:
        if getattr(error, "errno", None) == errno.ENOMEM:
            raise MemoryError from None
        # Not "from error": FFmpeg's errors are OSErrors too, and would be taken for those of the file.
        reason = getattr(error, "strerror", None) or str(error)
        raise AudioError(
            f"this is not audio that can be read ({reason}); send WAV, MP3, Ogg, FLAC, MP4 or WebM"
        ) from None
    with container:
        return _decode_container(
            container, MonoSink(rate_hz, "VHQ"), max_duration_s, give, on_duration
        )


def _decode_container(
    container: av.container.InputContainer,
    sink: MonoSink,
    max_duration_s: float,
    give: Callable[[Pcm16], None],
    on_duration: Callable[[float], None],
) -> Facts:
    stream = sound_track(container)
    if stream is None:
        raise AudioError("the file holds no audio; send one with a sound track")
    name = container.format.name
    declared_s = (container.duration or 0) / av.time_base
    if name in _HONEST_FORMATS and declared_s > max_duration_s:
        raise _too_long(max_duration_s)
    duration_s = 0.0
    source_rate_hz = channels = 0
    with suppress(av.error.FFmpegError):  # where the file is damaged for good, it ends
        for frame in decoded_frames(container, stream):
            duration_s += frame.samples / frame.sample_rate
            if duration_s > max_duration_s:
                raise _too_long(max_duration_s)
            on_duration(duration_s)
            source_rate_hz = source_rate_hz or frame.sample_rate
            channels = channels or frame.layout.nb_channels
            for pcm in sink.feed(frame):
                give(pcm)
    for pcm in sink.flush():
        give(pcm)
    if not duration_s:
        raise AudioError(
            "no audio could be decoded: the file is damaged or holds none; record it again"
        )
    return Facts(sink.rate_hz or source_rate_hz, name, source_rate_hz, channels, duration_s)


def _too_long(max_duration_s: float) -> AudioError:
    return AudioError(
        f"the audio is longer than {max_duration_s:g} s, the limit; send it in shorter files"
    )
