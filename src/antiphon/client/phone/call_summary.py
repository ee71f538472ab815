"""Results of calls -> what is printed: a table per call, one line in sum, a timeline, and the same as an object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.table import Table

from antiphon.client.phone.measure import TurnFigures
from antiphon.client.phone.script import CallResult, figures_of
from antiphon.observe.turn_figures import percentile, summarise

_ROW_MS = 6_000
_CELL_MS = 100

_TITLES = {
    "voice_to_voice_ms": "voice to voice",
    "barge_in_to_silence_ms": "barge-in to silence",
    "overlap_ms": "overlap",
    "dead_air_ms": "dead air",
    "answer_ms": "length of answer",
}


def in_sum(results: Sequence[CallResult]) -> dict[str, Any]:
    """All turns of all calls in numbers; a figure that never came about is null."""
    turns = [turn for result in results for turn in result.turns]
    return {
        "calls": len(results),
        "failed_calls": sum(bool(result.trouble) for result in results),
        "turns": len(turns),
        "unanswered": sum(result.unanswered for result in results),
        "talked_over": sum(turn.talked_over for turn in turns),
        "clipped_starts": sum(turn.clipped_start for turn in turns),
        "gaps": sum(turn.gaps for turn in turns),
        "faults": sum(len(result.faults) for result in results),
        "most_late_ms": max((result.most_late_ms for result in results), default=0.0),
        **{name: _spread(values) for name, values in figures_of(results).items()},
    }


def _spread(values: Sequence[float]) -> dict[str, float] | None:
    found = summarise(values)
    if found is None:
        return None
    spread = {
        "count": found.count,
        "median": found.median_ms,
        "p50": percentile(values, 0.5),
        "p95": found.p95_ms,
        "min": found.least_ms,
        "max": found.most_ms,
    }
    return {name: round(value, 1) for name, value in spread.items()}


def as_object(results: Sequence[CallResult]) -> dict[str, Any]:
    """Plain JSON values."""
    return {"sum": in_sum(results), "calls": [_call_object(result) for result in results]}


def _call_object(result: CallResult) -> dict[str, Any]:
    return {
        "mode": result.mode,
        "duration_s": round(result.recording.duration_s, 2) if result.recording else 0.0,
        "greeting_ms": result.greeting_ms,
        "ended": result.ended,
        "trouble": result.trouble,
        "faults": result.faults,
        "clears": result.clears,
        "marks": result.marks,
        "most_late_ms": result.most_late_ms,
        "turns": [asdict(turn) for turn in result.turns],
        "timeline": [
            {"who": who, "from_ms": start, "to_ms": end} for who, start, end in result.timeline()
        ],
    }


def turn_table(result: CallResult) -> Table:
    """One call, one row per question; times in ms."""
    table = Table("question", title_justify="left")
    for name in ("voice to voice", "barge-in to silence", "overlap", "dead air", "answer"):
        table.add_column(name, justify="right")
    table.add_column("remarks")
    for turn in result.turns:
        cells = (turn.voice_to_voice_ms, turn.barge_in_to_silence_ms, turn.overlap_ms or None)
        rest = (turn.dead_air_ms, turn.answer_ms or None)
        table.add_row(turn.question, *map(_cell, (*cells, *rest)), ", ".join(_remarks(turn)))
    return table


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"


def _remarks(turn: TurnFigures) -> list[str]:
    found = [] if turn.answered else ["no answer"]
    found += ["talked over the caller"] if turn.talked_over else []
    by_itself = turn.barge_in_to_silence_ms is not None and not turn.cleared
    found += ["no clear"] if by_itself else []
    found += ["clipped start"] if turn.clipped_start else []
    found += [f"{turn.gaps} gaps, up to {turn.longest_gap_ms:.0f} ms"] if turn.gaps else []
    return found


def sum_table(results: Sequence[CallResult]) -> Table:
    """All calls together; times in ms."""
    table = Table("ms")
    for name in ("count", "median", "P95", "min", "max"):
        table.add_column(name, justify="right")
    summed = in_sum(results)
    for name, title in _TITLES.items():
        found = summed[name]
        names = ("count", "median", "p95", "min", "max")
        table.add_row(title, *([f"{found[n]:.0f}" for n in names] if found else ["-"] * 5))
    return table


def headline(results: Sequence[CallResult]) -> str:
    found = in_sum(results)
    text = f"{found['calls']} calls, {found['turns']} turns, {found['unanswered']} unanswered"
    extra = {
        name: found[name] for name in ("failed_calls", "talked_over", "clipped_starts", "gaps")
    }
    parts = [text, *(f"{n} {name.replace('_', ' ')}" for name, n in extra.items() if n)]
    return ", ".join(parts)


def timeline(result: CallResult) -> str:
    """The recording as text: six seconds a row, a tenth of a second a character."""
    spans = result.timeline()
    if result.recording is None or not spans:
        return ""
    cells = int(result.recording.duration_s * 1000 / _CELL_MS) + 1
    rows = {"caller": ["."] * cells, "agent": ["."] * cells}
    for who, start_ms, end_ms in spans:
        for cell in range(int(start_ms // _CELL_MS), min(int(end_ms // _CELL_MS) + 1, cells)):
            rows[who][cell] = "#" if who == "caller" else "="
    width = _ROW_MS // _CELL_MS
    lines = []
    for at in range(0, cells, width):
        seconds = at * _CELL_MS / 1000
        lines.append(f"{int(seconds // 60)}:{seconds % 60:04.1f} caller {_row(rows['caller'], at)}")
        lines.append(f"       agent  {_row(rows['agent'], at)}")
    return "\n".join(lines)


def _row(cells: list[str], at: int) -> str:
    return "".join(cells[at : at + _ROW_MS // _CELL_MS])
