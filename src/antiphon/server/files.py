"""`POST /v1/speech-to-speech`: a recording in, a spoken answer out."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated, Any

from fastapi import APIRouter, Form, HTTPException, Request, Response, UploadFile

from antiphon.audio.containers import decode_file
from antiphon.audio.encoding import encode_file
from antiphon.errors import AntiphonError, AudioError, BusyError
from antiphon.server.calls import Calls, agent_of
from antiphon.session.oneshot import Answer, answer

router = APIRouter(prefix="/v1", tags=["speech"])

CONTENT_TYPES = {
    "wav": "audio/wav",
    "mp3": "audio/mpeg",
    "opus": "audio/ogg",
    "flac": "audio/flac",
    "aac": "audio/aac",
    "pcm": "audio/pcm",
    "webm": "audio/webm",
}


@router.post(
    "/speech-to-speech",
    response_class=Response,
    responses={200: {"content": {"audio/mpeg": {}, "audio/wav": {}}}},
)
async def speech_to_speech(
    request: Request,
    file: UploadFile,
    response_format: Annotated[str, Form()] = "mp3",
    bitrate: Annotated[int, Form(ge=8, le=320, description="kbit/s")] = 64,
) -> Response:
    """The answer's audio; transcript, reply and timings are in the header `X-Antiphon-Result` (JSON, ASCII)."""
    calls: Calls = request.app.state.calls
    if response_format not in CONTENT_TYPES:
        known = ", ".join(CONTENT_TYPES)
        raise HTTPException(400, f"unknown response_format {response_format!r}; known: {known}")
    try:
        with calls.file_place():
            result = await _answer_upload(calls, file)
        encoded = await asyncio.to_thread(
            encode_file, result.pcm, result.rate_hz, response_format, bitrate
        )
    except BusyError as error:
        raise HTTPException(503, str(error), headers={"Retry-After": "5"}) from None
    except AudioError as error:
        raise HTTPException(400, str(error)) from None
    except AntiphonError as error:
        raise HTTPException(503, str(error)) from None
    facts = json.dumps(result_fields(result, len(encoded)), ensure_ascii=True)
    return Response(
        encoded,
        media_type=CONTENT_TYPES[response_format],
        headers={"X-Antiphon-Result": facts},
    )


async def _answer_upload(calls: Calls, file: UploadFile) -> Answer:
    limits = calls.settings.server
    data = await file.read(limits.max_upload_bytes + 1)
    if len(data) > limits.max_upload_bytes:
        raise AudioError(f"the file is larger than {limits.max_upload_bytes >> 20} MiB; send less")
    decoded = await asyncio.to_thread(decode_file, data, max_duration_s=limits.max_file_s)
    agent, policy = agent_of(calls.settings), calls.settings.conversation
    return await answer(calls.models, decoded.pcm, policy, agent)


def result_fields(result: Answer, encoded_bytes: int) -> dict[str, Any]:
    """What `antiphon run --json` and the HTTP header say of an answer."""
    plain_bytes = 2 * len(result.pcm)
    return {
        "transcript": result.transcript,
        "reply": result.reply,
        "audio_s": round(len(result.pcm) / result.rate_hz, 2),
        "compression_ratio": round(plain_bytes / encoded_bytes, 2) if encoded_bytes else 0.0,
        "timings_ms": result.timings_ms,
    }
