"""The user's side of a conversation: what is recorded of audio, transcripts and scores, and what is asked for.

The handlers record facts; what is done about them stands in `decide`, which uses the functions below them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from antiphon.core import actions as act
from antiphon.core import events as ev
from antiphon.core.agent_reply import PendingReply
from antiphon.core.history import Item
from antiphon.core.state import Fact, Purpose, State
from antiphon.core.turn_record import TurnRecord
from antiphon.core.user_turn import UserTurn
from antiphon.core.vad import VadChange

PAUSE_MS = 64
"""Two windows of silence are credible; docs/performance.md shows that transcripts suffer from less."""
TURN_PROMPT_MS = 8_000
"""Turn detectors hear at most this much."""

# --- handlers ---------------------------------------------------------------------------------------


def on_vad(state: State, event: ev.VadScored, now_ms: int) -> None:
    policy, vad = state.policy, state.vad
    if not policy.auto_turns:
        vad.skip(event.end_ms)
        return
    audible = state.agent_audible
    start = policy.barge_in_threshold if audible else policy.speech_threshold
    change = vad.feed(
        event.probability,
        event.end_ms,
        start=start,
        stop=min(policy.silence_threshold, start),
        min_speech_ms=policy.barge_in_min_speech_ms if audible else policy.min_speech_ms,
        pause_ms=policy.preemptive_generation_after_ms or PAUSE_MS,
    )
    turn = state.turn
    if turn is None:
        state.note(Fact.NO_TURN)
    elif change is VadChange.PAUSE:
        state.note(Fact.PAUSED)
    elif change is VadChange.RESUME:
        if not turn.forced:
            state.note(Fact.RESUMED)
    else:
        state.note(Fact.TOO_LONG if turn.too_long(policy, vad) else Fact.WINDOW)


def on_transcript(state: State, event: ev.Transcribed, turn: UserTurn, now_ms: int) -> None:
    text, turn.transcript_job = f"{turn.kept} {event.text}".strip(), 0
    if not turn.holds_floor:
        _add_detached(state, turn, text, now_ms)
        return
    turn.take_transcript(text, now_ms)
    state.note(Fact.TRANSCRIBED)


def on_partial(state: State, event: ev.Transcribed, turn: UserTurn, now_ms: int) -> None:
    turn.latest_partial = f"{turn.kept} {event.text}".strip()
    state.note(Fact.PARTIAL)


def on_transcript_failed(state: State, event: ev.JobFailed, turn: UserTurn, now_ms: int) -> None:
    if not turn.holds_floor:
        give_up_detached(state, turn, event.reason)
        return
    turn.failure, turn.transcript_job = event.reason, 0
    state.note(Fact.TRANSCRIPT_FAILED)


def on_turn_scored(state: State, event: ev.TurnScored, turn: UserTurn, now_ms: int) -> None:
    turn.take_score(event.probability, now_ms)
    state.note(Fact.NEWS)


def on_nothing(state: State, event: ev.JobFailed, turn: UserTurn, now_ms: int) -> None:
    """There are other partial transcripts, and without a score the silence limits decide."""


HANDLERS: dict[type, Callable[[State, Any, int], None]] = {ev.VadScored: on_vad}
"""Event -> what is recorded of it."""

RESULTS: dict[tuple[type, Purpose], Callable[[State, Any, Any, int], None]] = {
    (ev.Transcribed, Purpose.TRANSCRIPT): on_transcript,
    (ev.Transcribed, Purpose.PARTIAL): on_partial,
    (ev.TurnScored, Purpose.TURN_SCORE): on_turn_scored,
    (ev.JobFailed, Purpose.TRANSCRIPT): on_transcript_failed,
    (ev.JobFailed, Purpose.PARTIAL): on_nothing,
    (ev.JobFailed, Purpose.TURN_SCORE): on_nothing,
}
"""Result and purpose of its job -> what is recorded of it for the turn that the job was for."""


def _add_detached(state: State, turn: UserTurn, text: str, now_ms: int) -> None:
    """The words of a turn that was committed while something else held the floor: they join the history."""
    state.turns.remove(turn)
    if not text:
        state.emit(act.SpeechDropped(turn.item))
        return
    turn.text, record = text, turn.record
    record.user_text, record.status, record.transcript_ms = text, "none", now_ms
    state.drop_preemptive()
    enter_history(state, turn)
    state.record_turn(turn.record)
    if turn.reply_wanted and state.pending is None:
        state.pending = PendingReply("answer")


# --- turns ------------------------------------------------------------------------------------------


def open_turn(state: State, now_ms: int) -> UserTurn:
    """Open a turn where speech began."""
    vad = state.vad
    start_ms = max(vad.onset_ms - state.policy.prefix_padding_ms, state.taken_ms, 0)
    turn = _new_turn(state, start_ms, vad.onset_ms)
    record = turn.record
    record.speech_start_ms = now_ms - (vad.heard_ms - vad.onset_ms)
    return turn


def open_turn_by_hand(state: State, end_ms: int) -> UserTurn:
    """A turn of everything that no earlier turn has taken and that is still kept."""
    start_ms = min(max(state.kept_from_ms(None), state.taken_ms), end_ms)
    return _new_turn(state, start_ms, start_ms)


def detach_turn(state: State, end_ms: int) -> UserTurn:
    """A turn like that, over already, beside whatever holds the floor."""
    current = state.turn
    if current is not None:  # whose audio ends where this begins
        state.taken_ms = max(state.taken_ms, current.end_ms)
        turn = _new_turn(state, state.taken_ms, state.taken_ms)
    else:
        turn = open_turn_by_hand(state, end_ms)
    turn.holds_floor, turn.forced = False, True
    state.taken_ms = max(state.taken_ms, end_ms)
    if current is None:
        state.vad.split(end_ms)
    return turn


def _new_turn(state: State, start_ms: int, onset_ms: int) -> UserTurn:
    state.turn_count += 1
    turn = UserTurn(
        number=state.turn_count,
        item=state.new_item(),
        start_ms=start_ms,
        onset_ms=onset_ms,
        from_ms=start_ms,
        record=TurnRecord(number=state.turn_count),
        partial_ms=onset_ms,
    )
    state.turns.append(turn)
    state.emit(act.SpeechBegan(turn.item, turn.start_ms))
    return turn


def reopen(state: State, turn: UserTurn) -> None:
    """The user went on: an ended turn is the current one again."""
    turn.keep_beginning(state.policy)
    go_on(state, turn)
    state.turns.append(turn)


def go_on(state: State, turn: UserTurn) -> None:
    """Speech went on after a pause: what was asked for the turn as it stood is stale."""
    state.jobs.outdate(turn)
    turn.go_on()


def close_turn(state: State) -> None:
    """The current turn is over. Speech after the end of a forced one is not part of it."""
    turn, vad = state.turn, state.vad
    if turn is None:
        vad.reset()
        return
    state.turns.remove(turn)
    state.jobs.forget(turn)
    if turn.forced:
        state.taken_ms = max(state.taken_ms, turn.end_ms)
        vad.split(turn.end_ms)
    else:
        state.taken_ms = max(state.taken_ms, turn.end_ms, vad.voiced_until_ms)
        vad.reset()


def drop_turn(state: State, now_ms: int) -> None:
    """Forget it."""
    turn = state.current
    close_turn(state)
    state.emit(act.SpeechDropped(turn.item))


def drop_overheard(state: State) -> None:
    """Forget what is being said beside the reply."""
    turn = state.overheard
    if turn is not None:
        state.turns.remove(turn)
        state.emit(act.SpeechDropped(turn.item))
        state.vad.reset()


def drop_turns(state: State) -> None:
    """The call is over, or our last word is being said: nothing more is made of what was being heard."""
    drop_overheard(state)
    detached, turn = state.detached, state.turn
    close_turn(state)
    for pending in (*detached, *([turn] if turn else [])):
        if pending in state.turns:
            state.turns.remove(pending)
            state.jobs.forget(pending)
        state.emit(act.SpeechDropped(pending.item))


def enter_history(state: State, turn: UserTurn) -> None:
    """The turn is over, and its words are known."""
    state.unanswered_prompts = 0
    item = Item(turn.item, "user", turn.text or "")
    state.emit(act.SpeechEnded(turn.item, turn.end_ms if turn.forced else state.vad.heard_ms))
    before = state.history.add(item)
    state.emit(act.ItemAdded(item, before))
    state.emit(act.Transcript(turn.item, item.text, final=True))


def say_untranscribed(state: State, turn: UserTurn, reason: str) -> None:
    message = f"speech could not be transcribed: {reason}"
    state.emit(act.TranscriptFailed(turn.item, reason))
    state.emit(act.Fault("transcription_failed", message))


def give_up_detached(state: State, turn: UserTurn, reason: str) -> None:
    state.turns.remove(turn)
    state.jobs.forget(turn)
    say_untranscribed(state, turn, reason)


# --- speech beside a reply that is not to be interrupted ---------------------------------------------


def overhear(state: State, now_ms: int) -> None:
    """Open a turn beside the reply, or end the one that is open."""
    state.facts.discard(Fact.NO_TURN)
    vad, policy, turn = state.vad, state.policy, state.overheard
    if turn is None:
        if vad.in_speech and not vad.paused:
            open_turn(state, now_ms).holds_floor = False
        return
    silent = vad.paused and vad.silence_ms >= policy.plain_silence_ms
    if silent or turn.too_long(policy, vad):
        commit_overheard(state, vad.heard_ms, now_ms)


def commit_overheard(state: State, end_ms: int, now_ms: int) -> None:
    """That turn is over; its words join the history once they are known, and are not answered by themselves."""
    turn = state.overheard
    assert turn is not None
    turn.forced, turn.reply_wanted = True, False
    ask_transcript(state, turn, now_ms, end_ms)
    state.taken_ms = max(state.taken_ms, turn.end_ms)
    state.vad.split(turn.end_ms)


# --- what models are asked ---------------------------------------------------------------------------


def ask_transcript(state: State, turn: UserTurn, now_ms: int, end_ms: int | None = None) -> None:
    """A transcript of the turn as it stands, up to `end_ms`, unless one was asked for as this silence began."""
    turn.asked_ms = now_ms
    ahead = turn.transcribed_ahead(state.vad) and end_ms is None and not turn.forced
    if not ahead:
        _transcribe(state, turn, state.vad.heard_ms if end_ms is None else end_ms, now_ms)


def ask_ahead(state: State, now_ms: int) -> None:
    """A transcript at the first silent window, and a score beside it: the language model has the cores later."""
    turn, policy = state.current, state.policy
    if policy.transcribe_ahead and turn.ahead_due(state.vad):
        turn.ahead_ms = turn.partial_ms = state.vad.heard_ms
        _transcribe(state, turn, state.vad.heard_ms, now_ms)
        if policy.use_turn_detector:
            ask_score(state, now_ms)


def _transcribe(state: State, turn: UserTurn, end_ms: int, now_ms: int) -> None:
    state.jobs.outdate(turn)
    turn.end_ms = max(end_ms, turn.from_ms)
    turn.text = turn.probability = None
    turn.failure, turn.transcribe_ms = "", now_ms
    stale, turn.transcript_job = turn.transcript_job, state.jobs.begin(Purpose.TRANSCRIPT, turn)
    state.emit(act.Transcribe(turn.transcript_job, turn.from_ms, turn.end_ms, replaces=stale))


def ask_score(state: State, now_ms: int) -> None:
    """Does the current turn sound finished?"""
    turn = state.current
    turn.score_asked_ms, turn.scored_ms = now_ms, state.vad.heard_ms
    start_ms = max(turn.start_ms, turn.scored_ms - TURN_PROMPT_MS)
    job = state.jobs.begin(Purpose.TURN_SCORE, turn)
    state.emit(act.ScoreTurn(job, start_ms, turn.scored_ms))


def ask_partial(state: State, every_ms: int, longest_ms: int) -> None:
    """A partial transcript, when one is due and none is under way."""
    turn, vad = state.current, state.vad
    if not turn.partial_due(vad, every_ms, longest_ms) or state.jobs.busy(Purpose.PARTIAL, turn):
        return
    turn.partial_ms = vad.heard_ms
    job = state.jobs.begin(Purpose.PARTIAL, turn)
    state.emit(act.Transcribe(job, turn.from_ms, vad.heard_ms, partial=True))


# --- when something is due ---------------------------------------------------------------------------


def transcript_overdue_ms(state: State, turn: UserTurn) -> int:
    """Clock time at which a transcript is no longer waited for."""
    return turn.asked_ms + state.policy.transcript_timeout_ms
