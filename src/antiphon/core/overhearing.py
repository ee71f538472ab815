"""Speech beside a reply that it must not interrupt: a turn of its own, heard and kept, not answered by itself.

Only for policies that ask for it (`overhear`); others hear such speech when the reply is over. Knows no model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from antiphon.core import actions as act
from antiphon.core.floor import Cause, Floor
from antiphon.core.listening import Turn

if TYPE_CHECKING:
    from antiphon.core.conversation import Conversation

_BUSY = (Floor.THINKING, Floor.AGENT)


class Overhearing:
    """Works on the Conversation it is given."""

    def __init__(self, conversation: Conversation) -> None:
        self._c = conversation
        self.turn: Turn | None = None

    def listen(self, now_ms: int) -> bool:
        """A window of audio that belongs to no turn -> whether this part took care of it."""
        policy, floor = self._c.policy, self._c.floor
        if self.turn is not None and floor is Floor.OPEN:
            self._go_on(now_ms)
            return True
        if policy.interruptible or not policy.overhear or floor not in _BUSY:
            return False
        gate = self._c.listener.gate
        if self.turn is None:
            if gate.in_speech and not gate.paused:
                self._open(now_ms)
            return True
        over = gate.paused and gate.silence_ms >= policy.plain_silence_ms
        if over or gate.heard_ms - self.turn.start_ms >= policy.max_turn_ms:
            self.commit(gate.heard_ms, now_ms)
        return True

    def _open(self, now_ms: int) -> None:
        c = self._c
        self.turn = c.listener.open_turn(c.turns.new_item(), c.policy, now_ms)
        c.listener.turn = None  # nobody's floor changes by it
        c.emit(act.SpeechBegan(self.turn.item, self.turn.start_ms))

    def _go_on(self, now_ms: int) -> None:
        """The reply is over and the caller still speaks: from here on it is a turn like any other."""
        c = self._c
        c.listener.turn, self.turn = self.turn, None
        c.go(Cause.SPEECH, now_ms)
        if c.listener.gate.paused:
            c.turns.on_pause(now_ms)

    def commit(self, end_ms: int, now_ms: int) -> None:
        """The turn is over; its words join the history once they are known."""
        listener, turn = self._c.listener, self.turn
        assert turn is not None
        self.turn = None
        turn.forced, turn.reply_wanted = True, False
        listener.detached[turn.number] = turn
        listener.ask(self._c.policy, now_ms, end_ms, turn)
        listener.taken_ms = max(listener.taken_ms, turn.end_ms)
        listener.gate.split(turn.end_ms)

    def drop(self) -> None:
        """Forget it."""
        turn, self.turn = self.turn, None
        if turn is not None:
            self._c.emit(act.SpeechDropped(turn.item))
            self._c.listener.gate.reset()
