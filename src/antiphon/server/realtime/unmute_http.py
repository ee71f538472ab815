"""`/v1/health` and `/v1/voices` as Unmute's page and load test want them, also below `/api`."""

from __future__ import annotations

import asyncio
import secrets
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Request
from starlette.datastructures import UploadFile

from antiphon.models.pool import ModelSet, Work
from antiphon.models.ports import Kind
from antiphon.server.calls import Calls
from antiphon.server.openai_http.work import openai_errors
from antiphon.server.realtime.unmute import LEARNED
from antiphon.server.refusal import Refused
from antiphon.server.security import Principal, authorize
from antiphon.server.services.cloning import learn
from antiphon.server.services.speaking import voices_of

router = APIRouter(tags=["unmute"])
Admitted = Annotated[Principal, Depends(authorize)]

_MAX_CLIP_BYTES = 4 << 20
_FORM_BYTES = 64 << 10
_LEARN_S = 60.0


def include(app: FastAPI) -> None:
    """Add the routes. Unmute's page in a container asks below `/api`."""
    for prefix in ("/v1", "/api/v1"):
        app.include_router(router, prefix=prefix, include_in_schema=prefix == "/v1")


@router.get("/health")
async def health(request: Request) -> dict[str, bool]:
    """Always 200; `ok`: a call can be taken, as far as models go."""
    models: ModelSet = request.app.state.calls.models
    status = models.status()

    def up(kind: Kind) -> bool:
        return any(link.kind is kind and link.state == "ready" for link in status)

    found = {"tts_up": up(Kind.TTS), "stt_up": up(Kind.STT), "llm_up": up(Kind.LLM)}
    cloning = found["tts_up"] and models.learns_voices
    return {**found, "voice_cloning_up": cloning, "ok": all(found.values())}


@router.get("/voices")
async def voices(request: Request, principal: Admitted) -> list[dict[str, Any]]:
    """Never empty: the load test takes the first."""
    models: ModelSet = request.app.state.calls.models
    return [
        {
            "name": name,
            "good": True,
            "instructions": {"type": "smalltalk", "language": None},
            "source": {"source_type": "file", "path_on_server": name},
        }
        for name in voices_of(models)
    ]


@router.post("/voices")
async def learn_voice(request: Request, principal: Admitted) -> dict[str, str]:
    """The voice in the form's `file` -> a name for it, for as long as the process lives."""
    declared = request.headers.get("content-length", "")
    if not declared.isdigit():
        raise Refused(411, "send a Content-Length", "length_required", retry=False)
    if int(declared) > _MAX_CLIP_BYTES + _FORM_BYTES:
        raise Refused(413, "the clip is larger than 4 MiB", "file_too_large", retry=False)
    calls: Calls = request.app.state.calls
    async with request.form(max_files=1, max_fields=20) as form:
        file = form.get("file")
        if not isinstance(file, UploadFile):
            raise Refused(400, "send the clip as `file`", "missing_required_parameter")
        clip = await file.read(_MAX_CLIP_BYTES)
    now_ms = int(asyncio.get_running_loop().time() * 1000)
    with openai_errors():
        async with asyncio.timeout(_LEARN_S):
            name = await learn(calls.models, clip, Work(f"http-{secrets.token_hex(6)}", now_ms))
    return {"name": f"{LEARNED}{name}"}
