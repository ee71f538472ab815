"""Hostile requests to the embedded model: refused at once, no failure of the model, and a neighbour is answered."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.test_schemas import HOSTILE, nested

from antiphon.errors import RequestError
from antiphon.models.fallback import REST_FAILURES
from antiphon.models.model_set import FallbackConfig, ModelSet, Work
from antiphon.models.ports import Kind, LlmRequest, Message, ToolCall
from antiphon.models.store import WeightStore

pytestmark = pytest.mark.weights

USER, AGENT = Message("user", "Say hello."), Message("assistant", "Hello.")


def calling(schema: dict[str, Any]) -> LlmRequest:
    function = {"name": "f", "description": "", "parameters": schema}
    tools = ({"type": "function", "function": function},)
    return LlmRequest((USER,), "hostile", 8, tools=tools, tool_choice="required")


REFUSED = {
    **{name: calling(schema) for name, (schema, _) in HOSTILE.items()},
    "a type that there is not": calling({"type": "object", "properties": {"a": {"type": "odd"}}}),
    "more repetitions than a grammar takes": calling(
        {
            "type": "object",
            "properties": {
                "a": {"type": "array", "maxItems": 999, "items": nested(3) | {"maxLength": 999}}
            },
            "required": ["a"],
        }
    ),
    "two answers at the end": LlmRequest((USER, AGENT, AGENT), "hostile", 8),
    "two answers at the end, with tools": LlmRequest(
        (USER, AGENT, AGENT), "hostile", 8, tools=calling({"type": "object"}).tools
    ),
    "broken arguments": LlmRequest(
        (USER, Message("assistant", "", (ToolCall("c", "f", "{broken"),))), "hostile", 8
    ),
    "a long system prompt": LlmRequest((Message("system", "hello " * 9_000), USER), "hostile", 8),
    "a long question": LlmRequest((Message("user", "hello " * 9_000),), "hostile", 8),
}


def test_hostile_requests_blame_no_model_and_hold_nobody() -> None:
    async def refused(models: ModelSet, name: str) -> None:
        try:
            async for _ in models.generate(REFUSED[name], work=Work(f"hostile {name}")):
                pass
        except RequestError as error:
            str(error).encode()
        else:
            assert name == "more repetitions than a grammar takes", name

    async def neighbour(models: ModelSet) -> str:
        ask = LlmRequest((USER,), "neighbour", 4)
        return "".join([d.text async for d in models.generate(ask, work=Work("neighbour"))])

    async def test() -> None:
        options = {"llamacpp": {"slots": 2, "context_tokens": 2048}}
        models = ModelSet([FallbackConfig(Kind.LLM, ("llamacpp",), options)], WeightStore())
        await models.load()
        try:
            assert len(REFUSED) > REST_FAILURES
            for name in REFUSED:
                async with asyncio.timeout(60):
                    _, said = await asyncio.gather(refused(models, name), neighbour(models))
                assert said, name
            assert models.ready
            stats = models.scheduler_stats()["llm:llamacpp"]
            assert (stats.failed, stats.stuck) == (0, 0)
        finally:
            await models.close()

    asyncio.run(test())
