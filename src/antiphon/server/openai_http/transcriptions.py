"""`POST /v1/audio/transcriptions` and `/v1/audio/translations`: a recording in, its words out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from typing import Any

from fastapi import APIRouter, Request
from starlette.datastructures import UploadFile
from starlette.responses import JSONResponse, Response

from antiphon.audio.containers import Decoded, decode_file
from antiphon.errors import AudioError
from antiphon.models.ports import Kind
from antiphon.server.openai_http.work import Admitted, Job, finish, job_for, openai_errors, stream
from antiphon.session.stretches import spoken as spoken_in
from antiphon.wire.openai_http import sse, transcripts
from antiphon.wire.openai_http.parsing import BadRequest
from antiphon.wire.openai_http.transcripts import Asked, Heard, Segment

router = APIRouter()

_MAX_FIELDS = 200


@router.post("/audio/transcriptions", response_model=None)
async def transcribe(request: Request, principal: Admitted) -> Response:
    """The words of a recording, as JSON, text or subtitles; with `stream`, stretch by stretch."""
    async with AsyncExitStack() as held:
        with openai_errors():
            form = await held.enter_async_context(request.form(max_files=1, max_fields=_MAX_FIELDS))
            wanted, file = transcripts.asked(form.multi_items()), form.get("file")
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
            media_type=sse.CONTENT_TYPE,
            headers=sse.HEADERS,
        )


@router.post("/audio/translations", response_model=None)
async def translate(request: Request, principal: Admitted) -> Response:
    """No speech to text here translates: a clear answer instead of a transcript in the wrong language."""
    with openai_errors():
        raise BadRequest(
            "the speech to text model cannot translate; use /v1/audio/transcriptions",
            code="unsupported_operation",
        )


async def _whole(job: Job, file: UploadFile, wanted: Asked) -> Response:
    decoded = await _decode(job, file)
    segments: list[Segment] = []
    languages: list[str] = []
    async with aclosing(_segments(job, decoded, wanted)) as found:
        async for segment, language in found:
            segments.append(segment)
            languages.append(language)
    heard = Heard(tuple(segments), decoded.duration_s, _language(job, wanted, languages))
    body = transcripts.body(heard, wanted)
    if isinstance(body, str):
        return Response(body, media_type=transcripts.CONTENT_TYPES[wanted.response_format])
    return JSONResponse(body)


async def _streamed(job: Job, file: UploadFile, wanted: Asked) -> AsyncGenerator[bytes, None]:
    decoded = await _decode(job, file)
    said = ""
    async with aclosing(_segments(job, decoded, wanted)) as found:
        async for segment, language in found:
            gap = transcripts.separator(wanted.language or language) if said else ""
            said += gap + segment.text
            yield sse.event(transcripts.delta(gap + segment.text))
    yield sse.event(transcripts.done(said))
    yield sse.DONE


async def _decode(job: Job, file: UploadFile) -> Decoded:
    """Raises AudioError."""
    if not file.size:
        raise AudioError("the audio file is empty; send a recording")
    limit_s = job.settings.server.max_file_s
    decoded = await asyncio.to_thread(decode_file, file.file, max_duration_s=limit_s)
    job.spend(decoded.duration_s)
    return decoded


async def _segments(
    job: Job, decoded: Decoded, wanted: Asked
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
            end_s = min(one.stretch.end_ms / 1000, decoded.duration_s)
            yield Segment(one.stretch.start_ms / 1000, end_s, one.text), one.language


def _language(job: Job, wanted: Asked, detected: list[str]) -> str:
    """What was asked for, else what was heard, else the only one that the model knows."""
    if wanted.language:
        return wanted.language
    if known := [language for language in detected if language]:
        return max(known, key=known.count)
    only: Any = job.models.info(Kind.STT).languages
    return only[0] if len(only) == 1 else ""
