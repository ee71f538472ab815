"""`POST /v1/realtime/client_secrets` and its two older forms: what they ask for, and their answers."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec

from antiphon.wire.openai_http.parsing import BadRequest, parse

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
