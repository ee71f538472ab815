"""The session's side of `/ws/conversation`: what the agent says on its way out, what the caller says on its way in.

Translates between the session and the codec (`wire/conversation.py`); knows neither the socket nor when a call ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from antiphon.audio.framing import ByteJoiner, pcm_to_bytes
from antiphon.audio.streaming import StreamDecoder
from antiphon.core import actions as act
from antiphon.errors import AudioError
from antiphon.models.ports import STT_RATE_HZ, Pcm16
from antiphon.server.outbox import Outbox
from antiphon.session.door import DoorAudio
from antiphon.session.session import Session
from antiphon.wire import conversation as wire


class ConversationDoor:
    """Translates for one client. Never blocks: everything goes to the outbox."""

    def __init__(self, outbox: Outbox) -> None:
        self.audio = DoorAudio(rate_hz=wire.OUTPUT_RATE_HZ)
        self._outbox = outbox
        self._encoder = wire.Encoder()

    def use(self, extensions: frozenset[str]) -> None:
        """What the client understands, from now on."""
        self._encoder.extensions = extensions

    def resume(self, extensions: frozenset[str]) -> None:
        """Another connection of the client takes over."""
        self._encoder.extensions = extensions
        self._encoder.resumed()

    def notice(self, action: act.Action) -> None:
        for frame in self._encoder.encode(action):
            self._outbox.put(frame)

    def send_audio(self, reply: str, pcm: Pcm16) -> None:
        begin = self._encoder.audio_start(reply)
        if begin is not None:
            self._outbox.put(begin)
        self._outbox.put(pcm_to_bytes(pcm), reply)

    def drop_audio(self, reply: str) -> None:
        frame = self._encoder.clear()
        if frame is not None:
            self._outbox.purge(reply)
            self._outbox.put(frame)

    def hang_up(self, reason: str) -> None:
        self._outbox.close()


def _ignore(problem: str) -> None:
    pass


class CallerAudio:
    """The client's binary frames -> PCM for the session: raw samples directly, containers through a decoder thread."""

    def __init__(self, session: Session, on_error: Callable[[str], None]) -> None:
        """`on_error`: told, on the event loop, of audio that a decoder could not read."""
        self._session = session
        self._on_error = on_error
        self._rate_hz = STT_RATE_HZ
        self._joiner: ByteJoiner | None = None
        self._decoder: StreamDecoder | None = None
        self._loop = asyncio.get_running_loop()
        self.came = False
        """There was some audio already."""

    def use(self, start: wire.Start) -> None:
        """How the client's audio is encoded. Before the first of it."""
        self._rate_hz = start.rate
        self._joiner = None
        if start.format == "pcm_s16le":
            self._joiner = ByteJoiner("s16le")
        elif start.format == "pcm_f32le":
            self._joiner = ByteJoiner("f32le")

    def feed(self, data: bytes) -> None:
        """Raises AudioError, to be told to the client."""
        self.came = True
        if self._joiner is not None:
            self._session.feed_audio(self._joiner.feed(data), self._rate_hz)
            return
        if self._decoder is None:
            self._decoder = StreamDecoder(self._decoded, self._undecodable)
        self._decoder.feed(data)

    async def close(self) -> None:
        decoder, self._decoder = self._decoder, None
        self._on_error = _ignore
        if decoder is not None:
            # Waits for a thread that may be in the middle of a packet: not on the event loop.
            await asyncio.to_thread(decoder.close)

    def _decoded(self, pcm: Pcm16) -> None:
        self._call_soon(lambda: self._session.feed_audio(pcm, STT_RATE_HZ))

    def _undecodable(self, error: AudioError) -> None:
        self._call_soon(lambda: self._on_error(str(error)))

    def _call_soon(self, step: Callable[[], None]) -> None:
        """From the decoder's thread. A loop that is closed has no use for it any more."""
        try:
            self._loop.call_soon_threadsafe(step)
        except RuntimeError:
            if not self._loop.is_closed():
                raise
