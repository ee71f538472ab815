"""Writes schemas.json: JSON schemas of every Realtime event of both dialects, from the installed `openai` package.

`python tests/protocols/realtime/make_schemas.py`, after moving to another version of the package; look at the diff.
Descriptions are left out. The tests check every frame against these schemas and, where the package is the same version,
against its types as well.
"""

from __future__ import annotations

import json
import typing
from importlib.metadata import version
from pathlib import Path
from typing import Any

from openai.types.beta import realtime as beta
from openai.types.realtime import RealtimeClientEvent, RealtimeServerEvent
from pydantic import TypeAdapter

PATH = Path(__file__).with_name("schemas.json")
UNIONS: dict[str, Any] = {
    "ga server": RealtimeServerEvent,
    "ga client": RealtimeClientEvent,
    "beta server": beta.RealtimeServerEvent,
    "beta client": beta.RealtimeClientEvent,
}


def members(union: Any) -> dict[str, Any]:
    """Type of event -> class, of a union of the package."""
    found: dict[str, Any] = {}
    for member in typing.get_args(union):
        if (
            typing.get_origin(member) is not None
        ):  # Annotated: the union itself is the first argument
            found |= members(member)
        elif hasattr(member, "model_fields"):
            (kind,) = typing.get_args(member.model_fields["type"].annotation)
            found[kind] = member
    return found


def bare(schema: Any) -> Any:
    """Without prose."""
    if isinstance(schema, dict):
        return {k: bare(v) for k, v in schema.items() if k not in ("description", "title")}
    if isinstance(schema, list):
        return [bare(v) for v in schema]
    return schema


def make() -> dict[str, Any]:
    schemas: dict[str, Any] = {"openai": version("openai")}
    for name, union in UNIONS.items():
        schemas[name] = {
            kind: bare(TypeAdapter(cls).json_schema())
            for kind, cls in sorted(members(union).items())
        }
    return schemas


if __name__ == "__main__":
    text = json.dumps(make(), separators=(",", ":"), sort_keys=True)
    PATH.write_text(text.replace('},"', '},\n"') + "\n")
