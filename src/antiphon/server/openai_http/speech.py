"""`POST /v1/audio/speech`: a text in, its sound out, from the first clause on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing

from fastapi import APIRouter, Request
from starlette.responses import Response

from antiphon.audio.encoding import CONTENT_TYPES, StreamEncoder
from antiphon.audio.framing import Pcm16
from antiphon.audio.resample import Resampler
from antiphon.core.text_segmenter import TextSegmenter
from antiphon.models.ports import Kind, SpeechRequest
from antiphon.server.openai_http.work import Admitted, Job, job_for, openai_errors, stream
from antiphon.wire.openai_http import speech as wire
from antiphon.wire.openai_http import sse

router = APIRouter()

RATE_HZ = 24_000
"""What OpenAI's `pcm` is, and what its clients take every format for."""
_SPEEDS = (0.5, 2.0)
"""What voices can do."""


@router.post("/audio/speech", response_model=None)
async def speak(request: Request, principal: Admitted) -> Response:
    """The sound of a text, in chunks as it is made."""
    body = await request.body()
    with openai_errors():
        ask = wire.read(body)
    async with AsyncExitStack() as held:
        job = await held.enter_async_context(job_for(request, principal))
        events = ask.stream_format == "sse"
        return await stream(
            request,
            _events(job, ask) if events else _audio(job, ask),
            held,
            media_type=sse.CONTENT_TYPE if events else CONTENT_TYPES[ask.response_format],
            headers=sse.HEADERS if events else None,
        )


async def _events(job: Job, ask: wire.SpeechAsk) -> AsyncGenerator[bytes, None]:
    encoder = StreamEncoder(ask.response_format, RATE_HZ)
    samples = 0
    async with aclosing(_pcm(job, ask)) as pieces:
        async for pcm in pieces:
            samples += len(pcm)
            if data := await asyncio.to_thread(encoder.encode, pcm):
                yield sse.event(wire.delta(data))
    if data := await asyncio.to_thread(encoder.finish):
        yield sse.event(wire.delta(data))
    yield sse.event(wire.done(len(ask.input), samples / RATE_HZ))
    yield sse.DONE


async def _audio(job: Job, ask: wire.SpeechAsk) -> AsyncGenerator[bytes, None]:
    encoder = StreamEncoder(ask.response_format, RATE_HZ)
    async with aclosing(_pcm(job, ask)) as pieces:
        async for pcm in pieces:
            if data := await asyncio.to_thread(encoder.encode, pcm):
                yield data
    if data := await asyncio.to_thread(encoder.finish):
        yield data


async def _pcm(job: Job, ask: wire.SpeechAsk) -> AsyncGenerator[Pcm16, None]:
    """Clause by clause at `RATE_HZ`."""
    resampler: Resampler | None = None
    rate_hz = 0
    for clause in _clauses(ask.input, job.settings.conversation.max_segment_chars):
        async with aclosing(
            job.models.synthesize(_request(job, ask, clause), work=job.work())
        ) as made:
            async for chunk in made:
                if resampler is None or chunk.rate_hz != rate_hz:  # another model may take over
                    if resampler is not None:
                        yield resampler.flush()
                    rate_hz = chunk.rate_hz
                    resampler = Resampler(rate_hz, RATE_HZ)
                job.spend(len(chunk.pcm) / rate_hz)
                yield resampler.process(chunk.pcm)
    if resampler is not None:
        yield resampler.flush()


def _clauses(text: str, max_chars: int) -> list[str]:
    """Cut where a speaker would breathe; never in the first words, for nobody waits for this on the phone."""
    cutter = TextSegmenter(first_words=0, max_chars=max_chars)
    return [*cutter.feed(text), *cutter.flush()]


def _request(job: Job, ask: wire.SpeechAsk, clause: str) -> SpeechRequest:
    slowest, fastest = _SPEEDS
    return SpeechRequest(
        clause,
        _voice(job, ask.voice_name),
        job.settings.agent.language,
        min(max(ask.speed, slowest), fastest),
    )


def _voice(job: Job, name: str) -> str:
    """A voice that the model has; for any other, `alloy` included, the configured one."""
    known = job.models.info(Kind.TTS).voices
    return name if name in known else job.settings.agent.voice
