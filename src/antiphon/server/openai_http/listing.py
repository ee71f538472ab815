"""`GET /v1/models`, `/v1/models/{id}`, `/v1/voices`: what there is. Cheap: clients poll them as a probe."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request

from antiphon.models.pool import ModelSet
from antiphon.models.ports import Kind
from antiphon.server.openai_http.work import Admitted, model_name
from antiphon.server.refusal import Refused
from antiphon.wire.openai_http import catalogue

router = APIRouter()
llm_router = APIRouter()

_KINDS = (Kind.LLM, Kind.STT, Kind.TTS)
_STARTED = int(time.time())


@router.get("/models")
async def models(request: Request, principal: Admitted) -> dict[str, Any]:
    """The language model first, then speech to text and text to speech, as far as they are in use."""
    return _listed(request, _KINDS)


@llm_router.get("/models")
async def llm_models(request: Request, principal: Admitted) -> dict[str, Any]:
    return _listed(request, (Kind.LLM,))


@router.get("/models/{name:path}")
async def model(name: str, request: Request, principal: Admitted) -> dict[str, Any]:
    """One of them. Requests may name any model all the same: each endpoint has one."""
    if name not in _names(request, _KINDS):
        raise Refused(
            404,
            f"there is no model {name[:80]!r}; see /v1/models",
            "model_not_found",
            param="model",
        )
    return catalogue.model(name, _STARTED)


@router.get("/audio/voices")
async def voices(request: Request, principal: Admitted) -> dict[str, Any]:
    """The voices that `/v1/audio/speech` takes by name; none: the model has but one."""
    found: ModelSet = request.app.state.calls.models
    names = found.info(Kind.TTS).voices if model_name(found, Kind.TTS) else ()
    return catalogue.listed(catalogue.voice(name) for name in names)


def _listed(request: Request, kinds: Sequence[Kind]) -> dict[str, Any]:
    names = _names(request, kinds)
    return catalogue.listed(catalogue.model(name, _STARTED) for name in names)


def _names(request: Request, kinds: Sequence[Kind]) -> list[str]:
    found: ModelSet = request.app.state.calls.models
    return list(dict.fromkeys(name for kind in kinds if (name := model_name(found, kind))))
