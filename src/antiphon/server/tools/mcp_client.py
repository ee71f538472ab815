"""Tools of MCP servers: connected once for all calls, listed, called, and connected again when they die.

The Model Context Protocol (modelcontextprotocol.io) over a program's standard input and output, or over streamable
HTTP, by the `mcp` package. One task owns a connection from beginning to end; callers only borrow it. A
request is never sent twice: nobody knows what it had done before the connection broke.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import logging
import re
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from antiphon.call.tools import Tool
from antiphon.config.tool_settings import McpServerSettings, revealed
from antiphon.errors import ConfigError, ToolError

if TYPE_CHECKING:
    from mcp import Client
    from mcp.client._transport import Transport, TransportStreams
    from mcp.types import CallToolResult
    from mcp.types import Tool as McpTool

log = logging.getLogger(__name__)

CONNECT_S = 30.0
"""To start, to greet and to list the tools."""
_WAIT_S = 5.0
"""A call waits this long for a connection that is being made."""
_CLOSE_S = 10.0
_RETRY_S = (0.1, 1.0, 2.0, 5.0, 15.0, 60.0)
_STEADY_S = 30.0
"""A connection that held this long was a good one: when it is lost, the waits begin anew."""
_MAX_TOOLS = 128
_MAX_PAGES = 20
_LOST = frozenset({-32000, -32600})
"""JSON-RPC codes that the package gives for a connection that has closed, or a session that its server forgot."""


def check_available() -> None:
    """Raises ConfigError when the `mcp` package is missing."""
    if importlib.util.find_spec("mcp") is None:
        raise ConfigError("tools.mcp needs the extra `mcp`: pip install 'antiphon[mcp]'")


@asynccontextmanager
async def mcp_tools(name: str, settings: McpServerSettings) -> AsyncIterator[tuple[Tool, ...]]:
    """The tools of one server for as long as the context lasts. Raises ToolError when it cannot be reached."""
    connection = McpConnection(name, settings)
    connection.start()
    try:
        await connection.settled()
        if connection.error:
            raise ToolError(f"the MCP server {name} cannot be used: {connection.error}")
        yield connection.tools()
    finally:
        await connection.close()


class McpConnection:
    """One configured server."""

    def __init__(self, name: str, settings: McpServerSettings) -> None:
        self.error = ""
        """Why there is no connection; empty: there is one, or none was tried yet."""
        self._name = name
        self._settings = settings
        self._client: Client | None = None
        self._listed: tuple[Tool, ...] = ()
        self._task: asyncio.Task[None] | None = None
        self._tried = asyncio.Event()
        self._ready = asyncio.Event()
        self._lost = asyncio.Event()

    def tools(self, taken: Collection[str] = ()) -> tuple[Tool, ...]:
        """As last listed, under names that are not in `taken`."""
        used, found = set(taken), []
        for tool in self._listed:
            name = tool.name if tool.name not in used else _safe(f"{self._name}_{tool.name}")
            if name in used:
                log.warning("mcp %s: the name of its tool %s is taken", self._name, tool.name)
                continue
            used.add(name)
            found.append(replace(tool, name=name))
        return tuple(found)

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._live(), name=f"mcp {self._name}")

    async def settled(self) -> None:
        """Until the first attempt to connect has ended, well or badly."""
        await self._tried.wait()

    async def close(self) -> None:
        """Ends a program that was started, too."""
        task, self._task = self._task, None
        if task is None:
            return
        task.cancel()
        _, left = await asyncio.wait([task], timeout=_CLOSE_S)
        if left:
            log.error("mcp %s: the connection does not end", self._name)

    # -- the connection -------------------------------------------------------------------------

    async def _live(self) -> None:
        attempt, loop = 0, asyncio.get_running_loop()
        while True:
            since_s = loop.time()
            try:
                async with AsyncExitStack() as stack:
                    async with asyncio.timeout(CONNECT_S):
                        client = await stack.enter_async_context(self._new_client())
                        self._listed = await self._list(client)
                    self._connected(client)
                    await self._lost.wait()
                    self.error = "the connection was lost"
            except Exception as error:  # noqa: BLE001 (a child process, a network, foreign code)
                self.error = self.error or _one_line(error)
            finally:
                self._lose()
                self._tried.set()
            if loop.time() - since_s >= _STEADY_S:
                attempt = 0
            delay_s = _RETRY_S[min(attempt, len(_RETRY_S) - 1)]
            log.warning("mcp %s: %s; again in %g s", self._name, self.error, delay_s)
            attempt += 1
            await asyncio.sleep(delay_s)

    def _connected(self, client: Client) -> None:
        self._client, self.error = client, ""
        self._ready.set()
        self._tried.set()
        names = ", ".join(tool.name for tool in self._listed) or "none"
        log.info("mcp %s: connected; tools: %s", self._name, names)

    def _lose(self) -> None:
        """The connection is of no use any more: the task that owns it makes a new one."""
        self._client = None
        self._ready.clear()
        self._lost.set()

    def _new_client(self) -> Client:
        from mcp import Client

        self.error = ""
        self._lost.clear()
        return Client(_Watched(self._transport(), self._lose))

    def _transport(self) -> Transport:
        from mcp import StdioServerParameters, stdio_client

        settings = self._settings
        if settings.url:
            return _over_http(settings)
        return stdio_client(
            StdioServerParameters(
                command=settings.command,
                args=list(settings.args),
                env=revealed(settings.env),
                cwd=settings.cwd,
            )
        )

    async def _list(self, client: Client) -> tuple[Tool, ...]:
        found: dict[str, Tool] = {}
        cursor: str | None = None
        for _ in range(_MAX_PAGES):
            page = await client.list_tools(cursor=cursor, cache_mode="refresh")
            for listed in page.tools:
                tool = self._tool(listed)
                if tool is not None and len(found) < _MAX_TOOLS:
                    found.setdefault(tool.name, tool)
            cursor = page.next_cursor
            if cursor is None:
                break
        missing = sorted(set(self._settings.tools) - {tool.name for tool in found.values()})
        if missing:
            log.warning("mcp %s: it has no tool %s", self._name, ", ".join(missing))
        return tuple(found.values())

    def _tool(self, listed: McpTool) -> Tool | None:
        wanted = self._settings.tools
        if wanted and listed.name not in wanted:
            return None

        async def run(arguments: Mapping[str, Any]) -> str:
            return await self._call(listed.name, arguments)

        return Tool(
            name=_safe(listed.name),
            description=listed.description or listed.title or listed.name,
            run=run,
            parameters=listed.input_schema,
            time_limit_s=self._settings.time_limit_s,
            filler=self._settings.filler,
        )

    # -- calling --------------------------------------------------------------------------------

    async def _call(self, name: str, arguments: Mapping[str, Any]) -> str:
        from mcp import MCPError

        client = await self._connection()
        try:
            result = await client.call_tool(name, dict(arguments))
        except MCPError as error:
            if error.error.code in _LOST and client is self._client:
                self._lose()
            raise ToolError(f"{name} failed: {error.error.message}") from None
        except (OSError, RuntimeError, ValueError) as error:  # closed meanwhile, or no valid answer
            raise ToolError(f"{name} failed: {_one_line(error)}") from None
        text = _text(result)
        if result.is_error:
            raise ToolError(text or f"{name} failed")
        return text or "done"

    async def _connection(self) -> Client:
        with suppress(TimeoutError):
            async with asyncio.timeout(_WAIT_S):
                await self._ready.wait()
        if self._client is None:
            raise ToolError(f"the server {self._name} cannot be reached now; try again later")
        return self._client


@asynccontextmanager
async def _over_http(settings: McpServerSettings) -> AsyncIterator[TransportStreams]:
    """With the owner's headers. The package follows redirects within the address's origin only."""
    from mcp.client.streamable_http import streamable_http_client
    from mcp.shared._httpx_utils import create_mcp_http_client

    async with (
        create_mcp_http_client(headers=revealed(settings.headers)) as http,
        streamable_http_client(settings.url, http_client=http) as streams,
    ):
        yield streams


class _Watched:
    """A transport that says when the other side has gone: the package tells that to requests only."""

    def __init__(self, transport: Transport, on_end: Callable[[], None]) -> None:
        self._transport = transport
        self._on_end = on_end

    async def __aenter__(self) -> TransportStreams:
        read, write = await self._transport.__aenter__()
        return _Ending(read, self._on_end), write

    async def __aexit__(self, *raised: Any) -> bool | None:
        return await self._transport.__aexit__(*raised)


class _Ending:
    """A stream of the `mcp` package whose end is told."""

    def __init__(self, stream: Any, on_end: Callable[[], None]) -> None:
        self._stream = stream
        self._on_end = on_end

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    async def __aenter__(self) -> _Ending:
        await self._stream.__aenter__()
        return self

    async def __aexit__(self, *raised: Any) -> bool | None:
        left: bool | None = await self._stream.__aexit__(*raised)
        return left

    def __aiter__(self) -> _Ending:
        return self

    async def __anext__(self) -> Any:
        try:
            return await self._stream.__anext__()
        except StopAsyncIteration:
            self._on_end()
            raise

    async def receive(self) -> Any:
        return await self._stream.receive()

    async def aclose(self) -> None:
        await self._stream.aclose()


def _safe(name: str) -> str:
    """A name as endpoints of language models take it."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", name)[:64]


def _text(result: CallToolResult) -> str:
    """What a language model can read of a result; a picture or a sound is only named."""
    parts: list[str] = []
    for block in result.content:
        resource = getattr(block, "resource", block)
        text = getattr(resource, "text", None)
        parts.append(text if isinstance(text, str) else f"[{block.type}]")
    if not parts and result.structured_content is not None:
        return json.dumps(result.structured_content, ensure_ascii=False)
    return "\n".join(parts)


def _one_line(error: BaseException) -> str:
    """The first real reason within groups of them, as the tasks of the package raise them."""
    while isinstance(error, BaseExceptionGroup) and error.exceptions:
        error = error.exceptions[0]
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
