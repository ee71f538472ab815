"""A call as text: every event with its time and what the conversation answered, one JSON object a line.

The same format for golden tests and for calls recorded in production. `replay` feeds a trace to a fresh Conversation
and reports the first difference. There are only lines here, no files.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from antiphon.core import actions, events
from antiphon.core.conversation import Conversation
from antiphon.core.policy import Policy

log = logging.getLogger(__name__)

VERSION = 2
MAX_TRACE_CHARS = 64 << 20
"""Of one call: some hours of talk. A trace that ends early replays up to there."""

_EVENTS = {cls.__name__: cls for cls in typing.get_args(events.Event)}


class TraceError(ValueError):
    """Not a trace, or one of another version."""


def header(policy: Policy) -> str:
    return _dump({"antiphon_trace": VERSION, "policy": _settings(policy)})


class CallTrace:
    """Records one call; `take` is what the call tells every step to. It ends at `MAX_TRACE_CHARS`."""

    def __init__(self, policy: Policy, call_id: str = "") -> None:
        self.lines = [header(policy)]
        self._call_id = call_id
        self._chars = 0

    def take(self, now_ms: int, event: events.Event | None, out: list[actions.Action]) -> None:
        """A step of the call. A tick from which nothing came is left out."""
        if self._chars > MAX_TRACE_CHARS or not (out or event is not None):
            return
        step = line(now_ms, event, out)
        self._chars += len(step)
        if self._chars > MAX_TRACE_CHARS:
            log.warning("call %s: its trace ends here: it is too long", self._call_id)
        else:
            self.lines.append(step)


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
    if isinstance(value, Mapping):
        return {str(k): encode(v) for k, v in value.items()}
    return value


def decode_event(data: dict[str, Any]) -> events.Event:
    """Raises TraceError for anything that `encode` cannot have written."""
    name = data.get("type") if isinstance(data, dict) else data
    cls = _EVENTS.get(name) if isinstance(name, str) else None
    if cls is None:
        raise TraceError(f"unknown event {name!r}")
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


@dataclasses.dataclass(frozen=True, slots=True)
class Step:
    """One line of a trace after its header. `event` None: a tick. `actions` as `encode` wrote them."""

    line_number: int
    now_ms: int
    event: events.Event | None
    actions: list[Any]


def read(lines: Iterable[str]) -> tuple[Policy, Iterator[Step]]:
    """A trace's policy and its steps. Raises TraceError, for a bad step when that is reached."""
    numbered = ((n, text) for n, text in enumerate(lines, 1) if text.strip())
    return _read_header(numbered), (_read_step(text, number) for number, text in numbered)


def replay(lines: Iterable[str]) -> Difference | None:
    """Run a trace through the core -> the first difference, None when there is none. Raises TraceError."""
    policy, steps = read(lines)
    conversation = Conversation(policy)
    for step in steps:
        if step.event is None:
            out = conversation.tick(step.now_ms)
        else:
            out = conversation.handle(step.event, step.now_ms)
        actual = json.loads(_dump([encode(action) for action in out]))
        if actual != step.actions:
            return Difference(step.line_number, step.now_ms, step.actions, actual)
    return None


def _read_step(text: str, number: int) -> Step:
    data = _load(text, number)
    now_ms, actions_ = data.get("t"), data.get("actions", [])
    if type(now_ms) is not int or not isinstance(actions_, list):
        raise TraceError(f"line {number} is not a step of a call: it needs a time and actions")
    event = decode_event(data["event"]) if "event" in data else None
    return Step(number, now_ms, event, actions_)


def _read_header(numbered: Iterator[tuple[int, str]]) -> Policy:
    number, text = next(numbered, (0, "{}"))
    data = _load(text, number)
    if data.get("antiphon_trace") != VERSION:
        found = data.get("antiphon_trace", "none")
        raise TraceError(f"trace version {found}, this is version {VERSION}: record the call again")
    policy = data.get("policy", {})
    if not isinstance(policy, dict):
        raise TraceError("the trace's policy is not an object")
    return typing.cast(Policy, _build(Policy, policy))


def _load(text: str, number: int) -> dict[str, Any]:
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise TraceError(f"line {number} is not JSON: {error}") from None
    except (RecursionError, ValueError):  # ValueError: a number of thousands of digits
        raise TraceError(
            f"line {number} is no line of a trace: too deep, or too long a number"
        ) from None
    if not isinstance(data, dict):
        raise TraceError(f"line {number} is not an object")
    return data


def _build(cls: type, data: dict[str, Any]) -> Any:
    hints = typing.get_type_hints(cls)
    kwargs: dict[str, Any] = {}
    for name, value in data.items():
        if name == "type" and "type" not in hints:
            continue
        if name not in hints:
            raise TraceError(f"{cls.__name__} has no field {name!r}")
        kwargs[name] = _value(value, hints[name], f"{cls.__name__}.{name}")
    try:
        return cls(**kwargs)
    except TypeError as error:
        raise TraceError(f"{cls.__name__}: {error}") from None


def _value(value: Any, hint: Any, where: str) -> Any:
    """A JSON value as the field's type has it."""
    kinds = [hint, *typing.get_args(hint)] if isinstance(hint, types.UnionType) else [hint]
    for kind in kinds:
        if dataclasses.is_dataclass(kind) and isinstance(kind, type) and isinstance(value, dict):
            return _build(kind, value)
        if typing.get_origin(kind) is Mapping and isinstance(value, dict):
            return value
        if kind is type(value) or (kind is type(None) and value is None):
            return value
        if kind is float and type(value) is int:
            return float(value)
    raise TraceError(f"{where} cannot be {_dump(value)[:40]}")


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return dataclasses.MISSING


def _settings(policy: Policy) -> dict[str, Any]:
    """All of them: a default that changes later must not change what a trace replays."""
    return {f.name: getattr(policy, f.name) for f in dataclasses.fields(policy)}


def _dump(value: Any) -> str:
    # What a client put into `extra` or `options` may be anything: recording a call must not end it.
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)
