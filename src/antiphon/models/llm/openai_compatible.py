"""Any language model behind an endpoint of the OpenAI chat-completions form.

OpenAI, Groq, Ollama, vLLM, llama-server and many more. Servers differ in which fields they take; a
field that one refuses by name is left out from then on. This module does not know prompts, caches
or templates: those are the server's.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from antiphon.errors import AntiphonError, ModelError, RequestError
from antiphon.models.chat_format import ThoughtFilter, ToolCalls, as_wire
from antiphon.models.endpoint import OPENAI_URL, Endpoint
from antiphon.models.ports import LlmDelta, LlmRequest, Message, ModelInfo, Usage, WeightSource
from antiphon.models.registry import register_model

if TYPE_CHECKING:
    from openai.types.chat import ChatCompletionChunk


@register_model("llm", "openai")
@register_model("llm", "groq", base_url="https://api.groq.com/openai/v1")
@register_model("llm", "ollama", base_url="http://localhost:11434/v1")
@register_model("llm", "vllm", base_url="http://localhost:8000/v1")
@register_model("llm", "llama-server", base_url="http://localhost:8080/v1")
class OpenAICompatible:
    """Chat completions over one pooled connection. Works on the event loop and only waits there."""

    parallel = 64
    """The server queues what is too much for it; this only bounds our connections."""

    def __init__(
        self,
        weights: WeightSource | None = None,
        *,
        base_url: str = OPENAI_URL,
        model: str = "",
        api_key: str | SecretStr = "",
        timeout_s: float = 20.0,
        connect_timeout_s: float = 5.0,
        max_retries: int = 1,
        extra_headers: Mapping[str, str] | None = None,
        extra_body: Mapping[str, Any] | None = None,
        warm_with_request: bool = False,
    ) -> None:
        """
        `model`: empty: the only one that the server has.
        `api_key`: empty: OPENAI_API_KEY or GROQ_API_KEY at those two services, else none.
        `timeout_s`: the longest silence of the server, before and within a reply.
        `max_retries`: before the first byte of a reply only.
        `extra_body`: more fields of the request, e.g. `{"chat_template_kwargs": {"enable_thinking":
        false}}`.
        `warm_with_request`: read prompts early by asking for one token (for vLLM's prefix cache).
        """
        del weights  # they are the server's
        self._endpoint = Endpoint(
            base_url,
            api_key,
            timeout_s=timeout_s,
            connect_timeout_s=connect_timeout_s,
            max_retries=max_retries,
            headers=extra_headers,
        )
        self._model = model
        self._extra_body = dict(extra_body or {})
        self._warm_with_request = warm_with_request
        self._dialect = _Dialect()
        self.info = ModelInfo(name="openai", detail=f"{model} at {self._endpoint.where}".strip())

    async def load(self) -> None:
        """Open the connection and see whether the server answers. Raises ModelError with what to do."""
        await self._endpoint.open()
        try:
            self._model = self._endpoint.choose_model(self._model)
        except ModelError:
            await self._endpoint.close()
            raise
        self.info = ModelInfo(name="openai", detail=f"{self._model} at {self._endpoint.where}")

    async def close(self) -> None:
        await self._endpoint.close()

    async def generate(self, request: LlmRequest) -> AsyncIterator[LlmDelta]:
        """Closing it closes the HTTP stream, which is what stops the server."""
        try:
            stream = await self._ask(request, stream=True)
        except Exception as error:
            raise self._endpoint.explained(error, self._model) from error
        try:
            async with contextlib.aclosing(_read(stream)) as deltas:
                async for delta in deltas:
                    yield delta
        except AntiphonError as error:
            raise ModelError(f"{self._endpoint.where}: {error}") from error
        except Exception as error:
            raise self._endpoint.broken(error) from error
        finally:
            with contextlib.suppress(Exception):  # the reply is over, however its connection ends
                await stream.close()

    async def warm(self, request: LlmRequest) -> None:
        """Nothing, unless `warm_with_request`."""
        if not self._warm_with_request:
            return
        try:
            await self._ask(request, stream=False, max_tokens=1)
        except Exception as error:
            raise self._endpoint.explained(error, self._model) from error

    async def release(self, call_id: str) -> None:
        """Nothing is kept for a call."""

    # --- requests ---------------------------------------------------------------------------------

    async def _ask(self, request: LlmRequest, *, stream: bool, max_tokens: int = 0) -> Any:
        """-> stream or completion. Asks again without a field that the server refuses by its name."""
        import openai

        body: dict[str, Any] = {
            "model": self._model,
            "messages": self._messages(request.messages),
            "max_tokens": max_tokens or request.max_tokens,
            "temperature": request.temperature,
            "stream": stream,
        }
        if stream:
            body["stream_options"] = {"include_usage": True}
        if request.tools:
            body["tools"] = list(request.tools)
            if request.tool_choice is not None:
                body["tool_choice"] = request.tool_choice
        if request.response_schema is not None:
            schema = {"name": "answer", "schema": request.response_schema}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        while True:
            try:
                return await self._endpoint.ask(
                    lambda client: client.chat.completions.create(
                        **self._dialect.spoken(body), extra_body=self._extra_body
                    )
                )
            except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
                if not self._dialect.learn(str(error)):
                    raise

    def _messages(self, messages: tuple[Message, ...]) -> list[dict[str, Any]]:
        if not messages:
            raise RequestError("the language model was asked without a message", "messages")
        return as_wire(messages)


class _Dialect:
    """Which fields this server takes, learnt from what it refuses."""

    def __init__(self) -> None:
        self._dropped: set[str] = set()
        self._renamed: dict[str, str] = {}

    def spoken(self, body: Mapping[str, Any]) -> dict[str, Any]:
        return {
            self._renamed.get(field, field): value
            for field, value in body.items()
            if field not in self._dropped
        }

    def learn(self, refusal: str) -> bool:
        """-> whether another attempt makes sense."""
        if "max_completion_tokens" in refusal and "max_tokens" not in self._renamed:
            self._renamed["max_tokens"] = "max_completion_tokens"
            return True
        for field in ("stream_options", "temperature", "response_format"):
            if field in refusal and field not in self._dropped:
                self._dropped.add(field)
                return True
        return False


async def _read(stream: AsyncIterator[ChatCompletionChunk]) -> AsyncGenerator[LlmDelta, None]:
    """Chunks -> deltas. Reasoning is left out, be it a field of its own or a tag in the text."""
    thoughts, calls = ThoughtFilter(), ToolCalls()
    finish, usage = "", None
    async for chunk in stream:
        usage = _usage(chunk) or usage
        for choice in chunk.choices or ():
            finish = choice.finish_reason or finish
            delta: Any = choice.delta  # typed as always there; some servers send null
            if delta is None:
                continue
            for position, fragment in enumerate(delta.tool_calls or ()):
                index = position if fragment.index is None else fragment.index
                name = (fragment.function.name if fragment.function else "") or ""
                arguments = (fragment.function.arguments if fragment.function else "") or ""
                if part := calls.add(index, fragment.id or "", name, arguments):
                    yield LlmDelta(tool_part=part)
            text = thoughts.feed(delta.content or "")
            if text:
                yield LlmDelta(text=text)
    if not finish:
        raise ModelError("the reply ended in the middle")
    whole = list(calls.take(cut_off=finish == "length"))
    for call in whole:
        yield LlmDelta(tool_call=call)
    reason = "tool_calls" if whole else "length" if finish == "length" else "stop"
    yield LlmDelta(text=thoughts.flush(), finish=reason, usage=usage)


def _usage(chunk: ChatCompletionChunk) -> Usage | None:
    found = chunk.usage
    if found is None:
        return None
    details = found.prompt_tokens_details
    return Usage(
        input_tokens=found.prompt_tokens or 0,
        output_tokens=found.completion_tokens or 0,
        cached_tokens=(details.cached_tokens if details else 0) or 0,
    )
