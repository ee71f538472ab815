"""How long callers waited in each of the ways to answer a telephone, side by side: `GET /calls/compare`.

These are the server's own figures. What a caller hears also depends on the carrier: `antiphon call --mode` measures it
at the other end. Of the recorded flow only the silence that ends a recording and our own work are known; the way of the
recording to the carrier's store and of the answer to the caller come on top. Words are not kept here.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from antiphon.core.turn_record import TurnRecord
from antiphon.server.security import authorize_or_local

router = APIRouter(tags=["phone"])

FLOWS = ("stream", "recorded", "audiosocket")
MAX_CALLS = 200
MAX_TURNS = 500
"""Of one call."""
_STAGES = ("end_of_turn", "fetch", "stt", "llm_first_token", "tts_first_audio", "total")


@dataclass(frozen=True, slots=True)
class PhoneTurn:
    """One answer, in milliseconds. A stage that the flow does not have is left out."""

    wait_ms: int
    """From the caller's last word to the first of the answer, as far as the server can know."""
    stages_ms: Mapping[str, int]


@dataclass(slots=True)
class LoggedCall:
    flow: str
    turns: list[PhoneTurn] = field(default_factory=list)


def turn_of(record: TurnRecord) -> PhoneTurn | None:
    """A turn of a streamed call; None for one without an answer that could be heard."""
    r = record
    wait_ms = r.voice_to_voice_ms
    if wait_ms is None or r.speech_end_ms is None:
        return None
    spans = {
        "end_of_turn": (r.speech_end_ms, r.committed_ms),
        "stt": (r.transcribe_ms, r.transcript_ms),
        "llm_first_token": (r.generate_ms, r.first_token_ms),
        "tts_first_audio": (r.speak_ms, r.first_audio_ms),
    }
    stages = {
        name: max(end - start, 0)
        for name, (start, end) in spans.items()
        if start is not None and end is not None
    }
    return PhoneTurn(wait_ms, {**stages, "total": wait_ms})


class CallLog:
    """The last calls of each flow. Bounded."""

    def __init__(self) -> None:
        self._calls: OrderedDict[tuple[str, str], LoggedCall] = OrderedDict()

    def add(self, flow: str, call_sid: str, turn: PhoneTurn) -> None:
        call = self._calls.setdefault((flow, call_sid), LoggedCall(flow))
        if len(call.turns) < MAX_TURNS:
            call.turns.append(turn)
        self._calls.move_to_end((flow, call_sid))
        while len(self._calls) > MAX_CALLS:
            self._calls.popitem(last=False)

    def add_records(self, flow: str, call_sid: str, records: Iterable[TurnRecord]) -> None:
        """All turns of a streamed call, when it has ended."""
        for record in records:
            turn = turn_of(record)
            if turn is not None:
                self.add(flow, call_sid, turn)

    def report(self) -> dict[str, Any]:
        flows: dict[str, Any] = {}
        for flow in FLOWS:
            calls = [call for call in self._calls.values() if call.flow == flow]
            turns = [turn for call in calls for turn in call.turns]
            if turns:
                flows[flow] = {"calls": len(calls), **_summary(turns)}
        found: dict[str, Any] = {"flows": flows}
        if {"stream", "recorded"} <= set(flows):
            recorded, stream = (flows[name]["wait_ms"]["median"] for name in ("recorded", "stream"))
            found["saved_by_streaming"] = {
                "median_ms": recorded - stream,
                "percent": round(100 * (recorded - stream) / recorded) if recorded else 0,
            }
        found["calls"] = [
            {"call": sid, "flow": flow, **_summary(call.turns)}
            for (flow, sid), call in self._calls.items()
        ]
        return found


def _summary(turns: list[PhoneTurn]) -> dict[str, Any]:
    stages = {
        name: _median([turn.stages_ms[name] for turn in turns if name in turn.stages_ms])
        for name in _STAGES
        if any(name in turn.stages_ms for turn in turns)
    }
    waits = [turn.wait_ms for turn in turns]
    figures = {"median": _median(waits), "p95": _rank(waits, 95), "max": max(waits)}
    return {"turns": len(turns), "wait_ms": figures, "stages_median_ms": stages}


def _median(values: list[int]) -> int:
    return _rank(values, 50)


def _rank(values: list[int], percent: int) -> int:
    """Nearest rank: the least value that `percent` of all do not exceed."""
    ordered = sorted(values)
    return ordered[max(-(-len(ordered) * percent // 100), 1) - 1]


def as_text(report: Mapping[str, Any]) -> str:
    """A table, a column per flow."""
    flows: Mapping[str, Any] = report["flows"]
    if not flows:
        return "no telephone call with an answer yet\n"
    rows = [("", *flows), *_rows(flows)]
    lines = ["".join(f"{cell:>18}" for cell in row) for row in rows]
    saved = report.get("saved_by_streaming")
    if saved:
        lines.append(
            f"streaming saves {saved['median_ms']} ms of the median wait ({saved['percent']} %)"
        )
    return "\n".join(lines) + "\n"


def _rows(flows: Mapping[str, Any]) -> Iterable[tuple[str, ...]]:
    yield ("calls", *(str(flow["calls"]) for flow in flows.values()))
    yield ("turns", *(str(flow["turns"]) for flow in flows.values()))
    for name in ("median", "p95", "max"):
        yield (f"wait {name} ms", *(str(flow["wait_ms"][name]) for flow in flows.values()))
    for stage in _STAGES:
        cells = [str(flow["stages_median_ms"].get(stage, "-")) for flow in flows.values()]
        yield (stage, *cells)


@router.get("/calls/compare", dependencies=[Depends(authorize_or_local)])
async def compare(request: Request, format: str = "json") -> Response:  # noqa: A002
    """Waits of both flows, per call and in sum. `format=text`: as a table."""
    log: CallLog = request.app.state.services.log
    report = log.report()
    if format == "text":
        return PlainTextResponse(as_text(report))
    return JSONResponse(report)
