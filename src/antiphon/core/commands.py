"""What a client may ask of a conversation by hand: text turns, commits, replies on request, edits of the history.

The OpenAI Realtime API needs all of it; other doors need little. Knows no protocol.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from antiphon.core import actions as act
from antiphon.core import events as ev
from antiphon.core.floor import Cause, Floor
from antiphon.core.history import Item
from antiphon.core.listening import Turn

if TYPE_CHECKING:
    from antiphon.core.conversation import Conversation

SILENCE = "..."
"""What the language model is told of a caller who says nothing."""
_WITH_REPLY = (Floor.THINKING, Floor.AGENT, Floor.OVERLAP)


class Commands:
    """Stateless: works on the Conversation it is given."""

    def __init__(self, conversation: Conversation) -> None:
        self._c = conversation
        self._typed = 0
        self.handlers: ev.Handlers = {
            ev.UserText: self._on_typed,
            ev.CommitInput: self._on_commit,
            ev.ClearInput: self._on_clear,
            ev.RequestReply: self._on_request_reply,
            ev.Say: self._on_say,
            ev.RequestCancel: self._on_cancel,
            ev.AddItem: self._on_add_item,
            ev.DeleteItem: self._on_delete_item,
            ev.TruncateItem: self._on_truncate,
            ev.ToolStarted: self._on_tool_started,
            ev.ToolReturned: self._on_tool_returned,
        }

    # -- input --------------------------------------------------------------------------------

    def _on_typed(self, event: ev.UserText, now_ms: int) -> None:
        c = self._c
        if not event.text.strip() or c.floor is Floor.CLOSING:
            return
        if c.floor in _WITH_REPLY:
            self._stop_live_reply("cancelled", "turn_detected", now_ms)
        c.replies.drop_guess()
        self._typed += 1
        item = Item(c.free_id(f"w{self._typed}"), "user", event.text.strip())
        c.emit(act.ItemAdded(item, c.history.add(item)))
        c.turns.unanswered_prompts = 0
        c.stay_awake(now_ms)
        if event.reply:
            c.replies.owed = ("answer", ev.RequestReply())

    def _on_commit(self, event: ev.CommitInput, now_ms: int) -> None:
        c, listener = self._c, self._c.listener
        if c.overhearing.turn is not None:
            c.overhearing.commit(event.end_ms, now_ms)
            return
        turn, forced = listener.turn, listener.turn is not None and listener.turn.forced
        taken_ms = turn.end_ms if turn is not None and forced else listener.taken_ms
        if (turn is None or forced) and event.end_ms <= taken_ms:
            c.emit(act.Fault("input_audio_buffer_commit_empty", "there is no new audio to commit"))
            return
        if turn is None or forced:
            turn = self._open_turn(event.end_ms, detached=c.floor is not Floor.OPEN)
        turn.forced = True
        if event.reply is not None:
            turn.reply_wanted = event.reply
        if c.floor is Floor.OVERLAP:
            c.interruptions.meant(now_ms)
        if c.floor in (Floor.OPEN, Floor.CALLER):
            c.go(Cause.PAUSE, now_ms)
        if turn is listener.turn:
            c.replies.drop_guess()
        listener.ask(c.policy, now_ms, event.end_ms, turn)

    def _on_clear(self, event: ev.ClearInput, now_ms: int) -> None:
        c = self._c
        turn = c.listener.turn
        c.overhearing.drop()
        if turn is None:
            c.listener.gate.split(event.end_ms)
        elif turn.forced:
            pass  # it was committed before
        elif c.floor is Floor.OVERLAP:
            c.interruptions.false_interruption(now_ms)
        else:
            c.replies.drop_guess()
            c.turns.drop_turn(Cause.TURN_EMPTY, now_ms)
        c.listener.taken_ms = max(c.listener.taken_ms, event.end_ms)

    def _open_turn(self, end_ms: int, *, detached: bool) -> Turn:
        """A turn that the client commits without speech detection. `detached`: it must not change the floor."""
        c = self._c
        opened = c.listener.detach if detached else c.listener.open_turn_by_hand
        turn = opened(c.turns.new_item(), c.policy, end_ms)
        c.emit(act.SpeechBegan(turn.item, turn.start_ms))
        return turn

    def answer_silence(self, silent_ms: int) -> None:
        """Nobody has said anything for so long: that too is something to answer."""
        c = self._c
        end_ms = c.listener.gate.heard_ms
        start_ms = max(c.listener.taken_ms, end_ms - silent_ms, 0)
        item = Item(c.turns.new_item(), "user", SILENCE)
        before = c.history.add(item)
        c.emit(act.SilencePassed(item.id, start_ms, end_ms))
        c.emit(act.ItemAdded(item, before))
        c.replies.owed = ("prompt", ev.RequestReply())

    def take_detached(self, number: int, text: str, now_ms: int) -> None:
        """The words of a turn that was committed while something else had the floor: they join the history."""
        c, turn = self._c, self._c.listener.detached.pop(number)
        if not text.strip():
            c.emit(act.SpeechDropped(turn.item))
            return
        turn.text = turn.record.user_text = text.strip()
        turn.record.status, turn.record.transcript_ms = "none", now_ms
        c.replies.drop_guess()
        c.turns.enter_user_turn(turn)
        c.emit(act.TurnRecorded(replace(turn.record)))
        if turn.reply_wanted:
            c.replies.owed = c.replies.owed or ("answer", ev.RequestReply())

    def give_up_detached(self, number: int, reason: str) -> None:
        self._c.turns.say_untranscribed(self._c.listener.detached.pop(number), reason)

    # -- replies --------------------------------------------------------------------------------

    def _on_request_reply(self, event: ev.RequestReply, now_ms: int) -> None:
        c = self._c
        plays_until_ms = c.replies.hand_over(now_ms)
        if plays_until_ms is not None:
            c.replies.busy_until_ms = plays_until_ms
        if c.floor is Floor.OPEN and c.replies.owed is None:
            # What was committed while something else had the floor belongs into the answer: `settle` waits for it.
            c.replies.owed = ("requested", event)
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

    def _on_cancel(self, event: ev.RequestCancel, now_ms: int) -> None:
        c, reply = self._c, self._c.speaker.reply
        if reply is None or not reply.committed or event.reply not in ("", reply.id):
            if not event.reply and c.replies.owed is not None:
                self._cancel_owed()
                return
            c.emit(
                act.Fault("response_cancel_not_active", "Cancellation failed: no active response")
            )
            return
        c.replies.owed = None
        self._stop_live_reply("cancelled", "client_cancelled", now_ms)

    def _cancel_owed(self) -> None:
        """A reply was asked for and has not begun: it never will."""
        c = self._c
        c.replies.owed = None
        c.replies.drop_guess()
        if c.listener.turn is not None:
            c.listener.turn.reply_wanted = False
        for turn in c.listener.detached.values():
            turn.reply_wanted = False

    def _stop_live_reply(
        self, status: str, reason: str, now_ms: int, position_ms: int | None = None
    ) -> None:
        """Stop the reply that has the floor, and free the floor. A goodbye that is stopped was the last word."""
        c = self._c
        c.replies.stop_reply(status, reason, now_ms, position_ms=position_ms)
        if c.floor is Floor.CLOSING:
            c.close(now_ms)
            return
        if c.listener.turn is not None:
            c.listener.turn.contested = False
        c.go(Cause.REPLY_OVER, now_ms)
        if c.floor is Floor.CALLER and c.listener.gate.paused:
            c.turns.on_pause(now_ms)

    def _on_tool_started(self, event: ev.ToolStarted, now_ms: int) -> None:
        if event.call_id in self._c.replies.pending_tools:
            self._c.replies.bridges.begin(event.call_id, event.filler, now_ms)

    def _on_tool_returned(self, event: ev.ToolReturned, now_ms: int) -> None:
        c = self._c
        if event.call_id not in c.replies.pending_tools:
            return
        c.replies.forget_tool(event.call_id)
        item_id = c.free_id(f"o_{event.call_id}")
        item = Item(item_id, "tool_result", event.output, call_id=event.call_id)
        c.replies.drop_guess()
        c.emit(act.ItemAdded(item, c.history.add(item)))
        c.stay_awake(now_ms)
        if not c.replies.pending_tools:
            c.replies.owe_follow_up()

    # -- history --------------------------------------------------------------------------------

    def _on_add_item(self, event: ev.AddItem, now_ms: int) -> None:
        c = self._c
        c.stay_awake(now_ms)
        try:
            if c.is_taken(event.item.id):
                raise ValueError
            before = c.history.add(event.item, event.after)
        except ValueError:
            message = f"an item with the id {event.item.id!r} exists already"
            c.emit(act.Fault("item_create_duplicate_item_id", message))
        except KeyError:
            message = f"there is no item {event.after!r} to insert after"
            c.emit(act.Fault("item_create_invalid_previous_item_id", message))
        else:
            c.replies.drop_guess()
            c.replies.forget_tool(event.item.call_id)
            c.emit(act.ItemAdded(event.item, before))

    def _on_delete_item(self, event: ev.DeleteItem, now_ms: int) -> None:
        c, reply = self._c, self._c.speaker.reply
        if reply is not None and reply.committed and reply.item == event.item:
            self._stop_live_reply("cancelled", "client_cancelled", now_ms, position_ms=0)
            if c.floor is Floor.ENDED:
                return
        if c.history.find(event.item) is None:
            message = f"there is no item {event.item!r} to delete"
            c.emit(act.Fault("item_delete_invalid_item_id", message))
            return
        c.replies.drop_guess()
        c.history.remove(event.item)
        c.emit(act.ItemRemoved(event.item))

    def _on_truncate(self, event: ev.TruncateItem, now_ms: int) -> None:
        c, reply = self._c, self._c.speaker.reply
        heard_ms = max(event.heard_ms, 0)
        if reply is not None and reply.committed and reply.item == event.item and reply.speaks:
            heard_ms = min(heard_ms, reply.ledger.sent_ms)
            self._stop_live_reply("cancelled", "client_cancelled", now_ms, position_ms=heard_ms)
            return
        ledger, known_ms = c.replies.ledgers.get(event.item, (None, 0))
        if ledger is None or c.history.find(event.item) is None:
            message = f"there is no spoken item {event.item!r} to truncate"
            c.emit(act.Fault("item_truncate_invalid_item_id", message))
            return
        heard_ms = min(heard_ms, known_ms)  # what is cut off does not come back
        heard, unheard = ledger.heard(heard_ms)
        c.replies.ledgers[event.item] = (ledger, heard_ms)
        c.replies.drop_guess()
        c.history.change(event.item, heard, complete=not unheard)
        c.emit(act.ItemTruncated(event.item, heard_ms, heard, unheard))
