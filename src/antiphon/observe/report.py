"""One HTML file that shows a call: time line with both voices, waterfall and words per turn, figures, log.

Needs nothing else when it is opened: no script, no font, no network. Made from a call's trace, and from recordings of
both sides if there are any.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from importlib import resources
from pathlib import Path

from antiphon.core.turn_record import TurnRecord
from antiphon.errors import AntiphonError
from antiphon.files import MAX_TRACE_BYTES, read_bytes
from antiphon.observe.call_trace import TraceError
from antiphon.observe.report_timeline import Track, legend, rows
from antiphon.observe.report_trace import TracedCall, read_call
from antiphon.observe.report_turns import delays, turn_cards
from antiphon.observe.svg import clock, escape
from antiphon.observe.turn_figures import CallFigures, call_figures
from antiphon.observe.turn_table import COLUMNS, cells

__all__ = ["Track", "report_file", "report_html"]

_DRAWN_RATE_HZ = 8_000
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_MARK = (
    '<svg class="brand" viewBox="0 0 32 32" aria-hidden="true"><path class="agent" d="M13 5a12 12 0 0 0 0 22M13 '
    '12.5a4.6 4.6 0 0 0 0 7"/><path class="caller" d="M19 5a12 12 0 0 1 0 22M19 12.5a4.6 4.6 0 0 1 0 7"/></svg>'
)
_FLOORS = (
    ("caller", "caller speaks"),
    ("deciding", "is the turn over?"),
    ("thinking", "reply is due"),
    ("agent", "agent speaks"),
    ("overlap", "both: is it meant?"),
)


def report_html(
    lines: Iterable[str],
    *,
    title: str = "Call",
    recorded: datetime | None = None,
    caller: Track | None = None,
    agent: Track | None = None,
) -> str:
    """`lines`: the call's trace. `agent`: the agent's voice as it was heard, silence included.

    Raises AntiphonError for what is no trace, or one of another version.
    """
    try:
        call = read_call(lines)
    except TraceError as error:
        raise AntiphonError(f"this is not a call's trace: {error}") from None
    figures = call_figures(call.records)
    sections = [
        _header(call, figures, title, recorded),
        _score_section(call, caller, agent),
        _turns_section(call),
        _figures_section(call.records, figures),
        _log_section(call),
    ]
    style = (resources.files("antiphon.observe") / "report.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="robots" content="noindex">'
        f"<title>{escape(title)} - Antiphon</title><style>{style}</style></head>"
        f"<body><main>{''.join(filter(None, sections))}</main></body></html>\n"
    )


def report_file(
    trace: Path,
    caller: Path | None = None,
    agent: Path | None = None,
    recording: Path | None = None,
) -> str:
    """The report of a trace file, with recordings of any audio format. Raises AntiphonError.

    `recording`: of both sides, as `recording_dir` has it: caller left, agent right, from the call's 0 ms on. `caller`
    and `agent`, of one side each, go before it.
    """
    data = read_bytes(trace, MAX_TRACE_BYTES)
    lines = data.decode("utf-8", "replace").splitlines()
    written = trace.stat().st_mtime
    both = _sides(recording)
    return report_html(
        lines,
        title=f"Call {trace.stem}",
        recorded=datetime.fromtimestamp(written).astimezone(),
        caller=_track(caller) or both[0],
        agent=_track(agent) or both[1],
    )


def _sides(path: Path | None) -> tuple[Track | None, Track | None]:
    if path is None:
        return None, None
    from antiphon.audio.growing_file import read_sides

    left, right = read_sides(path, _DRAWN_RATE_HZ)
    return Track(left, _DRAWN_RATE_HZ), Track(right, _DRAWN_RATE_HZ)


def _track(path: Path | None) -> Track | None:
    if path is None:
        return None
    from antiphon.audio.containers import decode_file

    heard = decode_file(path)
    return Track(heard.pcm, heard.rate_hz)


# -- sections ------------------------------------------------------------------------------------------


def _header(call: TracedCall, f: CallFigures, title: str, recorded: datetime | None) -> str:
    when = f"{recorded:%d %B %Y, %H:%M} · " if recorded else ""
    reason = f" · {escape(call.end_reason)}" if call.end_reason else ""
    voice = f.voice_to_voice
    tiles = [
        (
            "voice to voice",
            f"{voice.median_ms:.0f}" if voice else "none",
            "ms median" if voice else "",
        ),
        ("voice to voice", f"{voice.p95_ms:.0f}" if voice else "none", "ms P95" if voice else ""),
        ("turns", str(f.turns), f"{f.played_ms / 1000:.0f} s of agent heard"),
        (
            "interruptions",
            str(f.interruptions),
            f"{f.false_interruptions} false alarm{'' if f.false_interruptions == 1 else 's'}",
        ),
        ("guesses used", str(f.guesses_used), f"{f.guesses_wasted} wasted"),
        (
            "tokens",
            f"{f.input_tokens + f.output_tokens}",
            f"{f.input_tokens} in, {f.output_tokens} out",
        ),
    ]
    shown = "".join(
        f"<div><dt>{name}</dt><dd>{escape(value)} <small>{escape(unit)}</small></dd></div>"
        for name, value, unit in tiles
    )
    note = (
        f'<p class="damage">The trace is damaged: {escape(call.damage)}</p>' if call.damage else ""
    )
    return (
        f'<header class="page">{_MARK}<div><h1>{escape(title)}</h1>'
        f'<p class="soft">{when}{_length(call.duration_ms)}{reason}</p></div></header>{note}'
        f'<dl class="tiles">{shown}</dl>'
    )


def _length(ms: int) -> str:
    minutes, seconds = divmod(round(ms / 1000), 60)
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


def _score_section(call: TracedCall, caller: Track | None, agent: Track | None) -> str:
    floors = "".join(f'<li><i class="floor {kind}"></i>{name}</li>' for kind, name in _FLOORS)
    marks = "".join(
        f'<li><b class="mark {kind}">{glyph}</b>{name}</li>' for kind, glyph, name in legend(call)
    )
    drawn = [name for name, track in (("caller", caller), ("agent", agent)) if track is None]
    note = ""
    if drawn:
        how = {"caller": "the caller's voice is the VAD's curve", "agent": "the agent's is a bar"}
        note = f'<p class="soft">No recording: {", ".join(how[name] for name in drawn)}.</p>'
    return (
        '<section><h2>The call</h2><div class="sides"><span class="caller">caller</span>'
        f'<span class="agent">agent, as heard</span></div><div class="score" tabindex="0">'
        f'{"".join(rows(call, caller, agent))}</div><ul class="legend">{floors}'
        f'<li><i class="wait"></i>voice to voice</li>{marks}</ul>{note}</section>'
    )


def _turns_section(call: TracedCall) -> str:
    if not call.records:
        return "<section><h2>Turns</h2><p>Nobody said anything.</p></section>"
    intro = (
        '<p class="soft">Zero is the end of the caller\'s speech, as heard. Paler: the rest of '
        "the text and of the audio. Words struck out were never heard.</p>"
    )
    return f"<section><h2>Turns</h2>{intro}{turn_cards(call.records)}</section>"


def _figures_section(records: Sequence[TurnRecord], figures: CallFigures) -> str:
    if not records:
        return ""
    head = "".join(f"<th scope='col'>{escape(name)}</th>" for name in COLUMNS)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells(record)) + "</tr>"
        for record in records
    )
    voice = figures.voice_to_voice
    chart = summary = ""
    if voice is not None:
        chart = delays(records, voice)
        summary = (
            f'<p class="soft">User-to-agent latency of {voice.count} turns: mean {voice.mean_ms:.0f}, median '
            f"{voice.median_ms:.0f}, min {voice.least_ms:.0f}, max {voice.most_ms:.0f}, P95 {voice.p95_ms:.0f} ms.</p>"
        )
    table = f'<div class="wide" tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    return f"<section><h2>Latency</h2>{chart}{summary}{table}</section>"


def _log_section(call: TracedCall) -> str:
    lines = "".join(
        f'<tr class="{sort}"><td>{clock(ms, tenths=True)}</td><td>{escape(name)}</td><td>{escape(words)}</td></tr>'
        for ms, sort, name, words in call.log
    )
    left = (
        f"<p class='soft'>{call.log_left_out} more are left out.</p>" if call.log_left_out else ""
    )
    return (
        f"<section class='log'><h2>Log</h2><details><summary>{len(call.log)} events and actions</summary>"
        f'<div class="wide" tabindex="0"><table>{lines}</table></div>{left}</details></section>'
    )
