"""What the conversation does about the agent's replies: begin, commit, stop, and cut history to what was heard.

`speaking.py` makes the live reply; this part moves the floor and writes the history. Knows no model and no clock.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from antiphon.core import actions as act
from antiphon.core import events as ev
from antiphon.core.floor import Cause, Floor
from antiphon.core.history import Item
from antiphon.core.playout import PlayoutLedger
from antiphon.core.speaking import Reply
from antiphon.core.tool_filler import Bridges
from antiphon.core.turn_record import TurnRecord

if TYPE_CHECKING:
    from antiphon.core.conversation import Conversation

_LEDGERS_KEPT = 16


class Replies:
    """The agent's half of a Conversation."""

    def __init__(self, conversation: Conversation) -> None:
        self._c = conversation
        self.listener, self.speaker = conversation.listener, conversation.speaker
        self.history = conversation.history
        self.emit, self.go = conversation.emit, conversation.go
        self.ledgers: dict[str, tuple[PlayoutLedger, int]] = {}
        """Of the latest spoken items, and how far each was heard, for a client that truncates them later."""
        self.pending_tools: set[str] = set()
        self.busy_until_ms = 0
        """Clock time until which the caller's end plays what earlier replies have sent."""
        self.bridges = Bridges()
        self.owed: tuple[str, ev.RequestReply] | None = None
        """Kind and options of a reply to be given as soon as the floor is free, unless the caller's turn takes it."""
        self._asking: TurnRecord | None = None
        """Of the reply that called functions last."""
        self._follow_up: tuple[ev.RequestReply, TurnRecord] | None = None
        """An owed reply that goes on with that one's turn."""
        self._called: set[str] = set()
        """Ids of all function calls so far: none is run twice."""
        self.handlers: ev.Handlers = {
            ev.ReplyText: self._on_reply_text,
            ev.ReplyToolText: self._on_reply_tool_text,
            ev.ReplyTool: self._on_reply_tool,
            ev.ReplyComplete: self._on_reply_complete,
            ev.ReplyFailed: self._on_reply_failed,
            ev.SegmentAudio: self._on_clause_audio,
            ev.SegmentComplete: self._on_clause_spoken,
            ev.SegmentFailed: self._on_clause_failed,
            ev.AudioSent: self._on_audio_sent,
            ev.Played: self._on_played,
        }

    def say(self, kind: str, text: str, now_ms: int) -> None:
        """Speak a text that needs no language model. The floor must be free for it."""
        self.go(Cause.REPLY_WANTED, now_ms)
        self.speak_text(kind, text, now_ms)

    def speak_text(self, kind: str, text: str, now_ms: int) -> None:
        self._c.turns.answered = None
        self.speaker.begin(kind, self._c.policy, TurnRecord(number=0), streamed=False)
        self.speaker.commit(now_ms, self._c.policy)
        self.speaker.add_text(text, now_ms, self._c.policy)
        self.speaker.end_text(now_ms, self._c.policy)

    def request_reply(self, request: ev.RequestReply, now_ms: int, kind: str = "requested") -> None:
        """Answer from the history as it stands. The floor must be free for it."""
        self.go(Cause.REPLY_WANTED, now_ms)
        self._c.turns.answered = None
        self.owed = None
        self.speaker.begin(
            kind,
            self._c.policy,
            self._record_for(request),
            options=request.options,
            speaks=request.speak,
        ).ledger.hold(self.busy_until_ms)
        self.speaker.commit(now_ms, self._c.policy)
        self.speaker.generate(self.history.snapshot(), now_ms)

    def owe_follow_up(self) -> None:
        """The functions have returned: the reply that called them is to be gone on with, in its turn."""
        if self.owed is not None:
            return
        request = ev.RequestReply()
        self.owed = ("answer", request)
        self._follow_up = (request, self._asking) if self._asking is not None else None

    def _record_for(self, request: ev.RequestReply) -> TurnRecord:
        follow_up, self._follow_up = self._follow_up, None
        if follow_up is None or follow_up[0] is not request:
            return TurnRecord(number=0)
        asked = follow_up[1]
        record = TurnRecord(number=asked.number, user_text=asked.user_text)
        if asked.first_sent_ms is None:  # the caller still waits for the first sound
            record.speech_start_ms, record.speech_end_ms = (
                asked.speech_start_ms,
                asked.speech_end_ms,
            )
        return record

    def _live(self, reply_id: str) -> Reply | None:
        reply = self.speaker.reply
        return reply if reply is not None and reply.id == reply_id else None

    def _on_reply_text(self, event: ev.ReplyText, now_ms: int) -> None:
        reply = self._live(event.reply)
        if reply is not None and event.text and not reply.text_done:
            self.speaker.add_text(event.text, now_ms, self._c.policy)

    def _on_reply_tool_text(self, event: ev.ReplyToolText, now_ms: int) -> None:
        reply, call_id = self._live(event.reply), event.call_id
        if reply is None or reply.text_done or call_id in self._called:
            return
        if call_id not in reply.call_items:
            reply.call_items[call_id] = self._c.free_id(f"t_{call_id}")
        item = reply.call_items[call_id]
        reply.progress_ms = now_ms
        reply.call_words.append(act.ReplyCallWords(reply.id, item, call_id, event.name, event.text))
        self.release_tools()

    def _on_reply_tool(self, event: ev.ReplyTool, now_ms: int) -> None:
        reply = self._live(event.reply)
        if reply is not None and not reply.text_done:
            reply.tools.append(event.call)
            reply.calls += 1
            self.release_tools()

    def release_tools(self) -> None:
        """Functions run once, and only for a reply that is certain."""
        reply = self.speaker.reply
        if reply is None or not reply.committed:
            return
        for words in reply.call_words:
            self.emit(words)
        reply.call_words.clear()
        for call in reply.tools:
            if call.call_id in self._called:
                continue
            self._called.add(call.call_id)
            self._asking = reply.record
            known = reply.call_items.pop(call.call_id, "")
            item = Item(known or self._c.free_id(f"t_{call.call_id}"), "tool_call", tool=call)
            reply.first_call_item = reply.first_call_item or item.id
            self.history.add(item)
            self.pending_tools.add(call.call_id)
            self.emit(act.ReplyCalls(reply.id, item.id, call))
            self.emit(act.RunTool(reply.id, call))
        reply.tools.clear()

    def forget_tool(self, call_id: str) -> None:
        """It has a result, or will not have one."""
        self.pending_tools.discard(call_id)
        self.bridges.end(call_id)

    def bridge_due_ms(self, quiet_since_ms: int) -> int | None:
        """When something is to be said about a function that keeps the caller waiting."""
        return self.bridges.due_ms(self._c.policy, quiet_since_ms)

    def say_bridge(self, now_ms: int) -> None:
        text = self.bridges.take(self._c.policy)
        if text:
            self.say("filler", text, now_ms)

    def _on_reply_complete(self, event: ev.ReplyComplete, now_ms: int) -> None:
        reply = self._live(event.reply)
        if reply is None or reply.text_done:
            return
        self.speaker.end_text(now_ms, self._c.policy, event)
        if not reply.text.strip() and not reply.calls:
            self.fail_reply("reply_failed", "the language model returned nothing", now_ms)

    def _on_reply_failed(self, event: ev.ReplyFailed, now_ms: int) -> None:
        reply = self._live(event.reply)
        if reply is not None and not reply.text_done:
            self.fail_reply("reply_failed", f"the language model failed: {event.reason}", now_ms)

    def _on_clause_failed(self, event: ev.SegmentFailed, now_ms: int) -> None:
        reply = self._live(event.reply)
        if reply is not None and reply.synthesising == event.segment:
            self.fail_reply("speech_failed", f"speech could not be made: {event.reason}", now_ms)

    def fail_reply(self, code: str, message: str, now_ms: int) -> None:
        reply = self.speaker.reply
        assert reply is not None
        if not reply.failed and reply.committed:
            self.emit(act.Fault(code, message))
        self.speaker.fail(message, now_ms)

    def _on_clause_audio(self, event: ev.SegmentAudio, now_ms: int) -> None:
        if self._live(event.reply) is not None:
            self.speaker.add_audio(event.segment, event.duration_ms, now_ms)

    def _on_clause_spoken(self, event: ev.SegmentComplete, now_ms: int) -> None:
        if self._live(event.reply) is not None:
            self.speaker.end_clause(event.segment, now_ms, self._c.policy)

    def _on_audio_sent(self, event: ev.AudioSent, now_ms: int) -> None:
        reply = self._live(event.reply)
        if reply is None or not reply.audible or self._c.floor is Floor.OVERLAP:
            return
        reply.ledger.sent(event.sent_ms, now_ms)
        if reply.record.first_sent_ms is None:
            reply.record.first_sent_ms = now_ms

    def _on_played(self, event: ev.Played, now_ms: int) -> None:
        reply = self._live(event.reply)
        if reply is None or not reply.committed:
            return
        if not reply.ledger.report(event.played_ms, now_ms):
            self.emit(act.Fault("played_invalid", "a `played` report went beyond what was sent"))
        if event.played_ms > 0 and reply.record.first_played_ms is None:
            reply.record.first_played_ms = now_ms - min(event.played_ms, reply.ledger.sent_ms)

    def drop_guess(self) -> None:
        """The history, or what is asked for, has changed: a guess that does not know it is worth nothing."""
        reply = self.speaker.reply
        if reply is not None and not reply.committed:
            self.speaker.drop()

    def stop_reply(
        self,
        status: str,
        reason: str,
        now_ms: int,
        *,
        silence: bool = True,
        position_ms: int | None = None,
    ) -> None:
        """End the live reply now; history keeps what was heard of it. The floor is left as it is.

        `silence` False: the call ends, or nothing of it was audible and the history is about to change again.
        `position_ms`: how much was heard, when the client knows better than the ledger.
        """
        reply = self.speaker.drop()
        if reply is None or not reply.committed:
            return
        self.busy_until_ms = 0
        if reply.audible and silence:
            self.emit(act.StopPlayout(reply.id))
        if position_ms is None:
            position_ms = reply.ledger.position(now_ms)
            # A clock guesses: a client that reports nothing may still say that it had played more.
            known_ms = position_ms if self._c.policy.client_reports_played else reply.ledger.sent_ms
        else:
            known_ms = position_ms
        self._close_reply(reply, status, reason, position_ms, now_ms)
        if reply.speaks:
            self._keep_ledger(reply, known_ms)
        if silence:
            self.warm_head()

    def _close_reply(
        self, reply: Reply, status: str, reason: str, position_ms: int, now_ms: int
    ) -> None:
        record, whole = reply.record, status == "completed"
        if whole and not reply.failed:
            heard, unheard = reply.text.strip(), ""
        elif reply.speaks:
            heard, unheard = reply.ledger.heard(position_ms)
            unheard = f"{unheard} {reply.unsaid()}".strip()
        else:
            heard, unheard = reply.text.strip(), ""
        if self.history.find(reply.item) is None and (heard or reply.text):
            complete, aside = whole and not unheard, reply.kind == "filler"
            item = Item(reply.item, "assistant", heard, complete=complete, aside=aside)
            # What was said came before the functions were called, though it is known only now how much was heard.
            called = reply.first_call_item and self.history.find(reply.first_call_item)
            self.history.add(item, self.history.before(called.id) if called else None)
        if reply.speaks:
            self._keep_ledger(reply, position_ms)
        if unheard:
            self.emit(act.ItemTruncated(reply.item, position_ms, heard, unheard))
        self.emit(
            act.ReplyEnded(
                reply.id,
                reply.item,
                status,
                reason,
                heard,
                unheard,
                record.input_tokens,
                record.output_tokens,
                record.cached_tokens,
            )
        )
        record.reply_text, record.heard_text, record.status = reply.text.strip(), heard, status
        record.interrupted = status == "cancelled" and reply.audible
        record.played_ms, record.ended_ms = position_ms, now_ms
        self.emit(act.TurnRecorded(replace(record)))
        self._c.turns.answered = None

    def warm_head(self) -> None:
        """Have all that is certain of the next prompt read while nobody waits for it."""
        if self._c.policy.warm_prompt:
            self.emit(act.WarmPrompt(self.history.snapshot(), ""))

    def _keep_ledger(self, reply: Reply, heard_ms: int) -> None:
        """`heard_ms`: as much as a client can still say it heard."""
        self.ledgers[reply.item] = (reply.ledger, heard_ms)
        while len(self.ledgers) > _LEDGERS_KEPT:
            del self.ledgers[next(iter(self.ledgers))]

    def settle(self, now_ms: int) -> None:
        """What follows from the state of the live reply and of the floor, whichever event brought it about."""
        while self._settle_once(now_ms):
            pass

    def _settle_once(self, now_ms: int) -> bool:
        """-> whether a reply has ended, so that there may be more to follow."""
        if self.owed is not None and self._c.floor is Floor.OPEN and not self.listener.detached:
            kind, request = self.owed
            self.request_reply(request, now_ms, kind=kind)
        reply = self.speaker.reply
        if reply is None or not reply.committed:
            return False
        if not reply.audible and reply.ledger.total_ms > 0:
            reply.audible = True
            if self._c.floor is Floor.THINKING:
                self.go(Cause.AUDIBLE, now_ms)
            self.emit(act.Play(reply.id))
        self.speaker.pump(now_ms, self._c.policy)
        self.speaker.announce()
        if self._c.floor is Floor.OVERLAP or not reply.finished(now_ms):
            return False
        if reply.ledger.spans and not reply.ledger.total_ms and not reply.failed:
            self.fail_reply("speech_failed", "text to speech made no sound of the reply", now_ms)
        self.reply_over(reply, now_ms)
        return self._c.floor is not Floor.ENDED

    def hand_over(self, now_ms: int) -> int | None:
        """End a reply of which all has left, though the caller's end still plays it, so that the next can be made.

        -> clock time until which it plays; None: there is more of it to come, or nobody knows how long it takes.
        """
        reply = self.speaker.reply
        if self._c.floor is not Floor.AGENT or reply is None or not reply.announced:
            return None
        ends_at_ms = reply.ledger.ends_at()
        if ends_at_ms is None or reply.ledger.sent_ms < reply.ledger.total_ms:
            return None
        self.speaker.drop()
        status = "incomplete" if reply.finish == "length" else "completed"
        self._close_reply(reply, status, reply.finish, reply.ledger.total_ms, now_ms)
        self.go(Cause.REPLY_OVER, now_ms)
        return ends_at_ms

    def give_up_reply(self, now_ms: int) -> None:
        """A model has stalled, or the line to the caller has: what is there of the reply has to do."""
        reply = self.speaker.reply
        assert reply is not None
        if not reply.generated:
            self.fail_reply("reply_timeout", "no reply in time", now_ms)
        self.reply_over(reply, now_ms)

    def reply_over(self, reply: Reply, now_ms: int) -> None:
        """Everything that there is of the reply has been heard, or nothing more of it will be."""
        self.speaker.drop()
        ledger, status = reply.ledger, "completed"
        unsent = ledger.sent_ms < ledger.total_ms
        if reply.failed:
            status = "failed"
        elif reply.finish == "length" or unsent:
            status = "incomplete"
        position_ms = ledger.position(now_ms) if unsent else ledger.total_ms
        self._close_reply(reply, status, reply.failed or reply.finish, position_ms, now_ms)
        if self._c.floor is Floor.CLOSING:
            self._c.close(now_ms)
            return
        self.warm_head()
        self.go(Cause.REPLY_OVER, now_ms)
        spare = reply.kind in ("apology", "prompt", "filler")
        if reply.failed and not spare and self._c.policy.apology:
            self.say("apology", self._c.policy.apology, now_ms)
