"""Tools of real MCP servers, made with the `mcp` package: as a program, and over HTTP on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from mcp.server.mcpserver import MCPServer
from starlette.types import Receive, Scope, Send
from tests.server.support import QUESTION, START, client, serving
from tests.support import OPTIONS, nothing_left, run, until

from antiphon.call.tools import Tool
from antiphon.config.tool_settings import McpServerSettings
from antiphon.errors import ToolError
from antiphon.server.lifecycle import listen
from antiphon.server.tools.mcp_client import McpConnection, mcp_tools

PROGRAM = '''
import os, time
from mcp.server.mcpserver import MCPServer

server = MCPServer("demo", log_level="CRITICAL")

@server.tool()
def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b

@server.tool()
def secret() -> str:
    """Tells the secret it was given."""
    return os.environ.get("SECRET", "none")

@server.tool()
def die() -> str:
    """Ends the server."""
    os._exit(1)

@server.tool()
def large() -> str:
    """Tells much."""
    return "x" * 1_000_000

@server.tool(name="odd name!")
def odd() -> str:
    """Has a name that language models do not take."""
    return "odd"

server.run()
'''


@pytest.fixture
def program(tmp_path: Path) -> dict[str, Any]:
    path = tmp_path / "demo.py"
    path.write_text(PROGRAM)
    return {"command": sys.executable, "args": (str(path),)}


def named(tools: tuple[Tool, ...]) -> dict[str, Tool]:
    return {tool.name: tool for tool in tools}


def test_a_program_is_started_listed_called_and_ended(program: dict[str, Any]) -> None:
    async def main() -> None:
        async with nothing_left():
            chosen = McpServerSettings(**program, env={"SECRET": "hush"}, time_limit_s=7)
            async with mcp_tools("demo", chosen) as found:
                tools = named(found)
                assert sorted(tools) == ["add", "die", "large", "odd_name_", "secret"]
                assert tools["add"].description == "Adds two numbers."
                assert tools["add"].parameters["required"] == ["a", "b"]
                assert tools["add"].time_limit_s == 7
                assert await tools["add"].run({"a": 1, "b": 2}) == "3"
                assert await tools["secret"].run({}) == "hush"
                assert await tools["odd_name_"].run({}) == "odd"
                assert len(await tools["large"].run({})) == 1_000_000
                with pytest.raises(ToolError, match="valid integer"):
                    await tools["add"].run({"a": "x", "b": 2})

    run(main())


def test_a_program_that_dies_is_started_again(program: dict[str, Any]) -> None:
    async def main() -> None:
        async with mcp_tools("demo", McpServerSettings(**program)) as found:
            tools = named(found)
            with pytest.raises(ToolError, match="die failed: Connection closed"):
                await tools["die"].run({})
            assert await tools["add"].run({"a": 1, "b": 2}) == "3"  # waits for the new one

    run(main())


def test_only_the_tools_that_the_owner_allows_are_there(program: dict[str, Any]) -> None:
    async def main() -> None:
        async with mcp_tools("demo", McpServerSettings(**program, tools="add, gone")) as found:
            assert sorted(named(found)) == ["add"]

    run(main())


def test_a_name_that_is_taken_gets_the_servers_before_it(program: dict[str, Any]) -> None:
    async def main() -> None:
        connection = McpConnection("demo", McpServerSettings(**program, tools="add"))
        connection.start()
        await connection.settled()
        try:
            assert sorted(named(connection.tools(taken={"add"}))) == ["demo_add"]
            assert connection.tools(taken={"add", "demo_add"}) == ()
        finally:
            await connection.close()

    run(main())


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"command": "/no/such/program"}, "No such file"),
        ({"command": sys.executable, "args": ("-c", "pass")}, "Connection closed"),
    ],
)
def test_a_server_that_cannot_be_used_is_told_in_one_line(
    settings: dict[str, Any], told: str
) -> None:
    async def main() -> None:
        async with mcp_tools("demo", McpServerSettings(**settings)):
            pass

    with pytest.raises(ToolError) as caught:
        run(main())
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


class Site:
    """An MCP server over HTTP on loopback, that can be ended and begun again at the same port."""

    def __init__(self) -> None:
        self.headers: list[dict[str, str]] = []
        self.gate = asyncio.Event()
        self._stack = contextlib.AsyncExitStack()
        self._port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/mcp"

    async def begin(self) -> None:
        self._listener = listen("127.0.0.1", self._port)
        self._port = self._listener.getsockname()[1]
        self._server = uvicorn.Server(
            uvicorn.Config(self._app(), log_config=None, timeout_graceful_shutdown=1)
        )
        self._task = asyncio.create_task(self._server.serve([self._listener]))
        await until(lambda: self._server.started)

    async def end(self) -> None:
        self._server.should_exit = True
        await self._task
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _app(self) -> Any:
        server = MCPServer("web", log_level="CRITICAL")

        @server.tool()
        async def echo(text: str) -> str:
            """Says it again."""
            return text

        @server.tool()
        async def wait() -> str:
            """Never answers."""
            await self.gate.wait()
            return "late"

        inner = server.streamable_http_app()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "http":
                self.headers.append({k.decode(): v.decode() for k, v in scope["headers"]})
            await inner(scope, receive, send)

        return app


@contextlib.asynccontextmanager
async def web() -> AsyncIterator[Site]:
    site = Site()
    await site.begin()
    try:
        yield site
    finally:
        site.gate.set()
        await site.end()


def test_a_server_over_http_is_listed_and_called_with_the_owners_headers() -> None:
    async def main() -> None:
        async with web() as site:
            chosen = McpServerSettings(url=site.url, headers={"Authorization": "Bearer hush"})
            async with mcp_tools("web", chosen) as found:
                assert sorted(named(found)) == ["echo", "wait"]
                assert await named(found)["echo"].run({"text": "hello"}) == "hello"
            assert all(sent["authorization"] == "Bearer hush" for sent in site.headers)

    run(main())


def test_a_call_that_is_given_up_leaves_the_connection_sound() -> None:
    async def main() -> None:
        async with web() as site, mcp_tools("web", McpServerSettings(url=site.url)) as found:
            tools = named(found)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await tools["wait"].run({})
            assert await tools["echo"].run({"text": "hello"}) == "hello"

    run(main())


def test_a_server_over_http_that_comes_back_is_used_again() -> None:
    async def main() -> None:
        async with web() as site, mcp_tools("web", McpServerSettings(url=site.url)) as found:
            echo = named(found)["echo"]
            assert await echo.run({"text": "one"}) == "one"
            await site.end()
            with pytest.raises(ToolError, match=r"echo failed|cannot be reached"):
                await echo.run({"text": "two"})
            await site.begin()
            with contextlib.suppress(
                ToolError
            ):  # the session of before, if it is found out only now
                await echo.run({"text": "three"})
            assert await echo.run({"text": "four"}) == "four"

    run(main())


def test_a_configured_server_is_used_in_a_call(tmp_path: Path, program: dict[str, Any]) -> None:
    llm = {**OPTIONS["llm"], "tools": {"time": {"name": "add", "arguments": {"a": 20, "b": 22}}}}
    chosen: dict[str, Any] = {
        "tools__mcp__demo__command": program["command"],
        "tools__mcp__demo__args": program["args"],
        "models__options__llm": {"scripted": llm},
    }

    async def main() -> None:
        async with serving(tmp_path, **chosen) as served, client(served, start=START) as caller:
            await caller.speak(QUESTION)
            await until(
                lambda: "".join(m["text"] for m in caller.of("ai_text")) == "The answer is 42."
            )

    run(main())
