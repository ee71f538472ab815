"""Recordings of callers, fetched from where the webhook says they are: only from hosts that are expected to have them.

A webhook's address is a request to this server to fetch something, and whoever could forge one would have it read the
machines around it. So the address must be on the REST API's host, at Twilio, or on a host of `phone.media_hosts`;
redirects are followed by hand under the same rule, and credentials go to the REST API's own host only. Knows no call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import httpx

from antiphon.config.sections import PhoneSettings
from antiphon.errors import AntiphonError, ProtocolError
from antiphon.server.security import is_loopback

MAX_BYTES = 20 << 20
"""Ten minutes of stereo WAV at 8 kHz."""
_PATIENCE_S = 8.0
"""A recording may be missing for seconds after the webhook that announces it."""
_PAUSES_S = (0.1, 0.2, 0.4, 0.8, 1.0)
_MAX_REDIRECTS = 3
_TIMEOUT = httpx.Timeout(5.0)
_HEADERS = {"User-Agent": "antiphon", "Accept-Encoding": "identity"}
"""Sound gains nothing from compression, and a megabyte could unpack to gigabytes."""
_TWILIO = (".twilio.com", ".twiliocdn.com")
_NOT_YET = frozenset({404, 409, 425, 429})

Pause = Callable[[float], Awaitable[None]]


class FetchError(AntiphonError):
    """A recording cannot be had from where it should be."""


@dataclass(frozen=True, slots=True)
class _Origin:
    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: httpx.URL) -> _Origin:
        return cls(url.scheme, url.host, url.port or (443 if url.scheme == "https" else 80))


class RecordingFetcher:
    """One pooled client. Close it."""

    def __init__(self, phone: PhoneSettings, *, pause: Pause = asyncio.sleep) -> None:
        self._pause = pause
        token = phone.auth_token.get_secret_value()
        self._auth = (
            httpx.BasicAuth(phone.account_sid, token) if phone.account_sid and token else None
        )
        self._rest = _Origin.of(httpx.URL(phone.rest_base_url))
        self._others = frozenset(
            _Origin.of(httpx.URL(host if "://" in host else f"https://{host}"))
            for host in phone.media_hosts
        )
        self._local = not token
        """Without a token only callers of this machine are served, and their recordings are on it."""
        self._http = httpx.AsyncClient(timeout=_TIMEOUT, headers=_HEADERS)

    async def close(self) -> None:
        await self._http.aclose()

    async def fetch(self, address: str) -> bytes:
        """The audio file. Waits for one that is not there yet.

        Raises ProtocolError for an address that is not allowed, FetchError when the recording cannot be had.
        """
        url = self._checked(address)
        problem = "it is not there yet"
        try:
            async with asyncio.timeout(_PATIENCE_S):
                for attempt in range(1_000):
                    try:
                        status, data = await self._get(url)
                    except httpx.HTTPError as error:
                        problem = type(error).__name__
                    else:
                        if status == 200:
                            return data
                        problem = f"HTTP {status}"
                        if status < 500 and status not in _NOT_YET:
                            break
                    await self._pause(_PAUSES_S[min(attempt, len(_PAUSES_S) - 1)])
        except TimeoutError:
            pass
        todo = (
            "; check phone.account_sid and phone.auth_token"
            if problem in ("HTTP 401", "HTTP 403")
            else ""
        )
        raise FetchError(f"the recording cannot be fetched from {url.host}: {problem}{todo}")

    def _checked(self, address: str) -> httpx.URL:
        try:
            url = httpx.URL(address)
        except (httpx.InvalidURL, TypeError, ValueError):
            raise ProtocolError("the address of the recording is not a URL") from None
        origin = _Origin.of(url)
        allowed = (
            origin == self._rest
            or origin in self._others
            or (self._local and url.scheme == "http" and is_loopback(url.host))
            or (
                origin.scheme == "https"
                and origin.port == 443
                and self._rest.host.endswith(_TWILIO)
                and origin.host.endswith(_TWILIO)
            )
        )
        if not allowed or url.userinfo:
            raise ProtocolError(
                f"recordings are not fetched from {url.scheme}://{url.host[:80]}; add the host to phone.media_hosts "
                "if it is yours"
            )
        return url

    async def _get(self, url: httpx.URL) -> tuple[int, bytes]:
        """-> status, and the body of a 200."""
        for _ in range(_MAX_REDIRECTS + 1):
            auth = self._auth if _Origin.of(url) == self._rest else None
            async with self._http.stream("GET", url, auth=auth) as answer:
                if answer.has_redirect_location:
                    url = self._checked(str(url.join(answer.headers["location"])))
                    continue
                return answer.status_code, await _body(answer) if answer.status_code == 200 else b""
        raise FetchError("the recording cannot be fetched: too many redirects")


async def _body(answer: httpx.Response) -> bytes:
    if answer.headers.get("content-encoding", "identity") != "identity":
        raise FetchError("the recording came compressed, which was not asked for")
    data = bytearray()
    async for piece in answer.aiter_raw():
        data += piece
        if len(data) > MAX_BYTES:
            raise FetchError(f"the recording is larger than {MAX_BYTES >> 20} MiB, the limit")
    return bytes(data)
