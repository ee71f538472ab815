"""The agent's side of a conversation: what is recorded of models and of playout, and how a reply begins and ends.

The handlers record facts; what is done about them stands in `decide`, which uses the functions below them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from antiphon.core import actions as act
from antiphon.core import events as ev
from antiphon.core.agent_reply import AgentReply, PendingReply
from antiphon.core.history import Item
from antiphon.core.playout import PlayoutLedger
from antiphon.core.state import Fact, Purpose, State
from antiphon.core.text_segmenter import TextSegmenter
from antiphon.core.turn_record import TurnRecord

_LEDGERS_KEPT = 16

# --- handlers ---------------------------------------------------------------------------------------


def on_reply_text(state: State, event: ev.ReplyText, reply: AgentReply, now_ms: int) -> None:
    if not event.text:
        return
    reply.add_text(event.text, now_ms)
    if reply.committed:
        state.emit(act.ReplyWords(reply.id, reply.item, event.text))
    synthesize(state, now_ms)


def on_text_end(state: State, event: ev.TextEndScored, reply: AgentReply, now_ms: int) -> None:
    record, reply.text_end_probability = reply.record, event.probability
    record.text_end_probability = event.probability
    state.note(Fact.NEWS)


def on_tool_text(state: State, event: ev.ReplyToolText, reply: AgentReply, now_ms: int) -> None:
    call_id = event.call_id
    if call_id in state.called_tools:
        return
    if call_id not in reply.call_items:
        reply.call_items[call_id] = state.free_id(f"t_{call_id}")
    item = reply.call_items[call_id]
    reply.progress_ms = now_ms
    words = act.ReplyCallWords(reply.id, item, call_id, event.name, event.text)
    reply.call_words.append(words)
    release_tools(state)


def on_tool(state: State, event: ev.ReplyTool, reply: AgentReply, now_ms: int) -> None:
    reply.tools.append(event.call)
    reply.calls += 1
    release_tools(state)


def on_complete(state: State, event: ev.ReplyComplete, reply: AgentReply, now_ms: int) -> None:
    reply.end_text(now_ms, event)
    synthesize(state, now_ms)
    if not reply.text.strip() and not reply.calls:
        fail(state, "reply_failed", "the language model returned nothing", now_ms)


def on_reply_failed(state: State, event: ev.JobFailed, reply: AgentReply, now_ms: int) -> None:
    what = "the reply cannot be made" if event.code else "the language model failed"
    fail(state, event.code or "reply_failed", f"{what}: {event.reason}", now_ms)


def on_segment_audio(state: State, event: ev.SegmentAudio, reply: AgentReply, now_ms: int) -> None:
    reply.add_audio(event.duration_ms, now_ms)


def on_segment(state: State, event: ev.SegmentComplete, reply: AgentReply, now_ms: int) -> None:
    reply.end_segment(now_ms)
    synthesize(state, now_ms)


def on_segment_failed(state: State, event: ev.JobFailed, reply: AgentReply, now_ms: int) -> None:
    fail(state, "speech_failed", f"speech could not be made: {event.reason}", now_ms)


def on_audio_sent(state: State, event: ev.AudioSent, now_ms: int) -> None:
    reply = state.reply
    if reply is not None and reply.id == event.reply:
        reply.sent(event.sent_ms, now_ms)


def on_played(state: State, event: ev.Played, now_ms: int) -> None:
    reply = state.reply
    if reply is None or reply.id != event.reply or not reply.committed:
        return
    if not reply.played(event.played_ms, now_ms):
        message = "a `played` report went beyond what was sent"
        state.emit(act.Fault("played_invalid", message))


HANDLERS: dict[type, Callable[[State, Any, int], None]] = {
    ev.AudioSent: on_audio_sent,
    ev.Played: on_played,
}
"""Event -> what is recorded of it."""

RESULTS: dict[tuple[type, Purpose], Callable[[State, Any, Any, int], None]] = {
    (ev.ReplyText, Purpose.REPLY): on_reply_text,
    (ev.TextEndScored, Purpose.REPLY): on_text_end,
    (ev.ReplyToolText, Purpose.REPLY): on_tool_text,
    (ev.ReplyTool, Purpose.REPLY): on_tool,
    (ev.ReplyComplete, Purpose.REPLY): on_complete,
    (ev.JobFailed, Purpose.REPLY): on_reply_failed,
    (ev.SegmentAudio, Purpose.SEGMENT): on_segment_audio,
    (ev.SegmentComplete, Purpose.SEGMENT): on_segment,
    (ev.JobFailed, Purpose.SEGMENT): on_segment_failed,
}
"""Result and purpose of its job -> what is recorded of it for the reply that the job was for."""

# --- a reply begins ---------------------------------------------------------------------------------


def begin(
    state: State,
    pending: PendingReply,
    record: TurnRecord,
    *,
    prompt: str = "",
    streamed: bool = True,
) -> AgentReply:
    """A new reply, preemptive until `commit`. There must be none yet.

    `streamed`: its text comes token by token, so a short first segment saves time.
    """
    assert state.reply is None
    policy = state.policy
    state.reply_count += 1
    while state.is_taken(f"a{state.reply_count}"):
        state.reply_count += 1
    record.forget_reply()
    record.reply, record.kind = f"r{state.reply_count}", pending.kind
    first_words = policy.first_segment_words if streamed else 0
    state.reply = AgentReply(
        id=record.reply,
        item=f"a{state.reply_count}",
        kind=pending.kind,
        record=record,
        segmenter=TextSegmenter(first_words=first_words, max_chars=policy.max_segment_chars),
        playout=PlayoutLedger(reports=policy.client_reports_played),
        speaks=policy.speak_replies if pending.speaks is None else pending.speaks,
        prompt=prompt,
        options=pending.options,
    )
    return state.reply


def generate(
    state: State, history: tuple[Item, ...], now_ms: int, *, score_text_end: bool = False
) -> None:
    reply, record = state.live, state.live.record
    record.generate_ms = now_ms
    job, preemptive = state.jobs.begin(Purpose.REPLY, reply), not reply.committed
    state.emit(act.Generate(job, reply.id, history, reply.options, preemptive, score_text_end))


def commit(state: State, now_ms: int) -> None:
    """The reply is certain: show what there is of it and let it be heard."""
    reply = state.live
    reply.commit(now_ms)
    state.emit(act.ReplyBegan(reply.id, reply.item, reply.options, reply.speaks))
    if reply.text:
        state.emit(act.ReplyWords(reply.id, reply.item, reply.text))
    synthesize(state, now_ms)


def say(state: State, kind: str, text: str, now_ms: int) -> None:
    """Speak a text that needs no language model."""
    state.answered = None
    reply = begin(state, PendingReply(kind), TurnRecord(number=0), streamed=False)
    commit(state, now_ms)
    reply.add_text(text, now_ms)
    state.emit(act.ReplyWords(reply.id, reply.item, text))
    synthesize(state, now_ms)
    reply.end_text(now_ms)
    synthesize(state, now_ms)


def reply_to_history(state: State, pending: PendingReply, now_ms: int) -> None:
    """Answer from the history as it stands."""
    state.answered = None
    begin(state, pending, pending.new_record()).playout.hold(state.busy_until_ms)
    commit(state, now_ms)
    generate(state, state.history.snapshot(), now_ms)


# --- a reply is made --------------------------------------------------------------------------------


def synthesize(state: State, now_ms: int) -> None:
    """Give the next segment to text to speech, unless the reply has become too long."""
    reply = state.live
    if reply.too_long(state.policy):
        state.jobs.forget(reply)
        reply.end_at_limit()
    elif reply.segment_due(state.policy, now_ms):
        segment, text = reply.next_segment(now_ms)
        job = state.jobs.begin(Purpose.SEGMENT, reply)
        state.emit(act.Synthesize(job, reply.id, segment, text))


def release_tools(state: State) -> None:
    """Functions run once, and only for a reply that is certain."""
    reply = state.live
    if not reply.committed:
        return
    for words in reply.call_words:
        state.emit(words)
    reply.call_words.clear()
    for call in reply.tools:
        if call.call_id in state.called_tools:
            continue
        state.called_tools.add(call.call_id)
        state.calling = reply.record
        known = reply.call_items.pop(call.call_id, "")
        item = Item(known or state.free_id(f"t_{call.call_id}"), "tool_call", tool=call)
        reply.first_call_item = reply.first_call_item or item.id
        state.history.add(item)
        state.running_tools.add(call.call_id)
        state.emit(act.ReplyCalls(reply.id, item.id, call))
        state.emit(act.RunTool(reply.id, call))
    reply.tools.clear()


def fail(state: State, code: str, message: str, now_ms: int) -> None:
    """A model gave up on the reply: what has been made is still said."""
    reply = state.live
    if not reply.failed and reply.committed:
        state.emit(act.Fault(code, message))
    state.jobs.forget(reply)
    reply.fail(message, now_ms)


def announce(state: State, now_ms: int) -> None:
    """Tell the client."""
    reply, record = state.live, state.live.record
    reply.announced = True
    tokens = (record.input_tokens, record.output_tokens, record.cached_tokens)
    state.emit(act.ReplyGenerated(reply.id, reply.item, reply.finish or "stop", *tokens))


# --- a reply ends -----------------------------------------------------------------------------------


def stop(
    state: State, reason: str, now_ms: int, *, silence: bool = True, position_ms: int | None = None
) -> None:
    """End the live reply now, and drop a preemptive one; history keeps what was heard.

    `silence` False: the call ends, or nothing of it was audible and the history is about to change again.
    `position_ms`: how much was heard, when the client knows better than the ledger.
    """
    reply = state.drop_reply()
    if reply is None or not reply.committed:
        return
    state.busy_until_ms = 0
    if reply.audible and silence:
        state.emit(act.StopPlayout(reply.id))
    known_ms = position_ms
    if position_ms is None:
        position_ms = known_ms = reply.playout.position(now_ms)
        if not state.policy.client_reports_played:
            # A clock guesses: a client that reports nothing may still say that it had played more.
            known_ms = reply.playout.sent_ms
    assert known_ms is not None
    _close(state, reply, "cancelled", reason, position_ms, now_ms)
    if reply.speaks:
        keep_ledger(state, reply.item, reply.playout, known_ms)
    if silence:
        state.warm_head()


def hand_over(state: State, now_ms: int) -> None:
    """Count it as heard, though the client still plays it, so that the next can be made."""
    reply = state.live
    state.drop_reply()
    state.busy_until_ms = reply.playout.ends_at() or 0
    status = "incomplete" if reply.finish == "length" else "completed"
    _close(state, reply, status, reply.finish, reply.playout.total_ms, now_ms)


def finish(state: State, now_ms: int) -> None:
    """Everything that there is of the reply has been heard, or nothing more of it will be."""
    reply, status = state.live, "completed"
    state.drop_reply()
    playout = reply.playout
    unsent = playout.sent_ms < playout.total_ms
    if reply.failed:
        status = "failed"
    elif reply.finish == "length" or unsent:
        status = "incomplete"
    position_ms = playout.position(now_ms) if unsent else playout.total_ms
    _close(state, reply, status, reply.failed or reply.finish, position_ms, now_ms)


def _close(
    state: State, reply: AgentReply, status: str, reason: str, position_ms: int, now_ms: int
) -> None:
    """The reply enters the history as far as it was heard, and is told to be over."""
    record, whole = reply.record, status == "completed"
    heard, unheard = reply.split(position_ms, whole=whole)
    if state.history.find(reply.item) is None and (heard or reply.text):
        complete, aside = whole and not unheard, reply.kind == "filler"
        item = Item(reply.item, "assistant", heard, complete=complete, aside=aside)
        # What was said came before the functions were called, though it is known only now how much was heard.
        called = reply.first_call_item and state.history.find(reply.first_call_item)
        state.history.add(item, state.history.before(called.id) if called else None)
    if reply.speaks:
        keep_ledger(state, reply.item, reply.playout, position_ms)
    if unheard:
        state.emit(act.ItemTruncated(reply.item, position_ms, heard, unheard))
    tokens = (record.input_tokens, record.output_tokens, record.cached_tokens)
    state.emit(act.ReplyEnded(reply.id, reply.item, status, reason, heard, unheard, *tokens))
    record.reply_text, record.heard_text, record.status = reply.text.strip(), heard, status
    record.interrupted = status == "cancelled" and reply.audible
    record.played_ms, record.ended_ms = position_ms, now_ms
    state.record_turn(record)
    state.answered = None


def keep_ledger(state: State, item: str, ledger: PlayoutLedger, heard_ms: int) -> None:
    """`heard_ms`: as much as a client can still say it heard."""
    state.ledgers[item] = (ledger, heard_ms)
    while len(state.ledgers) > _LEDGERS_KEPT:
        del state.ledgers[next(iter(state.ledgers))]
