"""`/v1/chat/completions` and the lists, with the official SDK, on scripted models."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI
from tests.protocols.openai_http.support import asked, sdk
from tests.support import PATIENCE_S, STORY, nothing_left, run, until

from antiphon.models.fallback import REST_FAILURES
from antiphon.models.ports import Kind
from antiphon.models.registry import register_model
from antiphon.models.scripted import ScriptedLlm

WEATHER = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}},
}
TOOLS = {
    "models__options__llm__scripted": {
        "tools": {"weather": {"name": "weather", "arguments": {"city": "Lisbon"}}},
        "rules": {"time": "It is noon.", "story": STORY},
    }
}


def tool(parameters: dict[str, Any], name: str = "f") -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


def user(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


class HeldLlm(ScriptedLlm):
    """Says a word, and the rest when it is let go."""

    def __init__(self, weights: Any = None, **options: Any) -> None:
        super().__init__(weights, **options)
        self.go, self.closed = threading.Event(), threading.Event()

    def generate(self, request: Any) -> Any:
        try:
            for number, delta in enumerate(super().generate(request)):
                if number:
                    self.go.wait(PATIENCE_S)
                yield delta
        finally:
            self.closed.set()


register_model("llm", "test-held")(HeldLlm)


def test_an_answer(tmp_path: Path) -> None:
    async def main() -> None:
        async with nothing_left(), asked(tmp_path) as (served, client):
            found = await client.chat.completions.create(
                model="gpt-4o",
                messages=[
                    {"role": "developer", "content": "Be brief."},
                    {"role": "user", "content": [{"type": "text", "text": "what time is it"}]},
                ],
                temperature=0.1,
                max_completion_tokens=50,
                user="somebody",
                seed=5,
                top_p=0.9,
            )
            choice = found.choices[0]
            assert (choice.message.content, choice.finish_reason) == ("It is noon.", "stop")
            assert found.model == "scripted"
            assert found.usage is not None
            assert (found.usage.prompt_tokens, found.usage.completion_tokens) == (6, 3)
            assert found.usage.total_tokens == 9
            (request,) = served.models.backend(Kind.LLM).requests
            assert [m.role for m in request.messages] == ["system", "user"]
            assert (request.temperature, request.max_tokens) == (0.1, 50)
            await until(lambda: served.models.backend(Kind.LLM).released == [request.call_id])

    run(main())


def test_streaming(tmp_path: Path) -> None:
    async def main() -> None:
        async with nothing_left(), asked(tmp_path) as (_, client):
            stream = await client.chat.completions.create(
                model="x",
                messages=user("what time is it"),
                stream=True,
                stream_options={"include_usage": True},
            )
            chunks = [chunk async for chunk in stream]
            assert len({chunk.id for chunk in chunks}) == 1
            assert chunks[0].choices[0].delta.role == "assistant"
            text = [c.choices[0].delta.content or "" for c in chunks if c.choices]
            assert "".join(text) == "It is noon."
            assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
            assert not chunks[-1].choices
            assert chunks[-1].usage is not None
            assert chunks[-1].usage.completion_tokens == 3
            plain = await client.chat.completions.create(
                model="x", messages=user("what time is it"), stream=True
            )
            assert all(chunk.choices for chunk in [c async for c in plain])

    run(main())


def test_limits_of_the_answer(tmp_path: Path) -> None:
    async def main() -> None:
        async with asked(tmp_path) as (_, client):
            create = client.chat.completions.create
            cut = await create(model="x", messages=user("a story"), max_tokens=3)
            assert cut.choices[0].message.content == "word1 word2 word3 "
            assert cut.choices[0].finish_reason == "length"
            stopped = await create(model="x", messages=user("a story"), stop=["ord4", "word9"])
            assert stopped.choices[0].message.content == "word1 word2 word3 w"
            assert stopped.choices[0].finish_reason == "stop"
            across = await create(model="x", messages=user("a story"), stop="word3 word4")
            assert across.choices[0].message.content == "word1 word2 "
            stream = await create(model="x", messages=user("a story"), stop="3 w", stream=True)
            text = [c.choices[0].delta.content or "" async for c in stream]
            assert "".join(text) == "word1 word2 word"

    run(main())


def test_tools(tmp_path: Path) -> None:
    async def main() -> None:
        async with asked(tmp_path, **TOOLS) as (_, client):
            create = client.chat.completions.create
            tools: Any = [WEATHER]
            found = await create(model="x", messages=user("the weather?"), tools=tools)
            choice = found.choices[0]
            assert choice.finish_reason == "tool_calls"
            assert choice.message.content is None
            assert choice.message.tool_calls is not None
            (call,) = choice.message.tool_calls
            assert call.type == "function"
            assert (call.function.name, call.function.arguments) == (
                "weather",
                '{"city": "Lisbon"}',
            )
            stream = await create(
                model="x", messages=user("the weather?"), tools=tools, stream=True
            )
            chunks = [chunk.choices[0] async for chunk in stream]
            deltas = [d for c in chunks for d in c.delta.tool_calls or ()]
            assert [(d.index, d.id) for d in deltas] == [(0, call.id), (0, None)]
            pieces = [d.function.arguments or "" for d in deltas if d.function]
            assert "".join(pieces) == '{"city": "Lisbon"}'
            assert chunks[-1].finish_reason == "tool_calls"

            history = [
                *user("the weather?"),
                choice.message.model_dump(exclude_none=True),
                {"role": "tool", "tool_call_id": call.id, "content": "sunny"},
            ]
            answer = await create(model="x", messages=history, tools=tools)
            assert answer.choices[0].message.content == "The answer is sunny."
            refused = await create(
                model="x", messages=user("the weather?"), tools=tools, tool_choice="none"
            )
            assert refused.choices[0].finish_reason == "stop"

    run(main())


def test_a_reader_that_leaves_stops_the_model(tmp_path: Path) -> None:
    async def main() -> None:
        async with nothing_left(), asked(tmp_path, models__llm="test-held") as (served, client):
            stream = await client.chat.completions.create(
                model="x", messages=user("a story"), stream=True
            )
            await anext(aiter(stream))
            await stream.close()
            await until(lambda: served.app.state.places.taken == 0)
            model = served.models.backend(Kind.LLM)
            model.go.set()
            await until(model.closed.is_set)

            model.go.clear()
            model.closed.clear()
            whole = asyncio.create_task(
                client.chat.completions.create(model="x", messages=user("a story"))
            )
            await until(lambda: served.app.state.places.taken == 1)
            whole.cancel()
            await until(lambda: served.app.state.places.taken == 0)
            model.go.set()

    run(main())


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    async def main() -> None:
        async with asked(tmp_path) as (_, client):
            create: Any = client.chat.completions.create
            for body, reason, param in (
                ({"messages": []}, "1 to 2000 messages", "messages"),
                ({"messages": [{"role": "boss", "content": ""}]}, "role", "messages[0].role"),
                (
                    {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
                    "image_url",
                    "messages[0].content",
                ),
                ({"messages": user("a"), "n": 2}, "one answer", "n"),
                ({"messages": user("a"), "temperature": 3}, "<= 2", "temperature"),
                ({"messages": user("a"), "tools": [{"type": "function"}]}, "tool", "tools[0]"),
                (
                    {"messages": user("a"), "response_format": {"type": "json_object"}},
                    "response_format",
                    "response_format",
                ),
            ):
                with pytest.raises(openai.BadRequestError, match=reason) as found:
                    await create(model="x", **body)
                assert found.value.param == param

    run(main())


def test_a_model_that_fails(tmp_path: Path) -> None:
    async def main() -> None:
        options = {"models__options__llm__scripted": {"fail_always": True}}
        async with asked(tmp_path, **options) as (_, client):
            for stream in (False, True):
                with pytest.raises(openai.InternalServerError, match="the server's log says why"):
                    await client.chat.completions.create(
                        model="x", messages=user("a"), stream=stream
                    )
        options = {"models__options__llm__scripted": {"fail_always": True, "fail_after": 2}}
        async with nothing_left(), asked(tmp_path, **options) as (_, client):
            answer = await client.chat.completions.create(
                model="x", messages=user("a b c d"), stream=True
            )
            with pytest.raises(openai.APIError, match="the server's log says why"):
                [chunk async for chunk in answer]

    run(main())


def test_models(tmp_path: Path) -> None:
    async def main() -> None:
        async with asked(tmp_path) as (served, client):
            listed = [model async for model in client.models.list()]
            assert [m.id for m in listed] == ["scripted"]
            assert (await client.models.retrieve("scripted")).owned_by == "antiphon"
            with pytest.raises(openai.NotFoundError, match="no model 'gpt-9/x'") as found:
                await client.models.retrieve("gpt-9/x")
            assert found.value.code == "model_not_found"
            unknown = await served.http.get("/v1/nothing")
            assert unknown.json()["error"]["message"] == "Not Found"

            only = sdk(served).copy(base_url=f"http://{served.address}/llm/v1")
            assert len([m async for m in only.models.list()]) == 1
            answer = await only.chat.completions.create(model="x", messages=user("the time"))
            assert answer.choices[0].message.content == "It is noon."

            def sync() -> str | None:
                with OpenAI(api_key="x", base_url=f"http://{served.address}/v1") as client:
                    found = client.chat.completions.create(model="x", messages=user("the time"))
                    return found.choices[0].message.content

            assert await asyncio.to_thread(sync) == "It is noon."

    run(main())


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"tools": [tool({"$ref": "#"})]}, "tools[0].function.parameters"),
        ({"tools": [tool({}), tool({})]}, "tools[1].function.name"),
        ({"tools": [tool({}, "no name")]}, "tools[0].function.name"),
        (
            {
                "messages": [
                    {
                        "role": "assistant",
                        "tool_calls": [
                            {"type": "function", "function": {"name": "f", "arguments": "{"}}
                        ],
                    }
                ]
            },
            "messages[0].tool_calls",
        ),
    ],
)
def test_what_the_request_got_wrong_closes_nothing(
    tmp_path: Path, body: dict[str, Any], param: str
) -> None:
    async def main() -> None:
        async with asked(tmp_path) as (served, client):
            create: Any = client.chat.completions.create
            for stream in (False, True) * REST_FAILURES:
                with pytest.raises(openai.BadRequestError) as found:
                    await create(model="x", stream=stream, **{"messages": user("a"), **body})
                assert found.value.param == param
            assert (await served.http.get("/ready")).status_code == 200
            assert await create(model="x", messages=user("a"))

    run(main())


def test_half_characters_of_a_model_are_replaced(tmp_path: Path) -> None:
    async def main() -> None:
        options = {"models__options__llm__scripted": {"rules": {"time": "It is \ud83d noon\x00."}}}
        async with asked(tmp_path, **options) as (_, client):
            whole = await client.chat.completions.create(model="x", messages=user("time"))
            said = "It is \N{REPLACEMENT CHARACTER} noon."
            assert whole.choices[0].message.content == said
            chunks = await client.chat.completions.create(
                model="x", messages=user("time"), stream=True
            )
            pieces = [c.choices[0].delta.content or "" async for c in chunks if c.choices]
            assert "".join(pieces) == said

    run(main())
