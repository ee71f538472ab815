"""What a client may ask of a conversation by hand: text turns, commits, replies on request, edits of the history.

The OpenAI Realtime API needs all of it; other doors need little. Knows no protocol.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from antiphon.core import actions as act
from antiphon.core import events as ev
from antiphon.core.floor import Cause, Floor
from antiphon.core.history import Item

if TYPE_CHECKING:
    from antiphon.core.conversation import Conversation

_WITH_REPLY = (Floor.THINKING, Floor.AGENT, Floor.CONTESTED)


class Commands:
    """Stateless: works on the Conversation it is given."""

    def __init__(self, conversation: Conversation) -> None:
        self._c = conversation
        self._typed = 0
        self.handlers: ev.Handlers = {
            ev.Typed: self._on_typed,
            ev.CommitInput: self._on_commit,
            ev.ClearInput: self._on_clear,
            ev.RequestReply: self._on_request_reply,
            ev.Say: self._on_say,
            ev.CancelReply: self._on_cancel,
            ev.AddItem: self._on_add_item,
            ev.DeleteItem: self._on_delete_item,
            ev.TruncateItem: self._on_truncate,
            ev.ToolReturned: self._on_tool_returned,
        }

    # -- input --------------------------------------------------------------------------------

    def _on_typed(self, event: ev.Typed, now_ms: int) -> None:
        c = self._c
        if not event.text.strip() or c.floor is Floor.CLOSING:
            return
        if c.floor in _WITH_REPLY:
            self._stop_live_reply("cancelled", "turn_detected", now_ms)
        self._typed += 1
        item = Item(f"w{self._typed}", "user", event.text.strip())
        c.emit(act.ItemAdded(item, c.history.add(item)))
        c.turns.unanswered_prompts = 0
        if event.reply and c.floor is Floor.OPEN:
            c.replies.request_reply(ev.RequestReply(), now_ms, kind="answer")

    def _on_commit(self, event: ev.CommitInput, now_ms: int) -> None:
        c, listener = self._c, self._c.listener
        turn = listener.turn
        if turn is None and event.end_ms <= listener.taken_ms:
            c.emit(act.Fault("input_audio_buffer_commit_empty", "there is no new audio to commit"))
            return
        if turn is None:
            turn = c.turns.open_turn_by_hand()
        elif turn.forced:
            return
        turn.forced = True
        if event.reply:
            turn.reply_wanted = True
        if c.floor is Floor.CONTESTED:
            c.turns.interrupted(now_ms)
        if c.floor in (Floor.OPEN, Floor.CALLER):
            c.go(Cause.PAUSE, now_ms)
        turn.detached = c.floor is not Floor.DECIDING
        listener.ask(c.policy, now_ms, event.end_ms)

    def _on_clear(self, event: ev.ClearInput, now_ms: int) -> None:
        c = self._c
        if c.floor is Floor.CONTESTED:
            c.turns.false_alarm(now_ms)
        elif c.floor in (Floor.CALLER, Floor.DECIDING):
            c.speaker.drop()
            c.turns.drop_turn(Cause.TURN_EMPTY, now_ms)
        c.listener.taken_ms = max(c.listener.taken_ms, event.end_ms)

    # -- replies --------------------------------------------------------------------------------

    def _on_request_reply(self, event: ev.RequestReply, now_ms: int) -> None:
        c = self._c
        if c.floor is Floor.OPEN:
            c.replies.request_reply(event, now_ms)
        elif c.floor in (Floor.CALLER, Floor.DECIDING) and c.listener.turn is not None:
            c.turns.request_at_turn_end(event)
        else:
            c.emit(
                act.Fault(
                    "conversation_already_has_active_response",
                    "a reply is already under way; cancel it or wait for its end",
                )
            )

    def _on_say(self, event: ev.Say, now_ms: int) -> None:
        if self._c.floor is Floor.OPEN and event.text.strip():
            self._c.replies.say("said", event.text, now_ms)

    def _on_cancel(self, event: ev.CancelReply, now_ms: int) -> None:
        c, reply = self._c, self._c.speaker.reply
        if reply is None or not reply.committed or event.reply not in ("", reply.id):
            c.emit(
                act.Fault("response_cancel_not_active", "Cancellation failed: no active response")
            )
            return
        if c.floor is Floor.CLOSING:
            c.close(now_ms)
        else:
            self._stop_live_reply("cancelled", "client_cancelled", now_ms)

    def _stop_live_reply(
        self, status: str, reason: str, now_ms: int, position_ms: int | None = None
    ) -> None:
        """Stop the reply that has the floor, and free the floor."""
        c = self._c
        c.replies.stop_reply(status, reason, now_ms, position_ms=position_ms)
        if c.listener.turn is not None:
            c.listener.turn.contested = False
        c.go(Cause.REPLY_OVER, now_ms)
        if c.floor is Floor.CALLER and c.listener.gate.paused:
            c.turns.on_pause(now_ms)

    def _on_tool_returned(self, event: ev.ToolReturned, now_ms: int) -> None:
        c = self._c
        if event.call_id not in c.replies.pending_tools:
            return
        c.replies.pending_tools.discard(event.call_id)
        item = Item(f"o_{event.call_id}", "tool_result", event.output, call_id=event.call_id)
        c.emit(act.ItemAdded(item, c.history.add(item)))
        if not c.replies.pending_tools:
            c.replies.follow_up(now_ms)

    # -- history --------------------------------------------------------------------------------

    def _on_add_item(self, event: ev.AddItem, now_ms: int) -> None:
        c = self._c
        try:
            before = c.history.add(event.item, event.after)
        except ValueError:
            message = f"an item with the id {event.item.id!r} exists already"
            c.emit(act.Fault("item_create_duplicate_item_id", message))
        except KeyError:
            message = f"there is no item {event.after!r} to insert after"
            c.emit(act.Fault("item_create_invalid_previous_item_id", message))
        else:
            c.replies.pending_tools.discard(event.item.call_id)
            c.emit(act.ItemAdded(event.item, before))

    def _on_delete_item(self, event: ev.DeleteItem, now_ms: int) -> None:
        c, reply = self._c, self._c.speaker.reply
        if reply is not None and reply.committed and reply.item == event.item:
            self._stop_live_reply("cancelled", "client_cancelled", now_ms, position_ms=0)
        if c.history.find(event.item) is None:
            message = f"there is no item {event.item!r} to delete"
            c.emit(act.Fault("item_delete_invalid_item_id", message))
            return
        c.history.remove(event.item)
        c.emit(act.ItemRemoved(event.item))

    def _on_truncate(self, event: ev.TruncateItem, now_ms: int) -> None:
        c, reply = self._c, self._c.speaker.reply
        heard_ms = max(event.heard_ms, 0)
        if reply is not None and reply.committed and reply.item == event.item and reply.speaks:
            heard_ms = min(heard_ms, reply.ledger.total_ms)
            self._stop_live_reply("cancelled", "client_cancelled", now_ms, position_ms=heard_ms)
            return
        ledger = c.replies.ledgers.get(event.item)
        if ledger is None or c.history.find(event.item) is None:
            message = f"there is no spoken item {event.item!r} to truncate"
            c.emit(act.Fault("item_truncate_invalid_item_id", message))
            return
        heard_ms = min(heard_ms, ledger.total_ms)
        heard, unheard = ledger.heard(heard_ms)
        c.history.change(event.item, heard, complete=not unheard)
        c.emit(act.ItemTruncated(event.item, heard_ms, heard, unheard))
