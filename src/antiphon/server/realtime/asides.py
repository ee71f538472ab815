"""Responses out of band: generated beside the conversation, leaving no trace in it, several at a time.

The core knows nothing of them: there is no floor to hold and nobody to interrupt. Each is one task, bounded in number
and time, and always ends with its `response.done`.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing

from antiphon.audio.resample import Resampler
from antiphon.core.history import ToolRequest
from antiphon.core.text_segmenter import TextSegmenter
from antiphon.errors import AntiphonError
from antiphon.models.pool import ModelSet, Work
from antiphon.models.ports import LlmRequest, SpeechRequest, Usage
from antiphon.session.runners import Agent
from antiphon.wire.realtime import audio as formats
from antiphon.wire.realtime import responses
from antiphon.wire.realtime.errors import PeerError
from antiphon.wire.realtime.responses import Response, Tokens

log = logging.getLogger(__name__)

MAX_ASIDES = 8
_LIMIT_S = 120.0
_CLOSE_S = 5.0
_RELEASE_S = 5.0
_CLAUSE_CHARS = 200


class Asides:
    """Of one session."""

    def __init__(self, call_id: str, models: ModelSet) -> None:
        self._call_id = f"{call_id}-aside"
        """A name of its own in the models: the conversation's prompt cache stays as it is."""
        self._models = models
        self._loop = asyncio.get_running_loop()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._used = False

    def __contains__(self, response_id: str) -> bool:
        return response_id in self._tasks

    def start(self, response: Response, request: LlmRequest, agent: Agent) -> None:
        """Raises PeerError when there are too many. `agent`: whose voice it is."""
        if len(self._tasks) >= MAX_ASIDES:
            raise PeerError(
                f"{MAX_ASIDES} responses out of band are under way; wait for one to end",
                "rate_limit_exceeded",
            )
        self._used = True
        response.create()
        # Started at once and not eagerly: what is cancelled before its first step must still be closed.
        task = self._loop.create_task(self._run(response, request, agent))
        self._tasks[response.id] = task
        task.add_done_callback(lambda done: self._ended(response))

    def _ended(self, response: Response) -> None:
        self._tasks.pop(response.id, None)
        response.close("cancelled", responses.cancelled("client_cancelled"), Tokens())

    def cancel(self, response_id: str) -> None:
        self._tasks[response_id].cancel()

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
            response.close("failed", responses.failed("reply_failed", str(error)), Tokens())
        except TimeoutError:
            reason = f"no answer within {_LIMIT_S:g} s"
            response.close("failed", responses.failed("reply_timeout", reason), Tokens())
        except Exception:
            log.exception("%s: a response out of band", self._call_id)
            details = responses.failed("server_error", "internal error; the log says more")
            response.close("failed", details, Tokens())

    async def _generate(self, response: Response, request: LlmRequest, agent: Agent) -> None:
        cutter = TextSegmenter(first_words=0, max_chars=_CLAUSE_CHARS)
        speaks = response.terms.modality == "audio"
        usage, finish = Usage(), "stop"
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
                response.say(item, delta.text)
                if (part := delta.tool_part) is not None:
                    response.write_call(
                        f"{item}_{part.call_id}", part.call_id, part.name, part.text
                    )
                if (call := delta.tool_call) is not None:
                    name = call.call_id or f"call_{response.id}"
                    told = ToolRequest(name, call.name, call.arguments)
                    response.call(f"{item}_{name}", told)
                if speaks:
                    for clause in cutter.feed(delta.text):
                        await self._speak(response, item, clause, agent)
                finish, usage = delta.finish or finish, delta.usage or usage
        for clause in cutter.flush() if speaks else ():
            await self._speak(response, item, clause, agent)
        tokens = Tokens(usage.input_tokens, usage.output_tokens, usage.cached_tokens)
        if finish == "length":
            response.close("incomplete", responses.CUT, tokens)
        else:
            response.close("completed", None, tokens)

    async def _speak(self, response: Response, item: str, clause: str, agent: Agent) -> None:
        request = SpeechRequest(clause, agent.voice, agent.language, agent.speed)
        resampler: Resampler | None = None
        async with aclosing(self._models.synthesize(request, work=self._work())) as chunks:
            async for chunk in chunks:
                if resampler is None:
                    resampler = Resampler(chunk.rate_hz, formats.VOICE_RATE_HZ)
                response.sound(item, resampler.process(chunk.pcm))
        if resampler is not None:
            response.sound(item, resampler.flush())

    def _work(self) -> Work:
        return Work(self._call_id, int(self._loop.time() * 1000) + 1_000)
