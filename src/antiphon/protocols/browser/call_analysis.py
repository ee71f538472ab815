"""`end_conversation`: the agent falls silent, the learner's part is analysed, the result is sent, the call ends.

Knows the talk protocol's last message and no websocket.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from antiphon.call.call import Call
from antiphon.call.learner_analysis import LearnerAnalysis, analyse
from antiphon.core import events as ev
from antiphon.core.floor import Floor
from antiphon.models.model_set import ModelSet

_LAST_TURN_S = 2.0
"""For the transcript of what the caller was still saying."""
_POLL_S = 0.02
_REASON = "the conversation has ended"


class CallAnalysis:
    """Of one call. `begin` once asked for; `close` when the call is over however it ended."""

    def __init__(
        self, models: ModelSet, limit_s: float, done: Callable[[LearnerAnalysis], None]
    ) -> None:
        """`done`: told on the event loop, before the call is ended."""
        self._models = models
        self._limit_s = limit_s
        self._done = done
        self._task: asyncio.Task[None] | None = None

    @property
    def begun(self) -> bool:
        """Nothing that the client says counts any more."""
        return self._task is not None

    def begin(self, call: Call) -> None:
        """A second time changes nothing."""
        if self._task is None and not call.ended:
            self._silence(call)
            self._task = asyncio.create_task(self._run(call), name=f"analyse {call.call_id}")

    def _silence(self, call: Call) -> None:
        """What is being said ends now, and nothing new begins: neither an answer nor a question after a silence."""
        conversation = call.view
        policy = replace(conversation.policy, auto_reply=False, idle_prompt_after_ms=0)
        call.post(ev.Configure(policy))
        reply = conversation.reply
        if (reply is not None and reply.committed) or conversation.reply_pending:
            call.post(ev.RequestCancel())
        if conversation.floor in (Floor.CALLER, Floor.DECIDING):
            call.flush_audio()
            call.post(ev.CommitInput(call.heard_ms, reply=False))

    async def _run(self, call: Call) -> None:
        await self._hear_out(call)
        history = call.view.history.snapshot()
        found = await analyse(self._models, history, call_id=call.call_id, limit_s=self._limit_s)
        if not call.ended:
            self._done(found)
            call.post(ev.HungUp(_REASON))

    async def _hear_out(self, call: Call) -> None:
        """Until the last turn is in the history, or has been waited for long enough."""
        loop = asyncio.get_running_loop()
        end_s = loop.time() + _LAST_TURN_S
        while call.view.floor is not Floor.OPEN and not call.ended:
            if loop.time() >= end_s:
                return
            await asyncio.sleep(_POLL_S)

    async def close(self) -> None:
        """Give it up, if it is not done."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
