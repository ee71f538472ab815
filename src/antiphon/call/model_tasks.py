"""Model work of one call: an action in, a task that posts events as results come.

Every task belongs to a turn or a reply and is cancelled with it. Errors of models become events; nothing is raised into
the call.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any

from antiphon.audio.echo import LOOK_BACK_MS, is_echo
from antiphon.call.audio_buffer import AudioBuffer
from antiphon.call.audio_output import AudioOutput
from antiphon.call.learner_level import level_prompt, level_speed
from antiphon.call.non_speech_filter import without_sound_labels
from antiphon.call.prompt_messages import messages, plain_messages
from antiphon.call.reply_limit import ReplyLimit
from antiphon.call.tools import Toolbox, error_text, goes_in_circles, known_result
from antiphon.core import actions as act
from antiphon.core import events as ev
from antiphon.core.history import Item, ToolRequest
from antiphon.core.policy import Policy
from antiphon.errors import AntiphonError, ModelError, RequestError, see_log
from antiphon.models.model_set import ModelSet, Work
from antiphon.models.ports import STT_RATE_HZ, LlmRequest, Message, Pcm16, SpeechRequest, Usage

log = logging.getLogger(__name__)

_PARTIAL_SLACK_MS = 400
"""A partial transcript may wait this much longer than a final one."""
_USER = "user"
"""Owner of the tasks that hear the user: they run to their end, for each result is awaited or ignored by its job."""
_LONGEST_ECHO_MS = 3_000
"""Whoever speaks longer over the agent is somebody else: it stopped long before."""
_AHEAD_SLACK_MS = 1_000
"""Speech that will be heard later may wait for another call's first clause."""


@dataclass(frozen=True, slots=True)
class Agent:
    """Who answers: what the models are told in every request of this call."""

    prompt: str = ""
    facts: str = ""
    """Of this call alone: told after the prompt and the functions, which all calls share in a prompt cache."""
    voice: str = ""
    language: str = ""
    temperature: float = 0.6
    max_tokens: int = 200
    speed: float = 1.0
    tools: tuple[dict[str, Any], ...] = field(default=())
    """Functions that the client declared and runs itself, in the chat-completions form."""
    tool_choice: Any = None
    """As in chat completions; None: the model's own default."""
    level: str = ""
    """How well the caller knows the language, one of `learner_level.LEVELS`; empty: as a native speaker."""


Post = Callable[[ev.Event], None]
Begin = Callable[[], Coroutine[Any, Any, None]]
"""Begun by its task: a coroutine whose task is cancelled before its first step would never be awaited."""


def _ignore(event: ev.Event) -> None:
    pass


class ModelTasks:
    """Starts, owns and ends the model tasks of one call."""

    def __init__(
        self,
        call_id: str,
        models: ModelSet,
        agent: Agent,
        audio: AudioBuffer,
        audio_output: AudioOutput,
        post: Post,
    ) -> None:
        self.agent = agent
        self._call_id = call_id
        self._models = models
        self._audio = audio
        self._audio_output = audio_output
        self._post = post
        self._loop = asyncio.get_running_loop()
        self._tasks: dict[str, set[asyncio.Task[None]]] = {}
        self._closed = False
        self._tool_calls = 0
        self.frank = False
        """Why a model failed is told, addresses and all: for the owner, not for a caller."""
        self._max_reply_chars = self._max_reply_ms = 0
        self._voices: dict[str, str] = {}
        """Of the latest reply that asked for a voice of its own."""
        self.toolbox = Toolbox(call_id, post)
        self._declared: frozenset[str] = frozenset()
        """Functions of the client that the latest reply may call: the client runs them."""
        self._told: tuple[Item, ...] = ()
        """The history of the latest reply."""

    def limit_replies(self, policy: Policy) -> None:
        """How long one may become."""
        self._max_reply_chars, self._max_reply_ms = policy.max_reply_chars, policy.max_reply_ms

    # -- tasks ----------------------------------------------------------------------------------

    def _start(self, owner: str, begin: Begin, job: int | None) -> None:
        """`job`: what the conversation is told to have failed when the work does not come to its end."""
        if self._closed:
            return
        task = self._loop.create_task(self._watched(begin, job))
        group = self._tasks.setdefault(owner, set())
        group.add(task)
        task.add_done_callback(lambda done: self._ended(owner, done))

    async def _watched(self, begin: Begin, job: int | None) -> None:
        try:
            await begin()
        except AntiphonError as error:
            code = "invalid_request" if isinstance(error, RequestError) else ""
            if code:
                log.info("call %s: a request was refused: %s", self._call_id, error)
            hidden = isinstance(error, ModelError) and not self.frank
            self._fail(job, see_log(self._call_id) if hidden else str(error), code)
        except Exception:  # a bug of ours must not leave the caller waiting
            log.exception("call %s: a model task failed", self._call_id)
            self._fail(job, "internal error; the log says more")

    def _fail(self, job: int | None, reason: str, code: str = "") -> None:
        if job is not None:
            self._post(ev.JobFailed(job, reason, code))

    def _ended(self, owner: str, task: asyncio.Task[None]) -> None:
        group = self._tasks[owner]
        group.discard(task)
        if not group:
            del self._tasks[owner]

    def cancel(self, owner: str) -> None:
        for task in tuple(self._tasks.get(owner, ())):
            task.cancel()

    async def close(self) -> None:
        """Cancel everything and wait until it is gone."""
        self._closed = True
        tasks = [task for group in self._tasks.values() for task in group]
        for task in tasks:
            task.cancel()
        await self.toolbox.close()
        if tasks:
            await asyncio.wait(tasks, timeout=10)
        self._post = _ignore

    def _work(self, slack_ms: int = 0) -> Work:
        return Work(self._call_id, int(self._loop.time() * 1000) + slack_ms)

    # -- hearing --------------------------------------------------------------------------------

    def transcribe(self, action: act.Transcribe) -> None:
        if (
            not action.partial
        ):  # an earlier attempt is stale: it must not stand in line before other calls
            self.cancel(f"transcript {action.replaces}")
        owner = _USER if action.partial else f"transcript {action.job}"
        self._start(owner, lambda: self._transcribe(action), action.job)

    async def _transcribe(self, action: act.Transcribe) -> None:
        partial = action.partial
        pcm = self._audio.slice(action.start_ms, action.end_ms)
        work = self._work(_PARTIAL_SLACK_MS if partial else 0)
        heard = await self._models.transcribe(
            pcm, language=self.agent.language or None, partial=partial, work=work
        )
        text = "" if self._is_echo(pcm) else without_sound_labels(heard.text)
        self._post(ev.Transcribed(action.job, text))

    def _is_echo(self, pcm: Pcm16) -> bool:
        """Of the agent's voice. Nobody said what it is taken for."""
        sent = self._audio_output.recent(LOOK_BACK_MS)
        if not len(sent) or len(pcm) > _LONGEST_ECHO_MS * STT_RATE_HZ // 1000:
            return False
        return is_echo(pcm, STT_RATE_HZ, sent, self._audio_output.rate_hz)

    def score_turn(self, action: act.ScoreTurn) -> None:
        self._start(_USER, lambda: self._score_turn(action), action.job)

    async def _score_turn(self, action: act.ScoreTurn) -> None:
        pcm = self._audio.slice(action.start_ms, action.end_ms)
        probability = await self._models.predict_turn(pcm, work=self._work())
        self._post(ev.TurnScored(action.job, probability))

    # -- answering ------------------------------------------------------------------------------

    def warm(self, action: act.WarmPrompt) -> None:
        owner = "warm"
        if owner not in self._tasks:  # never a queue of them: the next one covers this one
            request = self._request((*action.history, Item("", "user", action.text)), {})
            work = self._work(_PARTIAL_SLACK_MS)
            self._start(owner, lambda: self._models.warm(request, work=work), None)

    def generate(self, action: act.Generate) -> None:
        reply = action.reply
        if "voice" in action.options:
            self._voices = {reply: str(action.options["voice"])}
        self._declared = frozenset(_name(spec) for spec in self._client_tools(action.options))
        self._told = action.options.get("input", action.history)
        self._start(f"reply {reply}", lambda: self._generate(action), action.job)

    async def _generate(self, action: act.Generate) -> None:
        job, usage, finish = action.job, Usage(), "stop"
        own_ids: dict[str, str] = {}  # of calls that are being written
        told = action.options.get("input", action.history)
        request = self._request(told, dict(action.options))
        request = replace(request, judge_words=action.score_text_end)
        limit = ReplyLimit(self._max_reply_chars)
        async with aclosing(self._models.generate(request, work=self._work())) as deltas:
            async for delta in deltas:
                if delta.ends_here is not None:
                    self._post(ev.TextEndScored(job, delta.ends_here))
                if text := limit.take(delta.text):
                    self._post(ev.ReplyText(job, text))
                if limit.reached:
                    finish = "length"
                    break
                part, call = delta.tool_part, delta.tool_call
                if part is not None and part.name in self._declared:
                    if part.call_id not in own_ids:
                        own_ids[part.call_id] = self._tool_id(part.call_id)
                    name = own_ids[part.call_id]
                    self._post(ev.ReplyToolText(job, name, part.name, part.text))
                if call is not None:
                    name = own_ids.pop(call.call_id, "") or self._tool_id(call.call_id)
                    self._post(ev.ReplyTool(job, ToolRequest(name, call.name, call.arguments)))
                finish, usage = delta.finish or finish, delta.usage or usage
        tokens = (usage.input_tokens, usage.output_tokens, usage.cached_tokens)
        self._post(ev.ReplyComplete(job, finish, *tokens))

    def _tool_id(self, proposed: str) -> str:
        """Unique in the call: small models call every call `call_0`, and one id runs only once."""
        self._tool_calls += 1
        return f"{proposed or 'call'}-{self._tool_calls}"

    def run_tool(self, action: act.RunTool) -> None:
        """Ours is run; the client's is left to the client, which returns its result through its transport."""
        call = action.call
        known = known_result(call, self._told) if call.name in self.toolbox else None
        if known is not None:
            self._loop.call_soon(self._post, ev.ToolReturned(call.call_id, known))
        elif call.name in self.toolbox:
            self.toolbox.start(call)
        elif call.name not in self._declared:
            refusal = error_text(f"there is no function {call.name}")
            self._loop.call_soon(self._post, ev.ToolReturned(call.call_id, refusal))

    def _request(self, history: tuple[Item, ...], options: dict[str, Any]) -> LlmRequest:
        agent = self.agent
        prompt = level_prompt(options.get("instructions", agent.prompt), agent.level)
        # A model that only calls and calls is given what came of it in plain words, and nothing to call.
        stuck = bool(self.toolbox) and goes_in_circles(history)
        told = plain_messages(prompt, history) if stuck else messages(prompt, history)
        if agent.facts:
            head = 1 if prompt else 0
            told = (*told[:head], Message("system", agent.facts), *told[head:])
        return LlmRequest(
            messages=told,
            call_id=self._call_id,
            max_tokens=options.get("max_tokens", agent.max_tokens),
            temperature=options.get("temperature", agent.temperature),
            tools=() if stuck else (*self._client_tools(options), *self.toolbox.specs()),
            tool_choice=None if stuck else options.get("tool_choice", agent.tool_choice),
        )

    def _client_tools(self, options: Mapping[str, Any]) -> tuple[dict[str, Any], ...]:
        """What the client declared. A name that is ours already stays ours."""
        declared = options.get("tools", self.agent.tools)
        return tuple(spec for spec in declared if _name(spec) not in self.toolbox)

    # -- speaking -------------------------------------------------------------------------------

    def synthesize(self, action: act.Synthesize) -> None:
        self._start(f"reply {action.reply}", lambda: self._speak(action), action.job)

    async def _speak(self, action: act.Synthesize) -> None:
        job, reply, agent = action.job, action.reply, self.agent
        voice = self._voices.get(reply, agent.voice)
        request = SpeechRequest(
            action.text, voice, agent.language, level_speed(agent.speed, agent.level)
        )
        work, segment_ms = self._work(_AHEAD_SLACK_MS if action.segment else 0), 0
        async with aclosing(self._models.synthesize(request, work=work)) as chunks:
            async for chunk in chunks:
                made_ms = self._audio_output.add(reply, chunk.pcm, chunk.rate_hz)
                self._post(ev.SegmentAudio(job, made_ms))
                self._audio_output.pump()
                segment_ms += made_ms
                if 0 < self._max_reply_ms <= segment_ms:  # a voice that does not stop
                    break
        self._post(ev.SegmentAudio(job, self._audio_output.end_clause(reply)))
        self._audio_output.pump()  # before the end is told: a transport that does not pace has sent all by then
        self._post(ev.SegmentComplete(job))


def _name(spec: Mapping[str, Any]) -> str:
    """Of a declared function, in either of the forms in which OpenAI's endpoints take them."""
    function = spec.get("function", spec)
    return str(function.get("name", "")) if isinstance(function, Mapping) else ""
