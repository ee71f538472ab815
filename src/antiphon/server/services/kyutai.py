"""What moshi-server has beside its sockets: what it is, and voices from clips. Knows no audio."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import Response

from antiphon.models.ports import Kind
from antiphon.server.openai_http.work import finish, job_for, openai_errors
from antiphon.server.refusal import Refused
from antiphon.server.services.cloning import MAX_CLIP_BYTES, learn
from antiphon.server.services.streams import Streams
from antiphon.server.services.token import MoshiAdmitted
from antiphon.wire import xtts

router = APIRouter(tags=["moshi"])
voices = APIRouter(tags=["moshi"])

_PATHS = {Kind.STT: "/api/asr-streaming", Kind.TTS: "/api/tts_streaming", Kind.LLM: "/ws"}


@router.get("/api/build_info")
async def build_info() -> dict[str, str]:
    """Clients poll it to see whether the service is there."""
    return {"name": "antiphon", "version": version("antiphon")}


@router.get("/api/modules_info")
async def modules_info(request: Request, principal: MoshiAdmitted) -> list[dict[str, str]]:
    """One module, with its places; numbers as text, as the original has them."""
    streams: Streams = request.app.state.calls
    kind: Kind = request.app.state.kind
    return [
        {
            "type": kind.value,
            "path": _PATHS[kind],
            "used_slots": str(len(streams)),
            "total_slots": str(streams.settings.server.max_calls),
        }
    ]


@voices.post("/api/voice", response_model=None)
async def voice(request: Request, principal: MoshiAdmitted) -> Response:
    """A clip -> a `Voice` message, to be sent unchanged before the text. Unlike the original it wants the token."""
    with openai_errors():
        clip = await request.body()
        if len(clip) > MAX_CLIP_BYTES:
            raise Refused(413, f"the clip is over {MAX_CLIP_BYTES >> 20} MiB; send 10 s of speech")
    async with job_for(request, principal) as job:

        async def work() -> Response:
            numbers: list[Any] = xtts.tensors(await learn(job.models, clip, job.work()))[
                "speaker_embedding"
            ]
            message = {"type": "Voice", "embeddings": numbers, "shape": [1, len(numbers)]}
            return Response(msgspec.msgpack.encode(message), media_type="application/msgpack")

        return await finish(request, work())
