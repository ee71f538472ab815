"""The end of a call in two tables: where the time of each turn went, and how long the caller waited.

`render` gives plain text for logs and files; the tables themselves are rich's.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

from rich import box
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from antiphon.core.turn_record import TurnRecord
from antiphon.observe.turn_figures import call_figures, stages, wasted_guesses

COLUMNS = (
    "turn",
    "total",
    "STT",
    "turn det.",
    "LLM 1st token",
    "TTS 1st audio",
    "tokens in/out",
    "chars",
    "interrupted",
    "guess",
)
"""`total` is voice to voice. Times are ms."""
_PLAIN_WIDTH = 110
_NONE = "-"


def cells(record: TurnRecord) -> tuple[str, ...]:
    """A record's row, in the order of `COLUMNS`."""
    s = stages(record)
    tokens = f"{record.input_tokens}/{record.output_tokens}"
    return (
        str(record.number) if record.number else record.kind,
        _ms(s.voice_to_voice_ms),
        _ms(s.stt_ms),
        _ms(s.turn_detector_ms),
        _ms(s.llm_first_token_ms),
        _ms(s.tts_first_audio_ms),
        tokens if record.input_tokens or record.output_tokens else _NONE,
        str(record.characters) if record.characters else _NONE,
        "yes" if record.interrupted else _NONE,
        guess(record),
    )


def guess(record: TurnRecord) -> str:
    """What became of the replies that were begun before the turn was certain, in a word or two."""
    wasted = wasted_guesses(record)
    lost = f"{wasted} wasted" if wasted else ""
    return ", ".join(filter(None, ("used" if record.preemptive_used else "", lost))) or _NONE


def breakdown(records: Sequence[TurnRecord]) -> Table:
    """A row per record, in ms."""
    table = Table(title="Turns (ms)", box=box.SIMPLE_HEAD, title_justify="left")
    for number, name in enumerate(COLUMNS):
        table.add_column(name, justify="left" if number in (0, 9) else "right", no_wrap=True)
    for record in records:
        style = "yellow" if record.interrupted or record.status == "failed" else ""
        table.add_row(*cells(record), style=style)
    return table


def latency(records: Sequence[TurnRecord]) -> RenderableType:
    """How long the caller waited for the agent: end of speech to first sound."""
    found = call_figures(records).voice_to_voice
    if found is None:
        return Text("No turn was answered with sound: there is no user-to-agent latency.")
    table = Table(title="User-to-agent latency (ms)", box=box.SIMPLE_HEAD, title_justify="left")
    for name in ("turns", "mean", "median", "min", "max", "P95"):
        table.add_column(name, justify="right")
    values = (found.mean_ms, found.median_ms, found.least_ms, found.most_ms, found.p95_ms)
    table.add_row(str(found.count), *(f"{value:.0f}" for value in values))
    return table


def show(records: Sequence[TurnRecord], console: Console) -> None:
    """Both tables, to a terminal or whatever the console writes to."""
    if not records:
        console.print("No turns.")
        return
    console.print(breakdown(records))
    console.print(latency(records))


def render(records: Sequence[TurnRecord], width: int = _PLAIN_WIDTH) -> str:
    """Both tables as plain text: no colour, no terminal needed, no line longer than `width` characters."""
    out = io.StringIO()
    console = Console(
        file=out, width=width, force_terminal=False, color_system=None, legacy_windows=False
    )
    show(records, console)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def _ms(value: int | None) -> str:
    return _NONE if value is None else str(value)
