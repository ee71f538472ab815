"""`POST /v1/speech-to-speech`: a recording in, a spoken answer out."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form, HTTPException, Request, Response, UploadFile

from antiphon.audio.containers import decode_file
from antiphon.audio.encoding import CONTENT_TYPES, encode_file
from antiphon.call.file_turn import FileAnswer, answer_file
from antiphon.errors import AntiphonError, AudioError, BusyError, RequestError, suggest, told
from antiphon.server.admission import Calls, agent_of
from antiphon.server.security import (
    Principal,
    admitted,
    authorize,
    before_the_body,
    check_left,
    spend,
)

log = logging.getLogger(__name__)
speech_to_speech_router = APIRouter(
    prefix="/v1", tags=["speech"], route_class=before_the_body(authorize)
)

_CUT = "..."
_HEADER_BYTES = 4_000
"""Proxies refuse longer headers; words beyond it are left out."""


@speech_to_speech_router.post(
    "/speech-to-speech",
    response_class=Response,
    responses={200: {"content": {"audio/mpeg": {}, "audio/wav": {}}}},
)
async def speech_to_speech(
    request: Request,
    principal: Annotated[Principal, Depends(admitted)],
    file: UploadFile,
    response_format: Annotated[str, Form()] = "mp3",
    bitrate: Annotated[int, Form(ge=8, le=320, description="kbit/s")] = 64,
) -> Response:
    """The answer's audio; transcript, reply and timings are in the header `X-Antiphon-Result` (JSON, ASCII)."""
    calls: Calls = request.app.state.calls
    if response_format not in CONTENT_TYPES:
        wrong = response_format[:40]
        raise HTTPException(
            400, f"unknown response_format {wrong!r}{suggest(wrong, CONTENT_TYPES)}"
        )
    check_left(request, principal)
    try:
        with calls.file_place():
            result = await _answer_upload(calls, file)
        spend(request, principal, result.total_ms / 1000)
        encoded = await asyncio.to_thread(
            encode_file, result.pcm, result.rate_hz, response_format, bitrate
        )
    except BusyError as error:
        raise HTTPException(503, str(error), headers={"Retry-After": "5"}) from None
    except (AudioError, RequestError) as error:
        raise HTTPException(400, str(error)) from None
    except AntiphonError as error:
        log.warning("a recording could not be answered: %s", error)
        raise HTTPException(503, told(error)) from None
    return Response(
        encoded,
        media_type=CONTENT_TYPES[response_format],
        headers={"X-Antiphon-Result": _header(result_fields(result, len(encoded)))},
    )


async def _answer_upload(calls: Calls, file: UploadFile) -> FileAnswer:
    if not file.size:
        raise AudioError("the audio file is empty; send a recording")
    limit_s = calls.settings.server.max_file_s
    decoded = await asyncio.to_thread(decode_file, file.file, max_duration_s=limit_s)
    agent, policy = agent_of(calls.settings), calls.settings.conversation
    return await answer_file(calls.models, decoded.pcm, policy, agent)


def result_fields(result: FileAnswer, encoded_bytes: int, output: str = "") -> dict[str, Any]:
    """What `antiphon run --json` and the HTTP header say of an answer. `output`: the file it is in, if any."""
    plain_bytes = 2 * len(result.pcm)
    return {
        "transcript": result.transcript,
        "reply": result.reply,
        **({"output": output} if output else {}),
        "audio_s": round(len(result.pcm) / result.rate_hz, 2),
        "compression_ratio": round(plain_bytes / encoded_bytes, 2) if encoded_bytes else 0.0,
        "timings_ms": result.timings_ms,
    }


def _header(fields: dict[str, Any]) -> str:
    """JSON in ASCII. Texts are cut, the longer one first, until it is fit to be a header."""
    shown = dict(fields)
    while len(header := json.dumps(shown)) > _HEADER_BYTES:
        longer = max(("transcript", "reply"), key=lambda name: len(shown[name]))
        text = shown[longer].removesuffix(_CUT)
        shown[longer] = text[: len(text) * 3 // 4] + _CUT
    return header
