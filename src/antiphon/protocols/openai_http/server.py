"""OpenAI's HTTP API as routes: chat completions, speech, transcriptions, and the lists of models and voices."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, aclosing
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from starlette.datastructures import UploadFile
from starlette.responses import JSONResponse, Response

from antiphon.audio.containers import Decoded, decode_file
from antiphon.audio.encoding import CONTENT_TYPES, StreamEncoder
from antiphon.audio.framing import Pcm16
from antiphon.audio.resample import Resampler
from antiphon.call.speech_segments import transcribe_segments as spoken_in
from antiphon.core.text_segmenter import TextSegmenter
from antiphon.errors import AntiphonError, AudioError, told
from antiphon.json_body import BadRequest
from antiphon.models.model_set import ModelSet
from antiphon.models.ports import (
    Kind,
    LlmDelta,
    LlmRequest,
    Message,
    SpeechRequest,
    ToolCall,
    Usage,
)
from antiphon.protocols.openai_http import codec
from antiphon.protocols.openai_http.codec import Segment, TranscriptionRequest, TranscriptionResult
from antiphon.server.http_errors import RequestRefused
from antiphon.server.request_jobs import (
    Admitted,
    RequestJob,
    RequestSlots,
    finish,
    job_for,
    model_name,
    openai_errors,
    stream,
)

chat_router = APIRouter()

_DEFAULT_TOKENS = 1_024
"""Without a limit of the client's: a reader wants more than a listener."""


@chat_router.post("/chat/completions", response_model=None)
async def complete(request: Request, principal: Admitted) -> Response:
    """An answer of the configured language model, whole or streamed."""
    body = await request.body()
    with openai_errors():
        ask = codec.read_chat(body)
    async with AsyncExitStack() as held:
        job = await held.enter_async_context(job_for(request, principal))
        if not ask.stream:
            return await finish(request, _whole_reply(job, ask))
        return await stream(
            request,
            _chunks(job, ask),
            held,
            media_type=codec.CONTENT_TYPE,
            headers=codec.HEADERS,
        )


class _Reply:
    """What has come of an answer so far."""

    def __init__(self, ask: codec.ChatAsk) -> None:
        self.finish = "stop"
        self.tokens = codec.TokenUsage()
        self.calls: list[codec.FunctionCall] = []
        self.filter = codec.StopFilter(ask.stops)

    def take(self, delta: LlmDelta) -> str:
        """-> text that may be sent."""
        if delta.tool_call is not None:
            call = delta.tool_call
            self.calls.append(codec.FunctionCall(call.call_id, call.name, call.arguments))
        if delta.usage is not None:
            self.tokens = _tokens(delta.usage)
        self.finish = delta.finish or self.finish
        return self.filter.feed(delta.text)


async def _whole_reply(job: RequestJob, ask: codec.ChatAsk) -> Response:
    reply, pieces = _Reply(ask), []
    async with aclosing(_deltas(job, ask, reply)) as deltas:
        async for delta in deltas:
            pieces.append(reply.take(delta))
    text = "".join(pieces) + reply.filter.flush()
    answer = codec.ChatAnswer(model_name(job.models, Kind.LLM))
    return JSONResponse(answer.whole(text, reply.calls, reply.finish, reply.tokens))


async def _chunks(job: RequestJob, ask: codec.ChatAsk) -> AsyncGenerator[bytes, None]:
    """Fails as it likes before the first chunk; after it, errors are events."""
    reply, answer, sent = _Reply(ask), codec.ChatAnswer(model_name(job.models, Kind.LLM)), False
    try:
        async with aclosing(_deltas(job, ask, reply)) as deltas:
            async for delta in deltas:
                text = reply.take(delta)
                if text:
                    yield codec.sse_event(answer.text(text))
                    sent = True
                if (part := delta.tool_part) is not None:
                    yield codec.sse_event(answer.call_part(part.call_id, part.name, part.text))
                    sent = True
                if delta.tool_call is not None and (left := answer.call(reply.calls[-1])):
                    yield codec.sse_event(left)
                    sent = True
    except AntiphonError as error:
        if not sent:
            raise
        yield codec.sse_error(told(error, job.id))
        return
    if rest := reply.filter.flush():
        yield codec.sse_event(answer.text(rest))
    yield codec.sse_event(answer.end(reply.finish))
    if ask.wants_usage:
        yield codec.sse_event(answer.usage(reply.tokens))
    yield codec.DONE


async def _deltas(
    job: RequestJob, ask: codec.ChatAsk, reply: _Reply
) -> AsyncGenerator[LlmDelta, None]:
    """Up to the first stop word, after which the model is stopped."""
    async with aclosing(job.models.generate(_chat_request(job, ask), work=job.work())) as deltas:
        async for delta in deltas:
            yield delta
            if reply.filter.hit:
                reply.finish = "stop"
                return


def _chat_request(job: RequestJob, ask: codec.ChatAsk) -> LlmRequest:
    agent = job.settings.agent
    return LlmRequest(
        messages=tuple(_message(message) for message in ask.messages),
        call_id=job.id,
        max_tokens=ask.token_limit or _DEFAULT_TOKENS,
        temperature=agent.temperature if ask.temperature is None else ask.temperature,
        tools=tuple(ask.tools or ()) if ask.tool_choice != "none" else (),
        tool_choice=ask.tool_choice if ask.tools else None,
    )


def _message(message: codec.AskedMessage) -> Message:
    calls = tuple(
        ToolCall(call.id, call.function.name, call.function.arguments)
        for call in message.tool_calls or ()
    )
    return Message(message.plain_role, message.text, calls, message.tool_call_id or "")


def _tokens(usage: Usage) -> codec.TokenUsage:
    return codec.TokenUsage(usage.input_tokens, usage.output_tokens, usage.cached_tokens)


speech_router = APIRouter()

RATE_HZ = 24_000
"""What OpenAI's `pcm` is, and what its clients take every format for."""
_SPEEDS = (0.5, 2.0)
"""What voices can do."""


@speech_router.post("/audio/speech", response_model=None)
async def speak(request: Request, principal: Admitted) -> Response:
    """The sound of a text, in chunks as it is made."""
    body = await request.body()
    with openai_errors():
        ask = codec.read_speech(body)
    async with AsyncExitStack() as held:
        job = await held.enter_async_context(job_for(request, principal))
        events = ask.stream_format == "sse"
        return await stream(
            request,
            _events(job, ask) if events else _audio(job, ask),
            held,
            media_type=codec.CONTENT_TYPE if events else CONTENT_TYPES[ask.response_format],
            headers=codec.HEADERS if events else None,
        )


async def _events(job: RequestJob, ask: codec.SpeechAsk) -> AsyncGenerator[bytes, None]:
    encoder = StreamEncoder(ask.response_format, RATE_HZ)
    samples = 0
    async with aclosing(_pcm(job, ask)) as pieces:
        async for pcm in pieces:
            samples += len(pcm)
            if data := await asyncio.to_thread(encoder.encode, pcm):
                yield codec.sse_event(codec.speech_delta(data))
    if data := await asyncio.to_thread(encoder.finish):
        yield codec.sse_event(codec.speech_delta(data))
    yield codec.sse_event(codec.speech_done(len(ask.input), samples / RATE_HZ))
    yield codec.DONE


async def _audio(job: RequestJob, ask: codec.SpeechAsk) -> AsyncGenerator[bytes, None]:
    encoder = StreamEncoder(ask.response_format, RATE_HZ)
    async with aclosing(_pcm(job, ask)) as pieces:
        async for pcm in pieces:
            if data := await asyncio.to_thread(encoder.encode, pcm):
                yield data
    if data := await asyncio.to_thread(encoder.finish):
        yield data


async def _pcm(job: RequestJob, ask: codec.SpeechAsk) -> AsyncGenerator[Pcm16, None]:
    """Clause by clause at `RATE_HZ`."""
    resampler: Resampler | None = None
    rate_hz = 0
    for clause in _clauses(ask.input, job.settings.conversation.max_segment_chars):
        async with aclosing(
            job.models.synthesize(_speech_request(job, ask, clause), work=job.work())
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


def _speech_request(job: RequestJob, ask: codec.SpeechAsk, clause: str) -> SpeechRequest:
    slowest, fastest = _SPEEDS
    return SpeechRequest(
        clause,
        _voice(job, ask.voice_name),
        job.settings.agent.language,
        min(max(ask.speed, slowest), fastest),
    )


def _voice(job: RequestJob, name: str) -> str:
    """A voice that the model has; for any other, `alloy` included, the configured one."""
    known = job.models.info(Kind.TTS).voices
    return name if name in known else job.settings.agent.voice


transcription_router = APIRouter()

_MAX_FIELDS = 200


@transcription_router.post("/audio/transcriptions", response_model=None)
async def transcribe(request: Request, principal: Admitted) -> Response:
    """The words of a recording, as JSON, text or subtitles; with `stream`, stretch by stretch."""
    async with AsyncExitStack() as held:
        with openai_errors():
            form = await held.enter_async_context(request.form(max_files=1, max_fields=_MAX_FIELDS))
            wanted, file = codec.read_transcription(form.multi_items()), form.get("file")
            if not isinstance(file, UploadFile):
                raise BadRequest(
                    "no file was sent; send a recording as `file`",
                    "file",
                    "missing_required_parameter",
                )
        job = await held.enter_async_context(job_for(request, principal))
        if not wanted.stream:
            return await finish(request, _whole(job, file, wanted))
        return await stream(
            request,
            _streamed(job, file, wanted),
            held,
            media_type=codec.CONTENT_TYPE,
            headers=codec.HEADERS,
        )


@transcription_router.post("/audio/translations", response_model=None)
async def translate(request: Request, principal: Admitted) -> Response:
    """No speech to text here translates: a clear answer instead of a transcript in the wrong language."""
    with openai_errors():
        raise BadRequest(
            "the speech to text model cannot translate; use /v1/audio/transcriptions",
            code="unsupported_operation",
        )


async def _whole(job: RequestJob, file: UploadFile, wanted: TranscriptionRequest) -> Response:
    decoded = await _decode(job, file)
    segments: list[Segment] = []
    languages: list[str] = []
    async with aclosing(_segments(job, decoded, wanted)) as found:
        async for segment, language in found:
            segments.append(segment)
            languages.append(language)
    heard = TranscriptionResult(
        tuple(segments), decoded.duration_s, _language(job, wanted, languages)
    )
    body = codec.transcript_body(heard, wanted)
    if isinstance(body, str):
        return Response(body, media_type=codec.CONTENT_TYPES[wanted.response_format])
    return JSONResponse(body)


async def _streamed(
    job: RequestJob, file: UploadFile, wanted: TranscriptionRequest
) -> AsyncGenerator[bytes, None]:
    decoded = await _decode(job, file)
    said = ""
    async with aclosing(_segments(job, decoded, wanted)) as found:
        async for segment, language in found:
            gap = codec.separator(wanted.language or language) if said else ""
            said += gap + segment.text
            yield codec.sse_event(codec.transcript_delta(gap + segment.text))
    yield codec.sse_event(codec.transcript_done(said))
    yield codec.DONE


async def _decode(job: RequestJob, file: UploadFile) -> Decoded:
    """Raises AudioError."""
    if not file.size:
        raise AudioError("the audio file is empty; send a recording")
    limit_s = job.settings.server.max_file_s
    decoded = await asyncio.to_thread(decode_file, file.file, max_duration_s=limit_s)
    job.spend(decoded.duration_s)
    return decoded


async def _segments(
    job: RequestJob, decoded: Decoded, wanted: TranscriptionRequest
) -> AsyncGenerator[tuple[Segment, str], None]:
    """Each with the language that the model heard."""
    found = spoken_in(
        job.models,
        decoded.pcm,
        threshold=job.settings.conversation.speech_threshold,
        language=wanted.language,
        new_work=job.work,
    )
    async with aclosing(found) as spoken:
        async for one in spoken:
            end_s = min(one.segment.end_ms / 1000, decoded.duration_s)
            yield Segment(one.segment.start_ms / 1000, end_s, one.text), one.language


def _language(job: RequestJob, wanted: TranscriptionRequest, detected: list[str]) -> str:
    """What was asked for, else what was heard, else the only one that the model knows."""
    if wanted.language:
        return wanted.language
    if known := [language for language in detected if language]:
        return max(known, key=known.count)
    only: Any = job.models.info(Kind.STT).languages
    return only[0] if len(only) == 1 else ""


listing_router = APIRouter()
llm_listing_router = APIRouter()

_KINDS = (Kind.LLM, Kind.STT, Kind.TTS)
_STARTED = int(time.time())


@listing_router.get("/models")
async def models(request: Request, principal: Admitted) -> dict[str, Any]:
    """The language model first, then speech to text and text to speech, as far as they are in use."""
    return _listed(request, _KINDS)


@llm_listing_router.get("/models")
async def llm_models(request: Request, principal: Admitted) -> dict[str, Any]:
    return _listed(request, (Kind.LLM,))


@listing_router.get("/models/{name:path}")
async def model(name: str, request: Request, principal: Admitted) -> dict[str, Any]:
    """One of them. Requests may name any model all the same: each endpoint has one."""
    if name not in _names(request, _KINDS):
        raise RequestRefused(
            404,
            f"there is no model {name[:80]!r}; see /v1/models",
            "model_not_found",
            param="model",
        )
    return codec.model_entry(name, _STARTED)


@listing_router.get("/audio/voices")
async def voices(request: Request, principal: Admitted) -> dict[str, Any]:
    """The voices that `/v1/audio/speech` takes by name; none: the model has but one."""
    found: ModelSet = request.app.state.calls.models
    names = found.info(Kind.TTS).voices if model_name(found, Kind.TTS) else ()
    return codec.listing(codec.voice_entry(name) for name in names)


def _listed(request: Request, kinds: Sequence[Kind]) -> dict[str, Any]:
    names = _names(request, kinds)
    return codec.listing(codec.model_entry(name, _STARTED) for name in names)


def _names(request: Request, kinds: Sequence[Kind]) -> list[str]:
    found: ModelSet = request.app.state.calls.models
    return list(dict.fromkeys(name for kind in kinds if (name := model_name(found, kind))))


LLM_PREFIX = "/llm/v1"
"""Chat and one model only: some clients (Unmute) take the model from the list, and want exactly one in it."""


def include(app: FastAPI) -> None:
    """Add the routes."""
    app.state.places = RequestSlots(app.state.settings.server.max_requests)
    for router in (transcription_router, speech_router, chat_router, listing_router):
        app.include_router(router, prefix="/v1", tags=["openai"])
    app.include_router(chat_router, prefix=LLM_PREFIX, include_in_schema=False)
    app.include_router(llm_listing_router, prefix=LLM_PREFIX, include_in_schema=False)
