"""What the conversation does when the caller speaks over the agent: pause, find out, then stop or go on.

`barge_in.py` judges words; this part moves the floor. Knows no model and no clock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from antiphon.core import actions as act
from antiphon.core.floor import Cause, Floor
from antiphon.core.interruption import Verdict, judge

if TYPE_CHECKING:
    from antiphon.core.conversation import Conversation


class Interruptions:
    """Works on the Conversation it is given."""

    def __init__(self, conversation: Conversation) -> None:
        self._c = conversation
        self.listener, self.speaker = conversation.listener, conversation.speaker
        self.emit, self.go = conversation.emit, conversation.go

    def decide(self, text: str | None, now_ms: int) -> None:
        turn, reply, gate = self.listener.turn, self.speaker.reply, self.listener.gate
        assert turn is not None
        assert reply is not None
        heard, unheard = reply.ledger.heard(reply.ledger.position(now_ms))
        # Only what sounded around now can come back as an echo; earlier words the caller may well repeat in answer.
        around = " ".join([*heard.split()[-6:], *unheard.split()[:6]])
        verdict = judge(
            self._c.policy,
            text=text,
            speech_ms=self.listener.speech_ms,
            silent=gate.paused and turn.text is not None,
            spoken=around,
        )
        if verdict is Verdict.MEANT:
            self.meant(now_ms)
        elif verdict is Verdict.NOTHING:
            self.false_interruption(now_ms)

    def meant(self, now_ms: int) -> None:
        turn = self.listener.turn
        assert turn is not None
        turn.contested, turn.interrupts = False, True
        self._c.replies.stop_reply("cancelled", "turn_detected", now_ms)
        if self._c.floor is not Floor.OVERLAP:
            return
        if not self.listener.gate.paused:
            self.go(Cause.INTERRUPTED, now_ms)
            return
        self.go(Cause.INTERRUPTED_BRIEFLY, now_ms)
        if self._c.policy.use_turn_detector:
            self.listener.ask_score(now_ms)
        if not turn.text:
            return  # its transcript is on the way
        if self._c.turns.reply_wanted(turn) and self._c.policy.preemptive_generation_after_ms > 0:
            self._c.turns.speculate(turn, now_ms)

    def false_interruption(self, now_ms: int) -> None:
        """Nothing was meant: go on speaking with the word that was cut off."""
        reply = self.speaker.reply
        assert reply is not None
        reply.record.false_interruptions += 1
        self._c.turns.drop_turn(Cause.FALSE_INTERRUPTION, now_ms)
        position_ms = reply.ledger.position(now_ms)
        if self._c.policy.client_can_clear:
            position_ms = reply.ledger.word_start(position_ms)
        reply.ledger.rewind(position_ms)
        self.emit(act.Play(reply.id, position_ms))

    def decide_overdue(self, now_ms: int) -> None:
        """No word of what was said came back in time: go by its length."""
        brief = self.listener.speech_ms < self._c.policy.barge_in_sure_ms // 2
        if brief and self.listener.gate.paused:
            self.false_interruption(now_ms)
        else:
            self.meant(now_ms)
