"""Model work of one call: an action in, a task that posts events as results come.

Every task belongs to a turn or a reply and is cancelled with it. Errors of models become events; nothing is raised into
the session. Knows no floor and no protocol.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from antiphon.core import actions as act
from antiphon.core import events as ev
from antiphon.core.history import Item, ToolRequest
from antiphon.errors import AntiphonError
from antiphon.models.pool import ModelSet, Work
from antiphon.models.ports import LlmRequest, Message, SpeechRequest, Usage
from antiphon.session.outlet import Outlet
from antiphon.session.prompting import messages
from antiphon.session.utterance import UtteranceBuffer

log = logging.getLogger(__name__)

_PARTIAL_SLACK_MS = 400
"""A partial transcript may wait this much longer than a final one."""
_AHEAD_SLACK_MS = 1_000
"""Speech that will be heard later may wait for another call's first clause."""


@dataclass(frozen=True, slots=True)
class Agent:
    """Who answers: what the models are told in every request of this call."""

    prompt: str = ""
    voice: str = ""
    language: str = ""
    temperature: float = 0.6
    max_tokens: int = 200
    speed: float = 1.0
    tools: tuple[dict[str, Any], ...] = field(default=())


Post = Callable[[ev.Event], None]


class Runners:
    """Starts, owns and ends the model tasks of one call."""

    def __init__(
        self,
        call_id: str,
        models: ModelSet,
        agent: Agent,
        audio: UtteranceBuffer,
        outlet: Outlet,
        post: Post,
    ) -> None:
        self.agent = agent
        self._call_id = call_id
        self._models = models
        self._audio = audio
        self._outlet = outlet
        self._post = post
        self._loop = asyncio.get_running_loop()
        self._tasks: dict[str, set[asyncio.Task[None]]] = {}
        self._closed = False

    # -- tasks ----------------------------------------------------------------------------------

    def _start(self, owner: str, work: Coroutine[Any, Any, None]) -> None:
        if self._closed:
            work.close()
            return
        task = self._loop.create_task(work)
        group = self._tasks.setdefault(owner, set())
        group.add(task)
        task.add_done_callback(lambda done: self._ended(owner, done))

    def _ended(self, owner: str, task: asyncio.Task[None]) -> None:
        group = self._tasks.get(owner)
        if group is not None:
            group.discard(task)
            if not group:
                del self._tasks[owner]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("call %s: a model task failed", self._call_id, exc_info=error)

    def cancel(self, owner: str) -> None:
        for task in tuple(self._tasks.get(owner, ())):
            task.cancel()

    async def close(self) -> None:
        """Cancel everything and wait until it is gone."""
        self._closed = True
        tasks = [task for group in self._tasks.values() for task in group]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=10)

    def _work(self, slack_ms: int = 0) -> Work:
        return Work(self._call_id, int(self._loop.time() * 1000) + slack_ms)

    # -- hearing --------------------------------------------------------------------------------

    def transcribe(self, action: act.Transcribe) -> None:
        self._start(f"turn {action.turn}", self._transcribe(action))

    async def _transcribe(self, action: act.Transcribe) -> None:
        turn, attempt, partial = action.turn, action.attempt, action.partial
        pcm = self._audio.slice(action.start_ms, action.end_ms)
        work = self._work(_PARTIAL_SLACK_MS if partial else 0)
        try:
            heard = await self._models.transcribe(
                pcm, language=self.agent.language or None, partial=partial, work=work
            )
        except AntiphonError as error:
            self._post(ev.TranscriptFailed(turn, attempt, str(error), partial))
        else:
            self._post(ev.Transcribed(turn, attempt, heard.text.strip(), partial))

    def score_turn(self, action: act.ScoreTurn) -> None:
        self._start(f"turn {action.turn}", self._score_turn(action))

    async def _score_turn(self, action: act.ScoreTurn) -> None:
        pcm = self._audio.slice(action.start_ms, action.end_ms)
        try:
            probability = await self._models.predict_turn(pcm, work=self._work())
        except AntiphonError as error:
            log.warning("call %s: turn detector: %s", self._call_id, error)
            return  # the silence limits stand beside it
        self._post(ev.TurnScored(action.turn, action.attempt, probability))

    # -- answering ------------------------------------------------------------------------------

    def warm(self, action: act.WarmPrompt) -> None:
        owner = "warm"
        if owner not in self._tasks:  # never a queue of them: the next one covers this one
            request = self._request((*action.history, Item("", "user", action.text)), {})
            self._start(owner, self._models.warm(request, work=self._work(_PARTIAL_SLACK_MS)))

    def generate(self, action: act.Generate) -> None:
        self._start(f"reply {action.reply}", self._generate(action))

    async def _generate(self, action: act.Generate) -> None:
        reply, usage, finish = action.reply, Usage(), "stop"
        try:
            request = self._request(action.history, dict(action.options))
            async for delta in self._models.generate(request, work=self._work()):
                if delta.text:
                    self._post(ev.ReplyText(reply, delta.text))
                if delta.tool_call is not None:
                    call = delta.tool_call
                    asked = ToolRequest(call.call_id, call.name, call.arguments)
                    self._post(ev.ReplyTool(reply, asked))
                finish, usage = delta.finish or finish, delta.usage or usage
        except AntiphonError as error:
            self._post(ev.ReplyFailed(reply, str(error)))
            return
        tokens = (usage.input_tokens, usage.output_tokens, usage.cached_tokens)
        self._post(ev.ReplyComplete(reply, finish, *tokens))

    def _request(self, history: tuple[Item, ...], options: dict[str, Any]) -> LlmRequest:
        agent = self.agent
        told: tuple[Message, ...] = messages(options.get("instructions", agent.prompt), history)
        return LlmRequest(
            messages=told,
            call_id=self._call_id,
            max_tokens=options.get("max_tokens", agent.max_tokens),
            temperature=options.get("temperature", agent.temperature),
            tools=options.get("tools", agent.tools),
            tool_choice=options.get("tool_choice"),
        )

    # -- speaking -------------------------------------------------------------------------------

    def speak(self, action: act.Speak) -> None:
        self._start(f"reply {action.reply}", self._speak(action))

    async def _speak(self, action: act.Speak) -> None:
        reply, clause, agent = action.reply, action.clause, self.agent
        request = SpeechRequest(action.text, agent.voice, agent.language, agent.speed)
        work = self._work(_AHEAD_SLACK_MS if clause else 0)
        try:
            async for chunk in self._models.synthesize(request, work=work):
                made_ms = self._outlet.add(reply, chunk.pcm, chunk.rate_hz)
                self._post(ev.ClauseAudio(reply, clause, made_ms))
                self._outlet.pump()
        except AntiphonError as error:
            self._post(ev.ClauseFailed(reply, clause, str(error)))
            return
        self._post(ev.ClauseAudio(reply, clause, self._outlet.end_clause(reply)))
        self._post(ev.ClauseSpoken(reply, clause))
        self._outlet.pump()
