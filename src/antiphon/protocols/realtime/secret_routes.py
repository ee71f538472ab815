"""`POST /v1/realtime/client_secrets` and the two older routes: keys for browsers, that live for minutes."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Request

from antiphon.json_body import BadRequest, parse
from antiphon.protocols.realtime.frames import session_patch
from antiphon.protocols.realtime.schema import RealtimeError
from antiphon.protocols.realtime.session_config import SessionConfig
from antiphon.server.client_secrets import Pinned
from antiphon.server.request_jobs import Admitted, openai_errors
from antiphon.server.security import Principal, gate_of

MAX_SESSION_BYTES = 256 << 10
MAX_SESSION_DEPTH = 64
"""A tool's parameters are the deepest part: a schema of twenty levels is a large one."""
_TYPES = ("realtime", "transcription")


class ExpiresAfter(msgspec.Struct):
    seconds: Annotated[int, msgspec.Meta(ge=10, le=7_200)] = 600
    anchor: Literal["created_at"] = "created_at"


class SecretAsk(msgspec.Struct):
    expires_after: ExpiresAfter = msgspec.field(default_factory=ExpiresAfter)
    session: dict[str, Any] = msgspec.field(default_factory=dict)


def read(body: bytes) -> SecretAsk:
    """The newer form. An empty body asks for a session as it is. Raises BadRequest."""
    _check_size(body)
    ask = parse(SecretAsk, body or b"{}")
    kind = ask.session.setdefault("type", "realtime")
    if kind not in _TYPES:
        raise BadRequest("session.type must be realtime or transcription", "session.type")
    _check_depth(ask.session)
    return ask


def read_beta(body: bytes) -> tuple[dict[str, Any], int]:
    """The older forms, with the session's fields at the top -> session, seconds to live. Raises BadRequest."""
    _check_size(body)
    session = parse(dict[str, Any], body or b"{}")
    _check_depth(session)
    given = session.pop("client_secret", None)
    expires = given.get("expires_after") if isinstance(given, dict) else None
    if expires is None:
        return session, ExpiresAfter().seconds
    return session, parse(ExpiresAfter, msgspec.json.encode(expires)).seconds


def _check_size(body: bytes) -> None:
    if len(body) > MAX_SESSION_BYTES:
        raise BadRequest(f"the session is larger than {MAX_SESSION_BYTES >> 10} KiB; shorten it")


def _check_depth(session: dict[str, Any]) -> None:
    """The session is answered as it was given, and writing it goes level by level on the stack."""
    level: list[Any] = [session]
    for _ in range(MAX_SESSION_DEPTH):
        level = [
            inner
            for value in level
            if isinstance(value, (dict, list))
            for inner in (value.values() if isinstance(value, dict) else value)
        ]
        if not level:
            return
    raise BadRequest(f"the session is nested deeper than {MAX_SESSION_DEPTH} levels; flatten it")


def answer(value: str, expires_at: int, session: Mapping[str, Any]) -> dict[str, Any]:
    """`session`: as it will be, complete, with its id and type."""
    return {
        "value": value,
        "expires_at": expires_at,
        "session": {**session, "expires_at": expires_at},
    }


def answer_beta(
    value: str, expires_at: int, session: Mapping[str, Any], *, transcription: bool
) -> dict[str, Any]:
    return {
        "id": f"sess_{secrets.token_hex(12)}",
        "object": "realtime.transcription_session" if transcription else "realtime.session",
        **session,
        "client_secret": {"value": value, "expires_at": expires_at},
    }


router = APIRouter()


@router.post("/realtime/client_secrets")
async def create(request: Request, principal: Admitted) -> dict[str, Any]:
    """A key that opens Realtime sessions, with the settings that are given, until it expires."""
    with openai_errors():
        ask = read(await request.body())
        pinned = Pinned(ask.session)
        session = _session(request, pinned, ask.session["type"])
    value, expires_at = _secret(request, principal, pinned, ask.expires_after.seconds)
    return answer(value, expires_at, session.shown())


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
        given, life_s = read_beta(await request.body())
        pinned = Pinned(given, "beta")
        _session(request, pinned, kind)
    value, expires_at = _secret(request, principal, pinned, life_s)
    return answer_beta(value, expires_at, given, transcription=kind == "transcription")


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
