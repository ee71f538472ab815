"""The State: jobs and which of their results are stale, ids, and which turn is which."""

from __future__ import annotations

from antiphon.core import events as ev
from antiphon.core.conversation import Conversation
from antiphon.core.history import Item
from antiphon.core.policy import Policy
from antiphon.core.state import Jobs, Purpose, State
from antiphon.core.turn_record import TurnRecord
from antiphon.core.user_turn import UserTurn


def turn(number: int = 1, **fields: bool) -> UserTurn:
    return UserTurn(number, f"u{number}", 0, 0, 0, TurnRecord(number), **fields)


def test_a_job_is_known_until_its_last_result() -> None:
    jobs, owner = Jobs(), turn()
    job_id = jobs.begin(Purpose.TRANSCRIPT, owner)
    job = jobs.get(job_id)
    assert job is not None
    assert job.owner is owner
    assert jobs.pop(job_id) is job
    assert jobs.get(job_id) is jobs.pop(job_id) is None


def test_a_job_that_never_was_is_stale() -> None:
    assert Jobs().get(1) is None
    assert Jobs().pop(7) is None


def test_when_more_was_said_older_results_are_stale() -> None:
    jobs, owner, other = Jobs(), turn(1), turn(2)
    transcript = jobs.begin(Purpose.TRANSCRIPT, owner)
    score = jobs.begin(Purpose.TURN_SCORE, owner)
    partial = jobs.begin(Purpose.PARTIAL, owner)
    others = jobs.begin(Purpose.TRANSCRIPT, other)
    jobs.outdate(owner)
    assert [jobs.get(job_id) for job_id in (transcript, score, partial)] == [None] * 3
    assert jobs.get(others) is not None


def test_a_stale_partial_transcript_keeps_its_model_busy_until_it_is_there() -> None:
    jobs, owner = Jobs(), turn()
    partial = jobs.begin(Purpose.PARTIAL, owner)
    jobs.outdate(owner)
    assert jobs.busy(Purpose.PARTIAL, owner)
    assert jobs.pop(partial) is None
    assert not jobs.busy(Purpose.PARTIAL, owner)


def test_what_is_forgotten_is_not_busy_either() -> None:
    jobs, owner = Jobs(), turn()
    jobs.begin(Purpose.PARTIAL, owner)
    jobs.forget(owner)
    assert not jobs.busy(Purpose.PARTIAL, owner)


def test_a_result_that_is_none_of_its_job_is_dropped_and_the_job_goes_on() -> None:
    conversation = Conversation(Policy(greeting="Hello."))
    conversation.handle(ev.Started(), 0)  # job 1: the greeting's only segment
    for result in (ev.Transcribed(1, "x"), ev.ReplyText(1, "x"), ev.ReplyComplete(1)):
        assert conversation.handle(result, 10) == []
    conversation.handle(ev.SegmentAudio(1, 500), 20)
    reply = conversation.view.reply
    assert reply is not None
    assert reply.playout.total_ms == 500


def test_which_turn_is_which() -> None:
    state = State(Policy())
    current, overheard = turn(1), turn(2, holds_floor=False)
    detached = turn(3, holds_floor=False, forced=True)
    state.turns += [overheard, current, detached]
    assert state.turn is current
    assert state.overheard is overheard
    assert state.detached == (detached,)


def test_an_id_that_is_taken_is_not_given_again() -> None:
    state = State(Policy())
    state.history.add(Item("u1", "user"))
    state.turns.append(turn(2))
    assert state.new_item() == "u3"
    assert state.free_id("u2") == "u2_2"
    assert state.free_id("w1") == "w1"
