"""Results as tables for a terminal and as charts. Knows the results' shape, no server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from antiphon.client.bench import charts

_Spread = Mapping[str, float] | None


def _cell(value: Any, digits: int = 0) -> str:
    return (
        "-" if value is None else f"{value:.{digits}f}" if isinstance(value, float) else str(value)
    )


def _pair(found: _Spread) -> str:
    return "-" if not found else f"{found['median']:.0f} / {found['p95']:.0f}"


def _table(title: str, *columns: str) -> Table:
    table = Table(columns[0], title=title, title_justify="left")
    for name in columns[1:]:
        table.add_column(name, justify="right")
    return table


# -- capacity -------------------------------------------------------------------------------------


def capacity_table(result: Mapping[str, Any]) -> Table:
    table = _table(
        "Calls on one core",
        "server",
        "calls, each run",
        "CPU ms per call-s",
        "MB per idle call",
        "voice to voice there",
        "jitter there",
        "ended by",
    )
    for name, runs in result["runs"].items():
        best = [_at_knee(run) for run in runs]
        level = next((found for found in best if found), None)
        table.add_row(
            name,
            ", ".join(str(run["knee_calls"]) for run in runs),
            _cell(result["cpu_ms_per_call_s"][name], 1),
            _cell(result["idle_memory_mb_per_call"][name], 2),
            _pair(level["voice_to_voice_ms"]) if level else "-",
            _pair(level["jitter_ms"]) if level else "-",
            str(runs[-1].get("ended_by") or runs[-1].get("trouble", "")) if runs else "",
        )
    for pair, ratio in result["ratio_of_calls"].items():
        table.caption = (
            f"{table.caption or ''}{pair}: {_cell(ratio['median'], 1)} times the calls  "
        )
    return table


def _at_knee(run: Mapping[str, Any]) -> Mapping[str, Any] | None:
    found: Mapping[str, Any] | None = next(
        (level for level in run["levels"] if level["calls"] == run["knee_calls"]), None
    )
    return found


def capacity_chart(result: Mapping[str, Any]) -> str:
    series = {
        name: [
            (float(level["calls"]), level["voice_to_voice_ms"]["p95"])
            for run in runs
            for level in run["levels"]
            if level["voice_to_voice_ms"]
        ]
        for name, runs in result["runs"].items()
    }
    return charts.lines(
        "Calls on one core", "calls at the same time", "voice to voice, P95, ms", series
    )


# -- turn -----------------------------------------------------------------------------------------


def turn_table(result: Mapping[str, Any]) -> Table:
    table = _table(
        "Voice to voice on the telephone wire, median / P95 in ms",
        "server",
        "all",
        "fluent",
        "with a pause",
        "turns",
        "unanswered",
        "cut off",
    )
    for name, contender in result["arms"].items():
        table.add_row(
            name,
            *(_pair(contender[key]) for key in ("voice_to_voice_ms", "fluent_ms", "with_pause_ms")),
            *(str(contender[key]) for key in ("turns", "unanswered", "cut_off")),
        )
    if result.get("ratio") is not None:
        table.caption = f"antiphon / pipecat: {result['ratio']:.2f}"
    return table


def stages_table(result: Mapping[str, Any]) -> Table:
    contenders: Mapping[str, Any] = result["arms"]
    table = _table("Medians from the end of speech, in ms", "step", *contenders)
    names = list(
        dict.fromkeys(name for contender in contenders.values() for name in contender["stages_ms"])
    )
    for name in names:
        table.add_row(
            name, *(_cell(contender["stages_ms"].get(name), 0) for contender in contenders.values())
        )
    return table


def turn_chart(result: Mapping[str, Any]) -> str:
    rows: dict[str, Sequence[tuple[str, float, float]]] = {}
    for name, contender in result["arms"].items():
        bars, before = [], 0.0
        marks = sorted(
            (at, stage) for stage, at in contender["stages_ms"].items() if at is not None
        )
        for at, stage in marks:
            bars.append((stage, max(min(before, at), 0.0), max(at, 0.0)))
            before = at
        rows[name] = bars
    return charts.waterfall("From the end of speech to the first sound, medians, ms", rows)


# -- barge-in -------------------------------------------------------------------------------------


def barge_in_table(result: Mapping[str, Any]) -> Table:
    table = _table(
        "Interrupting the agent",
        "server",
        "interruptions stopped",
        "speech to silence, median / P95 ms",
        "backchannels that stopped it",
        "paused and resumed",
        "not noticed",
    )
    for name, contender in result["arms"].items():
        cut, back = contender["interruptions"], contender["backchannels"]
        table.add_row(
            name,
            f"{cut['stopped']} of {cut['count']}",
            _pair(cut["stop_ms"]),
            f"{back['stopped']} of {back['count']}",
            str(back["resumed"]),
            str(back["unmoved"]),
        )
    return table


def barge_in_chart(result: Mapping[str, Any]) -> str:
    rows = {
        name: [
            one["stop_ms"]
            for one in contender["each"]
            if one["kind"] == "interruption" and one["stop_ms"]
        ]
        for name, contender in result["arms"].items()
    }
    return charts.dots("From the caller's first sound to the agent's last", "ms", rows)


# -- soak -----------------------------------------------------------------------------------------


def soak_table(result: Mapping[str, Any]) -> Table:
    table = _table("Many short calls", "after calls", "memory MB", "threads", "files")
    for sample in result["samples"]:
        table.add_row(
            *(_cell(sample[name], 1) for name in ("calls", "memory_mb", "threads", "files"))
        )
    table.caption = (
        f"{result['turns']} turns, {result['unanswered']} unanswered, {result['lost']} calls lost"
    )
    return table


def soak_chart(result: Mapping[str, Any]) -> str:
    memory = [
        (float(sample["calls"]), sample["memory_mb"])
        for sample in result["samples"]
        if sample["memory_mb"] is not None
    ]
    return charts.lines("Many short calls", "calls so far", "memory, MB", {"resident": memory})


# -- endpoint -------------------------------------------------------------------------------------


def endpoint_table(result: Mapping[str, Any]) -> Table:
    levels = result["mean_ms_at_cut_off_share"]
    shares = list(next(iter(levels.values())))
    table = _table("Mean ms from the end of speech, at most so many cut off", "rule", *shares)
    for name, found in levels.items():
        table.add_row(name, *(_cell(found[share]) for share in shares))
    ours = result["ours"]
    table.caption = (
        f"ours as set: {ours['cut_off']} of {ours['turns']} cut off, median / P95 "
        f"{_pair(ours['latency_ms'])} ms"
    )
    return table
