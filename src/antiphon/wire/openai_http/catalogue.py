"""`/v1/models` and `/v1/voices`: lists."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

OWNER = "antiphon"


def model(name: str, created: int) -> dict[str, Any]:
    """`created`: seconds since 1970."""
    return {"id": name, "object": "model", "created": created, "owned_by": OWNER}


def listed(entries: Iterable[dict[str, Any]]) -> dict[str, Any]:
    return {"object": "list", "data": list(entries)}


def voice(name: str) -> dict[str, Any]:
    return {"id": name, "object": "voice", "name": name}
