"""`POST /v1/realtime/client_secrets`, and the two older routes: keys for browsers, that live for minutes."""

from __future__ import annotations

import secrets
from typing import Any

from fastapi import APIRouter, Request

from antiphon.protocols.realtime.frames import session_patch
from antiphon.protocols.realtime.schema import RealtimeError
from antiphon.protocols.realtime.session_config import SessionConfig
from antiphon.server.client_secrets import Pinned
from antiphon.server.openai_http.work import Admitted, openai_errors
from antiphon.server.security import Principal, gate_of
from antiphon.wire.openai_http import realtime_secrets as wire
from antiphon.wire.openai_http.parsing import BadRequest

router = APIRouter()


@router.post("/realtime/client_secrets")
async def create(request: Request, principal: Admitted) -> dict[str, Any]:
    """A key that opens Realtime sessions, with the settings that are given, until it expires."""
    with openai_errors():
        ask = wire.read(await request.body())
        pinned = Pinned(ask.session)
        session = _session(request, pinned, ask.session["type"])
    value, expires_at = _secret(request, principal, pinned, ask.expires_after.seconds)
    return wire.answer(value, expires_at, session.shown())


@router.post("/realtime/sessions")
async def create_session(request: Request, principal: Admitted) -> dict[str, Any]:
    """The same in the beta's shape."""
    return await _beta(request, principal, "realtime")


@router.post("/realtime/transcription_sessions")
async def create_transcription_session(request: Request, principal: Admitted) -> dict[str, Any]:
    """The same for a session that only transcribes, in the beta's shape."""
    return await _beta(request, principal, "transcription")


async def _beta(request: Request, principal: Principal, kind: str) -> dict[str, Any]:
    with openai_errors():
        given, life_s = wire.read_beta(await request.body())
        pinned = Pinned(given, "beta")
        _session(request, pinned, kind)
    value, expires_at = _secret(request, principal, pinned, life_s)
    return wire.answer_beta(value, expires_at, given, transcription=kind == "transcription")


def _session(request: Request, pinned: Pinned, kind: str) -> SessionConfig:
    """As it will be at its beginning. Raises BadRequest now rather than when somebody connects."""
    agent = request.app.state.settings.agent
    session = SessionConfig(
        f"sess_{secrets.token_hex(12)}",
        model=str(pinned.session.get("model") or ""),
        instructions=agent.prompt,
        voice=agent.voice or "alloy",
        kind=kind,
    )
    try:
        session.update(session_patch(dict(pinned.session), pinned.dialect))
    except RealtimeError as error:
        raise BadRequest(str(error), error.param, error.code) from None
    return session


def _secret(request: Request, principal: Principal, pinned: Pinned, life_s: int) -> tuple[str, int]:
    return gate_of(request).secrets.create(principal.key, pinned, life_s)
