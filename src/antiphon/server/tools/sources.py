"""Everything that the owner configured as tools, from start to end of the server. Knows no call."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor

import httpx

from antiphon.config.tools import ToolsSettings
from antiphon.errors import ConfigError
from antiphon.server.tools.functions import load_function, tool_of
from antiphon.server.tools.mcp import McpConnection, check_available
from antiphon.server.tools.webhooks import webhook
from antiphon.session.tools import Tool

log = logging.getLogger(__name__)

_THREADS = 8
"""Plain Python functions that run at the same time, all calls together; more wait."""


class ToolSources:
    """Made before the server starts, so that a mistake in the settings ends it; used on its event loop."""

    def __init__(self, settings: ToolsSettings) -> None:
        """Imports the functions. Raises ConfigError."""
        if settings.mcp:
            check_available()
        self._threads = ThreadPoolExecutor(_THREADS, "tool")
        # Redirects stay off: only the owner says where requests go.
        self._http = httpx.AsyncClient(follow_redirects=False) if settings.http else None
        self._fixed = self._make_fixed(settings)
        self._servers = [McpConnection(name, server) for name, server in settings.mcp.items()]

    def _make_fixed(self, settings: ToolsSettings) -> tuple[Tool, ...]:
        limit_s = settings.time_limit_s
        found = [tool_of(load_function(e), self._threads, limit_s) for e in settings.functions]
        if self._http is not None:
            found += [webhook(name, hook, self._http) for name, hook in settings.http.items()]
        names = [tool.name for tool in found]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ConfigError(f"tools: two functions have the name {twice!r}; rename one of them")
        return tuple(found)

    def __call__(self) -> tuple[Tool, ...]:
        """What a call that begins now may use. A name that is taken gets its MCP server's before it."""
        tools = {tool.name: tool for tool in self._fixed}
        for server in self._servers:
            for tool in server.tools(taken=tools):
                tools[tool.name] = tool
        return tuple(tools.values())

    def start(self) -> None:
        """Begin to connect; calls may begin meanwhile."""
        for server in self._servers:
            server.start()

    async def settled(self) -> None:
        """Until each MCP server has been reached, or has not: bounded by the time limit for connecting."""
        for server in self._servers:
            await server.settled()

    async def close(self) -> None:
        for server in self._servers:
            await server.close()
        if self._http is not None:
            await self._http.aclose()
        self._threads.shutdown(wait=False, cancel_futures=True)
