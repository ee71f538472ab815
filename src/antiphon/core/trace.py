"""A call as text: every event with its time and what the conversation answered, one JSON object a line.

The same format for golden tests and for calls recorded in production. `replay` feeds a trace to a fresh Conversation
and reports the first difference. Knows no files: lines in, lines out.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Iterable, Iterator
from typing import Any

from antiphon.core import actions, events
from antiphon.core.conversation import Conversation
from antiphon.core.history import Item, ToolRequest
from antiphon.core.policy import Policy

VERSION = 1

_EVENTS = {cls.__name__: cls for cls in typing.get_args(events.Event)}
_NESTED = {cls.__name__: cls for cls in (Item, ToolRequest, Policy)}


class TraceError(ValueError):
    """Not a trace, or one of another version."""


def header(policy: Policy) -> str:
    return _dump({"antiphon_trace": VERSION, "policy": _differences(policy)})


def line(now_ms: int, event: events.Event | None, out: list[actions.Action]) -> str:
    """One step: an event, or None for a tick."""
    record: dict[str, Any] = {"t": now_ms}
    if event is not None:
        record["event"] = encode(event)
    if out:
        record["actions"] = [encode(action) for action in out]
    return _dump(record)


def encode(value: Any) -> Any:
    """An event, an action or anything inside one -> plain JSON values. Defaults are left out."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields: dict[str, Any] = {"type": type(value).__name__}
        for field in dataclasses.fields(value):
            content = getattr(value, field.name)
            if content != _default(field):
                fields[field.name] = encode(content)
        return fields
    if isinstance(value, list | tuple):
        return [encode(v) for v in value]
    if isinstance(value, dict):
        return {str(k): encode(v) for k, v in value.items()}
    return value


def decode_event(data: dict[str, Any]) -> events.Event:
    """Raises TraceError for anything that `encode` cannot have written."""
    cls = _EVENTS.get(data.get("type", ""))
    if cls is None:
        raise TraceError(f"unknown event {data.get('type')!r}")
    return typing.cast(events.Event, _build(cls, data))


@dataclasses.dataclass(frozen=True, slots=True)
class Difference:
    """Where a replay first left its trace."""

    line_number: int
    now_ms: int
    expected: Any
    actual: Any

    def __str__(self) -> str:
        return (
            f"line {self.line_number}, {self.now_ms} ms:\n  recorded {_dump(self.expected)}"
            f"\n  replayed {_dump(self.actual)}"
        )


def replay(lines: Iterable[str]) -> Difference | None:
    """Run a trace through the core -> the first difference, None when there is none. Raises TraceError."""
    numbered = ((n, text) for n, text in enumerate(lines, 1) if text.strip())
    conversation = Conversation(_read_header(numbered))
    for number, text in numbered:
        step = _load(text, number)
        now_ms = int(step["t"])
        if "event" in step:
            out = conversation.handle(decode_event(step["event"]), now_ms)
        else:
            out = conversation.tick(now_ms)
        actual = json.loads(_dump([encode(action) for action in out]))
        expected = step.get("actions", [])
        if actual != expected:
            return Difference(number, now_ms, expected, actual)
    return None


def _read_header(numbered: Iterator[tuple[int, str]]) -> Policy:
    number, text = next(numbered, (0, "{}"))
    data = _load(text, number)
    if data.get("antiphon_trace") != VERSION:
        found = data.get("antiphon_trace", "none")
        raise TraceError(f"trace version {found}, this is version {VERSION}: record the call again")
    try:
        return Policy(**data.get("policy", {}))
    except TypeError as error:
        raise TraceError(
            f"the trace's policy has settings this version does not know: {error}"
        ) from None


def _load(text: str, number: int) -> dict[str, Any]:
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise TraceError(f"line {number} is not JSON: {error}") from None
    if not isinstance(data, dict):
        raise TraceError(f"line {number} is not an object")
    return data


def _build(cls: type, data: dict[str, Any]) -> Any:
    hints = typing.get_type_hints(cls)
    kwargs: dict[str, Any] = {}
    for name, value in data.items():
        if name == "type":
            continue
        if name not in hints:
            raise TraceError(f"{cls.__name__} has no field {name!r}")
        kwargs[name] = _value(value, hints[name])
    try:
        return cls(**kwargs)
    except TypeError as error:
        raise TraceError(f"{cls.__name__}: {error}") from None


def _value(value: Any, hint: Any) -> Any:
    if isinstance(value, dict) and value.get("type") in _NESTED:
        return _build(_NESTED[value["type"]], value)
    if isinstance(value, list) and typing.get_origin(hint) in (tuple, types.UnionType):
        return tuple(value)
    return value


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return dataclasses.MISSING


def _differences(policy: Policy) -> dict[str, Any]:
    plain = Policy()
    values = {f.name: getattr(policy, f.name) for f in dataclasses.fields(policy)}
    return {name: value for name, value in values.items() if value != getattr(plain, name)}


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
