"""`/api/tts_streaming` of Kyutai's moshi-server, for any text to speech.

Source of the protocol: kyutai-labs/moshi (`rust/moshi-server`), written down in protocols/moshi/codec.py. The text is
cut into clauses, for most voices need more than a word; each clause is said as soon as it is complete.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from typing import Annotated, Protocol

import msgspec
import numpy as np
from fastapi import APIRouter, Query, Request, WebSocket
from starlette.responses import Response
from starlette.websockets import WebSocketDisconnect

from antiphon.audio.encoding import StreamEncoder, wav_header
from antiphon.audio.framing import Framer, Pcm16, pcm_to_bytes, pcm_to_float
from antiphon.core.text_segmenter import TextSegmenter
from antiphon.errors import AntiphonError, BusyError, ProtocolError, suggest
from antiphon.json_body import BadRequest
from antiphon.protocols.moshi import codec
from antiphon.protocols.moshi.server import MoshiAdmitted, MoshiPeer
from antiphon.server.model_streams import ModelStream, ModelStreams
from antiphon.server.request_jobs import job_for, openai_errors, stream
from antiphon.server.speech_stream import SpeechOptions, SpeechStream, known_voice, said
from antiphon.server.voice_cloning import voice_of_numbers

log = logging.getLogger(__name__)
tts_router = APIRouter(tags=["moshi"])

_IDLE_S = 60.0
"""Of a client that sends neither text nor the end of it."""
_MAX_WAITING = 256
"""Clauses of a client that writes faster than it is read to."""
_MAX_CHARS = 20_000
"""Of one socket: a turn of a talkative model has a tenth of it."""


class _Format(Protocol):
    """Audio on its way to the client, in one of the formats."""

    packed: bool

    def audio(self, pcm: Pcm16) -> list[bytes]: ...

    def end(self) -> list[bytes]: ...


class _Pcm:
    """Frames of 1,920 floats, the last one filled up with silence; packed or plain."""

    def __init__(self, packed: bool) -> None:
        self.packed = packed
        self._framer = Framer(codec.FRAME_SAMPLES)

    def audio(self, pcm: Pcm16) -> list[bytes]:
        return [self._frame(frame) for frame in self._framer.feed(pcm)]

    def end(self) -> list[bytes]:
        rest = self._framer.remainder
        if not len(rest):
            return []
        return [self._frame(np.pad(rest, (0, codec.FRAME_SAMPLES - len(rest))))]

    def _frame(self, pcm: Pcm16) -> bytes:
        samples = pcm_to_float(pcm)
        return (
            codec.encode(codec.Audio(samples)) if self.packed else samples.astype("<f4").tobytes()
        )


class _OggOpus:
    """Pages of one Ogg stream, the header first; packed or plain."""

    def __init__(self, packed: bool) -> None:
        self.packed = packed
        self._encoder = StreamEncoder("opus", codec.RATE_HZ)

    def audio(self, pcm: Pcm16) -> list[bytes]:
        return self._packets(self._encoder.encode(pcm))

    def end(self) -> list[bytes]:
        return self._packets(self._encoder.finish())

    def _packets(self, data: bytes) -> list[bytes]:
        if not data:
            return []
        return [codec.encode(codec.OggOpus(data)) if self.packed else data]


FORMATS = ("OggOpus", "OggOpusMessagePack", "Pcm", "PcmMessagePack")


def _format(name: str) -> _Format:
    """Raises ProtocolError."""
    if name not in FORMATS:
        raise ProtocolError(f"unknown format {name[:40]!r}{suggest(name, FORMATS)}")
    packed = name.endswith("MessagePack")
    return _Pcm(packed) if name.startswith("Pcm") else _OggOpus(packed)


@tts_router.websocket("/api/tts_streaming")
@tts_router.websocket("/ws")
async def speak(
    socket: WebSocket,
    principal: MoshiAdmitted,
    wanted: Annotated[str, Query(alias="format")] = "OggOpus",
    voice: str = "",
    language: str = "",
    speed: float = 0.0,
) -> None:
    """Text in as it is written, speech out as it is made; our close is the end. Unknown queries are ignored.

    `language`, `speed`: additions of ours; empty and 0: as configured.
    """
    streams: ModelStreams = socket.app.state.calls
    await socket.accept()
    peer = MoshiPeer(socket, _IDLE_S)
    packed = wanted.endswith("MessagePack")
    try:
        form = _format(wanted)
        with streams.one("moshi-tts") as place:
            agent = streams.settings.agent
            manner = SpeechOptions(
                known_voice(streams.models, voice, agent.voice),
                language or agent.language,
                speed or agent.speed,
            )
            await _Reading(peer, streams, place, form, manner).run()
        await peer.close()
    except AntiphonError as error:
        await peer.close(error, said=packed)
    except (WebSocketDisconnect, TimeoutError, OSError):
        log.info("a listener left")


class _Reading:
    """One socket: its text goes in on one side, its sound comes out on the other."""

    def __init__(
        self,
        peer: MoshiPeer,
        streams: ModelStreams,
        place: ModelStream,
        form: _Format,
        manner: SpeechOptions,
    ) -> None:
        policy = streams.settings.conversation
        self._peer, self._streams, self._form = peer, streams, form
        self._manner = manner
        self._place = place
        self._cutter = TextSegmenter(
            first_words=policy.first_segment_words, max_chars=policy.max_segment_chars
        )
        self._clauses: asyncio.Queue[str | None] = asyncio.Queue(_MAX_WAITING)
        self._chars = 0

    async def run(self) -> None:
        """Until all is said, or the client is gone. Raises ModelError, BusyError, ProtocolError."""
        if self._form.packed:
            await self._peer.send(codec.Ready())
        speaking = asyncio.create_task(self._speak())
        reading = asyncio.create_task(self._read())
        try:
            done, _ = await asyncio.wait((speaking, reading), return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in (speaking, reading):
                task.cancel()
            await asyncio.gather(speaking, reading, return_exceptions=True)

    async def _read(self) -> None:
        """Until the client is gone."""
        while (message := await self._peer.receive()) is not None:
            match message:
                case codec.Text(text=text):
                    await self._take(text)
                case codec.Voice() as voice:
                    self._choose(voice)
                case codec.Eos():
                    await self._put(self._cutter.flush())
                    await self._clauses.put(None)
                    await self._peer.until_gone()
                    return

    async def _take(self, text: str) -> None:
        words = text.split()
        self._chars += len(text)
        if self._chars > _MAX_CHARS:
            raise BusyError(f"more than {_MAX_CHARS} characters on one socket; open another")
        if words:
            await self._put(self._cutter.feed(" ".join(words) + " "))

    async def _put(self, found: list[str]) -> None:
        for clause in found:
            await self._clauses.put(clause)

    def _choose(self, voice: codec.Voice) -> None:
        name = voice_of_numbers(self._streams.models, voice.embeddings)
        if name is not None:
            self._manner = SpeechOptions(name, self._manner.language, self._manner.speed)

    async def _speak(self) -> None:
        speaker: SpeechStream | None = None
        while (clause := await self._clauses.get()) is not None:
            if speaker is None:
                speaker = SpeechStream(self._streams.models, self._place.work(), self._manner)
            async with aclosing(speaker.say(clause)) as made:
                async for pcm in made:
                    await self._send(await asyncio.to_thread(self._form.audio, pcm))
            if self._form.packed:
                for word in speaker.words:
                    await self._peer.send(codec.Text(word.text, word.start_s, word.stop_s))
        if speaker is None:
            return
        await self._send(self._form.audio(speaker.rest()) + await asyncio.to_thread(self._form.end))

    async def _send(self, frames: list[bytes]) -> None:
        for frame in frames:
            await self._peer.send_bytes(frame)


class _Ask(msgspec.Struct):
    text: str | list[str]
    voice: str = ""


@tts_router.post("/api/tts_streaming", response_model=None)
async def speak_whole(request: Request, principal: MoshiAdmitted) -> Response:
    """A text at once: a WAV file as it is made, its sizes unknown."""
    try:
        ask = msgspec.json.decode(await request.body(), type=_Ask)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        with openai_errors():
            raise BadRequest(f"the body must be {{text, voice}}: {error}") from None
    text = ask.text if isinstance(ask.text, str) else " ".join(ask.text)
    async with AsyncExitStack() as held:
        job = await held.enter_async_context(job_for(request, principal))
        agent = job.settings.agent
        manner = SpeechOptions(
            known_voice(job.models, ask.voice, agent.voice), agent.language, agent.speed
        )
        speaker = SpeechStream(job.models, job.work(), manner)

        async def body() -> AsyncGenerator[bytes, None]:
            head = wav_header(codec.RATE_HZ, None)
            max_chars = job.settings.conversation.max_segment_chars
            async with aclosing(said(speaker, text, max_chars)) as speech:
                async for pcm in speech:
                    job.spend(len(pcm) / codec.RATE_HZ)
                    yield head + pcm_to_bytes(pcm)
                    head = b""
            if head:
                yield head

        return await stream(request, body(), held, media_type="audio/wav")
