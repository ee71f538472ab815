"""`/api/asr-streaming` of Kyutai's moshi-server, for any speech to text.

The model hears whole utterances. Voice activity finds them; while one is under way and there is time, it is transcribed
again and again, and words on which two attempts agree are given out early.

Source of the protocol: kyutai-labs/moshi (`rust/moshi-server`), written down in protocols/moshi/codec.py. Clients tell
the time by our Steps: there is exactly one per 1,920 samples. A run of exact zeros is how they say that the turn is
over.
"""

from __future__ import annotations

import asyncio
import logging
import math
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import numpy as np
from fastapi import APIRouter, Request, WebSocket
from starlette.responses import JSONResponse, Response
from starlette.websockets import WebSocketDisconnect

from antiphon.audio.containers import decode_file
from antiphon.audio.framing import Framer, Pcm16, float_to_pcm
from antiphon.audio.ogg_opus import OggOpusReader
from antiphon.audio.resample import Resampler
from antiphon.call.speech_segments import PauseSplitter, SpeechSegment, transcribe_segments
from antiphon.errors import AntiphonError
from antiphon.models.model_set import ModelSet, Work
from antiphon.models.ports import STT_RATE_HZ
from antiphon.protocols.moshi import codec
from antiphon.protocols.moshi.server import MoshiAdmitted, MoshiPeer
from antiphon.server.model_streams import ModelStream, ModelStreams
from antiphon.server.request_jobs import finish, job_for

PAUSES_S = (0.5, 1.0, 2.0, 3.0)
_CERTAINTY = 0.3
_BASE_S = 0.15
"""How soon a silence is taken for a pause: after 0.7 s of it, one of 2 s is as likely as 0.6."""
_PARTIAL_EVERY_MS = 960
_SCORE_S = 10.0


@dataclass(frozen=True, slots=True)
class TimedWord:
    """Seconds since the stream began. No model here says when: words share their utterance by letters."""

    text: str
    start_s: float
    stop_s: float


class StreamingTranscriber:
    """Of one stream, int16 at 16 kHz. One coroutine at a time."""

    def __init__(
        self, models: ModelSet, work: Work, *, threshold: float, language: str | None
    ) -> None:
        """`threshold`: of the voice activity detector. `language`: None: as the model thinks."""
        self._models, self._work = models, work
        self._language = language
        samples = models.vad.window_samples(STT_RATE_HZ)
        self._state = models.vad.new_state(STT_RATE_HZ, at_once=True)
        self._framer = Framer(samples)
        self._cutter = PauseSplitter(samples * 1000 // STT_RATE_HZ, threshold)
        self._audio = np.empty(0, np.int16)
        self._audio_from = 0
        """Number of the first sample that is kept."""
        self._given = 0
        """Words of the utterance under way that were given out already."""
        self._guess: list[str] = []
        self._guessed_ms = 0
        self._said_until_s = 0.0

    @property
    def pauses(self) -> tuple[float, ...]:
        """Probabilities that the speaker pauses for at least `PAUSES_S`."""
        silence_s = self._cutter.silence_ms / 1000
        return tuple(
            round(1 - math.exp(-silence_s / (_CERTAINTY * pause_s + _BASE_S)), 4)
            for pause_s in PAUSES_S
        )

    @property
    def under_way(self) -> bool:
        """Somebody has spoken, and not all of it has been given out."""
        return self._cutter.under_way is not None

    async def feed(self, pcm: Pcm16) -> list[TimedWord]:
        """The next samples, any number -> the words of utterances that end with them. Raises ModelError, BusyError."""
        self._audio = np.concatenate([self._audio, pcm])
        found: list[TimedWord] = []
        for window in self._framer.feed(pcm):
            async with asyncio.timeout(_SCORE_S):
                probability = await self._models.vad.score(window, self._state)
            if (segment := self._cutter.feed(probability)) is not None:
                found += await self._finish(segment)
        self._forget()
        return found

    async def guess(self) -> list[TimedWord]:
        """Words of the utterance under way that will hardly change, where the model is quick enough to be asked twice.

        To be called while nothing else waits. Raises ModelError, BusyError.
        """
        segment = self._cutter.under_way if self._models.partials else None
        if segment is None or segment.end_ms - self._guessed_ms < _PARTIAL_EVERY_MS:
            return []
        self._guessed_ms = segment.end_ms
        heard = await self._models.transcribe(
            self._piece(segment), language=self._language, partial=True, work=self._work
        )
        words, before = heard.text.split(), self._guess
        self._guess = words
        agreed = 0
        while agreed < min(len(words), len(before)) and _same(words[agreed], before[agreed]):
            agreed += 1
        agreed = min(agreed, len(words) - 1)  # the last one may be half a word
        return self._give(words, max(agreed, self._given), segment)

    async def flush(self) -> list[TimedWord]:
        """Nobody speaks any more: the rest of the words. Raises ModelError, BusyError."""
        under_way, segment = self._cutter.under_way, self._cutter.flush()
        if under_way is None or segment is None:
            return []
        return await self._finish(segment)

    async def _finish(self, segment: SpeechSegment) -> list[TimedWord]:
        heard = await self._models.transcribe(
            self._piece(segment), language=self._language, work=self._work
        )
        words = heard.text.split()
        found = self._give(words, len(words), segment)
        self._given, self._guess, self._guessed_ms = 0, [], 0
        return found

    def _give(self, words: list[str], until: int, segment: SpeechSegment) -> list[TimedWord]:
        letters = sum(len(word) + 1 for word in words) or 1
        per_letter_s = max(segment.end_ms - segment.start_ms, 1) / 1000 / letters
        at_s = segment.start_ms / 1000
        given: list[TimedWord] = []
        for number, word in enumerate(words[:until]):
            stop_s = at_s + (len(word) + 1) * per_letter_s
            if number >= self._given:
                start_s = max(at_s, self._said_until_s)
                self._said_until_s = max(stop_s, start_s)
                given.append(TimedWord(word, round(start_s, 3), round(self._said_until_s, 3)))
            at_s = stop_s
        self._given = max(self._given, until)
        return given

    def _piece(self, segment: SpeechSegment) -> Pcm16:
        """Up to the last sample that came, where the segment ends with the audio."""
        start = _sample(segment.padded_start_ms) - self._audio_from
        end = _sample(segment.padded_end_ms) - self._audio_from
        if segment.padded_end_ms >= self._cutter.now_ms:
            end = len(self._audio)
        return self._audio[max(start, 0) : end]

    def _forget(self) -> None:
        """What no utterance can need any more."""
        keep_ms = self._cutter.keep_from_ms
        start = _sample(keep_ms) - self._audio_from
        if start > STT_RATE_HZ:  # not for every frame
            self._audio = self._audio[start:].copy()
            self._audio_from += start


def _same(one: str, other: str) -> bool:
    return one.strip(".,;:!?").lower() == other.strip(".,;:!?").lower()


def _sample(position_ms: int) -> int:
    return position_ms * STT_RATE_HZ // 1000


log = logging.getLogger(__name__)
stt_router = APIRouter(tags=["moshi"])

_IDLE_S = 120.0
"""A client that sends no data for so long is dropped, as the original does it."""
_MAX_WAITING_FRAMES = 250
"""20 s; a client that sends faster than it can be heard has to wait."""
_FLUSH_FRAMES = 5
"""So many frames of exact zeros are no silence of a microphone. Unmute sends 8 and counts the Steps."""
_OPUS_FRAME = codec.FRAME_SAMPLES * STT_RATE_HZ // codec.RATE_HZ


@stt_router.websocket("/api/asr-streaming")
@stt_router.websocket("/ws")
async def hear(socket: WebSocket, principal: MoshiAdmitted) -> None:
    """Audio in, a Step per frame and Words out, until the client closes."""
    streams: ModelStreams = socket.app.state.calls
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

    def __init__(self, peer: MoshiPeer, streams: ModelStreams, place: ModelStream) -> None:
        settings = streams.settings
        self._peer = peer
        self._hearing = StreamingTranscriber(
            streams.models,
            place.work(),
            threshold=settings.conversation.speech_threshold,
            language=settings.agent.language or None,
        )
        self._waiting: asyncio.Queue[_Frame | codec.Marker] = asyncio.Queue(_MAX_WAITING_FRAMES)
        self._framer = Framer(codec.FRAME_SAMPLES)
        self._resampler = Resampler(codec.RATE_HZ, STT_RATE_HZ)
        self._ogg = OggOpusReader()
        self._ogg_framer = Framer(_OPUS_FRAME)
        self._steps = 0
        self._zeros = 0

    async def run(self) -> None:
        """Until the client is gone. Raises ModelError, BusyError, ProtocolError, AudioError."""
        await self._peer.send(codec.Ready())
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
                case codec.Audio(pcm=samples):
                    await self._take(float_to_pcm(samples))
                case codec.OggOpus(data=data):
                    await self._take_ogg(data)
                case codec.Marker() as marker:
                    await self._waiting.put(marker)
                case codec.Eos():
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
                case codec.Marker() as marker:
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
        step = codec.Step(
            self._steps, self._hearing.pauses, self._waiting.qsize() * codec.FRAME_SAMPLES
        )
        self._steps += 1
        await self._peer.send(step)

    async def _say(self, words: list[TimedWord]) -> None:
        for word in words:
            await self._peer.send(codec.Word(word.text, word.start_s), codec.EndWord(word.stop_s))


@stt_router.post("/api/asr-streaming", response_model=None)
async def hear_file(request: Request, principal: MoshiAdmitted) -> Response:
    """A recording as the body -> its words, as a list of messages."""
    body = await request.body()
    async with job_for(request, principal) as job:

        async def work() -> Response:
            limit_s = job.settings.server.max_file_s
            decoded = await asyncio.to_thread(decode_file, body, max_duration_s=limit_s)
            job.spend(decoded.duration_s)
            found = transcribe_segments(
                job.models,
                decoded.pcm,
                threshold=job.settings.conversation.speech_threshold,
                language=job.settings.agent.language,
                new_work=job.work,
            )
            messages: list[dict[str, Any]] = []
            async with aclosing(found) as stretches:
                async for one in stretches:
                    messages += _as_messages(one.text, one.segment.start_ms, one.segment.end_ms)
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
