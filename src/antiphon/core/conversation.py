"""The Conversation: holds the floor and decides. Events in, actions out; time is an argument.

    actions = conversation.handle(event, now_ms)      something happened
    due_ms = conversation.deadline()                  when to call tick, None: no need
    actions = conversation.tick(now_ms)               time has passed

It decides when the caller's turn has ended, when to speculate, commit or throw away a reply, what an interruption is,
and what the caller has heard. It knows no model, no protocol, no sample of audio and no clock. All transitions go
through the table in `floor.py`. `turns.py` is its half that listens to the caller, `replies.py` the half that speaks,
`interruptions.py` what lies between the two, `commands.py` what a client may ask for by hand.
"""

from __future__ import annotations

from antiphon.core import actions as act
from antiphon.core import events as ev
from antiphon.core.commands import Commands
from antiphon.core.floor import TRANSITIONS, Cause, Floor
from antiphon.core.history import History
from antiphon.core.interruptions import Interruptions
from antiphon.core.listening import Listener
from antiphon.core.overhearing import Overhearing
from antiphon.core.policy import Policy
from antiphon.core.replies import Replies
from antiphon.core.speaking import Reply, Speaker
from antiphon.core.turns import Turns

_CONTESTED_LIMIT_MS = 6_000
"""An interruption that is still undecided after this is meant."""
_CLOSING_LIMIT_MS = 15_000
"""A goodbye that has not been played out after this is cut."""


class Conversation:
    def __init__(self, policy: Policy | None = None) -> None:
        self.policy = policy or Policy()
        self.floor = Floor.OPEN
        self.history = History()
        self.listener = Listener(self.emit)
        self.speaker = Speaker(self.emit, self.is_taken)
        self.turns = Turns(self)
        self.interruptions = Interruptions(self)
        self.replies = Replies(self)
        self.commands = Commands(self)
        self.overhearing = Overhearing(self)
        self._out: list[act.Action] = []
        self._since_ms = 0
        """When the floor changed last."""
        self._idle_since_ms = 0
        self.closing_for_good = False
        """The goodbye was ordered: a caller who speaks during it does not get the floor back."""
        self._closing_reason = ""
        self._handlers: ev.Handlers = {
            ev.Started: self._on_started,
            ev.HungUp: self._on_hung_up,
            ev.Finish: self._on_finish,
            ev.Configure: self._on_configure,
            **self.turns.handlers,
            **self.replies.handlers,
            **self.commands.handlers,
        }

    def handle(self, event: ev.Event, now_ms: int) -> list[act.Action]:
        if self.floor is not Floor.ENDED:
            self._handlers[type(event)](event, now_ms)
            self.replies.settle(now_ms)
        return self._take()

    def tick(self, now_ms: int) -> list[act.Action]:
        due_ms = self.deadline()
        if due_ms is not None and now_ms >= due_ms:
            self._on_deadline(now_ms)
            self.replies.settle(now_ms)
        return self._take()

    def deadline(self) -> int | None:
        """When `tick` has something to do, if nothing happens before."""
        due_ms = self._floor_deadline()
        for turn in self.listener.detached.values():
            overdue_ms = turn.asked_ms + self.policy.transcript_timeout_ms
            due_ms = overdue_ms if due_ms is None else min(due_ms, overdue_ms)
        return due_ms

    def _floor_deadline(self) -> int | None:
        policy, turn, reply = self.policy, self.listener.turn, self.speaker.reply
        match self.floor:
            case Floor.OPEN:
                if self.replies.pending_tools:
                    return self.replies.bridge_due_ms(self._since_ms)
                if policy.idle_prompt_after_ms <= 0:
                    return None
                if policy.idle_answer and not self._awaits_words():
                    return None
                return self._idle_since_ms + policy.idle_prompt_after_ms
            case Floor.DECIDING:
                return turn.asked_ms + policy.transcript_timeout_ms if turn else None
            case Floor.THINKING:
                began_ms = self._since_ms
                if reply is not None and not reply.speaks:  # it is being written out
                    began_ms = max(began_ms, reply.progress_ms)
                return began_ms + policy.reply_timeout_ms
            case Floor.AGENT:
                assert reply is not None
                times = (self._played_ms(reply), self._wanted_ms(reply), self._stalled_ms(reply))
                return min(time_ms for time_ms in times if time_ms is not None)
            case Floor.OVERLAP:
                limit_ms = self._since_ms + _CONTESTED_LIMIT_MS
                if turn and self.listener.gate.paused:
                    return min(limit_ms, turn.asked_ms + policy.barge_in_timeout_ms)
                return limit_ms
            case Floor.CLOSING:
                if reply is None:
                    return self._since_ms
                times = (self._played_ms(reply), self._wanted_ms(reply), self._cut_ms(reply))
                return min(time_ms for time_ms in times if time_ms is not None)
        return None

    def _played_ms(self, reply: Reply) -> int | None:
        """When all of the reply will have been played, or the client's word on that is overdue."""
        ends_at_ms = reply.ledger.ends_at()
        if ends_at_ms is None or not reply.generated:
            return None
        if reply.ledger.sent_ms < reply.ledger.total_ms:
            return None
        grace_ms = self.policy.playout_grace_ms if self.policy.client_reports_played else 0
        return ends_at_ms + grace_ms

    def _wanted_ms(self, reply: Reply) -> int | None:
        """When the next clause is to be given to text to speech."""
        if not reply.waiting or reply.synthesising is not None or reply.failed:
            return None
        return reply.ledger.reaches_at(reply.ledger.total_ms - self.policy.speak_ahead_ms)

    def _stalled_ms(self, reply: Reply) -> int:
        """When a reply that makes no progress, neither in the making nor on the line, is given up."""
        return self._quiet_since_ms(reply) + self.policy.reply_timeout_ms

    def _cut_ms(self, reply: Reply) -> int:
        """When a goodbye that makes no progress is cut short."""
        return self._quiet_since_ms(reply) + _CLOSING_LIMIT_MS

    def _quiet_since_ms(self, reply: Reply) -> int:
        return max(self._since_ms, reply.progress_ms, reply.ledger.ends_at() or 0)

    def needed_from_ms(self) -> int:
        """Caller audio before this will never be asked for."""
        needed_ms = self.listener.needed_from_ms(self.policy, self.turns.may_reopen())
        beside = self.overhearing.turn
        return needed_ms if beside is None else min(needed_ms, beside.start_ms)

    def is_taken(self, item_id: str) -> bool:
        """An item of this id exists, or is announced."""
        turns = (self.listener.turn, self.overhearing.turn, *self.listener.detached.values())
        reply = self.speaker.reply
        return (
            self.history.find(item_id) is not None
            or any(turn is not None and turn.item == item_id for turn in turns)
            or (reply is not None and item_id in (reply.item, *reply.call_items.values()))
        )

    def free_id(self, wanted: str) -> str:
        """`wanted`, or something like it when a client has used that up."""
        number, free = 1, wanted
        while self.is_taken(free):
            number += 1
            free = f"{wanted}_{number}"
        return free

    def emit(self, action: act.Action) -> None:
        self._out.append(action)

    def go(self, cause: Cause, now_ms: int) -> None:
        """Change the floor by the table. An impossible change is a bug, not a condition."""
        target = TRANSITIONS[self.floor].get(cause)
        if target is None:
            raise AssertionError(f"no transition from {self.floor} by {cause.name}")
        if target is not self.floor:
            self.floor = target
            self.emit(act.FloorChanged(target))
        self._since_ms = now_ms
        if target is Floor.OPEN:
            self._idle_since_ms = now_ms

    def _take(self) -> list[act.Action]:
        out, self._out = self._out, []
        return out

    def _on_started(self, event: ev.Started, now_ms: int) -> None:
        self._idle_since_ms = now_ms
        self.replies.warm_head()
        if event.greet and self.policy.greeting and self.floor is Floor.OPEN:
            self.replies.say("greeting", self.policy.greeting, now_ms)

    def stay_awake(self, now_ms: int) -> None:
        """The other side is there: silence is counted anew."""
        self._idle_since_ms = now_ms

    def _on_configure(self, event: ev.Configure, now_ms: int) -> None:
        if self.listener.turn is None and self.turns.may_reopen() is None:
            self.listener.taken_ms = self.needed_from_ms()  # audio before it is gone
        self.policy = event.policy
        self.stay_awake(now_ms)

    def _on_hung_up(self, event: ev.HungUp, now_ms: int) -> None:
        self.hang_up(event.reason, now_ms)

    def _on_finish(self, event: ev.Finish, now_ms: int) -> None:
        text = event.text or self.policy.goodbye
        if event.unless_caller_speaks and self.listener.turn is not None:
            return
        if not event.say_goodbye or not text:
            self.hang_up(event.reason, now_ms)
        elif self.floor is not Floor.CLOSING:
            self._say_goodbye(text, event.reason, now_ms)
            self.closing_for_good = not event.unless_caller_speaks
        elif not event.unless_caller_speaks:
            self._closing_reason, self.closing_for_good = event.reason, True

    def hang_up(self, reason: str, now_ms: int) -> None:
        if self.speaker.reply is not None:
            self.replies.stop_reply("cancelled", reason, now_ms, silence=False)
        self.turns.abandon_turns()
        self.go(Cause.HANG_UP, now_ms)
        self.emit(act.Hangup(reason))

    def close(self, now_ms: int) -> None:
        """The goodbye is over."""
        self.hang_up(self._closing_reason, now_ms)

    def _say_goodbye(self, text: str, reason: str, now_ms: int) -> None:
        if self.speaker.reply is not None:
            self.replies.stop_reply("cancelled", reason, now_ms)
        self.turns.abandon_turns()
        self.replies.owed = None
        self._closing_reason, self.closing_for_good = reason, False
        self.go(Cause.GOODBYE, now_ms)
        self.replies.speak_text("goodbye", text, now_ms)

    def _on_deadline(self, now_ms: int) -> None:
        for number, turn in tuple(self.listener.detached.items()):
            if now_ms >= turn.asked_ms + self.policy.transcript_timeout_ms:
                self.commands.give_up_detached(number, "no transcript in time")
        due_ms, reply = self._floor_deadline(), self.speaker.reply
        if due_ms is None or now_ms < due_ms:
            return
        match self.floor:
            case Floor.OPEN if self.replies.pending_tools:
                self.replies.say_bridge(now_ms)
            case Floor.OPEN:
                self._on_idle(now_ms)
            case Floor.DECIDING:
                self.turns.decide_overdue_turn(now_ms)
            case Floor.THINKING:
                self.replies.fail_reply("reply_timeout", "no reply in time", now_ms)
            case Floor.AGENT:
                assert reply is not None
                played_ms = self._played_ms(reply)
                if played_ms is not None and now_ms >= played_ms:
                    self.replies.reply_over(reply, now_ms)
                elif now_ms >= self._stalled_ms(reply):
                    self.replies.give_up_reply(now_ms)
            case Floor.OVERLAP:
                self.interruptions.decide_overdue(now_ms)
            case Floor.CLOSING:
                played_ms = self._played_ms(reply) if reply else now_ms
                if reply and played_ms is not None and now_ms >= played_ms:
                    self.replies.reply_over(reply, now_ms)
                elif reply is None or now_ms >= self._cut_ms(reply):
                    self.close(now_ms)

    def _awaits_words(self) -> bool:
        """The agent spoke last, and has not asked in vain too often."""
        last = next(reversed(tuple(self.history)), None)
        asked = self.turns.unanswered_prompts >= self.policy.max_idle_prompts
        return last is not None and last.role == "assistant" and not asked

    def _on_idle(self, now_ms: int) -> None:
        policy = self.policy
        if policy.idle_answer:
            self.turns.unanswered_prompts += 1
            self.commands.answer_silence(now_ms - self._idle_since_ms)
        elif self.turns.unanswered_prompts < policy.max_idle_prompts and policy.idle_prompt:
            self.turns.unanswered_prompts += 1
            self.replies.say("prompt", policy.idle_prompt, now_ms)
        elif policy.goodbye:
            self._say_goodbye(policy.goodbye, "nobody answered", now_ms)
        else:
            self.hang_up("nobody answered", now_ms)
