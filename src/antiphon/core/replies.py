"""What the conversation does about the agent's replies: begin, commit, stop, and cut history to what was heard.

`speaking.py` makes the live reply; this part moves the floor and writes the history. Knows no model and no clock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from antiphon.core import actions as act
from antiphon.core import events as ev
from antiphon.core.floor import Cause, Floor
from antiphon.core.history import Item
from antiphon.core.playback import Ledger
from antiphon.core.record import TurnRecord
from antiphon.core.speaking import Reply

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
        self.ledgers: dict[str, Ledger] = {}
        """Of the latest assistant items, for a client that truncates them later."""
        self.pending_tools: set[str] = set()
        self._follow_up = False
        """Tools have returned while the floor was taken: go on when it is free."""
        self.handlers: ev.Handlers = {
            ev.ReplyText: self._on_reply_text,
            ev.ReplyTool: self._on_reply_tool,
            ev.ReplyComplete: self._on_reply_complete,
            ev.ReplyFailed: self._on_reply_failed,
            ev.ClauseAudio: self._on_clause_audio,
            ev.ClauseSpoken: self._on_clause_spoken,
            ev.ClauseFailed: self._on_clause_failed,
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
        self.speaker.begin(
            kind,
            self._c.policy,
            TurnRecord(number=0),
            options=request.options,
            speaks=request.speak,
        )
        self.speaker.commit(now_ms, self._c.policy)
        self.speaker.generate(self.history.snapshot(), now_ms)

    def _live(self, reply_id: str) -> Reply | None:
        reply = self.speaker.reply
        return reply if reply is not None and reply.id == reply_id else None

    def _on_reply_text(self, event: ev.ReplyText, now_ms: int) -> None:
        reply = self._live(event.reply)
        if reply is not None and event.text and not reply.text_done:
            self.speaker.add_text(event.text, now_ms, self._c.policy)

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
        for call in reply.tools:
            item = Item(f"t_{call.call_id}", "tool_call", tool=call)
            if self.history.find(item.id) is not None:
                continue
            self.history.add(item)
            self.pending_tools.add(call.call_id)
            self.emit(act.ReplyCalls(reply.id, item.id, call))
            self.emit(act.RunTool(reply.id, call))
        reply.tools.clear()

    def _on_reply_complete(self, event: ev.ReplyComplete, now_ms: int) -> None:
        reply = self._live(event.reply)
        if reply is None or reply.text_done:
            return
        self.speaker.end_text(now_ms, self._c.policy, event)
        if not reply.text.strip() and not reply.calls:
            self.fail_reply("reply_failed", "the language model returned nothing", now_ms)

    def _on_reply_failed(self, event: ev.ReplyFailed, now_ms: int) -> None:
        if self._live(event.reply) is not None:
            self.fail_reply("reply_failed", f"the language model failed: {event.reason}", now_ms)

    def _on_clause_failed(self, event: ev.ClauseFailed, now_ms: int) -> None:
        if self._live(event.reply) is not None:
            self.fail_reply("speech_failed", f"speech could not be made: {event.reason}", now_ms)

    def fail_reply(self, code: str, message: str, now_ms: int) -> None:
        reply = self.speaker.reply
        assert reply is not None
        if not reply.failed and reply.committed:
            self.emit(act.Fault(code, message))
        self.speaker.fail(message, now_ms)

    def _on_clause_audio(self, event: ev.ClauseAudio, now_ms: int) -> None:
        if self._live(event.reply) is not None:
            self.speaker.add_audio(event.clause, event.duration_ms, now_ms)

    def _on_clause_spoken(self, event: ev.ClauseSpoken, now_ms: int) -> None:
        if self._live(event.reply) is not None:
            self.speaker.end_clause(event.clause, now_ms, self._c.policy)

    def _on_audio_sent(self, event: ev.AudioSent, now_ms: int) -> None:
        reply = self._live(event.reply)
        if reply is None or self._c.floor is Floor.CONTESTED:
            return
        reply.ledger.sent(event.sent_ms, now_ms)
        if reply.record.first_sent_ms is None:
            reply.record.first_sent_ms = now_ms
        self.speaker.pump(now_ms, self._c.policy)

    def _on_played(self, event: ev.Played, now_ms: int) -> None:
        reply = self._live(event.reply)
        if reply is None:
            return
        if not reply.ledger.report(event.played_ms, now_ms):
            self.emit(act.Fault("played_invalid", "a `played` report went beyond what was sent"))
        if event.played_ms > 0 and reply.record.first_played_ms is None:
            reply.record.first_played_ms = now_ms - min(event.played_ms, reply.ledger.sent_ms)
        self.speaker.pump(now_ms, self._c.policy)

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

        `position_ms`: how much was heard, when the client knows better than the ledger.
        """
        reply = self.speaker.drop()
        if reply is None or not reply.committed:
            return
        if reply.audible and silence:
            self.emit(act.Silence(reply.id))
        if position_ms is None:
            position_ms = reply.ledger.position(now_ms)
        self._close_reply(reply, status, reason, position_ms, now_ms)

    def _close_reply(
        self, reply: Reply, status: str, reason: str, position_ms: int, now_ms: int
    ) -> None:
        record, whole = reply.record, status == "completed"
        if whole and not reply.failed:
            heard, unheard = reply.text.strip(), ""
        elif reply.speaks:
            heard, unheard = reply.ledger.heard(position_ms)
            unheard = " ".join([unheard, *reply.waiting]).strip()
        else:
            heard, unheard = reply.text.strip(), ""
        if self.history.find(reply.item) is None and (heard or reply.text):
            self.history.add(Item(reply.item, "assistant", heard, complete=whole and not unheard))
        self._keep_ledger(reply)
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
        self.emit(act.TurnRecorded(record))
        self._c.turns.answered = None

    def _keep_ledger(self, reply: Reply) -> None:
        self.ledgers[reply.item] = reply.ledger
        while len(self.ledgers) > _LEDGERS_KEPT:
            del self.ledgers[next(iter(self.ledgers))]

    def settle(self, now_ms: int) -> None:
        """What follows from the state of the live reply, whichever event brought it about."""
        reply = self.speaker.reply
        if reply is None or not reply.committed:
            return
        if not reply.audible and reply.ledger.total_ms > 0:
            reply.audible = True
            if self._c.floor is Floor.THINKING:
                self.go(Cause.AUDIBLE, now_ms)
            self.emit(act.Play(reply.id))
        if self._c.floor is not Floor.CONTESTED and reply.finished(now_ms):
            self.reply_over(reply, now_ms)

    def reply_over(self, reply: Reply, now_ms: int) -> None:
        """Everything that there is of the reply has been heard."""
        self.speaker.drop()
        status = (
            "failed" if reply.failed else "incomplete" if reply.finish == "length" else "completed"
        )
        self._close_reply(
            reply, status, reply.failed or reply.finish, reply.ledger.total_ms, now_ms
        )
        if self._c.floor is Floor.CLOSING:
            self._c.close(now_ms)
            return
        self.go(Cause.REPLY_OVER, now_ms)
        if reply.failed and reply.kind not in ("apology", "prompt") and self._c.policy.apology:
            self.say("apology", self._c.policy.apology, now_ms)
        elif self._follow_up and not self.pending_tools:
            self.follow_up(now_ms)
        elif (
            self._c.policy.auto_turns
            and self.listener.gate.in_speech
            and self.listener.turn is None
        ):
            # The caller spoke while the agent could not be interrupted: their turn begins now.
            self._c.turns.on_speech(now_ms)
            if self.listener.gate.paused:
                self._c.turns.on_pause(now_ms)

    def follow_up(self, now_ms: int) -> None:
        """Tools have returned: let the language model go on, as soon as the floor is free."""
        self._follow_up = self._c.floor is not Floor.OPEN
        if self._c.floor is Floor.OPEN:
            self.request_reply(ev.RequestReply(), now_ms, kind="answer")
