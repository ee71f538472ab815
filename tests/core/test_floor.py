"""The transition table is complete."""

from __future__ import annotations

from antiphon.core.floor import TRANSITIONS, Cause, Floor


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
