"""`GET /api/options`: what a client may choose from, for the page's settings. Read-only, and no prompt is shown."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends, Request

from antiphon.errors import AntiphonError
from antiphon.models.ports import Kind, ModelInfo
from antiphon.server.calls import Calls
from antiphon.server.security import authorize
from antiphon.wire.conversation import LEVELS

router = APIRouter(prefix="/api", tags=["page"], dependencies=[Depends(authorize)])


@router.get("/options")
async def options(request: Request) -> dict[str, Any]:
    """Empty lists: nothing to choose, or not known before the models are loaded.

    `languages`: ISO 639-1 codes that speech to text and text to speech both know; empty: any.
    """
    calls: Calls = request.app.state.calls
    agent = calls.settings.agent
    stt, tts = _info(calls, Kind.STT), _info(calls, Kind.TTS)
    return {
        "agents": list(agent.presets),
        "voices": list(tts.voices) if tts else [],
        "languages": _languages(stt, tts),
        "levels": list(LEVELS),
        "voice": agent.voice,
        "language": agent.language,
        "level": agent.level,
        "resume_s": calls.settings.server.resume_s,
    }


def _info(calls: Calls, kind: Kind) -> ModelInfo | None:
    try:
        return calls.models.info(kind)
    except AntiphonError:
        return None


def _languages(*infos: ModelInfo | None) -> list[str]:
    known = [set(info.languages) for info in infos if info is not None and info.languages]
    return sorted(set.intersection(*known)) if known else []
