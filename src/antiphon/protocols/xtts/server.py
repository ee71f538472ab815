"""The API of coqui's xtts-streaming-server, for any text to speech.

Source of the protocol: coqui-ai/xtts-streaming-server; docs/protocols/xtts.md says where we differ. Voices are the
model's own by name, as studio speakers.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing

import numpy as np
from fastapi import APIRouter, Request
from starlette.datastructures import UploadFile
from starlette.responses import JSONResponse, Response

from antiphon.audio.encoding import encode_file, wav_header
from antiphon.audio.framing import Pcm16, pcm_to_bytes
from antiphon.errors import AudioError, ProtocolError
from antiphon.models.model_set import ModelSet
from antiphon.models.ports import Kind
from antiphon.protocols.xtts import codec
from antiphon.server.http_errors import RequestRefused
from antiphon.server.request_jobs import (
    Admitted,
    RequestJob,
    finish,
    job_for,
    openai_errors,
    stream,
)
from antiphon.server.speech_stream import SpeechOptions, SpeechStream, said, voices_of
from antiphon.server.voice_cloning import MAX_CLIP_BYTES, Tensors, learn, tensors, voice_of_numbers

router = APIRouter(tags=["xtts"])

_LONG_CODES = {"zh": "zh-cn"}
_SHORT_CODES = {long: short for short, long in _LONG_CODES.items()}
_MAX_CHARS = 10_000


@router.get("/studio_speakers")
async def studio_speakers(request: Request, principal: Admitted) -> dict[str, Tensors]:
    """Name -> tensors, to be sent back with each request for speech."""
    return {name: tensors(name) for name in voices_of(_loaded(request))}


@router.get("/languages")
async def languages(request: Request, principal: Admitted) -> list[str]:
    known = _loaded(request).info(Kind.TTS).languages or ("en",)
    return list(dict.fromkeys(_LONG_CODES.get(code, code) for code in known))


@router.post("/clone_speaker", response_model=None)
async def clone_speaker(request: Request, principal: Admitted) -> Response:
    """A clip of 6 to 30 s -> tensors of its speaker. 501 where the model cannot."""
    async with AsyncExitStack() as held:
        with openai_errors():
            form = await held.enter_async_context(request.form(max_files=1, max_fields=10))
            file = form.get("wav_file")
            if not isinstance(file, UploadFile):
                raise AudioError("no file was sent; send a clip as `wav_file`")
            clip = await file.read(MAX_CLIP_BYTES + 1)
            if len(clip) > MAX_CLIP_BYTES:
                raise AudioError(f"the clip is over {MAX_CLIP_BYTES >> 20} MiB; send 6 to 30 s")
        job = await held.enter_async_context(job_for(request, principal))

        async def work() -> Response:
            return JSONResponse(tensors(await learn(job.models, clip, job.work())))

        return await finish(request, work())


@router.post("/tts_stream", response_model=None)
async def tts_stream(request: Request, principal: Admitted) -> Response:
    """24 kHz mono 16-bit as it is made, after a WAV header of unknown length unless that is not wanted."""
    ask = await _asked(request)
    async with AsyncExitStack() as held:
        job = await held.enter_async_context(job_for(request, principal))

        async def body() -> AsyncGenerator[bytes, None]:
            # With the first sound: a model that fails at once is then an error, not an empty file.
            head = wav_header(codec.RATE_HZ, None) if ask.add_wav_header else b""
            async with aclosing(_speech(job, ask)) as speech:
                async for pcm in speech:
                    yield head + pcm_to_bytes(pcm)
                    head = b""
            if head:
                yield head

        return await stream(request, body(), held, media_type="audio/wav")


@router.post("/tts", response_model=None)
async def tts(request: Request, principal: Admitted) -> Response:
    """A JSON string: base64 of a whole WAV file."""
    ask = await _asked(request)
    async with AsyncExitStack() as held:
        job = await held.enter_async_context(job_for(request, principal))

        async def work() -> Response:
            async with aclosing(_speech(job, ask)) as speech:
                pieces = [pcm async for pcm in speech]
            pcm = np.concatenate(pieces) if pieces else np.empty(0, np.int16)
            wav = encode_file(pcm, codec.RATE_HZ, "wav")
            return Response(codec.whole_file(wav), media_type="application/json")

        return await finish(request, work())


async def _asked(request: Request) -> codec.SpeechBody:
    """Raises Refused (422)."""
    try:
        ask = codec.read(await request.body())
    except ProtocolError as error:
        raise RequestRefused(422, str(error), "invalid_value", retry=False) from None
    if len(ask.text) > _MAX_CHARS:
        raise RequestRefused(
            422, f"the text is over {_MAX_CHARS} characters; cut it", "invalid_value"
        )
    return ask


async def _speech(job: RequestJob, ask: codec.SpeechBody) -> AsyncGenerator[Pcm16, None]:
    name = voice_of_numbers(job.models, ask.speaker_embedding)
    agent, code = job.settings.agent, ask.language.lower()
    manner = SpeechOptions(
        agent.voice if name is None else name, _SHORT_CODES.get(code, code), ask.speed
    )
    speaker = SpeechStream(job.models, job.work(), manner)
    max_chars = job.settings.conversation.max_segment_chars
    async with aclosing(said(speaker, ask.text, max_chars)) as speech:
        async for pcm in speech:
            job.spend(len(pcm) / codec.RATE_HZ)
            yield pcm


def _loaded(request: Request) -> ModelSet:
    """Raises Refused while there is no model: clients fetch the voices once."""
    models: ModelSet = request.app.state.calls.models
    if not models.ready:
        raise RequestRefused(503, "the model still loads; see /ready", "not_ready", retry_after_s=5)
    return models
