"""Figures of records: made-up ones for the arithmetic, a simulated call for the whole."""

from __future__ import annotations

from dataclasses import replace

import pytest

from antiphon.core.turn_record import TurnRecord
from antiphon.observe import turn_figures
from antiphon.observe.turn_figures import STAGES, call_figures, percentile, stages, summarise

FULL = TurnRecord(
    3,
    speech_end_ms=1000,
    transcribe_ms=1064,
    transcript_ms=1130,
    score_asked_ms=1064,
    turn_scored_ms=1090,
    generate_ms=1130,
    first_token_ms=1230,
    committed_ms=1250,
    text_done_ms=1500,
    speak_ms=1260,
    first_audio_ms=1330,
    first_sent_ms=1335,
)


def test_stages_of_a_whole_turn() -> None:
    found = stages(FULL)
    assert [getattr(found, name) for name in STAGES] == [66, 26, 100, 370, 70, 250, 330, 335]


def test_stages_that_did_not_happen_are_none() -> None:
    assert {getattr(stages(TurnRecord(0)), name) for name in STAGES} == {None}


@pytest.mark.parametrize(
    ("sent", "played", "expected"),
    [(1335, None, 335), (1335, 1400, 400), (1335, 900, 335), (None, None, None), (900, None, None)],
    ids=["no reports", "reported", "a report before it was sent", "unheard", "before the question"],
)
def test_voice_to_voice(sent: int | None, played: int | None, expected: int | None) -> None:
    record = replace(FULL, first_sent_ms=sent, first_played_ms=played)
    assert turn_figures.voice_to_voice_ms(record) == expected


def test_a_score_of_an_earlier_attempt_tells_nothing() -> None:
    assert stages(replace(FULL, turn_scored_ms=900)).turn_detector_ms is None


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        ([7], 0.95, 7),
        (range(1, 101), 0.95, 95),
        ([3, 1, 2], 0.5, 2),
        ([1, 2], 0.95, 2),
        ([5, 1], 0, 1),
    ],
)
def test_percentile_is_a_value_that_was_measured(
    values: list[int], share: float, expected: int
) -> None:
    assert percentile(values, share) == expected


def test_percentile_of_nothing() -> None:
    with pytest.raises(ValueError, match="no values"):
        percentile([], 0.5)


def test_summary_leaves_out_what_is_missing() -> None:
    assert summarise([None, None]) is None
    found = summarise([100, None, 300, 200, 400])
    assert found == turn_figures.Summary(4, 250, 250, 100, 400, 400)


def test_figures_of_a_call(records: list[TurnRecord]) -> None:
    found = call_figures(records)
    assert (found.turns, found.interruptions, found.false_interruptions) == (4, 1, 1)
    assert found.guesses_used == 4
    assert found.guesses_wasted == 1  # "what time" alone was answered in vain
    assert found.voice_to_voice is not None
    assert found.voice_to_voice.count == 4
    assert 200 < found.voice_to_voice.median_ms < 400
    assert found.replies == 6  # and the greeting and the goodbye
    assert found.input_tokens == 80


def test_a_reopened_turn_counts_once() -> None:
    taken_back = TurnRecord(1, status="cancelled", preemptive_generations=1, preemptive_used=True)
    final = TurnRecord(1, status="completed", preemptive_generations=2, preemptive_used=True)
    found = call_figures([taken_back, final])
    assert (found.turns, found.guesses_used, found.guesses_wasted) == (1, 1, 1)
    assert turn_figures.withdrawn(taken_back)
    assert not turn_figures.withdrawn(final)


@pytest.mark.parametrize(
    ("reply", "heard", "rest"),
    [
        ("one two three", "one two", "three"),
        ("one two", "one two", ""),
        ("one two", "", "one two"),
        ("one\ntwo  three", "one two", "three"),
        ("one two", "three", ""),
        ("", "", ""),
    ],
)
def test_unheard_words(reply: str, heard: str, rest: str) -> None:
    assert turn_figures.unheard_text(TurnRecord(1, reply_text=reply, heard_text=heard)) == rest
