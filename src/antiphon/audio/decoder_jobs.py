"""What a decoder process does: whole files and growing recordings -> int16 mono, piece by piece.

FFmpeg's demuxer reads from the connection; it is told the container, so that nothing is probed. Measured with pieces of
100 ms: all audio of a piece comes out with that piece, but for the 7 ms of Opus' own delay (WebM, Ogg) and one 21 ms
frame of AAC (MP4).
"""

from __future__ import annotations

import errno
import io
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, BinaryIO

import av
import av.container
import av.error

from antiphon.audio.decoder_link import MessageKind, receive
from antiphon.audio.frame_decoding import (
    ByteSource,
    MonoSink,
    decoded_frames,
    open_input,
    sound_track,
)
from antiphon.audio.framing import Pcm16
from antiphon.errors import AudioError

OUTPUT_RATE_HZ = 16_000

_SMALLEST_GAP_S = 0.1
"""Time stamps jitter by some packets; silence suppression skips 0.4 s at a time."""
_CLOCK_JUMP_S = 1.0
_MOST_SILENCE_AHEAD_S = 60.0
"""Silence that time stamps ask for beyond the time that has passed. A few bytes can ask for hours."""

_HEADER_BYTES = 4096
"""A recording that was stopped before anything was said is a header of less than this."""


class Pieces:
    """What comes over the connection: one recording after the other, each in pieces."""

    def __init__(self, stream: BinaryIO, on_message: Callable[[], None]) -> None:
        """`on_message` is called before each wait for a message."""
        self._stream = stream
        self._on_message = on_message
        self._held: tuple[MessageKind, bytes] | None = None
        self._rest = memoryview(b"")
        self._ended = False
        self.recording_bytes = 0

    def next_recording(self) -> tuple[str, bytes] | None:
        """Leave out what remains of the current recording. FFmpeg's name of the container, and all of the recording
        where it is there as a whole; None when no other will come."""
        self._rest = memoryview(b"")
        while (message := self._message()) is not None:
            kind, body = message
            if kind is MessageKind.START:
                self.recording_bytes = 0
                return body.decode(), b""
            if kind is MessageKind.WHOLE:
                whole = self._message()
                self.recording_bytes = len(whole[1]) if whole else 0
                return (body.decode(), whole[1]) if whole else None
        return None

    def read(self, size: int) -> bytes:
        """Up to `size` bytes of the current recording; empty at its end. (What FFmpeg calls.)"""
        if not self._rest:
            message = self._message()
            if message is None or message[0] is not MessageKind.DATA:
                self._held = message
                return b""
            self._rest = memoryview(message[1])
            self.recording_bytes += len(message[1])
        cut = bytes(self._rest[:size])
        self._rest = self._rest[len(cut) :]
        return cut

    def _message(self) -> tuple[MessageKind, bytes] | None:
        held, self._held = self._held, None
        if held is not None or self._ended:
            return held
        self._on_message()
        message = receive(self._stream)
        self._ended = message is None or message[0] is MessageKind.END
        return None if self._ended else message


class _Timeline:
    """Finds the gaps that silence suppression leaves between frames."""

    def __init__(self, max_gap_s: float) -> None:
        self._max_gap_s = max_gap_s
        self._next_s: float | None = None
        self._began_s = time.monotonic()
        self._filled_s = 0.0

    def gap_s(self, frame: av.AudioFrame) -> float:
        """Seconds of silence that belong before `frame`."""
        length_s = frame.samples / frame.sample_rate
        start_s = frame.time
        if start_s is None:
            return 0.0
        late_s = 0.0 if self._next_s is None else start_s - self._next_s
        if self._next_s is not None and -_CLOCK_JUMP_S < late_s < _SMALLEST_GAP_S:
            self._next_s += length_s
            return 0.0
        self._next_s = start_s + length_s
        room_s = time.monotonic() - self._began_s + _MOST_SILENCE_AHEAD_S - self._filled_s
        gap_s = max(min(late_s, self._max_gap_s, room_s), 0.0)
        self._filled_s += gap_s
        return gap_s


def decode_recording(
    pieces: Pieces,
    max_gap_s: float,
    give: Callable[[Pcm16], None],
    refuse: Callable[[AudioError], None],
) -> None:
    """Decode every recording that comes; `refuse` is told once of each that cannot be.

    Raises MemoryError for a recording that wants more than this process may take.
    """
    while (start := pieces.next_recording()) is not None:
        demuxer, whole = start
        source: ByteSource = io.BytesIO(whole) if whole else pieces
        try:
            with open_input(source, demuxer, live=not whole) as container:
                _decode_container(container, pieces, max_gap_s, give)
        except AudioError as error:
            refuse(error)
        except (av.error.EOFError, EOFError):
            if pieces.recording_bytes > _HEADER_BYTES:
                refuse(_no_audio())
        except (ConnectionError, MemoryError):
            raise
        except Exception as error:  # noqa: BLE001 - whatever a damaged recording makes PyAV raise
            if getattr(error, "errno", None) == errno.ENOMEM:
                raise MemoryError from None
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            refuse(AudioError(f"the recording cannot be decoded ({reason}); restart the recorder"))


def _decode_container(
    container: av.container.InputContainer,
    pieces: Pieces,
    max_gap_s: float,
    give: Callable[[Pcm16], None],
) -> None:
    stream = sound_track(container)
    if stream is None:
        raise AudioError("the recording holds no sound; record a microphone track")
    timeline = _Timeline(max_gap_s)
    sink = MonoSink(OUTPUT_RATE_HZ, "auto")
    any_audio = False
    for frame in decoded_frames(container, stream):
        any_audio = True
        gap_s = timeline.gap_s(frame)
        for pcm in sink.silence(gap_s) if gap_s else []:
            give(pcm)
        for pcm in sink.feed(frame):
            give(pcm)
    for pcm in sink.flush():
        give(pcm)
    if not any_audio and pieces.recording_bytes > _HEADER_BYTES:
        raise _no_audio()


def _no_audio() -> AudioError:
    return AudioError("no audio could be decoded of this recording; restart the recorder")


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


def decode_whole_file(
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
        return _decode_file_container(
            container, MonoSink(rate_hz, "VHQ"), max_duration_s, give, on_duration
        )


def _decode_file_container(
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
