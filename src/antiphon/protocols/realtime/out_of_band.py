"""Responses out of band: generated beside the conversation, leaving no trace in it, several at a time.

The core knows nothing of them: there is no floor to hold and nobody to interrupt. Each is one task, bounded in number
and time, and always ends with its `response.done`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import aclosing

from antiphon.audio.resample import Resampler
from antiphon.call.model_tasks import Agent
from antiphon.call.reply_limit import ReplyLimit
from antiphon.core.history import ToolRequest
from antiphon.core.text_segmenter import TextSegmenter
from antiphon.errors import AntiphonError, RequestError, told
from antiphon.models.model_set import ModelSet, Work
from antiphon.models.ports import LlmRequest, SpeechRequest, Usage
from antiphon.protocols.realtime import audio_formats as formats
from antiphon.protocols.realtime import responses
from antiphon.protocols.realtime.responses import Response, TokenUsage
from antiphon.protocols.realtime.schema import RealtimeError

log = logging.getLogger(__name__)

MAX_RESPONSES = 8
_LIMIT_S = 120.0
_CLOSE_S = 5.0
_RELEASE_S = 5.0
_CLAUSE_CHARS = 200


class OutOfBand:
    """Those of one session."""

    def __init__(
        self,
        call_id: str,
        models: ModelSet,
        flush: Callable[[], None],
        max_reply_chars: int = 0,
    ) -> None:
        """`flush`: sends what the responses have told. `max_reply_chars`: of each response; 0: no limit."""
        self._flush = flush
        self._max_reply_chars = max_reply_chars
        self._call_id = f"{call_id}-aside"
        """A name of its own in the models: the conversation's prompt cache stays as it is."""
        self._models = models
        self._loop = asyncio.get_running_loop()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._used = False

    def start(self, response: Response, request: LlmRequest, agent: Agent) -> None:
        """Raises RealtimeError when there are too many. `agent`: whose voice it is."""
        if len(self._tasks) >= MAX_RESPONSES:
            raise RealtimeError(
                f"{MAX_RESPONSES} responses out of band are under way; wait for one to end",
                "rate_limit_exceeded",
            )
        self._used = True
        response.create()
        self._flush()
        # Started at once and not eagerly: what is cancelled before its first step must still be closed.
        task = self._loop.create_task(self._run(response, request, agent))
        self._tasks[response.id] = task
        task.add_done_callback(lambda done: self._ended(response))

    def _ended(self, response: Response) -> None:
        self._tasks.pop(response.id, None)
        response.close("cancelled", responses.cancelled("client_cancelled"), TokenUsage())
        self._flush()

    def cancel(self, response_id: str) -> bool:
        """-> whether there is such a response."""
        task = self._tasks.get(response_id)
        return task is not None and task.cancel()

    async def close(self) -> None:
        """Cancel all and wait for their ends."""
        tasks = tuple(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_CLOSE_S)
        if self._used:
            try:
                async with asyncio.timeout(_RELEASE_S):
                    await self._models.release(self._call_id)
            except (AntiphonError, TimeoutError) as error:
                log.warning("%s: releasing its place in the models: %s", self._call_id, error)

    async def _run(self, response: Response, request: LlmRequest, agent: Agent) -> None:
        try:
            async with asyncio.timeout(_LIMIT_S):
                await self._generate(response, request, agent)
        except AntiphonError as error:
            code = "invalid_request" if isinstance(error, RequestError) else "reply_failed"
            details = responses.failed(code, told(error, self._call_id))
            response.close("failed", details, TokenUsage())
        except TimeoutError:
            reason = f"no answer within {_LIMIT_S:g} s"
            response.close("failed", responses.failed("reply_timeout", reason), TokenUsage())
        except Exception:
            log.exception("%s: a response out of band", self._call_id)
            details = responses.failed("server_error", "internal error; the log says more")
            response.close("failed", details, TokenUsage())
        self._flush()

    async def _generate(self, response: Response, request: LlmRequest, agent: Agent) -> None:
        cutter = TextSegmenter(first_words=0, max_chars=_CLAUSE_CHARS)
        speaks = response.terms.modality == "audio"
        usage, finish, limit = Usage(), "stop", ReplyLimit(self._max_reply_chars)
        asked = LlmRequest(
            request.messages,
            self._call_id,
            request.max_tokens,
            request.temperature,
            request.tools,
            request.tool_choice,
        )
        item = f"{response.id}_item"
        async with aclosing(self._models.generate(asked, work=self._work())) as deltas:
            async for delta in deltas:
                text = limit.take(delta.text)
                response.say(item, text)
                if (part := delta.tool_part) is not None:
                    response.write_call(
                        f"{item}_{part.call_id}", part.call_id, part.name, part.text
                    )
                if (call := delta.tool_call) is not None:
                    name = call.call_id or f"call_{response.id}"
                    told = ToolRequest(name, call.name, call.arguments)
                    response.call(f"{item}_{name}", told)
                self._flush()
                if speaks:
                    for clause in cutter.feed(text):
                        await self._speak(response, item, clause, agent)
                finish, usage = delta.finish or finish, delta.usage or usage
                if limit.reached:
                    finish = "length"
                    break
        for clause in cutter.flush() if speaks else ():
            await self._speak(response, item, clause, agent)
        tokens = TokenUsage(usage.input_tokens, usage.output_tokens, usage.cached_tokens)
        if finish == "length":
            response.close("incomplete", responses.CUT, tokens)
        else:
            response.close("completed", None, tokens)
        self._flush()

    async def _speak(self, response: Response, item: str, clause: str, agent: Agent) -> None:
        request = SpeechRequest(clause, agent.voice, agent.language, agent.speed)
        resampler: Resampler | None = None
        async with aclosing(self._models.synthesize(request, work=self._work())) as chunks:
            async for chunk in chunks:
                if resampler is None:
                    resampler = Resampler(chunk.rate_hz, formats.VOICE_RATE_HZ)
                response.sound(item, resampler.process(chunk.pcm))
                self._flush()
        if resampler is not None:
            response.sound(item, resampler.flush())
            self._flush()

    def _work(self) -> Work:
        return Work(self._call_id, int(self._loop.time() * 1000) + 1_000)
