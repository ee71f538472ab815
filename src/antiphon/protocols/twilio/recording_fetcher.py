"""Recordings of callers, fetched from where the webhook says they are: only from hosts that are expected to have them.

A webhook's address is a request to this server to fetch something, and whoever could forge one would have it read the
machines around it. So the address must be on the REST API's host, at Twilio, or on a host of `phone.media_hosts`;
redirects are followed by hand under the same rule, and credentials go to the REST API's own host only. Twilio's names
are resolved here, and the connection goes to an address that was seen to be a public one.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

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
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
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

    @property
    def is_twilio(self) -> bool:
        return self.scheme == "https" and self.port == 443 and self.host.endswith(_TWILIO)


class RecordingFetcher:
    """One pooled client. Close it."""

    def __init__(self, phone: PhoneSettings, *, pause: Pause = asyncio.sleep) -> None:
        self._pause = pause
        token = phone.auth_token.get_secret_value()
        self._auth = (
            httpx.BasicAuth(phone.account_sid, token) if phone.account_sid and token else None
        )
        self._rest = _Origin.of(httpx.URL(phone.rest_base_url))
        listed = [
            httpx.URL(host if "://" in host else f"https://{host}") for host in phone.media_hosts
        ]
        self._others = frozenset(map(_Origin.of, listed))
        self._simulators = frozenset(
            url.host for url in listed if url.port is None and is_loopback(url.host)
        )
        """Names of this machine that the owner has listed: the simulator's port is another each time."""
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
            or (url.scheme in ("http", "https") and url.host in self._simulators)
            or (origin.is_twilio and self._rest.is_twilio)
        )
        if not allowed or url.userinfo:
            raise ProtocolError(
                f"recordings are not fetched from {url.scheme}://{url.host[:80]}; add the host to phone.media_hosts "
                "if it is yours (phone.media_hosts=127.0.0.1 for the simulator on this machine)"
            )
        return url

    async def _get(self, url: httpx.URL) -> tuple[int, bytes]:
        """-> status, and the body of a 200."""
        for _ in range(_MAX_REDIRECTS + 1):
            auth = self._auth if _Origin.of(url) == self._rest else None
            async with self._http.stream("GET", **await _where(url), auth=auth) as answer:
                if answer.has_redirect_location:
                    url = self._checked(str(url.join(answer.headers["location"])))
                    continue
                return answer.status_code, await _body(answer) if answer.status_code == 200 else b""
        raise FetchError("the recording cannot be fetched: too many redirects")


async def _where(url: httpx.URL) -> dict[str, Any]:
    """Arguments of a request to the address that this name has now, for a name that is not of the owner's choice.

    What the owner has named in the settings may be inside. Twilio's names may not, whatever the resolver says; the
    address that was looked at is the one that is connected to, so the answer cannot change in between. Raises
    ProtocolError, FetchError.
    """
    if not _Origin.of(url).is_twilio:
        return {"url": url}
    try:
        found = await asyncio.get_running_loop().getaddrinfo(url.host, 443, type=socket.SOCK_STREAM)
    except OSError as error:
        raise httpx.ConnectError(f"{url.host} cannot be found: {error}") from None
    for *_, address in found:
        if not is_public(str(address[0])):
            raise ProtocolError(
                f"recordings are not fetched from {url.host}: it has the address {address[0]}, which is inside of a "
                "network; check this machine's name server"
            )
    return {
        "url": url.copy_with(host=str(found[0][4][0])),
        "headers": {"Host": url.netloc.decode("ascii")},
        "extensions": {"sni_hostname": url.host},
    }


def is_public(address: str) -> bool:
    """An address of the internet at large: not of loopback, a private or a link-local network, also not written as an
    IPv6 address that stands for one (mapped, 6to4, Teredo, NAT64).
    """
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address):
        if found in _NAT64:
            return is_public(str(ipaddress.IPv4Address(int(found) & 0xFFFF_FFFF)))
        inner = found.ipv4_mapped or found.sixtofour or (found.teredo or (None, None))[1]
        if inner is not None:
            return is_public(str(inner))
    return found.is_global and not found.is_multicast


async def _body(answer: httpx.Response) -> bytes:
    if answer.headers.get("content-encoding", "identity") != "identity":
        raise FetchError("the recording came compressed, which was not asked for")
    data = bytearray()
    async for piece in answer.aiter_raw():
        data += piece
        if len(data) > MAX_BYTES:
            raise FetchError(f"the recording is larger than {MAX_BYTES >> 20} MiB, the limit")
    return bytes(data)
