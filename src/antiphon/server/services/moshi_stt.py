"""`/api/asr-streaming` of Kyutai's moshi-server, for any speech to text.

Source of the protocol: kyutai-labs/moshi (`rust/moshi-server`), written down in wire/moshi.py. Clients tell the time by
our Steps: there is exactly one per 1,920 samples. A run of exact zeros is how they say that the turn is over.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Request, WebSocket
from starlette.responses import JSONResponse, Response
from starlette.websockets import WebSocketDisconnect

from antiphon.audio.containers import decode_file
from antiphon.audio.framing import Framer, Pcm16, float_to_pcm
from antiphon.audio.ogg_opus import OggOpusReader
from antiphon.audio.resample import Resampler
from antiphon.errors import AntiphonError
from antiphon.models.ports import STT_RATE_HZ
from antiphon.server.openai_http.work import finish, job_for
from antiphon.server.services.hearing import HeardWord, Hearing
from antiphon.server.services.moshi_socket import MoshiPeer
from antiphon.server.services.streams import Stream, Streams
from antiphon.server.services.token import MoshiAdmitted
from antiphon.session.stretches import spoken
from antiphon.wire import moshi

log = logging.getLogger(__name__)
router = APIRouter(tags=["moshi"])

_IDLE_S = 120.0
"""A client that sends no data for so long is dropped, as the original does it."""
_MAX_WAITING_FRAMES = 250
"""20 s; a client that sends faster than it can be heard has to wait."""
_FLUSH_FRAMES = 5
"""So many frames of exact zeros are no silence of a microphone. Unmute sends 8 and counts the Steps."""
_OPUS_FRAME = moshi.FRAME_SAMPLES * STT_RATE_HZ // moshi.RATE_HZ


@router.websocket("/api/asr-streaming")
@router.websocket("/ws")
async def hear(socket: WebSocket, principal: MoshiAdmitted) -> None:
    """Audio in, a Step per frame and Words out, until the client closes."""
    streams: Streams = socket.app.state.calls
    await socket.accept()
    peer = MoshiPeer(socket, _IDLE_S)
    try:
        with streams.one("moshi-stt") as place:
            await _Listening(peer, streams, place).run()
        await peer.close()
    except AntiphonError as error:
        await peer.close(error)
    except (WebSocketDisconnect, TimeoutError, OSError):
        log.info("a speaker left")


class _Frame:
    """80 ms that wait to be heard."""

    __slots__ = ("flushes", "pcm")

    def __init__(self, pcm: Pcm16, flushes: bool) -> None:
        """`pcm`: int16 at 16 kHz, about 1,280 samples. `flushes`: the client sent exact zeros."""
        self.pcm, self.flushes = pcm, flushes


class _Listening:
    """One socket: frames wait in line for the model, so that words and Steps come in order."""

    def __init__(self, peer: MoshiPeer, streams: Streams, place: Stream) -> None:
        settings = streams.settings
        self._peer = peer
        self._hearing = Hearing(
            streams.models,
            place.work(),
            threshold=settings.conversation.speech_threshold,
            language=settings.agent.language or None,
        )
        self._waiting: asyncio.Queue[_Frame | moshi.Marker] = asyncio.Queue(_MAX_WAITING_FRAMES)
        self._framer = Framer(moshi.FRAME_SAMPLES)
        self._resampler = Resampler(moshi.RATE_HZ, STT_RATE_HZ)
        self._ogg = OggOpusReader()
        self._ogg_framer = Framer(_OPUS_FRAME)
        self._steps = 0
        self._zeros = 0

    async def run(self) -> None:
        """Until the client is gone. Raises ModelError, BusyError, ProtocolError, AudioError."""
        await self._peer.send(moshi.Ready())
        tasks = (asyncio.create_task(self._read()), asyncio.create_task(self._hear()))
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    # -- what the client sends ------------------------------------------------------------------

    async def _read(self) -> None:
        while (message := await self._peer.receive()) is not None:
            match message:
                case moshi.Audio(pcm=samples):
                    await self._take(float_to_pcm(samples))
                case moshi.OggOpus(data=data):
                    await self._take_ogg(data)
                case moshi.Marker() as marker:
                    await self._waiting.put(marker)
                case moshi.Eos():
                    return

    async def _take(self, pcm: Pcm16) -> None:
        for frame in self._framer.feed(pcm):
            await self._waiting.put(_Frame(self._resampler.process(frame), not frame.any()))

    async def _take_ogg(self, data: bytes) -> None:
        for frame in self._ogg_framer.feed(await asyncio.to_thread(self._ogg.feed, data)):
            await self._waiting.put(_Frame(frame, False))

    # -- what the client is told ------------------------------------------------------------------

    async def _hear(self) -> None:
        while True:
            match await self._waiting.get():
                case moshi.Marker() as marker:
                    await self._say(await self._hearing.flush())
                    await self._peer.send(marker)
                case _Frame() as frame:
                    await self._step(frame)

    async def _step(self, frame: _Frame) -> None:
        await self._say(await self._hearing.feed(frame.pcm))
        self._zeros = self._zeros + 1 if frame.flushes else 0
        if self._zeros == _FLUSH_FRAMES and self._hearing.under_way:
            await self._say(await self._hearing.flush())
        elif self._waiting.empty() and not self._zeros:
            await self._say(await self._hearing.guess())
        step = moshi.Step(
            self._steps, self._hearing.pauses, self._waiting.qsize() * moshi.FRAME_SAMPLES
        )
        self._steps += 1
        await self._peer.send(step)

    async def _say(self, words: list[HeardWord]) -> None:
        for word in words:
            await self._peer.send(moshi.Word(word.text, word.start_s), moshi.EndWord(word.stop_s))


@router.post("/api/asr-streaming", response_model=None)
async def hear_file(request: Request, principal: MoshiAdmitted) -> Response:
    """A recording as the body -> its words, as a list of messages."""
    body = await request.body()
    async with job_for(request, principal) as job:

        async def work() -> Response:
            limit_s = job.settings.server.max_file_s
            decoded = await asyncio.to_thread(decode_file, body, max_duration_s=limit_s)
            job.spend(decoded.duration_s)
            found = spoken(
                job.models,
                decoded.pcm,
                threshold=job.settings.conversation.speech_threshold,
                language=job.settings.agent.language,
                new_work=job.work,
            )
            messages: list[dict[str, Any]] = []
            async with aclosing(found) as stretches:
                async for one in stretches:
                    messages += _as_messages(one.text, one.stretch.start_ms, one.stretch.end_ms)
            return JSONResponse(messages)

        return await finish(request, work())


def _as_messages(text: str, start_ms: int, end_ms: int) -> list[dict[str, Any]]:
    words = text.split()
    each_s = (end_ms - start_ms) / 1000 / max(len(words), 1)
    messages: list[dict[str, Any]] = []
    for number, word in enumerate(words):
        start_s = start_ms / 1000 + number * each_s
        messages.append({"type": "Word", "text": word, "start_time": round(start_s, 3)})
        messages.append({"type": "EndWord", "stop_time": round(start_s + each_s, 3)})
    return messages
