"""The rules that every call obeys whatever happens in it, checked step by step against the actions of a Conversation.

For tests and for traces of real calls:

    check_trace(path.read_text().splitlines())

The rules keep their own books, so that a mistake in the core's does not hide itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from antiphon.core import actions as act
from antiphon.core import events as ev
from antiphon.core.conversation import Conversation
from antiphon.core.floor import TRANSITIONS, Floor
from antiphon.observe import call_trace

_LISTENING = (Floor.CALLER, Floor.DECIDING, Floor.OVERLAP)
_SPEAKING = (Floor.THINKING, Floor.AGENT, Floor.OVERLAP, Floor.CLOSING)


def sounds(text: str) -> str:
    """A text without what cannot be heard: spaces and punctuation."""
    return re.sub(r"[\W_]+", "", text)


@dataclass(slots=True)
class _Reply:
    began: bool = False
    ended: bool = False
    abandoned: bool = False
    speaks: bool = True
    text: str = ""
    segments: list[str] = field(default_factory=list)
    audio_ms: list[int] = field(default_factory=list)
    spoken: int = 0
    """Clauses of which no more audio may come."""
    sent_ms: int = 0

    @property
    def live(self) -> bool:
        return self.began and not self.ended

    def sent_text(self) -> str:
        """Everything of which some sound has been sent."""
        text, start_ms = "", 0
        for segment, audio_ms in zip(self.segments, self.audio_ms, strict=True):
            if start_ms >= self.sent_ms:
                break
            text += segment
            start_ms += audio_ms
        return sounds(text)


class CallRules:
    """Feed every step of one call; a broken rule is an AssertionError with a sentence."""

    def __init__(self, conversation: Conversation) -> None:
        self._conversation, self._view = conversation, conversation.view
        self._segments: dict[int, tuple[str, int]] = {}
        """Job -> reply and segment."""
        self._replies: dict[str, _Reply] = {}
        self._floor = Floor.OPEN
        self._turns: dict[str, str] = {}
        """User item -> `open`, `taken`, `removed` from the history, or `over`."""
        self._items: set[str] = set()
        self._tools: set[str] = set()
        self._kept_from_ms = 0
        self._over = False

    def check(self, event: ev.Event | None, now_ms: int, out: list[act.Action]) -> None:
        """After `event` (None: a tick) was handled at `now_ms` and answered with `out`."""
        if event is not None:
            self._note(event)
        for action in out:
            assert not self._over, f"{action} after the end of the call"
            self._check(action)
        assert self._view.floor is self._floor, "a change of floor was not told"
        self._check_state()
        due_ms = self._conversation.deadline()
        if event is None:
            assert due_ms is None or due_ms > now_ms, f"due at {due_ms} after a tick at {now_ms}"
        needed_ms = self._view.needed_from_ms()
        assert needed_ms >= self._kept_from_ms, "audio is needed that was said to be done with"
        self._kept_from_ms = needed_ms

    def _reply(self, reply: str) -> _Reply:
        return self._replies.setdefault(reply, _Reply())

    def _note(self, event: ev.Event) -> None:
        match event:
            case ev.SegmentAudio(job, ms) if job in self._segments:
                reply, segment = self._segments[job]
                known = self._reply(reply)
                if segment == len(known.segments) - 1 and segment >= known.spoken:
                    known.audio_ms[segment] += max(ms, 0)
            case ev.SegmentComplete(job) if job in self._segments:
                reply, segment = self._segments[job]
                known = self._reply(reply)
                if segment == len(known.segments) - 1:
                    known.spoken = segment + 1
            case ev.AudioSent(reply, ms):
                self._reply(reply).sent_ms = max(self._reply(reply).sent_ms, ms)

    def _check(self, action: act.Action) -> None:
        match action:
            case act.FloorChanged(floor):
                assert floor in TRANSITIONS[self._floor].values(), f"{self._floor} to {floor}"
                self._floor = floor
            case act.Hangup():
                self._check_end()
                self._over = True
            case (
                act.Transcribe(start_ms=start_ms, end_ms=end_ms)
                | act.ScoreTurn(start_ms=start_ms, end_ms=end_ms)
            ):
                assert self._kept_from_ms <= start_ms <= end_ms, f"{action}: no such audio"
            case act.Generate(history=history):
                ids = [item.id for item in history]
                assert len(ids) == len(set(ids)), "an item stands twice in what is asked"
            case act.ItemAdded(item):
                assert item.id not in self._items, f"{item.id} added twice"
                self._items.add(item.id)
            case act.ItemRemoved(item_id):
                self._items.discard(item_id)
                if self._turns.get(item_id) == "taken":
                    self._turns[item_id] = "removed"
            case act.SpeechBegan(item_id):
                assert item_id not in self._turns, f"{item_id} began twice"
                self._turns[item_id] = "open"
            case act.SpeechEnded(item_id):
                # A removed one may have been reopened: the caller went on before the answer was audible.
                state = self._turns.get(item_id)
                assert state in ("open", "removed"), f"{item_id} ended, not open"
                self._turns[item_id] = "taken"
            case act.SpeechDropped(item_id) | act.TranscriptFailed(item_id):
                state = self._turns.get(item_id)
                assert state in ("open", "removed"), f"{item_id} dropped, not open"
                self._turns[item_id] = "over"
            case _:
                self._check_reply(action)

    def _check_reply(self, action: act.Action) -> None:
        match action:
            case act.ReplyBegan(reply_id, speaks=speaks):
                reply = self._reply(reply_id)
                assert not reply.began, f"{reply_id} began twice"
                assert not any(r.live for r in self._replies.values()), "two live replies"
                reply.began, reply.speaks = True, speaks
            case act.Synthesize(job, reply_id, segment, text):
                reply = self._reply(reply_id)
                self._segments[job] = reply_id, segment
                assert not reply.abandoned, f"{action} after it was abandoned"
                assert segment == len(reply.segments), "segments out of order"
                reply.segments.append(text)
                reply.audio_ms.append(0)
            case act.CancelReply(reply_id):
                self._reply(reply_id).abandoned = True
            case act.Play(reply_id) | act.Pause(reply_id) | act.ReplyGenerated(reply_id):
                self._check_live(reply_id, action)
                assert not self._reply(reply_id).abandoned, f"{action} after it was abandoned"
            case act.StopPlayout(reply_id):
                self._check_live(reply_id, action)
            case act.ReplyWords(reply_id, text=text):
                self._check_live(reply_id, action)
                self._reply(reply_id).text += text
            case act.ReplyCallWords(reply_id, _, call_id):
                self._check_live(reply_id, action)
                assert call_id not in self._tools, f"{action} after the whole call"
            case act.ReplyCalls(reply_id) | act.RunTool(reply_id):
                self._check_live(reply_id, action)
                if isinstance(action, act.RunTool):
                    assert action.call.call_id not in self._tools, f"{action} twice"
                    self._tools.add(action.call.call_id)
            case act.ReplyEnded(reply_id):
                self._check_live(reply_id, action)
                self._check_heard(self._reply(reply_id), action)
                self._reply(reply_id).ended = True

    def _check_live(self, reply_id: str, action: act.Action) -> None:
        assert self._reply(reply_id).live, f"{action}: this reply is not certain, or over"

    def _check_heard(self, reply: _Reply, ended: act.ReplyEnded) -> None:
        heard, text = sounds(ended.heard), sounds(reply.text)
        assert text.startswith(heard), f"heard {ended.heard!r} of {reply.text!r}"
        if reply.speaks and ended.status != "completed":
            assert reply.sent_text().startswith(heard), f"{ended.heard!r} was never sent"
        assert sounds(ended.heard + ended.unheard) == text, "words of the reply are missing"
        item = self._view.history.find(ended.item)
        assert item is None or item.text == ended.heard or item.text == "", "history differs"

    def _check_state(self) -> None:
        listening = self._view.turn_open
        assert listening == (self._floor in _LISTENING), f"a turn is open: {listening}"
        live = [r for r in self._replies.values() if r.live]
        assert len(live) == (self._floor in _SPEAKING), f"{len(live)} live replies, {self._floor}"

    def _check_end(self) -> None:
        left = [reply for reply, r in self._replies.items() if r.live]
        assert not left, f"replies without an end: {left}"
        open_turns = [item for item, state in self._turns.items() if state == "open"]
        assert not open_turns, f"turns without an end: {open_turns}"


def check_trace(lines: Iterable[str]) -> None:
    """Run a trace through the core under the rules. Raises AssertionError, or TraceError for what is no trace."""
    policy, steps = call_trace.read(lines)
    conversation = Conversation(policy)
    rules = CallRules(conversation)
    for step in steps:
        if step.event is None:
            out = conversation.tick(step.now_ms)
        else:
            out = conversation.handle(step.event, step.now_ms)
        rules.check(step.event, step.now_ms, out)
