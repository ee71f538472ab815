"""Every frame of ours against the `openai` package: its types, strictly, and the JSON schemas made of them."""

from __future__ import annotations

import json
from functools import cache
from importlib.metadata import version
from typing import Any

from jsonschema import Draft202012Validator
from pydantic import TypeAdapter
from tests.protocols.realtime.make_schemas import PATH, UNIONS, members

SCHEMAS: dict[str, Any] = json.loads(PATH.read_text())
SAME_VERSION = version("openai") == SCHEMAS["openai"]
"""Types of another version may differ from what we promise."""


@cache
def _validator(dialect: str, kind: str) -> Any:
    schema = SCHEMAS[f"{dialect} server"].get(kind)
    assert schema is not None, f"{kind} is no event of the {dialect} dialect"
    return Draft202012Validator(schema)


@cache
def _adapter(dialect: str, kind: str) -> Any:
    return TypeAdapter(members(UNIONS[f"{dialect} server"])[kind])


def check(frame: str | bytes, dialect: str = "ga") -> dict[str, Any]:
    """-> the event. Raises when it is not valid."""
    event: dict[str, Any] = json.loads(frame)
    assert isinstance(event.get("event_id"), str), event
    kind = event["type"]
    errors = sorted(_validator(dialect, kind).iter_errors(event), key=str)
    assert not errors, f"{kind}: {errors[0].message} at {list(errors[0].absolute_path)}: {frame!r}"
    if SAME_VERSION:
        _adapter(dialect, kind).validate_json(frame, strict=True)
    return event
