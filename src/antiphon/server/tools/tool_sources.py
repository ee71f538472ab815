"""Everything that the owner configured as tools: functions behind web addresses, Python functions, MCP servers.

Nothing that a caller or a language model says chooses where a request goes: the address is the owner's, redirects are
not followed, and arguments travel in the body (of a GET: as query values) only. At most `MAX_BYTES` of an answer are
read.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

from antiphon.call.tools import Tool
from antiphon.config.tool_settings import HttpToolSettings, ToolsSettings, revealed
from antiphon.errors import ConfigError, ToolError
from antiphon.server.tools.mcp_client import McpConnection, check_available
from antiphon.server.tools.python_functions import load_function, tool_of

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


MAX_BYTES = 256 << 10
_TEXT = ("text/", "application/json", "application/xml")
_SHOWN_CHARS = 200


def webhook(name: str, settings: HttpToolSettings, http: httpx.AsyncClient) -> Tool:
    """`http` must not follow redirects; it is closed by whoever made it."""
    hook = _Webhook(name, settings, http)
    return Tool(
        name=name,
        description=settings.description,
        run=hook.run,
        parameters=settings.parameters,
        time_limit_s=settings.time_limit_s,
        filler=settings.filler,
    )


class _Webhook:
    def __init__(self, name: str, settings: HttpToolSettings, http: httpx.AsyncClient) -> None:
        self._name = name
        self._settings = settings
        self._http = http

    async def run(self, arguments: Mapping[str, Any]) -> str:
        settings, sent = self._settings, dict(arguments)
        by_query = settings.method == "GET"
        try:
            async with self._http.stream(
                settings.method,
                settings.url,
                params={name: _flat(value) for name, value in sent.items()} if by_query else None,
                json=None if by_query else sent,
                headers=revealed(settings.headers),
                timeout=settings.time_limit_s,
            ) as response:
                body = await _read(response)
        except httpx.TimeoutException:
            raise ToolError(f"{self._name} did not answer in time") from None
        except httpx.HTTPError as error:  # its text may hold the address, and that a key
            raise ToolError(f"{self._name} cannot be reached ({type(error).__name__})") from None
        self._check(response, body)
        return body or "done"

    def _check(self, response: httpx.Response, body: str) -> None:
        """Raises ToolError for anything but a success in text."""
        status = response.status_code
        if response.is_redirect:
            raise ToolError(f"{self._name} answered with a redirect, which is not followed")
        if response.is_client_error:
            raise ToolError(f"{self._name} refused with status {status}: {body[:_SHOWN_CHARS]}")
        if not response.is_success:
            raise ToolError(f"{self._name} failed with status {status}")
        kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind and not kind.startswith(_TEXT) and not kind.endswith(("+json", "+xml")):
            raise ToolError(f"{self._name} answered with {kind[:60]}, not with text")


async def _read(response: httpx.Response) -> str:
    parts: list[bytes] = []
    read_bytes = 0
    async for part in response.aiter_bytes():
        parts.append(part)
        read_bytes += len(part)
        if read_bytes >= MAX_BYTES:
            break
    text = b"".join(parts)[:MAX_BYTES].decode(response.charset_encoding or "utf-8", "replace")
    return text if read_bytes < MAX_BYTES else f"{text}... (cut)"


def _flat(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
