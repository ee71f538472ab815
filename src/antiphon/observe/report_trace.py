"""A trace -> what the report page shows of a call: records, who held the floor when, marks, a log.

Knows the trace format and no HTML. A trace that breaks off in mid-line (the process died) gives what is there.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from antiphon.core import events as ev
from antiphon.core.floor import Floor
from antiphon.core.turn_record import TurnRecord
from antiphon.observe import call_trace
from antiphon.observe.turn_figures import withdrawn

LOG_LINES = 4_000
"""More of a call's log would make a page that no browser likes to open."""
_EVERYDAY = (
    "VadScored",
    "AudioSent",
    "Played",
    "ReplyText",
    "ReplyWords",
    "WarmPrompt",
    "Transcript",
)
"""Too many of these to read: they are shown as curves, floors and texts."""
_DETAIL_CHARS = 160
_NUMBERS = (int, float, type(None))
_RECORD_FIELDS = {
    f.name: _NUMBERS if f.default is None else (type(f.default),)
    for f in dataclasses.fields(TurnRecord)
    if f.name != "number"
}
"""Field of a record -> types that it may have."""


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that happened at one moment."""

    at_ms: int
    kind: str
    """`interrupted`, `false-alarm`, `withdrawn`, `tool`, `fault`, `dropped` or `hang-up`."""
    text: str


@dataclass(frozen=True, slots=True)
class FloorSpan:
    start_ms: int
    end_ms: int
    floor: Floor


@dataclass(slots=True)
class TracedCall:
    duration_ms: int = 0
    records: list[TurnRecord] = field(default_factory=list)
    floors: list[FloorSpan] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    voice: list[tuple[int, float]] = field(default_factory=list)
    """(time, speech probability) of each window of the caller's audio."""
    log: list[tuple[int, str, str, str]] = field(default_factory=list)
    """(time, `event` or `action`, name, details)."""
    log_left_out: int = 0
    partial_jobs: set[Any] = field(default_factory=set)
    """Jobs that transcribe while the caller speaks."""
    end_reason: str = ""
    damage: str = ""
    """Why the rest of the trace could not be read; empty for a whole one."""


def read_call(lines: Iterable[str]) -> TracedCall:
    """Raises `call_trace.TraceError` when this is no trace, or one of another version."""
    _, steps = call_trace.read(lines)
    call, floor, since_ms = TracedCall(), Floor.OPEN, 0
    try:
        for step in steps:
            call.duration_ms = max(call.duration_ms, step.now_ms)
            if step.event is not None:
                _take_event(call, step.now_ms, step.event)
            for action in step.actions:
                changed = _take_action(call, step.now_ms, action, floor)
                if changed is not floor:
                    call.floors.append(FloorSpan(since_ms, step.now_ms, floor))
                    floor, since_ms = changed, step.now_ms
    except call_trace.TraceError as error:
        call.damage = str(error)
    call.floors.append(FloorSpan(since_ms, call.duration_ms, floor))
    call.marks = _without_echoes(call.marks)
    call.floors = [s for s in call.floors if s.end_ms > s.start_ms and s.floor is not Floor.ENDED]
    return call


def _without_echoes(marks: list[Mark]) -> list[Mark]:
    """An interruption that was nothing is also a sound that was no turn: one mark is enough."""
    nothing = {mark.at_ms for mark in marks if mark.kind == "false-alarm"}
    return [mark for mark in marks if mark.kind != "dropped" or mark.at_ms not in nothing]


def _take_event(call: TracedCall, now_ms: int, event: ev.Event) -> None:
    if isinstance(event, ev.VadScored):
        call.voice.append((now_ms, event.probability))
    _log(call, now_ms, "event", call_trace.encode(event))


def _take_action(call: TracedCall, now_ms: int, action: Any, floor: Floor) -> Floor:
    """-> who has the floor after it."""
    if not isinstance(action, dict):
        raise call_trace.TraceError(f"an action at {now_ms} ms is not an object")
    match action.get("type"):
        case "FloorChanged":
            return _floor(call, now_ms, action, floor)
        case "TurnRecorded":
            record = record_of(action.get("record"))
            call.records.append(record)
            call.marks += _record_marks(record)
        case "RunTool":
            name = (action.get("call") or {}).get("name", "")
            call.marks.append(Mark(now_ms, "tool", f"function {name}"))
        case "Fault":
            call.marks.append(Mark(now_ms, "fault", str(action.get("message", ""))))
        case "SpeechDropped":
            call.marks.append(Mark(now_ms, "dropped", "heard something that was no turn"))
        case "Hangup":
            call.end_reason = str(action.get("reason", ""))
            call.marks.append(Mark(now_ms, "hang-up", f"call ended: {call.end_reason}"))
    _log(call, now_ms, "action", action)
    return floor


def _floor(call: TracedCall, now_ms: int, action: dict[str, Any], floor: Floor) -> Floor:
    try:
        new = Floor(str(action.get("floor")))
    except ValueError:
        raise call_trace.TraceError(f"there is no floor {action.get('floor')!r}") from None
    if floor is Floor.OVERLAP and new is Floor.AGENT:
        call.marks.append(Mark(now_ms, "false-alarm", "the interruption was nothing: resumed"))
    _log(call, now_ms, "action", action)
    return new


def _record_marks(record: TurnRecord) -> list[Mark]:
    if record.ended_ms is None:
        return []
    if record.interrupted:
        return [Mark(record.ended_ms, "interrupted", f"broken off after {record.played_ms} ms")]
    if withdrawn(record):
        return [Mark(record.ended_ms, "withdrawn", "reply withdrawn unheard")]
    return []


def record_of(data: Any) -> TurnRecord:
    """A record as a trace has it. Fields of a later version are left out. Raises TraceError."""
    if not isinstance(data, dict) or type(data.get("number")) is not int:
        raise call_trace.TraceError("a turn record without a number")
    known = {name: value for name, value in data.items() if name in _RECORD_FIELDS}
    for name, value in known.items():
        if type(value) not in _RECORD_FIELDS[name]:
            raise call_trace.TraceError(f"a turn record's {name} cannot be {value!r}")
    return TurnRecord(data["number"], **known)


def _log(call: TracedCall, now_ms: int, sort: str, data: dict[str, Any]) -> None:
    name = str(data.get("type", ""))
    if name in _EVERYDAY or _is_partial(call, name, data):
        return
    if len(call.log) >= LOG_LINES:
        call.log_left_out += 1
        return
    rest = {key: value for key, value in data.items() if key not in ("type", "history", "record")}
    text = " ".join(f"{key}={_short(value)}" for key, value in rest.items())
    call.log.append((now_ms, sort, name, text[:_DETAIL_CHARS]))


def _is_partial(call: TracedCall, name: str, data: dict[str, Any]) -> bool:
    """Partial transcripts and what asks for them: too many to be listed."""
    if name == "Transcribe" and data.get("partial"):
        call.partial_jobs.add(data.get("job"))
        return True
    return name == "Transcribed" and data.get("job") in call.partial_jobs


def _short(value: Any) -> str:
    if isinstance(value, dict):
        value = {key: inner for key, inner in value.items() if key != "type"}
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
