"""What follows from the facts: one table, applied after each event and tick until nothing changes.

`DECISIONS` says for every floor which fact leads where, in the order in which facts count. A row with a cause changes
the floor through `TRANSITIONS` of `floor`; what is done before and after the change stands in one context manager,
around it. A row without a cause is a reaction: something is done, and nobody's floor changes. `DEADLINES` says which
facts come true by the mere passing of time. `turn_taking` holds what is done.

`python -m antiphon.core.decide` prints docs/state-diagram.md.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from antiphon.core import actions as act
from antiphon.core import agent, endpointing, turn_taking, user
from antiphon.core.floor import TRANSITIONS, Cause, Floor
from antiphon.core.state import Fact, State

_MOST_STEPS = 100
"""More than anything needs: a table that goes in circles is a bug."""
_OVERLAP_LIMIT_MS = 6_000
"""Overlapping speech that is still undecided after this is meant."""
_CLOSING_LIMIT_MS = 15_000
"""A goodbye that has not been played out after this is cut."""

Around = Callable[[State, int], AbstractContextManager[None]]
Reaction = Callable[[State, int], None]


@dataclass(frozen=True, slots=True)
class Change:
    """When `fact` holds, the floor changes by `cause`; `around` is done before and after."""

    fact: Fact
    cause: Cause
    around: Around


@dataclass(frozen=True, slots=True)
class Do:
    """When `fact` holds, this is done, and the floor stays as it is."""

    fact: Fact
    reaction: Reaction


Row = Change | Do

# --- facts that follow from the State ----------------------------------------------------------------


def _speech(state: State, now_ms: int) -> bool:
    if Fact.NO_TURN not in state.facts:
        return False
    if state.floor is Floor.OPEN:
        return state.overheard is not None or state.vad.in_speech
    if not state.policy.interruptible or (state.floor is Floor.CLOSING and state.goodbye.final):
        return False  # it is heard when the agent has finished
    return state.vad.in_speech and not state.vad.paused


def _overheard(state: State, now_ms: int) -> bool:
    policy = state.policy
    return Fact.NO_TURN in state.facts and policy.overhear and not policy.interruptible


def _turn_empty(state: State, now_ms: int) -> bool:
    turn = state.current
    if Fact.NEWS not in state.facts or turn.text != "":
        return False
    return turn.forced or state.vad.silence_ms >= state.policy.plain_silence_ms


def _turn_over(state: State, now_ms: int) -> bool:
    turn, reply = state.current, state.reply
    if not turn.text:
        return False
    if Fact.TRANSCRIPT_OVERDUE in state.facts:  # nor has the audio come that a decision waits for
        return True
    if Fact.NEWS not in state.facts or turn.forced:
        return Fact.NEWS in state.facts
    asked = state.history.last("assistant")
    judged = reply is not None and reply.prompt == turn.text
    needed_ms = endpointing.silence_needed_ms(
        state.policy,
        turn.text,
        turn.probability,
        text_end_probability=reply.text_end_probability if reply and judged else None,
        question=asked.text if asked else "",
        interrupting=turn.interrupts,
    )
    return state.vad.silence_ms >= needed_ms


def _turn_over_answered(state: State, now_ms: int) -> bool:
    return state.current.wants_reply(state.policy) and _turn_over(state, now_ms)


def _turn_over_unanswered(state: State, now_ms: int) -> bool:
    return not state.current.wants_reply(state.policy) and _turn_over(state, now_ms)


def _untranscribed(state: State, now_ms: int) -> bool:
    overdue = Fact.TRANSCRIPT_OVERDUE in state.facts and not state.current.text
    return overdue or Fact.TRANSCRIPT_FAILED in state.facts


def _apology_due(state: State, now_ms: int) -> bool:
    wanted = state.current.wants_reply(state.policy) and bool(state.policy.apology)
    return wanted and _untranscribed(state, now_ms)


def _meant_briefly(state: State, now_ms: int) -> bool:
    return Fact.MEANT in state.facts and state.vad.paused


def _overheard_committed(state: State, now_ms: int) -> bool:
    return Fact.COMMITTED in state.facts and state.overheard is not None


def _handed_over(state: State, now_ms: int) -> bool:
    reply = state.live
    if Fact.REPLY_REQUESTED not in state.facts or not reply.announced:
        return False
    playout = reply.playout
    return playout.ends_at() is not None and playout.sent_ms >= playout.total_ms


def _reply_due(state: State, now_ms: int) -> bool:
    return state.pending is not None and not state.detached


def _audible(state: State, now_ms: int) -> bool:
    return not state.live.audible and state.live.playout.total_ms > 0


def _segment_due(state: State, now_ms: int) -> bool:
    return state.live.segment_due(state.policy, now_ms)


def _generated(state: State, now_ms: int) -> bool:
    reply = state.live
    return reply.generated and not reply.failed and not reply.announced


def _reply_over(state: State, now_ms: int) -> bool:
    return Fact.REPLY_OVER in state.facts or state.live.finished(now_ms)


_FOLLOWS: dict[Fact, Callable[[State, int], bool]] = {
    Fact.SPEECH: _speech,
    Fact.OVERHEARD: _overheard,
    Fact.SILENT: lambda state, now_ms: state.vad.paused,
    Fact.TURN_EMPTY: _turn_empty,
    Fact.TURN_OVER: _turn_over_answered,
    Fact.TURN_OVER_UNANSWERED: _turn_over_unanswered,
    Fact.APOLOGY_DUE: _apology_due,
    Fact.UNTRANSCRIBED: _untranscribed,
    Fact.MEANT_BRIEFLY: _meant_briefly,
    Fact.OVERHEARD_COMMITTED: _overheard_committed,
    Fact.HANDED_OVER: _handed_over,
    Fact.REPLY_DUE: _reply_due,
    Fact.AUDIBLE: _audible,
    Fact.SEGMENT_DUE: _segment_due,
    Fact.GENERATED: _generated,
    Fact.REPLY_OVER: _reply_over,
}
"""The other facts hold once they are recorded."""

# --- the table ---------------------------------------------------------------------------------------

_tt = turn_taking
_HANG_UP = Change(Fact.HANG_UP, Cause.HANG_UP, _tt.hang_up)
_ENDINGS = (_HANG_UP, Change(Fact.GOODBYE, Cause.GOODBYE, _tt.say_goodbye))
_EDITS = (
    Do(Fact.OVERHEARD_COMMITTED, _tt.commit_overheard),
    Do(Fact.USER_TEXT, _tt.add_user_text),
    Do(Fact.ITEM_DELETED, _tt.delete_item),
)
_STOPS = (
    Change(Fact.REPLY_STOPPED, Cause.REPLY_OVER, _tt.stop_reply),
    Change(Fact.USER_TEXT, Cause.REPLY_OVER, _tt.stop_for_text),
    Do(Fact.ITEM_DELETED, _tt.delete_item),
    Do(Fact.OVERHEARD_COMMITTED, _tt.commit_overheard),
)
_MAKING = (Do(Fact.SEGMENT_DUE, agent.synthesize), Do(Fact.GENERATED, _tt.announce))
_NOT_YET = Do(Fact.NO_TURN, _tt.leave_speech)
_TOO_EARLY = Do(Fact.REPLY_REQUESTED, _tt.refuse_reply)
_AT_TURN_END = Do(Fact.REPLY_REQUESTED, _tt.request_at_turn_end)

DECISIONS: dict[Floor, tuple[Row, ...]] = {
    Floor.OPEN: (
        *_ENDINGS,
        *_EDITS,
        Change(Fact.SPEECH, Cause.SPEECH, _tt.begin_turn),
        Do(Fact.FILLER_DUE, _tt.fill_wait),
        Do(Fact.IDLE, _tt.break_silence),
        Change(Fact.SCRIPT, Cause.REPLY_WANTED, _tt.say_script),
        Change(Fact.COMMITTED, Cause.PAUSE, _tt.commit_by_hand),
        Do(Fact.CLEARED, _tt.clear_audio),
        Do(Fact.REPLY_REQUESTED, _tt.request_reply),
        Change(Fact.REPLY_DUE, Cause.REPLY_WANTED, _tt.give_pending_reply),
    ),
    Floor.CALLER: (
        *_ENDINGS,
        Change(Fact.SILENT, Cause.PAUSE, _tt.pause_turn),
        Change(Fact.TOO_LONG, Cause.PAUSE, _tt.end_long_turn),
        Change(Fact.COMMITTED, Cause.PAUSE, _tt.commit_turn),
        Change(Fact.CLEARED, Cause.TURN_EMPTY, _tt.clear_turn),
        Do(Fact.WINDOW, _tt.keep_transcribing),
        Do(Fact.PARTIAL, _tt.show_partial),
        Do(Fact.TRANSCRIBED, _tt.show_early_transcript),
        Do(Fact.TRANSCRIPT_FAILED, _tt.ask_again_later),
        _AT_TURN_END,
        *_EDITS,
    ),
    Floor.DECIDING: (
        *_ENDINGS,
        *_EDITS,
        _AT_TURN_END,
        Change(Fact.RESUMED, Cause.RESUME, _tt.resume_turn),
        Do(Fact.COMMITTED, _tt.commit_pausing_turn),
        Change(Fact.CLEARED, Cause.TURN_EMPTY, _tt.clear_turn),
        Do(Fact.TOO_LONG, _tt.force_turn),
        Do(Fact.WINDOW, _tt.score_again),
        Do(Fact.TRANSCRIBED, _tt.generate_preemptively),
        Change(Fact.APOLOGY_DUE, Cause.REPLY_WANTED, _tt.apologise),
        Change(Fact.UNTRANSCRIBED, Cause.TURN_EMPTY, _tt.give_up_turn),
        Change(Fact.TURN_EMPTY, Cause.TURN_EMPTY, _tt.drop_turn),
        Change(Fact.TURN_OVER_UNANSWERED, Cause.TURN_KEPT, _tt.keep_turn),
        Change(Fact.TURN_OVER, Cause.TURN_TAKEN, _tt.answer_turn),
    ),
    Floor.THINKING: (
        *_ENDINGS,
        *_STOPS,
        Do(Fact.OVERHEARD, user.overhear),
        Change(Fact.SPEECH, Cause.SPEECH, _tt.withdraw_reply),
        _NOT_YET,
        Do(Fact.COMMITTED, _tt.commit_beside),
        Do(Fact.CLEARED, _tt.clear_audio),
        _TOO_EARLY,
        Do(Fact.REPLY_OVERDUE, _tt.give_up_reply),
        Change(Fact.AUDIBLE, Cause.AUDIBLE, _tt.play),
        *_MAKING,
        Change(Fact.REPLY_OVER, Cause.REPLY_OVER, _tt.finish_reply),
    ),
    Floor.AGENT: (
        *_ENDINGS,
        *_STOPS,
        Do(Fact.OVERHEARD, user.overhear),
        Change(Fact.SPEECH, Cause.SPEECH, _tt.pause_for_overlap),
        _NOT_YET,
        Do(Fact.COMMITTED, _tt.commit_beside),
        Do(Fact.CLEARED, _tt.clear_audio),
        Change(Fact.HANDED_OVER, Cause.REPLY_OVER, _tt.hand_over),
        _TOO_EARLY,
        Do(Fact.STALLED, _tt.give_up_stalled_reply),
        *_MAKING,
        Change(Fact.REPLY_OVER, Cause.REPLY_OVER, _tt.finish_reply),
    ),
    Floor.OVERLAP: (
        *_ENDINGS,
        *_STOPS,
        Do(Fact.PAUSED, _tt.ask_transcript),
        Do(Fact.RESUMED, _tt.go_on),
        Do(Fact.UNDECIDED, _tt.judge_by_length),
        Do(Fact.TOO_LONG, _tt.judge_while_speaking),
        Do(Fact.WINDOW, _tt.judge_while_speaking),
        Do(Fact.PARTIAL, _tt.judge_partial),
        Do(Fact.TRANSCRIBED, _tt.judge_transcript),
        Do(Fact.TRANSCRIPT_FAILED, _tt.judge_without_words),
        Change(Fact.CLEARED, Cause.FALSE_INTERRUPTION, _tt.go_on_speaking),
        Change(Fact.NOT_MEANT, Cause.FALSE_INTERRUPTION, _tt.go_on_speaking),
        Change(Fact.MEANT_BRIEFLY, Cause.INTERRUPTED_BRIEFLY, _tt.yield_briefly),
        Change(Fact.MEANT, Cause.INTERRUPTED, _tt.yield_floor),
        Do(Fact.COMMITTED, _tt.commit_overlap),
        _TOO_EARLY,
        *_MAKING,
    ),
    Floor.CLOSING: (
        _HANG_UP,
        Do(Fact.GOODBYE, _tt.insist_on_goodbye),
        Do(Fact.REPLY_STOPPED, _tt.stop_goodbye),
        Do(Fact.ITEM_DELETED, _tt.delete_item),
        Do(Fact.OVERHEARD_COMMITTED, _tt.commit_overheard),
        Change(Fact.SPEECH, Cause.SPEECH, _tt.call_off_goodbye),
        _NOT_YET,
        Do(Fact.COMMITTED, _tt.commit_beside),
        Do(Fact.CLEARED, _tt.clear_audio),
        _TOO_EARLY,
        Do(Fact.STALLED, _tt.cut_goodbye),
        Do(Fact.AUDIBLE, _tt.play_goodbye),
        *_MAKING,
        Do(Fact.REPLY_OVER, _tt.finish_goodbye),
    ),
    Floor.ENDED: (),
}
"""Floor -> what may follow there. The first row whose fact holds is applied, until none does."""


def settle(state: State, now_ms: int) -> None:
    """Apply the table until nothing changes. What the handlers recorded is forgotten then."""
    for _ in range(_MOST_STEPS):
        row = next((row for row in DECISIONS[state.floor] if _holds(state, row.fact, now_ms)), None)
        if row is None:
            state.facts.clear()
            return
        state.facts.discard(row.fact)
        if isinstance(row, Do):
            row.reaction(state, now_ms)
            continue
        with row.around(state, now_ms):
            change_floor(state, row.cause, now_ms)
    raise AssertionError(f"the decisions in {state.floor} go in circles")


def _holds(state: State, fact: Fact, now_ms: int) -> bool:
    follows = _FOLLOWS.get(fact)
    return fact in state.facts if follows is None else follows(state, now_ms)


def change_floor(state: State, cause: Cause, now_ms: int) -> None:
    """Change the floor by its table. An impossible change is a bug, not a condition."""
    target = TRANSITIONS[state.floor].get(cause)
    if target is None:
        raise AssertionError(f"no transition from {state.floor} by {cause.name}")
    if target is not state.floor:
        state.floor = target
        state.emit(act.FloorChanged(target))
    state.since_ms = now_ms
    if target is Floor.OPEN:
        state.idle_since_ms = now_ms


# --- deadlines ---------------------------------------------------------------------------------------

Due = Callable[[State], int | None]


def _filler_ms(state: State) -> int | None:
    return state.fillers.due_ms(state.policy, state.since_ms) if state.running_tools else None


def _idle_ms(state: State) -> int | None:
    policy = state.policy
    if state.running_tools or policy.idle_prompt_after_ms <= 0:
        return None
    if policy.idle_answer and not _awaits_words(state):
        return None
    return state.idle_since_ms + policy.idle_prompt_after_ms


def _awaits_words(state: State) -> bool:
    """The agent spoke last, and has not asked in vain too often."""
    last = next(reversed(tuple(state.history)), None)
    asked = state.unanswered_prompts >= state.policy.max_idle_prompts
    return last is not None and last.role == "assistant" and not asked


def _transcript_ms(state: State) -> int | None:
    return user.transcript_overdue_ms(state, state.current)


def _reply_ms(state: State) -> int | None:
    began_ms, reply = state.since_ms, state.reply
    if reply is not None and not reply.speaks:  # it is being written out
        began_ms = max(began_ms, reply.progress_ms)
    return began_ms + state.policy.reply_timeout_ms


def _undecided_ms(state: State) -> int | None:
    limit_ms = state.since_ms + _OVERLAP_LIMIT_MS
    if not state.vad.paused:
        return limit_ms
    return min(limit_ms, state.current.asked_ms + state.policy.barge_in_timeout_ms)


def _played_ms(state: State) -> int | None:
    return state.live.played_ms(state.policy)


def _segment_ms(state: State) -> int | None:
    return state.live.segment_wanted_ms(state.policy)


def _quiet_since_ms(state: State) -> int:
    return max(state.since_ms, state.live.quiet_since_ms())


def _stalled_ms(state: State) -> int | None:
    return _quiet_since_ms(state) + state.policy.reply_timeout_ms


def _goodbye_ms(state: State) -> int | None:
    return _quiet_since_ms(state) + _CLOSING_LIMIT_MS


DEADLINES: dict[Floor, tuple[tuple[Fact, Due], ...]] = {
    Floor.OPEN: ((Fact.FILLER_DUE, _filler_ms), (Fact.IDLE, _idle_ms)),
    Floor.CALLER: (),
    Floor.DECIDING: ((Fact.TRANSCRIPT_OVERDUE, _transcript_ms),),
    Floor.THINKING: ((Fact.REPLY_OVERDUE, _reply_ms),),
    Floor.AGENT: (
        (Fact.REPLY_OVER, _played_ms),
        (Fact.STALLED, _stalled_ms),
        (Fact.SEGMENT_DUE, _segment_ms),
    ),
    Floor.OVERLAP: ((Fact.UNDECIDED, _undecided_ms),),
    Floor.CLOSING: (
        (Fact.REPLY_OVER, _played_ms),
        (Fact.STALLED, _goodbye_ms),
        (Fact.SEGMENT_DUE, _segment_ms),
    ),
    Floor.ENDED: (),
}
"""Floor -> facts that come true at a time, if nothing happens before; the first that is due counts."""


def deadline(state: State) -> int | None:
    """Clock time at which something is due."""
    due = [due_ms for _, when in DEADLINES[state.floor] if (due_ms := when(state)) is not None]
    due += [user.transcript_overdue_ms(state, turn) for turn in state.detached]
    return min(due, default=None)


def note_deadlines(state: State, now_ms: int) -> None:
    """Record what has come true by `now_ms`."""
    for turn in state.detached:
        if now_ms >= user.transcript_overdue_ms(state, turn):
            user.give_up_detached(state, turn, "no transcript in time")
    for fact, when in DEADLINES[state.floor]:
        due_ms = when(state)
        if due_ms is not None and now_ms >= due_ms:
            state.note(fact)
            return


# --- the documents -----------------------------------------------------------------------------------


def decision_table() -> str:
    """The table as Markdown."""
    lines = ["| floor | fact | what is done | cause | floor then |", "|---|---|---|---|---|"]
    for floor, rows in DECISIONS.items():
        for row in rows:
            done = row.reaction if isinstance(row, Do) else row.around
            says = (done.__doc__ or "").split("\n")[0].rstrip(".")
            moves = ("", "")
            if isinstance(row, Change):
                moves = (str(row.cause), str(TRANSITIONS[floor][row.cause]))
            lines.append(f"| {floor} | {row.fact} | {says} | {moves[0]} | {moves[1]} |")
    return "\n".join(lines)


def deadline_table() -> str:
    lines = ["| floor | fact that comes true by time alone |", "|---|---|"]
    lines += [f"| {floor} | {fact} |" for floor, rows in DEADLINES.items() for fact, _ in rows]
    return "\n".join(lines)
