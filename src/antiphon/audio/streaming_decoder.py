"""A recording that arrives in pieces -> int16 mono at 16 kHz, while it is being recorded.

For MediaRecorder (WebM, Ogg, MP4) and for clients that send a whole file per utterance. The container is sniffed here;
the decoding is done by a process for each stream (`_recordings`), so that a recording which crashes its decoder, or
fills its memory, costs itself alone.

Sources: the WebM and Ogg (RFC 3533) container formats, ISO/IEC 14496-12 for boxes. With silence suppression a pause
shows only when the next packet comes, so whoever decides about silence needs a clock of its own.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress

import numpy as np

from antiphon.audio import decoders
from antiphon.audio.decoder_link import MessageKind, pack, receive
from antiphon.audio.framing import Pcm16
from antiphon.errors import AudioError

MAX_BACKLOG_BYTES = 8 * 1024 * 1024
MAX_GAP_S = 10.0
"""A longer gap in the time stamps is filled with this much silence."""
_MOST_LOST = 5
"""Decoders that one stream may cost."""

_EBML = b"\x1a\x45\xdf\xa3"
_OGG = b"OggS"
_RIFF = b"RIFF"

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


class _Decoder:
    """One decoder process and what is on its way to it. `send` never waits."""

    def __init__(self, max_gap_s: float, on_message: Callable[[MessageKind, bytes], None]) -> None:
        """`on_message` is called from a thread, with `MessageKind.DIED` as the last word of a decoder that did not end
        as it was told to. Raises AudioError when there is no process to be had."""
        self._connection = decoders.shared.open({"max_gap_s": max_gap_s})
        self._on_message = on_message
        self._waiting: deque[bytes] = deque()
        self._lock = threading.Lock()
        self._writer: threading.Thread | None = None
        self._ending = False
        self.backlog_bytes = 0
        """What the system could not take yet."""
        self.lost = False
        self._reader = threading.Thread(target=self._read, name="audio-decoder", daemon=True)
        self._reader.start()

    def send(self, kind: MessageKind, body: bytes = b"") -> None:
        """Hand over a message. A decoder that is gone says so by `on_message`."""
        data = pack(kind, body)
        with self._lock:
            self._ending = self._ending or kind is MessageKind.END
            if not self._waiting:
                with suppress(OSError):  # full, or gone: the reader hears of that
                    data = data[self._connection.send(data, socket.MSG_DONTWAIT) :]
            if data and not self.lost:
                self._waiting.append(data)
                self.backlog_bytes += len(data)
                if self._writer is None:
                    self._writer = threading.Thread(
                        target=self._write, name="audio-decoder-backlog", daemon=True
                    )
                    self._writer.start()

    def join(self, timeout_s: float) -> bool:
        """Wait until the last message of the decoder has been given out."""
        self._reader.join(timeout_s)
        return not self._reader.is_alive()

    def close(self, timeout_s: float) -> bool:
        """End the process. False: a callback still runs."""
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        writer = self._writer
        if threading.current_thread() is self._reader:
            return True
        ended = self.join(timeout_s)
        if writer is not None:
            writer.join(timeout_s)
        return ended

    def _write(self) -> None:
        """Until nothing waits any more."""
        while True:
            with self._lock:
                if not self._waiting or self.lost:
                    self._waiting.clear()
                    self.backlog_bytes, self._writer = 0, None
                    return
                data = self._waiting[0]
            with suppress(OSError):  # the reader hears of it
                self._connection.sendall(data)
            with self._lock:
                if self._waiting:
                    self._waiting.popleft()
                    self.backlog_bytes -= len(data)

    def _read(self) -> None:
        with self._connection, self._connection.makefile("rb") as stream:
            message: tuple[MessageKind, bytes] | None = None
            try:
                while (message := receive(stream)) is not None:
                    if message[0] in (MessageKind.DIED, MessageKind.MEMORY):
                        break
                    self._on_message(*message)
            except OSError:
                pass
            self.lost = True
            if message is not None or not self._ending:
                self._on_message(*(message or (MessageKind.DIED, b"")))


class StreamDecoder:
    """Decodes what one connection sends. One process and one thread, from the first recording to `close`.

    `on_audio(pcm)` (int16 mono 16 kHz, shape [n]) and `on_error(error)` are called from the thread, in order; they
    must be quick and must not raise. There is one error per recording that cannot be decoded; the next recording
    (a header in a later piece) is decoded again.
    """

    def __init__(
        self,
        on_audio: Callable[[Pcm16], None],
        on_error: Callable[[AudioError], None],
        *,
        max_backlog_bytes: int = MAX_BACKLOG_BYTES,
        max_gap_s: float = MAX_GAP_S,
    ) -> None:
        self._on_audio = on_audio
        self._on_error = on_error
        self._max_backlog_bytes = max_backlog_bytes
        self._max_gap_s = max_gap_s
        self._decoder: _Decoder | None = None
        self._lost = 0
        self._held = b""
        self._in_recording = False
        self._complained = False
        self._ended = self._closed = False

    def feed(self, piece: bytes) -> None:
        """Hand over the next piece, of any size; never waits.

        Raises AudioError when more than `max_backlog_bytes` wait to be decoded, when a recording starts without its
        header (once, until a header comes), and after `end` or `close`.
        """
        if self._ended:
            raise AudioError("this audio stream has ended; open a new connection")
        if not piece:
            return
        if self._decoder is not None and self._decoder.backlog_bytes > self._max_backlog_bytes:
            self._in_recording = False  # what follows the gap cannot be decoded
            self._held = b""
            raise AudioError(
                f"audio arrives faster than it can be decoded: over {self._max_backlog_bytes} bytes "
                "wait; send it slower and restart the recorder"
            )
        self._feed_container(bytes(piece))

    def end(self) -> None:
        """No more pieces will come. Returns at once; `join` waits until all audio has been given out."""
        if self._ended:
            return
        self._ended = True
        if self._held and self._in_recording:
            self._send(MessageKind.DATA, self._held)
        self._send(MessageKind.END)

    def join(self, timeout_s: float) -> bool:
        """After `end`: wait for the decoder. Blocking. True when it has given out everything."""
        return self._decoder is None or self._decoder.join(timeout_s)

    def close(self, timeout_s: float = 2.0) -> bool:
        """Drop what waits and end the decoder; no callback runs after it. May be called twice, from anywhere.

        Waits for the callback at hand, at most `timeout_s`. False when even that was not enough; it then ends later,
        by itself.
        """
        self._ended = self._closed = True
        decoder, self._decoder = self._decoder, None  # they refer to each other
        return decoder is None or decoder.close(timeout_s)

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
        if self._lost >= _MOST_LOST:
            raise AudioError(
                "this connection's audio made its decoder fail too often; open a new one"
            )
        if self._decoder is not None and self._decoder.lost:
            self._decoder.close(0)
            self._decoder = None
        if self._decoder is None:
            self._decoder = _Decoder(self._max_gap_s, self._heard)
        self._complained = False
        whole = _is_whole_file(piece, demuxer)
        self._in_recording = not whole
        self._send(MessageKind.WHOLE if whole else MessageKind.START, demuxer.encode())
        self._send(MessageKind.DATA, piece)

    def _continue(self, piece: bytes) -> None:
        if self._in_recording and self._decoder is not None and not self._decoder.lost:
            self._send(MessageKind.DATA, piece)
        elif not self._complained:
            self._complained = True
            raise AudioError(
                "this is the middle of a recording, or no WebM, Ogg, MP4 or WAV at all; restart the "
                "recorder, or announce raw PCM and its rate"
            )

    def _send(self, kind: MessageKind, body: bytes = b"") -> None:
        if self._decoder is not None:
            self._decoder.send(kind, body)

    def _heard(self, kind: MessageKind, body: bytes) -> None:
        if self._closed:
            return
        if kind is MessageKind.PCM:
            self._give(np.frombuffer(bytearray(body), np.int16))
        elif kind is MessageKind.REFUSED:
            self._on_error(AudioError(body.decode()))
        else:
            self._lost += 1
            self._complained = True  # this error is enough for what remains of the recording
            error = (
                decoders.DecoderLost("memory")
                if kind is MessageKind.MEMORY
                else decoders.lost(body)
            )
            _log.warning("a stream lost its decoder: %s", error)
            self._on_error(error)

    def _give(self, pcm: Pcm16) -> None:
        try:
            self._on_audio(pcm)
        except Exception as error:  # noqa: BLE001 - the connection must hear of it
            _log.exception("audio decoder failed")
            failure = AudioError(f"the audio decoder failed ({error}); open a new connection")
            self._closed = True
            self._on_error(failure)
