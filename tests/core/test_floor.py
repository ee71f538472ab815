"""The transition table: complete, and drawn in the docs as it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from antiphon.core.decide import change_floor
from antiphon.core.floor import TRANSITIONS, Cause, Floor, mermaid
from antiphon.core.policy import Policy
from antiphon.core.state import State

DIAGRAM = Path(__file__).parents[2] / "docs" / "state-diagram.md"


def test_every_state_has_a_row_and_can_be_reached() -> None:
    assert set(TRANSITIONS) == set(Floor)
    reached, edge = {Floor.OPEN}, {Floor.OPEN}
    while edge:
        edge = {target for state in edge for target in TRANSITIONS[state].values()} - reached
        reached |= edge
    assert reached == set(Floor)


def test_every_cause_is_used() -> None:
    assert {cause for row in TRANSITIONS.values() for cause in row} == set(Cause)


def test_ended_is_final_and_everywhere_near() -> None:
    assert TRANSITIONS[Floor.ENDED] == {}
    for state, row in TRANSITIONS.items():
        if state is not Floor.ENDED:
            assert row[Cause.HANG_UP] is Floor.ENDED


def test_the_goodbye_can_be_said_from_every_other_state() -> None:
    for state, row in TRANSITIONS.items():
        if state not in (Floor.CLOSING, Floor.ENDED):
            assert row[Cause.GOODBYE] is Floor.CLOSING


def test_an_impossible_change_is_a_bug_and_not_a_condition() -> None:
    with pytest.raises(AssertionError, match="no transition from open by AUDIBLE"):
        change_floor(State(Policy()), Cause.AUDIBLE, 0)


def test_the_diagram_in_the_docs_is_up_to_date() -> None:
    text = DIAGRAM.read_text(encoding="utf-8")
    drawn = text.partition("```mermaid\n")[2].partition("\n```")[0]
    assert drawn == mermaid(), (
        "docs/state-diagram.md is not what the table says: put the output of"
        " `python -m antiphon.core.floor` between its ```mermaid lines"
    )
