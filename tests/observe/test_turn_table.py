"""The tables at the end of a call."""

from __future__ import annotations

import io

from rich.console import Console

from antiphon.core.turn_record import TurnRecord
from antiphon.observe.turn_table import COLUMNS, cells, render, show


def test_a_row_has_every_column() -> None:
    record = TurnRecord(
        2,
        speech_end_ms=0,
        transcribe_ms=64,
        transcript_ms=130,
        score_asked_ms=64,
        turn_scored_ms=100,
        generate_ms=130,
        first_token_ms=250,
        speak_ms=260,
        first_audio_ms=320,
        first_sent_ms=330,
        input_tokens=40,
        output_tokens=9,
        characters=51,
        interrupted=True,
        preemptive_generations=3,
        preemptive_used=True,
    )
    row = dict(zip(COLUMNS, cells(record), strict=True))
    assert row == {
        "turn": "2",
        "total": "330",
        "STT": "66",
        "turn det.": "36",
        "LLM 1st token": "120",
        "TTS 1st audio": "60",
        "tokens in/out": "40/9",
        "chars": "51",
        "interrupted": "yes",
        "guess": "used, 2 wasted",
    }


def test_a_greeting_is_named_and_has_no_times() -> None:
    assert cells(TurnRecord(0, kind="greeting")) == ("greeting", *["-"] * 9)


def test_plain_text_needs_no_terminal(records: list[TurnRecord]) -> None:
    text = render(records)
    assert "\x1b" not in text
    lines = text.splitlines()
    assert max(map(len, lines)) <= 110
    (first,) = [line.split() for line in lines if line.split()[:1] == ["1"]]
    assert first[6:] == ["20/20", "96", "yes", "used"]
    summary = lines[-2 if not lines[-1] else -1].split()
    assert summary[0] == "4"
    assert "P95" in text


def test_a_terminal_gets_colour(records: list[TurnRecord]) -> None:
    out = io.StringIO()
    show(records, Console(file=out, force_terminal=True, width=120, color_system="standard"))
    assert "\x1b[33m" in out.getvalue()


def test_no_turns_and_no_sound() -> None:
    assert render([]) == "No turns.\n"
    assert "no user-to-agent latency" in render([TurnRecord(1, status="none")])
