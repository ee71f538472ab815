"""What the conversation decides about the caller: has the turn ended, is a guess worth it?

`listening.py` keeps the turn; this part moves the floor. `interruptions.py` decides about speech over the agent's.
Knows no model and no clock.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from antiphon.core import actions as act
from antiphon.core import events as ev
from antiphon.core.endpointing import silence_needed_ms
from antiphon.core.floor import Cause, Floor
from antiphon.core.history import Item
from antiphon.core.listening import Turn
from antiphon.core.vad import VadChange

if TYPE_CHECKING:
    from antiphon.core.conversation import Conversation


class Turns:
    """The caller's half of a Conversation."""

    def __init__(self, conversation: Conversation) -> None:
        self._c = conversation
        self.listener, self.speaker = conversation.listener, conversation.speaker
        self.history = conversation.history
        self.emit, self.go = conversation.emit, conversation.go
        self.answered: Turn | None = None
        """The turn that the live reply answers, for when the caller goes on before it is audible."""
        self.unanswered_prompts = 0
        """Idle prompts since the caller last said anything."""
        self._count = 0
        self.handlers: ev.Handlers = {
            ev.VadScored: self._on_vad,
            ev.Transcribed: self._on_transcribed,
            ev.TranscriptFailed: self._on_transcript_failed,
            ev.TurnScored: self._on_turn_scored,
            ev.TextEndScored: self._on_words_judged,
        }

    def _on_vad(self, event: ev.VadScored, now_ms: int) -> None:
        if not self._c.policy.auto_turns:
            self.listener.gate.heard_ms = event.end_ms
            return
        audible = self._c.floor in (Floor.AGENT, Floor.CLOSING)
        change = self.listener.score(
            self._c.policy, event.probability, event.end_ms, agent_audible=audible
        )
        if self.listener.turn is None:
            self._claim_speech(now_ms)
        elif change is VadChange.PAUSE:
            self.on_pause(now_ms)
        elif change is VadChange.RESUME:
            self._on_resume(now_ms)
        else:
            self._on_window(now_ms)

    def _claim_speech(self, now_ms: int) -> None:
        """Speech that belongs to no turn: it has just begun, or it came while the agent could not be interrupted."""
        gate = self.listener.gate
        beside = self._c.overhearing.listen(now_ms)
        if not beside and gate.in_speech and (not gate.paused or self._c.floor is Floor.OPEN):
            self.on_speech(now_ms)
            if gate.paused:
                self.on_pause(now_ms)

    def _on_window(self, now_ms: int) -> None:
        """Nothing changed: the caller still speaks, or is still silent."""
        turn, gate, policy = self.listener.turn, self.listener.gate, self._c.policy
        assert turn is not None
        too_long = gate.heard_ms - turn.start_ms >= policy.max_turn_ms
        if self._c.floor is Floor.CALLER:
            if too_long:
                turn.forced = True
                self.on_pause(now_ms)
                return
            if policy.transcribe_ahead:
                self.listener.ask_ahead(policy, now_ms)
            if policy.partial_every_ms > 0:
                self.listener.ask_partial(
                    policy.partial_every_ms, 2 * policy.keep_transcript_after_ms
                )
        elif self._c.floor is Floor.DECIDING:
            turn.forced = turn.forced or too_long
            if self.listener.score_due(policy):
                self.listener.ask_score(now_ms)
            self._decide_turn(now_ms)
        elif self._c.floor is Floor.OVERLAP and not gate.paused:
            self.listener.ask_partial(policy.barge_in_check_ms, policy.keep_transcript_after_ms)
            self._c.interruptions.decide(turn.partial or None, now_ms)

    def on_speech(self, now_ms: int) -> None:
        policy, floor = self._c.policy, self._c.floor
        if floor in (Floor.AGENT, Floor.CLOSING, Floor.THINKING) and not policy.interruptible:
            return  # heard when the agent has finished: see _claim_speech
        if floor is Floor.CLOSING and self._c.closing_for_good:
            return
        if floor is Floor.THINKING:
            self._on_speech_before_reply(now_ms)
        elif floor is Floor.AGENT and policy.barge_in != "immediate":
            turn = self._open_turn(now_ms, contested=True)
            reply = self.speaker.reply
            assert reply is not None
            reply.ledger.pause(now_ms, cleared=policy.client_can_clear)
            self.emit(act.Pause(reply.id))
            self.go(Cause.SPEECH, now_ms)
            turn.partial_from_ms = turn.onset_ms
        elif floor is Floor.AGENT:
            self.go(Cause.SPEECH, now_ms)
            self._open_turn(now_ms)
            self._c.interruptions.meant(now_ms)
        elif floor is Floor.CLOSING:
            self._c.replies.stop_reply("cancelled", "caller is back", now_ms)
            self.go(Cause.SPEECH, now_ms)
            self._open_turn(now_ms)
        elif floor is Floor.OPEN:
            self.go(Cause.SPEECH, now_ms)
            self._open_turn(now_ms)

    def _open_turn(self, now_ms: int, *, contested: bool = False) -> Turn:
        turn = self.listener.open_turn(self.new_item(), self._c.policy, now_ms, contested=contested)
        self.emit(act.SpeechBegan(turn.item, turn.start_ms))
        return turn

    def new_item(self) -> str:
        self._count += 1
        while self._c.is_taken(f"u{self._count}"):
            self._count += 1
        return f"u{self._count}"

    def _on_speech_before_reply(self, now_ms: int) -> None:
        """The caller goes on although the turn was taken for over: withdraw the reply and go on listening."""
        reopened, reply = self.may_reopen(), self.speaker.reply
        called = reply is not None and bool(reply.first_call_item)
        if reply is not None and reply.kind == "answer" and reopened is None and not called:
            # Should the speech turn out to be nothing, the answer is still owed. One that has called functions is
            # followed up when they return; a new one would only call them again.
            self._c.replies.owed = ("answer", ev.RequestReply(reply.options, reply.speaks))
        if reopened is None:  # its beginning is told first: clients stop their playback by it
            self._open_turn(now_ms)
        self._c.replies.stop_reply("cancelled", "turn_detected", now_ms, silence=False)
        self.go(Cause.SPEECH, now_ms)
        if reopened is None:
            return
        if self.history.find(reopened.item) is not None:
            self.history.remove(reopened.item)
            self.emit(act.ItemRemoved(reopened.item))
        self.listener.reopen(reopened, self._c.policy)

    def may_reopen(self) -> Turn | None:
        """The turn that goes on if the caller speaks now.

        Not one that was ended by force, and not once a function has run for its answer: that cannot be taken back.
        """
        reply, turn = self.speaker.reply, self.answered
        if self._c.floor is not Floor.THINKING or not self._c.policy.reopen_turns:
            return None
        if turn is None or turn.forced or reply is None or reply.first_call_item:
            return None
        return turn

    def on_pause(self, now_ms: int) -> None:
        turn = self.listener.turn
        if turn is None:
            return
        if self._c.floor is Floor.CALLER:
            self.go(Cause.PAUSE, now_ms)
            self.listener.ask(self._c.policy, now_ms)
            if turn.text is not None:
                self._use_transcript(turn, now_ms)
        elif self._c.floor is Floor.OVERLAP:
            self.listener.ask(self._c.policy, now_ms)

    def _on_resume(self, now_ms: int) -> None:
        turn = self.listener.turn
        if turn is None or turn.forced:
            return
        if self._c.floor is Floor.DECIDING:
            self.speaker.drop()
            self.listener.keep_beginning(self._c.policy)
            self.listener.continue_turn()
            self.go(Cause.RESUME, now_ms)
        elif self._c.floor is Floor.OVERLAP:
            self.listener.continue_turn()

    def _on_transcribed(self, event: ev.Transcribed, now_ms: int) -> None:
        if event.turn in self.listener.detached:
            if not event.partial:
                self._c.commands.take_detached(event.turn, event.text, now_ms)
            return
        turn = self.listener.turn
        if turn is None or event.turn != turn.number:
            return
        text = f"{turn.kept} {event.text}".strip()
        if event.partial:
            turn.partial_busy = False
            if event.attempt == turn.attempt:
                self._on_partial(turn, text, now_ms)
            return
        if event.attempt != turn.attempt:
            return
        turn.text = text
        turn.record.transcribe_ms = turn.marks.get(event.attempt)
        turn.record.transcript_ms = now_ms
        turn.marks.clear()
        if self._c.floor is Floor.OVERLAP:
            self._c.interruptions.decide(text, now_ms)
        elif self._c.floor is Floor.DECIDING:
            self._use_transcript(turn, now_ms)
        elif self._c.floor is Floor.CALLER:  # made ahead: its pause is not certain yet
            self._show_partial(turn, text)

    def _use_transcript(self, turn: Turn, now_ms: int) -> None:
        """The caller is silent and what they said is known: prepare the reply, and see whether the turn is over."""
        if (
            turn.text
            and self.reply_wanted(turn)
            and self._c.policy.preemptive_generation_after_ms > 0
        ):
            self.speculate(turn, now_ms)
        self._decide_turn(now_ms)

    def _on_partial(self, turn: Turn, text: str, now_ms: int) -> None:
        if self._c.floor is Floor.OVERLAP:
            turn.partial = text
            if not self.listener.gate.paused:
                self._c.interruptions.decide(text, now_ms)
        elif self._c.floor is Floor.CALLER and self._show_partial(turn, text):
            # The last word is still growing: what is read into the cache must not have to be taken back.
            stable = text.rpartition(" ")[0].rstrip(" .,;:!?")
            if stable and self._c.policy.warm_prompt and self.reply_wanted(turn):
                self.emit(act.WarmPrompt(self.history.snapshot(), stable))

    def _show_partial(self, turn: Turn, text: str) -> bool:
        """-> False when there is nothing new to show."""
        text = turn.agreement.feed(text)
        changed, turn.partial = text != turn.partial, text
        if text and changed:
            self.emit(act.Transcript(turn.item, text, final=False))
        return bool(text) and changed

    def _on_transcript_failed(self, event: ev.TranscriptFailed, now_ms: int) -> None:
        if event.turn in self.listener.detached:
            if not event.partial:
                self._c.commands.give_up_detached(event.turn, event.reason)
            return
        turn = self.listener.turn
        if turn is None or event.turn != turn.number:
            return
        if event.partial:
            turn.partial_busy = False
        elif event.attempt == turn.attempt:
            if self._c.floor is Floor.CALLER:
                turn.ahead_ms = 0  # it is asked again when the pause is certain
                return
            self.give_up_turn(event.reason, now_ms)

    def give_up_turn(self, reason: str, now_ms: int) -> None:
        """No transcript: say so, keep the call."""
        turn = self.listener.turn
        assert turn is not None
        if self._c.floor is Floor.OVERLAP:
            self._c.interruptions.decide_overdue(now_ms)
            if self.listener.turn is turn:  # it was meant: its words are needed after all
                self.listener.ask(self._c.policy, now_ms)
            return
        self.say_untranscribed(turn, reason)
        self.speaker.drop()
        wanted = self.reply_wanted(turn)
        self.listener.close_turn()
        if wanted and self._c.policy.apology:
            self._c.replies.say("apology", self._c.policy.apology, now_ms)
        else:
            self.go(Cause.TURN_EMPTY, now_ms)

    def say_untranscribed(self, turn: Turn, reason: str) -> None:
        self.emit(act.TranscriptFailed(turn.item, reason))
        self.emit(act.Fault("transcription_failed", f"speech could not be transcribed: {reason}"))

    def _on_turn_scored(self, event: ev.TurnScored, now_ms: int) -> None:
        turn = self.listener.turn
        if turn is None or event.turn != turn.number or event.attempt != turn.attempt:
            return
        turn.probability = event.probability
        turn.record.turn_probability = event.probability
        turn.record.score_asked_ms, turn.record.turn_scored_ms = turn.score_asked_ms, now_ms
        if self._c.floor is Floor.DECIDING:
            self._decide_turn(now_ms)

    def _on_words_judged(self, event: ev.TextEndScored, now_ms: int) -> None:
        reply = self.speaker.reply
        if reply is None or reply.id != event.reply:
            return
        reply.text_end_probability = reply.record.text_end_probability = event.probability
        if self._c.floor is Floor.DECIDING:
            self._decide_turn(now_ms)

    def reply_wanted(self, turn: Turn) -> bool:
        return self._c.policy.auto_reply if turn.reply_wanted is None else turn.reply_wanted

    def speculate(self, turn: Turn, now_ms: int) -> None:
        """Prepare the reply to what was said so far, unless that is already under way."""
        assert turn.text is not None
        reply = self.speaker.reply
        if reply is not None:
            if reply.prompt == turn.text and not reply.failed:
                return
            self.speaker.drop()
        turn.record.preemptive_generations += 1
        self._begin_answer(turn)
        item = Item(turn.item, "user", turn.text)
        policy = self._c.policy
        judge = policy.auto_turns and policy.use_turn_detector and policy.text_end_threshold > 0
        self.speaker.generate((*self.history.snapshot(), item), now_ms, score_text_end=judge)

    def _begin_answer(self, turn: Turn) -> None:
        _, request = self._c.replies.owed or ("", ev.RequestReply())
        self.speaker.begin(
            "answer",
            self._c.policy,
            turn.record,
            prompt=turn.text or "",
            options=request.options,
            speaks=request.speak,
        )

    def _decide_turn(self, now_ms: int) -> None:
        turn, gate, policy = self.listener.turn, self.listener.gate, self._c.policy
        if turn is None or turn.text is None or self._c.floor is not Floor.DECIDING:
            return
        if not turn.text:
            if turn.forced or gate.silence_ms >= policy.plain_silence_ms:
                self.drop_turn(Cause.TURN_EMPTY, now_ms)
            return
        last, reply = self.history.last("assistant"), self.speaker.reply
        needed_ms = silence_needed_ms(
            policy,
            turn.text,
            turn.probability,
            text_end_probability=reply.text_end_probability
            if reply and reply.prompt == turn.text
            else None,
            question=last.text if last else "",
            interrupting=turn.interrupts,
        )
        if turn.forced or gate.silence_ms >= needed_ms:
            self._take_turn(turn, now_ms)

    def _take_turn(self, turn: Turn, now_ms: int) -> None:
        """The turn is over: it enters the history, and its reply, if one is wanted, may be heard."""
        assert turn.text is not None
        gate = self.listener.gate
        turn.record.user_text = turn.text
        turn.record.speech_end_ms = now_ms - gate.silence_ms if self._c.policy.auto_turns else None
        wanted = self.reply_wanted(turn)
        self.listener.close_turn()
        self.enter_user_turn(turn)
        if not wanted:
            self.speaker.drop()
            turn.record.status, turn.record.committed_ms = "none", now_ms
            self.emit(act.TurnRecorded(replace(turn.record)))
            self.go(Cause.TURN_KEPT, now_ms)
            return
        self.go(Cause.TURN_TAKEN, now_ms)
        self.answered = turn
        reply = self.speaker.reply
        if reply is not None and (reply.failed or reply.prompt != turn.text):
            self.speaker.drop()
            reply = None
        guessed = reply is not None
        if not guessed:
            self._begin_answer(turn)
        turn.record.preemptive_used = guessed
        self._c.replies.owed = None
        self.speaker.commit(now_ms, self._c.policy)
        if not guessed:
            self.speaker.generate(self.history.snapshot(), now_ms)
        self._c.replies.release_tools()

    def enter_user_turn(self, turn: Turn) -> None:
        self.unanswered_prompts = 0
        item = Item(turn.item, "user", turn.text or "")
        at_ms = turn.end_ms if turn.forced else self.listener.gate.heard_ms
        self.emit(act.SpeechEnded(turn.item, at_ms))
        before = self.history.add(item)
        self.emit(act.ItemAdded(item, before))
        self.emit(act.Transcript(turn.item, item.text, final=True))

    def drop_turn(self, cause: Cause, now_ms: int) -> None:
        """The turn was nothing."""
        turn = self.listener.turn
        assert turn is not None
        self.listener.close_turn()
        self.emit(act.SpeechDropped(turn.item))
        self.go(cause, now_ms)

    def abandon_turns(self) -> None:
        """The call is over, or our last word is being said: nothing more is made of what was being heard."""
        self._c.overhearing.drop()
        turn = self.listener.turn
        pending = [*self.listener.detached.values(), *([turn] if turn else [])]
        self.listener.detached.clear()
        self.listener.close_turn()
        for turn in pending:
            self.emit(act.SpeechDropped(turn.item))

    def decide_overdue_turn(self, now_ms: int) -> None:
        """Nothing has come for long: neither a transcript, nor the audio that a decision waits for."""
        turn = self.listener.turn
        assert turn is not None
        if turn.text:
            self._take_turn(turn, now_ms)
        else:
            self.give_up_turn("no transcript in time", now_ms)

    def request_at_turn_end(self, request: ev.RequestReply) -> None:
        """The turn that is being heard or transcribed is to be answered, whatever the policy says."""
        assert self.listener.turn is not None
        self.listener.turn.reply_wanted = True
        self._c.replies.drop_guess()  # it was made without these options
        self._c.replies.owed = ("requested", request)
