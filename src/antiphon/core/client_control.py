"""What a client or the owner asks of a call: begin, end, settings, text, commits, replies, edits of the history.

The OpenAI Realtime API needs all of it, other protocols little.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from antiphon.core import actions as act
from antiphon.core import events as ev
from antiphon.core.agent_reply import PendingReply
from antiphon.core.history import Item
from antiphon.core.state import Fact, State

# --- the call ---------------------------------------------------------------------------------------


def on_started(state: State, event: ev.Started, now_ms: int) -> None:
    state.stay_awake(now_ms)
    state.warm_head()
    if event.greet and state.policy.greeting:
        state.say("greeting", state.policy.greeting)


def on_configure(state: State, event: ev.Configure, now_ms: int) -> None:
    if state.turn is None and state.reopenable is None:
        state.taken_ms = state.needed_from_ms()  # audio before it is gone
    state.policy = event.policy
    state.stay_awake(now_ms)


def on_hung_up(state: State, event: ev.HungUp, now_ms: int) -> None:
    state.end_reason = event.reason
    state.note(Fact.HANG_UP)


def on_finish(state: State, event: ev.Finish, now_ms: int) -> None:
    text = event.text or state.policy.goodbye
    if event.unless_caller_speaks and state.turn is not None:
        return
    if event.say_goodbye and text:
        state.finish = replace(event, text=text)
        state.note(Fact.GOODBYE)
    else:
        state.end_reason = event.reason
        state.note(Fact.HANG_UP)


# --- input ------------------------------------------------------------------------------------------


def on_user_text(state: State, event: ev.UserText, now_ms: int) -> None:
    if event.text.strip():
        state.text, state.stop_reason, state.stop_ms = event, "turn_detected", None
        state.note(Fact.USER_TEXT)


def on_commit(state: State, event: ev.CommitInput, now_ms: int) -> None:
    turn = state.turn
    over = turn is not None and turn.forced
    if state.overheard is None and (turn is None or over):
        taken_ms = turn.end_ms if turn is not None else state.taken_ms
        if event.end_ms <= taken_ms:
            message = "there is no new audio to commit"
            state.emit(act.Fault("input_audio_buffer_commit_empty", message))
            return
    state.commit = event
    state.note(Fact.COMMITTED)


def on_clear(state: State, event: ev.ClearInput, now_ms: int) -> None:
    turn = state.turn
    if turn is None or not turn.forced:  # a forced one was committed before
        state.clear_ms = event.end_ms
        state.note(Fact.CLEARED)
    state.taken_ms = max(state.taken_ms, event.end_ms)


# --- replies ----------------------------------------------------------------------------------------


def on_request_reply(state: State, event: ev.RequestReply, now_ms: int) -> None:
    state.requested = PendingReply("requested", event.options, event.speak)
    state.note(Fact.REPLY_REQUESTED)


def on_say(state: State, event: ev.Say, now_ms: int) -> None:
    if event.text.strip():
        state.say("said", event.text)


def on_request_cancel(state: State, event: ev.RequestCancel, now_ms: int) -> None:
    reply, pending = state.reply, state.pending
    if reply is not None and reply.committed and event.reply in ("", reply.id):
        state.pending = None
        _stop(state)
    elif pending is not None and not event.reply:
        # It was asked for and has not begun: it never will.
        state.pending = None
        state.drop_preemptive()
        for turn in state.turns:
            turn.reply_wanted = False if turn.holds_floor or turn.forced else turn.reply_wanted
    else:
        message = "Cancellation failed: no active response"
        state.emit(act.Fault("response_cancel_not_active", message))


def _stop(state: State, position_ms: int | None = None) -> None:
    state.stop_reason, state.stop_ms = "client_cancelled", position_ms
    state.note(Fact.REPLY_STOPPED)


def on_tool_started(state: State, event: ev.ToolStarted, now_ms: int) -> None:
    if event.call_id in state.running_tools:
        state.fillers.begin(event.call_id, event.filler, now_ms)


def on_tool_returned(state: State, event: ev.ToolReturned, now_ms: int) -> None:
    if event.call_id not in state.running_tools:
        return
    _forget_tool(state, event.call_id)
    item_id = state.free_id(f"o_{event.call_id}")
    item = Item(item_id, "tool_result", event.output, call_id=event.call_id)
    state.drop_preemptive()
    state.emit(act.ItemAdded(item, state.history.add(item)))
    state.stay_awake(now_ms)
    if not state.running_tools and state.pending is None:
        state.pending = PendingReply("answer", continues=state.calling)


def _forget_tool(state: State, call_id: str) -> None:
    """It has a result, or will not have one."""
    state.running_tools.discard(call_id)
    state.fillers.end(call_id)


# --- history ----------------------------------------------------------------------------------------


def on_add_item(state: State, event: ev.AddItem, now_ms: int) -> None:
    item = event.item
    state.stay_awake(now_ms)
    if state.is_taken(item.id):
        message = f"an item with the id {item.id!r} exists already"
        state.emit(act.Fault("item_create_duplicate_item_id", message))
        return
    try:
        before = state.history.add(item, event.after)
    except KeyError:
        message = f"there is no item {event.after!r} to insert after"
        state.emit(act.Fault("item_create_invalid_previous_item_id", message))
        return
    state.drop_preemptive()
    _forget_tool(state, item.call_id)
    state.emit(act.ItemAdded(item, before))


def on_delete_item(state: State, event: ev.DeleteItem, now_ms: int) -> None:
    reply = state.reply
    if reply is not None and reply.committed and reply.item == event.item:
        _stop(state, 0)
    state.deleted_item = event.item
    state.note(Fact.ITEM_DELETED)


def on_truncate_item(state: State, event: ev.TruncateItem, now_ms: int) -> None:
    reply, heard_ms = state.reply, max(event.heard_ms, 0)
    if reply is not None and reply.committed and reply.item == event.item and reply.speaks:
        _stop(state, min(heard_ms, reply.playout.sent_ms))
        return
    ledger, known_ms = state.ledgers.get(event.item, (None, 0))
    if ledger is None or state.history.find(event.item) is None:
        message = f"there is no spoken item {event.item!r} to truncate"
        state.emit(act.Fault("item_truncate_invalid_item_id", message))
        return
    heard_ms = min(heard_ms, known_ms)  # what is cut off does not come back
    heard, unheard = ledger.heard(heard_ms)
    state.ledgers[event.item] = (ledger, heard_ms)
    state.drop_preemptive()
    state.history.change(event.item, heard, complete=not unheard)
    state.emit(act.ItemTruncated(event.item, heard_ms, heard, unheard))


HANDLERS: dict[type, Callable[[State, Any, int], None]] = {
    ev.Started: on_started,
    ev.HungUp: on_hung_up,
    ev.Finish: on_finish,
    ev.Configure: on_configure,
    ev.UserText: on_user_text,
    ev.CommitInput: on_commit,
    ev.ClearInput: on_clear,
    ev.RequestReply: on_request_reply,
    ev.Say: on_say,
    ev.RequestCancel: on_request_cancel,
    ev.AddItem: on_add_item,
    ev.DeleteItem: on_delete_item,
    ev.TruncateItem: on_truncate_item,
    ev.ToolStarted: on_tool_started,
    ev.ToolReturned: on_tool_returned,
}
"""Event -> what is recorded of it."""
