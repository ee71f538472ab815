"""`POST /v1/chat/completions`: the language model itself, for other programs."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from antiphon.errors import AntiphonError, told
from antiphon.models.ports import Kind, LlmDelta, LlmRequest, Message, ToolCall, Usage
from antiphon.server.openai_http.work import (
    Admitted,
    Job,
    finish,
    job_for,
    model_name,
    openai_errors,
    stream,
)
from antiphon.wire.openai_http import chat as wire
from antiphon.wire.openai_http import sse

router = APIRouter()

_DEFAULT_TOKENS = 1_024
"""Without a limit of the client's: a reader wants more than a listener."""


@router.post("/chat/completions", response_model=None)
async def complete(request: Request, principal: Admitted) -> Response:
    """An answer of the configured language model, whole or streamed."""
    body = await request.body()
    with openai_errors():
        ask = wire.read(body)
    async with AsyncExitStack() as held:
        job = await held.enter_async_context(job_for(request, principal))
        if not ask.stream:
            return await finish(request, _whole(job, ask))
        return await stream(
            request,
            _chunks(job, ask),
            held,
            media_type=sse.CONTENT_TYPE,
            headers=sse.HEADERS,
        )


class _Reply:
    """What has come of an answer so far."""

    def __init__(self, ask: wire.ChatAsk) -> None:
        self.finish = "stop"
        self.tokens = wire.Tokens()
        self.calls: list[wire.Call] = []
        self.filter = wire.StopFilter(ask.stops)

    def take(self, delta: LlmDelta) -> str:
        """-> text that may be sent."""
        if delta.tool_call is not None:
            call = delta.tool_call
            self.calls.append(wire.Call(call.call_id, call.name, call.arguments))
        if delta.usage is not None:
            self.tokens = _tokens(delta.usage)
        self.finish = delta.finish or self.finish
        return self.filter.feed(delta.text)


async def _whole(job: Job, ask: wire.ChatAsk) -> Response:
    reply, pieces = _Reply(ask), []
    async with aclosing(_deltas(job, ask, reply)) as deltas:
        async for delta in deltas:
            pieces.append(reply.take(delta))
    text = "".join(pieces) + reply.filter.flush()
    answer = wire.Answer(model_name(job.models, Kind.LLM))
    return JSONResponse(answer.whole(text, reply.calls, reply.finish, reply.tokens))


async def _chunks(job: Job, ask: wire.ChatAsk) -> AsyncGenerator[bytes, None]:
    """Fails as it likes before the first chunk; after it, errors are events."""
    reply, answer, sent = _Reply(ask), wire.Answer(model_name(job.models, Kind.LLM)), False
    try:
        async with aclosing(_deltas(job, ask, reply)) as deltas:
            async for delta in deltas:
                text = reply.take(delta)
                if text:
                    yield sse.event(answer.text(text))
                    sent = True
                if (part := delta.tool_part) is not None:
                    yield sse.event(answer.call_part(part.call_id, part.name, part.text))
                    sent = True
                if delta.tool_call is not None and (left := answer.call(reply.calls[-1])):
                    yield sse.event(left)
                    sent = True
    except AntiphonError as error:
        if not sent:
            raise
        yield sse.failed(told(error, job.id))
        return
    if rest := reply.filter.flush():
        yield sse.event(answer.text(rest))
    yield sse.event(answer.end(reply.finish))
    if ask.wants_usage:
        yield sse.event(answer.usage(reply.tokens))
    yield sse.DONE


async def _deltas(job: Job, ask: wire.ChatAsk, reply: _Reply) -> AsyncGenerator[LlmDelta, None]:
    """Up to the first stop word, after which the model is stopped."""
    async with aclosing(job.models.generate(_request(job, ask), work=job.work())) as deltas:
        async for delta in deltas:
            yield delta
            if reply.filter.hit:
                reply.finish = "stop"
                return


def _request(job: Job, ask: wire.ChatAsk) -> LlmRequest:
    agent = job.settings.agent
    return LlmRequest(
        messages=tuple(_message(message) for message in ask.messages),
        call_id=job.id,
        max_tokens=ask.token_limit or _DEFAULT_TOKENS,
        temperature=agent.temperature if ask.temperature is None else ask.temperature,
        tools=tuple(ask.tools or ()) if ask.tool_choice != "none" else (),
        tool_choice=ask.tool_choice if ask.tools else None,
    )


def _message(message: wire.AskedMessage) -> Message:
    calls = tuple(
        ToolCall(call.id, call.function.name, call.function.arguments)
        for call in message.tool_calls or ()
    )
    return Message(message.plain_role, message.text, calls, message.tool_call_id or "")


def _tokens(usage: Usage) -> wire.Tokens:
    return wire.Tokens(usage.input_tokens, usage.output_tokens, usage.cached_tokens)
