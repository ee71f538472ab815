"""The decision table: every row can be applied, every cause has a row, and the docs show it as it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from antiphon.core import decide
from antiphon.core.floor import TRANSITIONS, Cause, Floor
from antiphon.core.policy import Policy
from antiphon.core.state import Fact, State

PAGE = Path(__file__).parents[2] / "docs" / "state-diagram.md"


def test_every_floor_has_decisions_and_deadlines() -> None:
    assert set(decide.DECISIONS) == set(decide.DEADLINES) == set(Floor)
    assert decide.DECISIONS[Floor.ENDED] == ()


def test_every_change_of_the_floor_has_a_row_and_every_row_a_change() -> None:
    for floor, rows in decide.DECISIONS.items():
        causes = {row.cause for row in rows if row.cause is not None}
        assert causes == set(TRANSITIONS[floor]), floor


def test_every_fact_counts_somewhere() -> None:
    looked_at = {row.fact for rows in decide.DECISIONS.values() for row in rows}
    assert set(Fact) - looked_at == {Fact.NEWS, Fact.TRANSCRIPT_OVERDUE}  # parts of other facts


@pytest.mark.parametrize("floor", [floor for floor in Floor if floor is not Floor.ENDED])
def test_the_end_of_the_call_goes_before_everything(floor: Floor) -> None:
    assert decide.DECISIONS[floor][0].fact is Fact.HANG_UP


def test_an_impossible_change_is_a_bug_and_not_a_condition() -> None:
    with pytest.raises(AssertionError, match="no transition from open by AUDIBLE"):
        decide.change_floor(State(Policy()), Cause.AUDIBLE, 0)


def test_decisions_that_go_in_circles_are_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    row = decide.Row(Fact.IDLE, lambda state, now_ms: state.note(Fact.IDLE))
    monkeypatch.setitem(decide.DECISIONS, Floor.OPEN, (row,))
    state = State(Policy())
    state.note(Fact.IDLE)
    with pytest.raises(AssertionError, match="go in circles"):
        decide.settle(state, 0)


def test_a_fact_that_nothing_follows_from_is_forgotten() -> None:
    state = State(Policy())
    state.note(Fact.PARTIAL)
    decide.settle(state, 0)
    assert state.facts == set()
    assert state.take_actions() == []


def test_the_tables_in_the_docs_are_up_to_date() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == decide.fill_in(page), (
        "docs/state-diagram.md is not what the tables say: `python -m antiphon.core.decide` makes it anew"
    )
