"""Functions behind web addresses: arguments out as JSON, an answer back as text. Knows no call.

Nothing that a caller or a language model says chooses where a request goes: the address is the owner's, redirects are
not followed, and arguments travel in the body (of a GET: as query values) only. At most `MAX_BYTES` of an answer are
read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import httpx

from antiphon.config.tools import HttpToolSettings, revealed
from antiphon.errors import ToolError
from antiphon.session.tools import Tool

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
