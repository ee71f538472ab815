"""Functions that the owner configured: Python functions, web addresses, and all of them in a call."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import enum
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any

import httpx
import pytest
import uvicorn
from pydantic import Field
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route
from tests.call.support import RecordingDoor
from tests.server.support import QUESTION, START, Client, client, serving
from tests.support import OPTIONS, run, settings, until

from antiphon.call.tools import Tool
from antiphon.config import load
from antiphon.config.tool_settings import HttpToolSettings
from antiphon.errors import ConfigError, ToolError
from antiphon.server.lifecycle import listen
from antiphon.server.tools import ToolSources
from antiphon.server.tools.python_functions import load_function, tool_of
from antiphon.server.tools.tool_sources import MAX_BYTES, webhook

HERE = __name__


class Unit(enum.Enum):
    C = "C"
    F = "F"


def weather(city: str, days: Annotated[int, Field(ge=1, le=7)] = 1, unit: Unit = Unit.C) -> Any:
    """Tells the weather
    of a city.

    Args:
        city: Where, for instance Oslo.
        days (int): How far ahead.

    Returns:
        What it will be.
    """
    return {"city": city, "days": days, "unit": unit.value}


async def until_when(day: datetime.date) -> str:
    """Says how long it is until a day."""
    return f"until {day:%d %B}"


def untold(city: str) -> str:
    return city


def greedy(*cities: str) -> str:
    """Takes anything."""
    return "".join(cities)


def odd(thing: threading) -> str:  # type: ignore[name-defined]  # noqa: F821
    """Has a type that there is not."""
    return str(thing)


def broken() -> str:
    """Fails."""
    raise ValueError("no luck")


NOT_A_FUNCTION = 5


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


# -- Python functions ---------------------------------------------------------------------------------


def test_a_schema_is_made_of_hints_and_docstring(threads: ThreadPoolExecutor) -> None:
    made = tool_of(load_function(f"{HERE}:weather"), threads)
    assert (made.name, made.description) == ("weather", "Tells the weather of a city.")
    assert made.parameters["required"] == ["city"]
    assert made.parameters["additionalProperties"] is False
    assert "title" not in json.dumps(made.parameters)
    properties = made.parameters["properties"]
    assert properties["city"] == {"type": "string", "description": "Where, for instance Oslo."}
    assert properties["days"] | {"default": 1} == {
        "type": "integer",
        "minimum": 1,
        "maximum": 7,
        "default": 1,
        "description": "How far ahead.",
    }


def test_a_plain_function_runs_in_a_thread_and_an_async_one_on_the_loop(
    threads: ThreadPoolExecutor,
) -> None:
    async def main() -> None:
        told = await tool_of(weather, threads).run({"city": "Oslo", "unit": "F"})
        assert json.loads(told) == {"city": "Oslo", "days": 1, "unit": "F"}
        assert await tool_of(until_when, threads).run({"day": "2030-05-17"}) == "until 17 May"
        with pytest.raises(ToolError, match="day: Input should be a valid date"):
            await tool_of(until_when, threads).run({"day": "tomorrow"})
        with pytest.raises(ValueError, match="no luck"):
            await tool_of(broken, threads).run({})

    run(main())


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ("weather", "not of the form module:function"),
        ("no.such.module:f", "cannot import no.such.module"),
        (f"{HERE}:no_such", "there is no function no_such"),
        (f"{HERE}:NOT_A_FUNCTION", "there is no function NOT_A_FUNCTION"),
        (f"{HERE}:untold", "untold has no docstring"),
        (f"{HERE}:greedy", "may not have *args"),
        (f"{HERE}:odd", "the types of odd cannot be read"),
        ([f"{HERE}:weather", f"{HERE}:weather"], "two functions have the name 'weather'"),
    ],
)
def test_a_function_that_cannot_be_used_ends_the_start(
    tmp_path: Path, entry: Any, told: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        ToolSources(settings(tmp_path, tools__functions=entry).tools)
    assert told in str(caught.value)


# -- web addresses ------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def site(answer: Callable[[Request], Awaitable[Response]]) -> AsyncIterator[str]:
    """A web server on loopback -> its address."""
    app = Starlette(routes=[Route("/{path:path}", answer, methods=["GET", "POST"])])
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off"))
    listener = listen("127.0.0.1", 0)
    task = asyncio.create_task(server.serve([listener]))
    try:
        await until(lambda: server.started)
        yield "http://{}:{}/hook".format(*listener.getsockname())
    finally:
        server.should_exit = True
        await task


async def ask(
    answer: Callable[[Request], Awaitable[Response]], arguments: Mapping[str, Any], **fields: Any
) -> str:
    async with site(answer) as url, httpx.AsyncClient() as http:
        chosen = HttpToolSettings(**{"url": url, "description": "A test.", **fields})
        return await webhook("hook", chosen, http).run(arguments)


def test_arguments_go_out_as_json_with_the_owners_headers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOOK_KEY", "very secret")
    seen: list[Any] = []

    async def answer(request: Request) -> Response:
        seen.append((request.method, request.headers["x-key"], await request.json()))
        return JSONResponse({"sky": "blue"})

    told = run(ask(answer, {"city": "Oslo"}, headers={"X-Key": "$HOOK_KEY"}))
    assert json.loads(told) == {"sky": "blue"}
    assert seen == [("POST", "very secret", {"city": "Oslo"})]


def test_a_get_sends_them_as_query_values_and_cannot_change_the_address() -> None:
    async def answer(request: Request) -> Response:
        return JSONResponse([request.url.path, dict(request.query_params)])

    given = {"city": "../admin?x=1#", "days": 2, "near": ["a"]}
    told = json.loads(run(ask(answer, given, method="GET")))
    assert told == ["/hook", {"city": "../admin?x=1#", "days": "2", "near": '["a"]'}]


async def _redirect(request: Request) -> Response:
    return RedirectResponse("http://169.254.169.254/latest")


async def _refuse(request: Request) -> Response:
    return Response("no such city", 404, media_type="text/plain")


async def _fail(request: Request) -> Response:
    return Response("a stack trace", 500, media_type="text/plain")


async def _picture(request: Request) -> Response:
    return Response(b"\x89PNG", media_type="image/png")


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (_redirect, "hook answered with a redirect, which is not followed"),
        (_refuse, "hook refused with status 404: no such city"),
        (_fail, "hook failed with status 500"),
        (_picture, "hook answered with image/png, not with text"),
    ],
)
def test_an_answer_that_is_no_success_is_told(
    answer: Callable[[Request], Awaitable[Response]], told: str
) -> None:
    with pytest.raises(ToolError) as caught:
        run(ask(answer, {}))
    assert str(caught.value) == told


def test_only_the_beginning_of_a_large_answer_is_read() -> None:
    async def answer(request: Request) -> Response:
        return Response("x" * 10_000_000, media_type="text/plain")

    assert len(run(ask(answer, {}))) < MAX_BYTES + 20


def test_an_address_that_does_not_answer_is_told_without_the_address() -> None:
    async def main() -> None:
        listener = listen("127.0.0.1", 0)
        url = "http://{}:{}/?key=secret".format(*listener.getsockname())
        listener.close()
        async with httpx.AsyncClient() as http:
            chosen = HttpToolSettings(url=url, description="A test.")
            await webhook("hook", chosen, http).run({})

    with pytest.raises(ToolError) as caught:
        run(main())
    assert str(caught.value) == "hook cannot be reached (ConnectError)"


def test_an_answer_that_never_comes_is_told() -> None:
    async def main() -> None:
        gate = asyncio.Event()

        async def answer(request: Request) -> Response:
            await gate.wait()
            return Response("late")

        async with site(answer) as url, httpx.AsyncClient() as http:
            chosen = HttpToolSettings(url=url, description="A test.", time_limit_s=0.05)
            try:
                await webhook("hook", chosen, http).run({})
            finally:
                gate.set()

    with pytest.raises(ToolError, match="hook did not answer in time"):
        run(main())


# -- settings -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        ({"tools.http.x.url": "ftp://x", "tools.http.x.description": "x"}, "must begin with http"),
        ({"tools.http.a b.url": "http://x", "tools.http.a b.description": "x"}, "a name has"),
        ({"tools.http.x.url": "http://x"}, "description"),
        ({"tools.mcp.x.args": ["a"]}, "give either command"),
        ({"tools.mcp.x.command": "a", "tools.mcp.x.url": "http://x"}, "give either command"),
        (
            {"tools.mcp.x.url": "http://x", "tools.mcp.x.headers": {"a": "$NO_SUCH_VARIABLE"}},
            "the variable NO_SUCH_VARIABLE is not set",
        ),
    ],
)
def test_a_mistake_in_the_settings_is_told(
    tmp_path: Path, overrides: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(overrides, folder=tmp_path)
    assert told in str(caught.value)


def test_secrets_are_not_shown(tmp_path: Path) -> None:
    found = load(
        {
            "tools.http.x.url": "http://x",
            "tools.http.x.description": "x",
            "tools.http.x.headers": {"Authorization": "Bearer hush"},
            "tools.mcp.y.command": "y",
            "tools.mcp.y.env": {"TOKEN": "hush"},
        },
        folder=tmp_path,
    )
    assert "hush" not in repr(found)
    assert "hush" not in found.model_dump_json()


# -- in a call ----------------------------------------------------------------------------------------


def spoken(caller: Client) -> str:
    return "".join(message["text"] for message in caller.of("ai_text"))


def test_a_configured_function_is_run_in_a_call(tmp_path: Path) -> None:
    llm = {
        **OPTIONS["llm"],
        "tools": {"time": {"name": "weather", "arguments": {"city": "Oslo", "days": "2"}}},
    }
    chosen: dict[str, Any] = {
        "tools__functions": f"{HERE}:weather",
        "models__options__llm": {"scripted": llm},
    }

    async def main() -> None:
        async with serving(tmp_path, **chosen) as served, client(served, start=START) as caller:
            await caller.speak(QUESTION)
            words = 'The answer is {"city":"Oslo","days":2,"unit":"C"}.'
            await until(lambda: spoken(caller) == words, f"not said: {words}")

    run(main())


def test_each_call_may_bring_functions_of_its_own(tmp_path: Path) -> None:
    async def main() -> None:
        async def nothing(arguments: Mapping[str, Any]) -> str:
            return ""

        async with serving(tmp_path, tools__functions=f"{HERE}:weather") as served:
            own = Tool("hang_up", "Ends the call.", nothing)
            async with served.calls.open(RecordingDoor(), tools=(own,)) as session:
                running = asyncio.create_task(session.run(greet=False, max_s=0.01))
                names = [spec["function"]["name"] for spec in session._model_tasks.toolbox.specs()]
                assert names == ["weather", "hang_up"]
                await running

    run(main())
