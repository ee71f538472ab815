"""The Conversation: events in, actions out; time is an argument.

    actions = conversation.handle(event, now_ms)      something happened
    due_ms = conversation.deadline()                  when to call tick, None: no need
    actions = conversation.tick(now_ms)               time has passed

It decides when the user's turn has ended, when to generate preemptively, what of that is committed or thrown away, what
an interruption is, and what the user has heard. The handlers in `user`, `agent` and `client_control` record on the
`State` what an event says; `decide` applies its table to that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, get_args

from antiphon.core import actions as act
from antiphon.core import agent, client_control, decide, user
from antiphon.core import events as ev
from antiphon.core.agent_reply import ReplyView
from antiphon.core.floor import Floor
from antiphon.core.history import HistoryView
from antiphon.core.policy import Policy
from antiphon.core.state import State

_RESULTS = get_args(ev.Result)
_LAST_RESULTS = (
    ev.Transcribed,
    ev.TurnScored,
    ev.ReplyComplete,
    ev.SegmentComplete,
    ev.JobFailed,
)
"""After one of these a job is done."""
_HANDLERS: dict[type, Callable[[State, Any, int], None]] = {
    **user.HANDLERS,
    **agent.HANDLERS,
    **client_control.HANDLERS,
}
_RESULT_HANDLERS = user.RESULTS | agent.RESULTS


class ConversationView(Protocol):
    """What others may read of a conversation. Nothing in it is theirs to change."""

    @property
    def floor(self) -> Floor: ...
    @property
    def policy(self) -> Policy: ...
    @property
    def history(self) -> HistoryView: ...
    @property
    def turn_open(self) -> bool:
        """The user is in the middle of a turn, or its end is being decided."""
        ...

    @property
    def reply(self) -> ReplyView | None:
        """The live reply, or one that is prepared preemptively."""
        ...

    @property
    def reply_pending(self) -> bool:
        """A reply will be given as soon as the floor is open."""
        ...

    def is_taken(self, item_id: str) -> bool:
        """An item of this id exists, or is announced."""
        ...

    def needed_from_ms(self) -> int:
        """The user's audio before this will never be asked for."""
        ...


class Conversation:
    def __init__(self, policy: Policy | None = None) -> None:
        self._state = State(policy or Policy())

    @property
    def view(self) -> ConversationView:
        return self._state

    def handle(self, event: ev.Event, now_ms: int) -> list[act.Action]:
        state = self._state
        if state.floor is not Floor.ENDED:
            self._record(event, now_ms)
            decide.settle(state, now_ms)
        return state.take_actions()

    def tick(self, now_ms: int) -> list[act.Action]:
        state, due_ms = self._state, self.deadline()
        if due_ms is not None and now_ms >= due_ms:
            decide.note_deadlines(state, now_ms)
            decide.settle(state, now_ms)
        return state.take_actions()

    def deadline(self) -> int | None:
        """When `tick` has something to do, if nothing happens before."""
        return decide.deadline(self._state)

    def _record(self, event: ev.Event, now_ms: int) -> None:
        """Have the event's handler record it. A result whose job is not wanted any more is dropped, here alone."""
        state = self._state
        if not isinstance(event, _RESULTS):
            _HANDLERS[type(event)](state, event, now_ms)
            return
        job = state.jobs.get(event.job)
        handler = _RESULT_HANDLERS.get((type(event), job.purpose)) if job else None
        if isinstance(event, _LAST_RESULTS) and (handler is not None or job is None):
            state.jobs.pop(event.job)
        if job is not None and handler is not None:
            handler(state, event, job.owner, now_ms)
