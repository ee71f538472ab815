"""The OpenAI-compatible back end against a small real server that answers, breaks and hangs."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from pydantic import SecretStr

from antiphon.errors import ModelError, RequestError
from antiphon.models.llm.openai_compatible import OpenAICompatible
from antiphon.models.ports import LlmDelta, LlmRequest, Message, ToolCall, Usage
from antiphon.testing.contracts import check_llm

KEY = "sk-very-secret-key"
REQUEST = LlmRequest(
    (Message("system", "Be brief."), Message("user", "Hello?")), max_tokens=7, temperature=0.5
)
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}

Answer = Callable[["FakeServer", dict[str, Any], asyncio.StreamWriter], Awaitable[None]]


class FakeServer:
    """HTTP/1.1 by hand, to be able to break it anywhere. One completion per connection."""

    def __init__(self, answer: Answer, models: int = 200) -> None:
        self._answer = answer
        self._models = models
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[str] = []
        self.connections: list[asyncio.Task[None]] = []
        self.disconnected = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.current_task()
        assert connection is not None
        self.connections.append(connection)
        try:
            while head := (await reader.readuntil(b"\r\n\r\n")).decode():
                self.headers.append(head)
                if head.startswith("GET"):
                    listing = {"data": [{"id": "tiny", "object": "model"}], "object": "list"}
                    await send(writer, self._models, listing, connection="keep-alive")
                    continue
                length = next(
                    int(line.split(":")[1])
                    for line in head.splitlines()
                    if line.lower().startswith("content-length")
                )
                self.bodies.append(json.loads(await reader.readexactly(length)))
                answer = asyncio.ensure_future(self._answer(self, self.bodies[-1], writer))
                gone = asyncio.ensure_future(reader.read(1))
                await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
                if not answer.done():
                    answer.cancel()
                    self.disconnected.set()
                gone.cancel()
                break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


async def send(
    writer: asyncio.StreamWriter, status: int, body: Any, connection: str = "close"
) -> None:
    content = json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} X", "Content-Type: application/json", f"Connection: {connection}"]
    lines += [f"Content-Length: {len(content)}", "", ""]
    writer.write("\r\n".join(lines).encode() + content)
    await writer.drain()


async def begin(writer: asyncio.StreamWriter) -> None:
    writer.write(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
        b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    await writer.drain()


async def event(writer: asyncio.StreamWriter, data: str) -> None:
    content = f"data: {data}\n\n".encode()
    writer.write(f"{len(content):x}\r\n".encode() + content + b"\r\n")
    await writer.drain()


async def end(writer: asyncio.StreamWriter) -> None:
    await event(writer, "[DONE]")
    writer.write(b"0\r\n\r\n")
    await writer.drain()


def chunk(delta: dict[str, Any] | None = None, finish: str | None = None, **more: Any) -> str:
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    head = {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": "tiny"}
    return json.dumps({**head, "choices": choices, **more})


def streaming(*chunks: str) -> Answer:
    async def answer(_: FakeServer, body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        await begin(writer)
        for one in chunks:
            await event(writer, one)
        await end(writer)

    return answer


def refusing(status: int, message: str) -> Answer:
    async def answer(_: FakeServer, body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        await send(writer, status, {"error": {"message": message}})

    return answer


HELLO = (
    chunk({"role": "assistant", "content": ""}),
    chunk({"content": "Hel"}),
    chunk({"content": "lo."}),
    chunk({}, "stop"),
)
USAGE = chunk(
    usage={
        "prompt_tokens": 9,
        "completion_tokens": 2,
        "total_tokens": 11,
        "prompt_tokens_details": {"cached_tokens": 5},
    }
)


@asynccontextmanager
async def served(
    answer: Answer, models: int = 200, **options: Any
) -> AsyncIterator[tuple[OpenAICompatible, FakeServer]]:
    """A loaded model and its server."""
    fake = FakeServer(answer, models)
    server = await asyncio.start_server(fake.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    options = {"api_key": KEY, "model": "tiny", "max_retries": 0, **options}
    model = OpenAICompatible(base_url=f"http://127.0.0.1:{port}/v1", **options)
    try:
        await model.load()
        yield model, fake
    finally:
        await model.close()
        server.close()
        await asyncio.gather(*fake.connections)


def replied(answer: Answer, request: LlmRequest = REQUEST, **options: Any) -> list[LlmDelta]:
    async def talk() -> list[LlmDelta]:
        async with served(answer, **options) as (model, _):
            return [delta async for delta in model.generate(request)]

    return asyncio.run(talk())


def said(deltas: list[LlmDelta]) -> str:
    return "".join(delta.text for delta in deltas)


# --- replies ------------------------------------------------------------------------------------


def test_a_reply_with_usage_in_a_chunk_without_choices() -> None:
    deltas = replied(streaming(*HELLO, USAGE))
    assert [delta.text for delta in deltas] == ["Hel", "lo.", ""]
    assert deltas[-1] == LlmDelta(finish="stop", usage=Usage(9, 2, 5))


@pytest.mark.parametrize(
    ("chunks", "text"),
    [
        (({"content": "<thi"}, {"content": "nk>so</think>"}, {"content": "\nHi"}), "Hi"),
        (({"reasoning_content": "so", "content": None}, {"content": "Hi"}), "Hi"),
        (({"reasoning": "so"}, {"content": "H"}, {"content": "i"}), "Hi"),
    ],
)
def test_reasoning_is_not_spoken(chunks: tuple[dict[str, Any], ...], text: str) -> None:
    assert said(replied(streaming(*map(chunk, chunks), chunk({}, "stop")))) == text


@pytest.mark.parametrize(
    ("reason", "finish"), [("stop", "stop"), ("length", "length"), ("content_filter", "stop")]
)
def test_reasons_to_finish(reason: str, finish: str) -> None:
    assert replied(streaming(chunk({"content": "Hi"}, reason)))[-1].finish == finish


def part(index: int | None, call_id: str | None, name: str | None, arguments: str) -> str:
    function = {"name": name, "arguments": arguments}
    call = {"index": index, "id": call_id, "type": "function", "function": function}
    return chunk({"tool_calls": [call]})


@pytest.mark.parametrize("reason", ["tool_calls", "stop"])
def test_tool_calls_in_fragments(reason: str) -> None:
    deltas = replied(
        streaming(
            part(0, "a", "look", ""),
            part(0, None, None, '{"q"'),
            part(1, "b", "look", "{}"),
            part(0, None, None, ": 1}"),
            chunk({}, reason),
        ),
        LlmRequest(REQUEST.messages, tools=(TOOL,), tool_choice="auto"),
    )
    calls = [delta.tool_call for delta in deltas if delta.tool_call]
    assert calls == [ToolCall("a", "look", '{"q": 1}'), ToolCall("b", "look", "{}")]
    parts = [delta.tool_part for delta in deltas if delta.tool_part]
    assert [(p.call_id, p.name, p.text) for p in parts] == [
        ("a", "look", '{"q"'),
        ("b", "look", "{}"),
        ("a", "look", ": 1}"),
    ]
    assert deltas[-1].finish == "tool_calls"


def test_what_is_asked() -> None:
    async def talk() -> None:
        options = {"extra_headers": {"X-Team": "voice"}, "extra_body": {"top_k": 5}}
        async with served(streaming(*HELLO), **options) as (model, server):
            request = LlmRequest(REQUEST.messages, "a", 7, 0.5, (TOOL,), "required")
            assert said([delta async for delta in model.generate(request)]) == "Hello."
            assert server.bodies == [
                {
                    "model": "tiny",
                    "messages": [
                        {"role": "system", "content": "Be brief."},
                        {"role": "user", "content": "Hello?"},
                    ],
                    "max_tokens": 7,
                    "temperature": 0.5,
                    "stream": True,
                    "stream_options": {"include_usage": True},
                    "tools": [TOOL],
                    "tool_choice": "required",
                    "top_k": 5,
                }
            ]
            assert len(server.connections) == 1  # the one that `load` opened
            schema = {"type": "object"}
            request = replace(REQUEST, response_schema=schema)
            assert said([delta async for delta in model.generate(request)]) == "Hello."
            assert server.bodies[-1]["response_format"] == {
                "type": "json_schema",
                "json_schema": {"name": "answer", "schema": schema},
            }
            assert "x-team: voice" in server.headers[-1].lower()
            assert f"Bearer {KEY}" in server.headers[-1]

    asyncio.run(talk())


def test_it_keeps_the_contract() -> None:
    async def answer(_: FakeServer, body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        await begin(writer)
        words = ["Hello", " there", ",", " you", "."][: body["max_tokens"]]
        for word in words:
            await event(writer, chunk({"content": word}))
        await event(writer, chunk({}, "stop"))
        await end(writer)

    with asyncio.Runner() as runner:
        context = served(answer)
        model, _ = runner.run(context.__aenter__())
        check_llm(model, runner=runner)
        runner.run(context.__aexit__(None, None, None))


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("stream_options", "unknown field: stream_options"),
        ("response_format", "response_format is not supported here"),
        ("temperature", "Unsupported value: 'temperature' does not support 0.5 with this model."),
        ("max_tokens", "'max_tokens' is not supported. Use 'max_completion_tokens' instead."),
    ],
)
def test_a_field_that_the_server_refuses_is_left_out_from_then_on(field: str, message: str) -> None:
    async def answer(
        server: FakeServer, body: dict[str, Any], writer: asyncio.StreamWriter
    ) -> None:
        if field in body:
            await send(writer, 400, {"error": {"message": message}})
        else:
            await streaming(*HELLO)(server, body, writer)

    async def talk() -> None:
        async with served(answer) as (model, server):
            request = replace(REQUEST, response_schema={"type": "object"})
            for _ in range(2):
                assert said([delta async for delta in model.generate(request)]) == "Hello."
            assert [field in body for body in server.bodies] == [True, False, False]
            if field == "max_tokens":
                assert server.bodies[-1]["max_completion_tokens"] == 7

    asyncio.run(talk())


def test_warming_is_a_request_only_where_it_was_asked_for() -> None:
    async def answer(_: FakeServer, body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        message = {"role": "assistant", "content": "H"}
        choice = {"index": 0, "message": message, "finish_reason": "length"}
        body = {"id": "c", "object": "chat.completion", "created": 0, "model": "tiny"}
        await send(writer, 200, {**body, "choices": [choice]})

    async def talk(warm_with_request: bool) -> list[dict[str, Any]]:
        async with served(answer, warm_with_request=warm_with_request) as (model, server):
            await model.warm(REQUEST)
            await model.release("a")
            return server.bodies

    assert asyncio.run(talk(False)) == []
    (body,) = asyncio.run(talk(True))
    assert (body["max_tokens"], body["stream"]) == (1, False)


# --- trouble ------------------------------------------------------------------------------------


async def hanging(_: FakeServer, body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
    await begin(writer)
    await event(writer, HELLO[1])
    await asyncio.Event().wait()


async def silent(_: FakeServer, body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def vanishing(_: FakeServer, body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
    await begin(writer)
    await event(writer, HELLO[1])
    writer.close()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (refusing(401, f"Incorrect API key provided: {KEY}"), "check the key"),
        (refusing(403, "no access"), "check the key"),
        (refusing(404, "no such model"), "has no model 'tiny'"),
        (refusing(429, "quota exceeded"), "quota exceeded"),
        (refusing(500, f"crashed\nwith {KEY}"), "answered 500"),
        (silent, "did not answer within 0.2 s"),
        (hanging, "silent for 0.2 s"),
        (vanishing, "broke off"),
        (streaming("{garbage"), "broke off"),
        (streaming(json.dumps({"error": {"message": "out of memory"}})), "out of memory"),
        (streaming(*HELLO[:-1]), "ended in the middle"),
        (streaming(), "ended in the middle"),
    ],
)
def test_trouble_is_one_line_without_the_key(answer: Answer, reason: str) -> None:
    with pytest.raises(ModelError, match=reason) as failure:
        replied(answer, timeout_s=0.2)
    assert "\n" not in str(failure.value)
    assert KEY not in str(failure.value)


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_refused_request_is_not_the_models_fault(
    status: int, caplog: pytest.LogCaptureFixture
) -> None:
    said = "at http://10.0.0.7:8000 there is no room"
    with caplog.at_level(logging.WARNING), pytest.raises(RequestError) as failure:
        replied(refusing(status, said))
    assert "10.0.0.7" not in str(failure.value)
    assert said in caplog.text


@pytest.mark.parametrize("way", ["close", "cancel"])
def test_closing_a_reply_closes_the_connection(way: str) -> None:
    async def talk() -> None:
        async with served(hanging) as (model, server):
            reply = model.generate(REQUEST)
            if way == "close":
                async with aclosing(reply):  # type: ignore[type-var]
                    assert (await anext(reply)).text == "Hel"
            else:
                begun = asyncio.Event()

                async def listen() -> None:
                    async for _ in reply:
                        begun.set()

                task = asyncio.ensure_future(listen())
                await begun.wait()
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            await asyncio.wait_for(server.disconnected.wait(), 10)

    asyncio.run(talk())


# --- loading ------------------------------------------------------------------------------------


def load_error(models: int = 200, **options: Any) -> str:
    async def load() -> None:
        async with served(streaming(*HELLO), models, **options):
            pass

    with pytest.raises(ModelError) as failure:
        asyncio.run(load())
    assert KEY not in str(failure.value)
    return str(failure.value)


def test_a_server_that_refuses_the_key() -> None:
    assert "check the key" in load_error(401)


def test_a_server_that_does_not_list_its_models_is_taken_as_it_is() -> None:
    assert said(replied(streaming(*HELLO), models=404)) == "Hello."
    assert "name a model" in load_error(404, model="")


def test_without_a_name_the_only_model_is_taken() -> None:
    async def talk() -> str:
        async with served(streaming(*HELLO), model="") as (model, _):
            return model.info.detail

    assert asyncio.run(talk()).startswith("tiny at 127.0.0.1:")


def test_no_server_at_all() -> None:
    async def load() -> None:
        server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        server.close()
        await server.wait_closed()
        url = f"http://user:{KEY}@127.0.0.1:{port}/v1"
        await OpenAICompatible(base_url=url, api_key=KEY, model="x", max_retries=0).load()

    with pytest.raises(ModelError, match=r"cannot reach http://127.0.0.1:\d+/v1: start") as failure:
        asyncio.run(load())
    assert KEY not in str(failure.value)


@pytest.mark.parametrize(
    ("options", "variable"),
    [({}, "OPENAI_API_KEY"), ({"base_url": "https://api.groq.com/openai/v1"}, "GROQ_API_KEY")],
)
def test_a_service_that_wants_a_key(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, str], variable: str
) -> None:
    monkeypatch.delenv(variable, raising=False)
    with pytest.raises(ModelError, match=f"set {variable}"):
        asyncio.run(OpenAICompatible(**options).load())  # type: ignore[arg-type]


def test_the_key_of_openai_goes_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)

    async def talk() -> str:
        async with served(streaming(*HELLO), api_key="") as (_, server):
            return "".join(server.headers)

    assert KEY not in asyncio.run(talk())


@pytest.mark.parametrize("key", [KEY, SecretStr(KEY)])
def test_the_key_is_shown_nowhere(key: str | SecretStr) -> None:
    model = OpenAICompatible(api_key=key)
    assert KEY not in f"{model!r} {model.info} {vars(model)}"
