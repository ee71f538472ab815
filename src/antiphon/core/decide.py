"""What follows from the facts: one table, applied after each event and tick until nothing changes.

`DECISIONS` says for every floor which fact leads where, in the order in which facts count. A row with a cause changes
the floor through the `TRANSITIONS` of `floor`; another one only has something done. `DEADLINES` says which facts come
true by the mere passing of time. What is done stands in `turn_taking`, `user` and `agent`.

`python -m antiphon.core.decide < docs/state-diagram.md` prints that page as it should be.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field

from antiphon.core import actions as act
from antiphon.core import agent, endpointing, turn_taking, user
from antiphon.core.floor import TRANSITIONS, Cause, Floor, mermaid
from antiphon.core.state import Fact, State

_MOST_STEPS = 100
"""More than anything needs: a table that goes in circles is a bug."""
_OVERLAP_LIMIT_MS = 6_000
"""Overlapping speech that is still undecided after this is meant."""
_CLOSING_LIMIT_MS = 15_000
"""A goodbye that has not been played out after this is cut."""

Act = Callable[[State, int], object]
Follows = Callable[[State, int], bool]


def _nothing(state: State, now_ms: int) -> None:
    """Nothing."""


@dataclass(frozen=True, slots=True)
class Row:
    """When `fact` holds: this is done, the floor changes if there is a cause, and that is done after it."""

    fact: Fact
    before: Act = _nothing
    cause: Cause | None = None
    after: Act = _nothing
    follows: Follows | None = field(init=False, repr=False)
    """How the fact follows from the State; None: it is recorded."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "follows", _FOLLOWS.get(self.fact))


# --- facts that follow from the State ----------------------------------------------------------------


def _speech(state: State, now_ms: int) -> bool:
    if Fact.NO_TURN not in state.facts:
        return False
    if state.floor is Floor.OPEN:
        return state.overheard is not None or state.vad.in_speech
    if not state.policy.interruptible or (
        state.floor is Floor.CLOSING and not state.goodbye.unless_caller_speaks
    ):
        return False  # it is heard when the agent has finished
    return state.vad.in_speech and not state.vad.paused


def _speech_at_once(state: State, now_ms: int) -> bool:
    return state.policy.barge_in == "immediate" and _speech(state, now_ms)


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


def _meant(state: State, now_ms: int) -> bool:
    return Fact.MEANT in state.facts or Fact.COMMITTED in state.facts


def _meant_briefly(state: State, now_ms: int) -> bool:
    return state.vad.paused and _meant(state, now_ms)


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


_FOLLOWS: dict[Fact, Follows] = {
    Fact.SPEECH_AT_ONCE: _speech_at_once,
    Fact.SPEECH: _speech,
    Fact.OVERHEARD: _overheard,
    Fact.SILENT: lambda state, now_ms: state.vad.paused,
    Fact.TURN_EMPTY: _turn_empty,
    Fact.TURN_OVER: _turn_over_answered,
    Fact.TURN_OVER_UNANSWERED: _turn_over_unanswered,
    Fact.APOLOGY_DUE: _apology_due,
    Fact.UNTRANSCRIBED: _untranscribed,
    Fact.NOT_MEANT: lambda state, now_ms: bool({Fact.NOT_MEANT, Fact.CLEARED} & state.facts),
    Fact.MEANT: _meant,
    Fact.MEANT_BRIEFLY: _meant_briefly,
    Fact.OVERHEARD_COMMITTED: _overheard_committed,
    Fact.TEXT_OVER_REPLY: lambda state, now_ms: Fact.USER_TEXT in state.facts,
    Fact.HANDED_OVER: _handed_over,
    Fact.REPLY_DUE: _reply_due,
    Fact.AUDIBLE: _audible,
    Fact.SEGMENT_DUE: _segment_due,
    Fact.GENERATED: _generated,
    Fact.REPLY_OVER: _reply_over,
}
"""The other facts hold once they are recorded."""

# --- the table ---------------------------------------------------------------------------------------

_tt, _F, _C = turn_taking, Fact, Cause
_HANG_UP = Row(_F.HANG_UP, _tt.stop_everything, _C.HANG_UP, _tt.tell_end)
_GOODBYE = Row(_F.GOODBYE, _tt.make_way_for_goodbye, _C.GOODBYE, _tt.say_goodbye)
_DELETED = Row(_F.ITEM_DELETED, _tt.delete_item)
_BESIDE = Row(_F.OVERHEARD_COMMITTED, _tt.commit_overheard)
_USER_TEXT = Row(_F.USER_TEXT, _tt.add_user_text)
_STOPPED = Row(_F.REPLY_STOPPED, _tt.stop_reply, _C.REPLY_OVER)
_TEXT_STOPS = Row(_F.TEXT_OVER_REPLY, _tt.stop_reply, _C.REPLY_OVER)
_COMMITTED = Row(_F.COMMITTED, _tt.commit_beside)
_AUDIO_CLEARED = Row(_F.CLEARED, _tt.clear_audio)
_TURN_CLEARED = Row(_F.CLEARED, _tt.clear_turn, _C.TURN_EMPTY)
_NOT_YET = Row(_F.NO_TURN, _tt.leave_speech)
_TOO_EARLY = Row(_F.REPLY_REQUESTED, _tt.refuse_reply)
_AT_TURN_END = Row(_F.REPLY_REQUESTED, _tt.request_at_turn_end)
_OVERHEARD = Row(_F.OVERHEARD, user.overhear)
_SEGMENT = Row(_F.SEGMENT_DUE, agent.synthesize)
_GENERATED = Row(_F.GENERATED, agent.announce)
_OVER = Row(_F.REPLY_OVER, _tt.finish_reply, _C.REPLY_OVER)

DECISIONS: dict[Floor, tuple[Row, ...]] = {
    Floor.OPEN: (
        *(_HANG_UP, _GOODBYE, _BESIDE, _USER_TEXT, _DELETED),
        Row(_F.SPEECH, cause=_C.SPEECH, after=_tt.begin_turn),
        Row(_F.FILLER_DUE, _tt.fill_wait),
        Row(_F.IDLE, _tt.break_silence),
        Row(_F.SCRIPT, cause=_C.REPLY_WANTED, after=_tt.say_script),
        Row(_F.COMMITTED, _tt.commit_by_hand, _C.PAUSE, _tt.ask_committed),
        _AUDIO_CLEARED,
        Row(_F.REPLY_REQUESTED, _tt.request_reply),
        Row(_F.REPLY_DUE, cause=_C.REPLY_WANTED, after=_tt.give_pending_reply),
    ),
    Floor.CALLER: (
        *(_HANG_UP, _GOODBYE),
        Row(_F.SILENT, cause=_C.PAUSE, after=_tt.take_pause),
        Row(_F.TOO_LONG, _tt.force_turn, _C.PAUSE, _tt.ask_transcript),
        Row(_F.COMMITTED, _tt.commit_turn, _C.PAUSE, _tt.ask_committed),
        _TURN_CLEARED,
        Row(_F.WINDOW, _tt.keep_transcribing),
        Row(_F.PARTIAL, _tt.show_partial),
        Row(_F.TRANSCRIBED, _tt.show_early_transcript),
        Row(_F.TRANSCRIPT_FAILED, _tt.ask_again_later),
        *(_AT_TURN_END, _BESIDE, _USER_TEXT, _DELETED),
    ),
    Floor.DECIDING: (
        *(_HANG_UP, _GOODBYE, _BESIDE, _USER_TEXT, _DELETED, _AT_TURN_END),
        Row(_F.RESUMED, _tt.resume_turn, _C.RESUME),
        Row(_F.COMMITTED, _tt.commit_pausing_turn),
        _TURN_CLEARED,
        Row(_F.TOO_LONG, _tt.force_turn),
        Row(_F.WINDOW, _tt.score_again),
        Row(_F.TRANSCRIBED, _tt.use_transcript),
        Row(_F.APOLOGY_DUE, _tt.give_up_turn, _C.REPLY_WANTED, _tt.apologise),
        Row(_F.UNTRANSCRIBED, _tt.give_up_turn, _C.TURN_EMPTY),
        Row(_F.TURN_EMPTY, user.drop_turn, _C.TURN_EMPTY),
        Row(_F.TURN_OVER_UNANSWERED, _tt.keep_turn, _C.TURN_KEPT),
        Row(_F.TURN_OVER, _tt.take_turn, _C.TURN_TAKEN, _tt.answer_turn),
    ),
    Floor.THINKING: (
        *(_HANG_UP, _GOODBYE, _STOPPED, _TEXT_STOPS, _DELETED, _BESIDE, _OVERHEARD),
        Row(_F.SPEECH, _tt.withdraw_reply, _C.SPEECH, _tt.reopen_turn),
        *(_NOT_YET, _COMMITTED, _AUDIO_CLEARED, _TOO_EARLY),
        Row(_F.REPLY_OVERDUE, _tt.give_up_reply),
        Row(_F.AUDIBLE, cause=_C.AUDIBLE, after=_tt.play),
        *(_SEGMENT, _GENERATED, _OVER),
    ),
    Floor.AGENT: (
        *(_HANG_UP, _GOODBYE, _STOPPED, _TEXT_STOPS, _DELETED, _BESIDE, _OVERHEARD),
        Row(_F.SPEECH_AT_ONCE, cause=_C.SPEECH, after=_tt.interrupt_at_once),
        Row(_F.SPEECH, _tt.pause_for_overlap, _C.SPEECH),
        *(_NOT_YET, _COMMITTED, _AUDIO_CLEARED),
        Row(_F.HANDED_OVER, agent.hand_over, _C.REPLY_OVER),
        _TOO_EARLY,
        Row(_F.STALLED, _tt.give_up_stalled_reply),
        *(_SEGMENT, _GENERATED, _OVER),
    ),
    Floor.OVERLAP: (
        *(_HANG_UP, _GOODBYE, _STOPPED, _TEXT_STOPS, _DELETED, _BESIDE),
        Row(_F.PAUSED, _tt.ask_transcript),
        Row(_F.RESUMED, _tt.go_on),
        Row(_F.UNDECIDED, _tt.judge_by_length),
        Row(_F.TOO_LONG, _tt.judge_while_speaking),
        Row(_F.WINDOW, _tt.judge_while_speaking),
        Row(_F.PARTIAL, _tt.judge_partial),
        Row(_F.TRANSCRIBED, _tt.judge_transcript),
        Row(_F.TRANSCRIPT_FAILED, _tt.judge_by_length),
        Row(_F.NOT_MEANT, _tt.drop_false_interruption, _C.FALSE_INTERRUPTION, _tt.go_on_speaking),
        Row(_F.MEANT_BRIEFLY, _tt.interrupt, _C.INTERRUPTED_BRIEFLY, _tt.find_end),
        Row(_F.MEANT, _tt.interrupt, _C.INTERRUPTED, _tt.hear_out),
        *(_TOO_EARLY, _SEGMENT, _GENERATED),
    ),
    Floor.CLOSING: (
        _HANG_UP,
        Row(_F.GOODBYE, _tt.insist_on_goodbye),
        Row(_F.REPLY_STOPPED, _tt.stop_goodbye),
        *(_DELETED, _BESIDE),
        Row(_F.SPEECH, _tt.call_off_goodbye, _C.SPEECH, user.open_turn),
        *(_NOT_YET, _COMMITTED, _AUDIO_CLEARED, _TOO_EARLY),
        Row(_F.STALLED, _tt.hang_up),
        Row(_F.AUDIBLE, _tt.play),
        *(_SEGMENT, _GENERATED),
        Row(_F.REPLY_OVER, _tt.finish_goodbye),
    ),
    Floor.ENDED: (),
}
"""Floor -> what may follow there. The first row whose fact holds is applied, until none does."""


def settle(state: State, now_ms: int) -> None:
    """Apply the table until nothing changes. What the handlers recorded is forgotten then."""
    for _ in range(_MOST_STEPS):
        row = _next_row(state, now_ms)
        if row is None:
            state.facts.clear()
            return
        state.facts.discard(row.fact)
        row.before(state, now_ms)
        if row.cause is not None:
            change_floor(state, row.cause, now_ms)
            row.after(state, now_ms)
    raise AssertionError(f"the decisions in {state.floor} go in circles")


def _next_row(state: State, now_ms: int) -> Row | None:
    facts = state.facts
    for row in DECISIONS[state.floor]:
        follows = row.follows
        if row.fact in facts if follows is None else follows(state, now_ms):
            return row
    return None


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
    first: int | None = None
    for _, when in DEADLINES[state.floor]:
        due_ms = when(state)
        if due_ms is not None and (first is None or due_ms < first):
            first = due_ms
    for turn in state.detached:
        overdue_ms = user.transcript_overdue_ms(state, turn)
        first = overdue_ms if first is None else min(first, overdue_ms)
    return first


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
    lines = ["| floor | fact | what is done | cause | floor then | what is done there |"]
    lines.append("|---|---|---|---|---|---|")
    for floor, rows in DECISIONS.items():
        for row in rows:
            cells = [str(floor), str(row.fact), _said(row.before), "", "", _said(row.after)]
            if row.cause is not None:
                cells[3:5] = str(row.cause), str(TRANSITIONS[floor][row.cause])
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _said(done: Act) -> str:
    """The first line of a function's docstring, as the middle of a table."""
    if done is _nothing:
        return ""
    return (done.__doc__ or "").partition("\n")[0].rstrip(".")


def deadline_table() -> str:
    """The facts that come true by time alone, as Markdown."""
    lines = ["| floor | fact that comes true by time alone |", "|---|---|"]
    lines += [f"| {floor} | {fact} |" for floor, rows in DEADLINES.items() for fact, _ in rows]
    return "\n".join(lines)


def documented() -> dict[str, str]:
    """Marker in docs/state-diagram.md -> what stands below it there."""
    return {
        "diagram": f"```mermaid\n{mermaid()}\n```",
        "decisions": decision_table(),
        "deadlines": deadline_table(),
    }


def fill_in(page: str) -> str:
    """The page with everything between its markers, `<!-- decisions -->` to `<!-- end -->`, made anew."""
    for marker, text in documented().items():
        start, _, rest = page.partition(f"<!-- {marker} -->\n")
        page = (
            f"{start}<!-- {marker} -->\n\n{text}\n\n<!-- end -->{rest.partition('<!-- end -->')[2]}"
        )
    return page


if __name__ == "__main__":
    sys.stdout.write(fill_in(sys.stdin.read()))
