"""A recording that arrives in pieces -> int16 mono at 16 kHz, while it is being recorded.

For MediaRecorder (WebM, Ogg, MP4), for clients that send a whole file per utterance, and for raw PCM. FFmpeg's
demuxer reads from a queue in a thread per connection; it is told the container, which is sniffed here, so that
nothing is probed. Measured with pieces of 100 ms: all audio of a piece comes out with that piece, but for the
7 ms of Opus' own delay (WebM, Ogg) and one 21 ms frame of AAC (MP4).

Sources: the WebM and Ogg (RFC 3533) container formats, ISO/IEC 14496-12 for boxes. This module
knows nothing of websockets, calls and voice activity. It does not know when nothing arrives, either: with
silence suppression a pause shows only when the next packet does, so whoever decides about silence needs a
clock of its own.
"""

from __future__ import annotations

import io
import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import av
import av.container
import av.error

from antiphon.audio._frames import ByteSource, MonoSink, decoded_frames, open_input
from antiphon.audio.framing import ByteJoiner, Pcm16, SampleFormat
from antiphon.audio.resample import Resampler
from antiphon.errors import AudioError, suggest

OUTPUT_RATE_HZ = 16_000
MAX_BACKLOG_BYTES = 8 * 1024 * 1024
MAX_GAP_S = 10.0
"""A longer gap in the time stamps is filled with this much silence."""

_SMALLEST_GAP_S = 0.1
"""Time stamps jitter by some packets; silence suppression skips 0.4 s at a time."""
_CLOCK_JUMP_S = 1.0

_EBML = b"\x1a\x45\xdf\xa3"
_OGG = b"OggS"
_RIFF = b"RIFF"

_HEADER_BYTES = 4096
"""A recording that was stopped before anything was said is a header of less than this."""

_RAW: dict[str, SampleFormat] = {"pcm_s16le": "s16le", "pcm_f32le": "f32le"}
EXPECTATIONS = ("auto", *_RAW)

_log = logging.getLogger(__name__)


def sniff(head: bytes) -> str | None:
    """FFmpeg's name of the container that starts with `head`; "" when none does, None when more is needed."""
    if head.startswith(_EBML):
        return "matroska"
    if head.startswith(_OGG) and len(head) > 5:
        # Every page starts like this; only the first of a stream has the "beginning of stream" flag.
        return "ogg" if head[5] & 0x02 else ""
    if head[4:8] == b"ftyp":
        return "mov"
    if head.startswith(_RIFF) and len(head) >= 12:
        return "wav" if head[8:12] == b"WAVE" else ""
    for beginning, needed in ((_EBML, 4), (_OGG, 6), (_RIFF, 12), (b"\0", 8)):
        if len(head) < needed and (head.startswith(beginning) or beginning.startswith(head)):
            return None
    return ""


def _is_whole_file(piece: bytes, demuxer: str) -> bool:
    """A WAV or MP4 file that is complete in one piece. Then it may be sought in, and its end is known."""
    if demuxer == "wav":
        return int.from_bytes(piece[4:8], "little") + 8 == len(piece)
    if demuxer != "mov":
        return False
    at, boxes = 0, set()
    while at + 8 <= len(piece):
        size = int.from_bytes(piece[at : at + 4], "big")
        if size < 8:
            return False
        boxes.add(piece[at + 4 : at + 8])
        at += size
    return at == len(piece) and {b"moov", b"mdat"} <= boxes and b"moof" not in boxes


@dataclass(frozen=True, slots=True)
class _Start:
    """A new recording begins here."""

    demuxer: str
    whole: bytes = b""
    """The file, where it came in one piece; nothing else follows then."""


@dataclass(frozen=True, slots=True)
class _RawInput:
    """What raw PCM goes through."""

    joiner: ByteJoiner
    resampler: Resampler


class _Inbox:
    """Pieces on their way from the event loop to the worker. The worker's side blocks, the other never."""

    def __init__(self) -> None:
        self._items: deque[bytes | _Start] = deque()
        self._changed = threading.Condition()
        self._rest = memoryview(b"")
        self._backlog_bytes = 0
        self._ended = False
        self.closed = False
        self.recording_bytes = 0

    @property
    def backlog_bytes(self) -> int:
        return self._backlog_bytes

    def put(self, item: bytes | _Start) -> None:
        with self._changed:
            self._items.append(item)
            self._backlog_bytes += _size(item)
            self._changed.notify()

    def end(self) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify()

    def close(self) -> None:
        with self._changed:
            self.closed = True
            self._items.clear()
            self._backlog_bytes = 0
            self._changed.notify()

    def read(self, size: int) -> bytes:
        """Up to `size` bytes of the current recording; empty at its end. (What FFmpeg calls.)"""
        if not self._rest:
            piece = self.next_piece()
            if piece is None:
                return b""
            self._rest = memoryview(piece)
        cut = bytes(self._rest[:size])
        self._rest = self._rest[len(cut) :]
        return b"" if self.closed else cut

    def next_piece(self) -> bytes | None:
        """The next piece of the current recording, None at its end."""
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._ended or self.closed)
            if not self._items or isinstance(self._items[0], _Start):
                return None
            return self._take_bytes()

    def next_recording(self) -> _Start | None:
        """Leave out what remains of the current recording; None when no other will come."""
        self._rest = memoryview(b"")
        with self._changed:
            while True:
                self._changed.wait_for(lambda: self._items or self._ended or self.closed)
                if not self._items:
                    return None
                item = self._items.popleft()
                self._backlog_bytes -= _size(item)
                if isinstance(item, _Start):
                    self.recording_bytes = len(item.whole)
                    return item

    def _take_bytes(self) -> bytes:
        item = self._items.popleft()
        assert isinstance(item, bytes)
        self._backlog_bytes -= len(item)
        self.recording_bytes += len(item)
        return item


def _size(item: bytes | _Start) -> int:
    return len(item.whole) if isinstance(item, _Start) else len(item)


class _Timeline:
    """Finds the gaps that silence suppression leaves between frames."""

    def __init__(self, max_gap_s: float) -> None:
        self._max_gap_s = max_gap_s
        self._next_s: float | None = None

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
        return min(max(late_s, 0.0), self._max_gap_s)


def _no_audio() -> AudioError:
    return AudioError("no audio could be decoded of this recording; restart the recorder")


class StreamDecoder:
    """Decodes what one connection sends. One worker thread, from construction to `close`.

    `on_audio(pcm)` (int16 mono 16 kHz, shape [n]) and `on_error(error)` are called from the worker, in order; they
    must be quick and must not raise. There is one error per recording that cannot be decoded; the next recording
    (a header in a later piece) is decoded again.
    """

    def __init__(
        self,
        on_audio: Callable[[Pcm16], None],
        on_error: Callable[[AudioError], None],
        *,
        expect: str = "auto",
        rate_hz: int = 0,
        max_backlog_bytes: int = MAX_BACKLOG_BYTES,
        max_gap_s: float = MAX_GAP_S,
    ) -> None:
        """`expect`: `auto` sniffs the container; `pcm_s16le` and `pcm_f32le` are raw mono at `rate_hz`.

        Raises AudioError for an unknown expectation, or raw audio without a rate.
        """
        if expect not in EXPECTATIONS:
            raise AudioError(f"unknown audio {expect!r}{suggest(expect, EXPECTATIONS)}")
        if expect != "auto" and not 1_000 <= rate_hz <= 384_000:
            raise AudioError(f"raw audio needs its rate in Hz, 1000 to 384000; got {rate_hz}")
        self._on_audio = on_audio
        self._on_error = on_error
        self._max_backlog_bytes = max_backlog_bytes
        self._max_gap_s = max_gap_s
        self._inbox = _Inbox()
        self._raw: _RawInput | None = None
        if expect != "auto":
            self._raw = _RawInput(ByteJoiner(_RAW[expect]), Resampler(rate_hz, OUTPUT_RATE_HZ))
        self._held = b""  # a beginning too short to be recognised
        self._dropped_bytes = 0
        self._in_recording = False
        self._complained = False
        self._ended = False
        self._worker = threading.Thread(target=self._run, name="audio-decoder", daemon=True)
        self._worker.start()

    # --- called by the connection ------------------------------------------------------------------

    def feed(self, piece: bytes) -> None:
        """Hand over the next piece, of any size; never waits.

        Raises AudioError when more than `max_backlog_bytes` wait to be decoded, when a recording starts without its
        header (once, until a header comes), and after `end` or `close`.
        """
        if self._ended:
            raise AudioError("this audio stream has ended; open a new connection")
        if not piece:
            return
        if self._inbox.backlog_bytes > self._max_backlog_bytes:
            self._in_recording = False  # what follows the gap cannot be decoded
            self._held = b""
            self._dropped_bytes += len(piece)
            raise AudioError(
                f"audio arrives faster than it can be decoded: over {self._max_backlog_bytes} bytes "
                "wait; send it slower and restart the recorder"
            )
        if self._raw is not None:
            # Whole samples stay whole behind dropped pieces: formats have 2 or 4 bytes per sample.
            filler, self._dropped_bytes = bytes(self._dropped_bytes % 4), 0
            self._inbox.put(filler + piece)
        else:
            self._feed_container(bytes(piece))

    def end(self) -> None:
        """No more pieces will come. Returns at once; `join` waits until all audio has been given out."""
        if self._ended:
            return
        self._ended = True
        if self._held and self._in_recording:
            self._inbox.put(self._held)
        self._inbox.end()

    def join(self, timeout_s: float) -> bool:
        """After `end`: wait for the worker. Blocking. True when it has given out everything."""
        self._worker.join(timeout_s)
        return not self._worker.is_alive()

    def close(self, timeout_s: float = 2.0) -> bool:
        """Drop what waits and release the worker; no callback runs after it. May be called twice, from anywhere.

        Waits for the worker, which is done as soon as the packet or the callback at hand is: at most `timeout_s`.
        False when even that was not enough; the worker then ends later, by itself.
        """
        self._ended = True
        self._inbox.close()
        if threading.current_thread() is self._worker:
            return True
        return self.join(timeout_s)

    def _feed_container(self, piece: bytes) -> None:
        demuxer = sniff(piece)
        held, self._held = self._held, b""
        if held and demuxer:
            self._continue(held)
        elif held:
            piece = held + piece
            demuxer = sniff(piece)
        if demuxer is None:
            self._held = piece
        elif demuxer:
            self._begin(demuxer, piece)
        else:
            self._continue(piece)

    def _begin(self, demuxer: str, piece: bytes) -> None:
        self._complained = False
        whole = _is_whole_file(piece, demuxer)
        self._in_recording = not whole
        self._inbox.put(_Start(demuxer, piece if whole else b""))
        if not whole:
            self._inbox.put(piece)

    def _continue(self, piece: bytes) -> None:
        if self._in_recording:
            self._inbox.put(piece)
        elif not self._complained:
            self._complained = True
            raise AudioError(
                "this is the middle of a recording, or no WebM, Ogg, MP4 or WAV at all; restart the "
                "recorder, or announce raw PCM and its rate"
            )

    # --- the worker ---------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            if self._raw is not None:
                self._decode_raw(self._raw)
            else:
                while (start := self._inbox.next_recording()) is not None:
                    self._decode_recording(start)
        except Exception as error:  # noqa: BLE001 - the connection must hear of it
            _log.exception("audio decoder failed")
            self._report(AudioError(f"the audio decoder failed ({error}); open a new connection"))

    def _decode_raw(self, raw: _RawInput) -> None:
        while (piece := self._inbox.next_piece()) is not None:
            pcm = raw.joiner.feed(piece)
            for at in range(0, len(pcm), raw.resampler.from_hz):
                self._give([raw.resampler.process(pcm[at : at + raw.resampler.from_hz])])
        self._give([raw.resampler.flush()])

    def _decode_recording(self, start: _Start) -> None:
        source: ByteSource = io.BytesIO(start.whole) if start.whole else self._inbox
        try:
            with open_input(source, start.demuxer, live=not start.whole) as container:
                self._decode_container(container)
        except AudioError as error:
            self._report(error)
        except (av.error.EOFError, EOFError):
            if self._inbox.recording_bytes > _HEADER_BYTES:
                self._report(_no_audio())
        except (av.error.FFmpegError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            self._report(
                AudioError(f"the recording cannot be decoded ({reason}); restart the recorder")
            )

    def _decode_container(self, container: av.container.InputContainer) -> None:
        if not container.streams.audio:
            raise AudioError("the recording holds no sound; record a microphone track")
        timeline = _Timeline(self._max_gap_s)
        sink = MonoSink(OUTPUT_RATE_HZ, "auto")
        any_audio = False
        for frame in decoded_frames(container, container.streams.audio[0]):
            if self._inbox.closed:
                return
            any_audio = True
            gap_s = timeline.gap_s(frame)
            if gap_s:
                self._give(sink.silence(gap_s))
            self._give(sink.feed(frame))
        self._give(sink.flush())
        if not any_audio and self._inbox.recording_bytes > _HEADER_BYTES:
            raise _no_audio()

    def _give(self, pieces: list[Pcm16]) -> None:
        for pcm in pieces:
            if len(pcm) and not self._inbox.closed:
                self._on_audio(pcm)

    def _report(self, error: AudioError) -> None:
        if not self._inbox.closed:
            self._on_error(error)
