"""Who may connect: one rule for every door, HTTP or websocket.

    principal = await authorize(connection)         # or as a FastAPI dependency; raises Refused
    with session_of(connection, principal) as seat:  # for a call: counts it; raises Refused
        await socket.accept(subprotocol=chosen_subprotocol(connection))

A key comes in `Authorization: Bearer`, in `api-key`, or, from browsers, as the websocket subprotocol
`openai-insecure-api-key.<key>`. Without keys in the settings, only this machine is served. Browsers reach loopback on
behalf of any page, so what is let in without a key must come from a page of ours, or from a program, and must have
called this machine by one of its own names.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from fastapi.routing import APIRoute
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response

from antiphon.config import Settings
from antiphon.errors import ConfigError
from antiphon.server import client_secrets, traffic
from antiphon.server.client_secrets import ClientSecrets, Pinned
from antiphon.server.http_errors import RequestRefused
from antiphon.server.keys import Key, KeyBook
from antiphon.server.usage import MeteredCall, UsageLedger, UsageLimits

SUBPROTOCOL = "antiphon"
"""What a page of ours offers beside its key: browsers want one of the offered subprotocols to be chosen."""
_REALTIME = "realtime"
_KEY_ITEM = "openai-insecure-api-key."
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_LOOPBACK: tuple[Network, ...] = (
    ipaddress.ip_network("127.0.0.0/8"),
    ipaddress.ip_network("::1/128"),
)
_FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")
_INVALID = "invalid_api_key"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who is at the door."""

    name: str
    """Of the key; `local` or `anyone` without one."""
    key: Key | None = None
    pinned: Pinned | None = None
    """Came with a client secret: the session that it was made for."""


@dataclass(frozen=True, slots=True)
class Proxies:
    """What stands between this server and its callers, as far as the settings say."""

    networks: tuple[Network, ...] = ()
    """Of proxies and tunnels. Who comes from there may be anybody."""

    @classmethod
    def of(cls, settings: Settings) -> Proxies:
        """Raises ConfigError for an entry that is no address.

        With a public address and no word of where the proxy is, it is taken to be on this machine: a proxy that
        rewrites `Host` and sets no header cannot be told from a program here.
        """
        listed = settings.server.trusted_proxies
        public = urlsplit(settings.phone.public_url).hostname
        if not listed and public and not is_loopback(public):
            return cls(_LOOPBACK)
        return cls(tuple(network("server.trusted_proxies", entry) for entry in listed))

    def has(self, host: str) -> bool:
        """This peer is one of them."""
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return False
        address = getattr(address, "ipv4_mapped", None) or address
        return any(address in network for network in self.networks)


_NO_PROXIES = Proxies()


class Gate:
    """What the process knows of keys, secrets and their use. One per application."""

    def __init__(self, settings: Settings) -> None:
        """Raises ConfigError when the file of keys cannot be read."""
        self.settings = settings
        self.proxies = Proxies.of(settings)
        chosen = settings.security
        self.keys = KeyBook(chosen)
        self.ledger = UsageLedger()
        self.secrets = ClientSecrets()
        self._limits = UsageLimits(
            chosen.max_sessions, chosen.minutes_per_day, chosen.requests_per_minute
        )

    def is_local(self, connection: HTTPConnection) -> bool:
        """See `is_local`."""
        return is_local(connection, self.proxies)

    async def admit(self, connection: HTTPConnection, *, secrets_too: bool) -> Principal:
        """Raises Refused."""
        clear = presented_key(connection)
        await self.keys.refresh()
        if not self.keys.required or (self.settings.security.local and self.is_local(connection)):
            principal = self._without_key(connection, clear)
        else:
            principal = await self._with_key(clear, secrets_too)
        if principal.key is not None:
            self.ledger.note_request(principal.name, self.limits_of(principal))
        traffic.admit(connection)
        return principal

    def limits_of(self, principal: Principal) -> UsageLimits:
        key = principal.key
        if key is None:
            return UsageLimits()
        return key.limits or self._limits

    def _without_key(self, connection: HTTPConnection, clear: str) -> Principal:
        """A key that is presented nevertheless is ignored: SDKs insist on sending one."""
        local = self.is_local(connection)
        if not local and not self.settings.security.open:
            raise RequestRefused(
                403,
                "this server has no keys and serves only its own machine"
                f"{self._doubt(connection)}; make a key with `antiphon keys create`, or set security.open",
                "access_denied",
                retry=False,
            )
        if not origin_allowed(connection.headers, self.settings.server.cors_origins):
            raise RequestRefused(
                403,
                "this origin is not allowed; add it to server.cors_origins",
                "origin_not_allowed",
                retry=False,
            )
        secret = self.secrets.find(clear) if clear.startswith(client_secrets.PREFIX) else None
        return Principal("local" if local else "anyone", pinned=secret.pinned if secret else None)

    def _doubt(self, connection: HTTPConnection) -> str:
        """Why somebody who looks local is not taken to be."""
        if not is_local(connection):
            return ""
        if self.settings.server.trusted_proxies:
            return ", and server.trusted_proxies says that a proxy is at this address"
        return (
            ", and as it has a public address (phone.public_url), who comes from loopback may be anybody behind a "
            "proxy or tunnel, unless server.trusted_proxies says that it is elsewhere"
        )

    async def _with_key(self, clear: str, secrets_too: bool) -> Principal:
        """The Origin says nothing here: no browser sends a key by itself."""
        if not clear:
            raise RequestRefused(
                401,
                "an API key is needed: send it as `Authorization: Bearer KEY`",
                _INVALID,
                retry=False,
            )
        if not clear.startswith(client_secrets.PREFIX):
            key = await self.keys.find(clear)
            if key is None:
                raise RequestRefused(
                    401,
                    "this API key is wrong or was revoked; ask the server's owner for another",
                    _INVALID,
                    retry=False,
                )
            return Principal(key.name, key)
        secret = self.secrets.find(clear) if secrets_too else None
        if secret is None or (secret.key is not None and not self.keys.has(secret.key)):
            reason = "has expired or is unknown" if secrets_too else "opens Realtime sessions only"
            raise RequestRefused(401, f"this client secret {reason}", _INVALID, retry=False)
        return Principal(secret.key.name if secret.key else "local", secret.key, secret.pinned)


def gate_of(connection: HTTPConnection) -> Gate:
    gate: Gate = connection.app.state.gate
    return gate


async def authorize(connection: HTTPConnection) -> Principal:
    """For every door. Client secrets open websockets only. Raises Refused, which is the answer."""
    websocket = connection.scope["type"] == "websocket"
    return await gate_of(connection).admit(connection, secrets_too=websocket)


async def authorize_realtime(connection: HTTPConnection) -> Principal:
    """The same for requests that open a Realtime session over HTTP (WebRTC): client secrets are taken too."""
    return await gate_of(connection).admit(connection, secrets_too=True)


async def authorize_or_local(connection: HTTPConnection) -> Principal:
    """For what an operator's tools read on this machine even where keys are needed (`/metrics`)."""
    if gate_of(connection).is_local(connection):
        traffic.admit(connection)
        return Principal("local")
    return await authorize(connection)


def before_the_body(check: Callable[[Request], Awaitable[object]]) -> type[APIRoute]:
    """A class of routes that ask `check` first: FastAPI reads forms and JSON before it asks any dependency, and a
    stranger's upload would be taken in before it is refused.
    """

    class Guarded(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handle = super().get_route_handler()

            async def guarded(request: Request) -> Response:
                request.state.admitted = await check(request)
                return await handle(request)

            return guarded

    return Guarded


async def admitted(request: Request) -> Principal:
    """As a dependency below `before_the_body(authorize)`: who was let in."""
    principal: Principal = request.state.admitted
    return principal


def session_of(
    connection: HTTPConnection, principal: Principal
) -> AbstractContextManager[MeteredCall | None]:
    """A call on this principal's account, for as long as the context lasts. Raises Refused (429).

    None: nobody counts. Else `left_s` says when to end the call.
    """
    return _session(gate_of(connection), principal)


@contextmanager
def _session(gate: Gate, principal: Principal) -> Iterator[MeteredCall | None]:
    if principal.key is None:
        yield None
        return
    with gate.ledger.session(principal.name, gate.limits_of(principal)) as seat:
        yield seat


def check_left(connection: HTTPConnection, principal: Principal) -> None:
    """Before work that is not a call. Raises Refused (429) for a key that has used its minutes of today."""
    gate = gate_of(connection)
    if principal.key is not None:
        gate.ledger.check_left(principal.name, gate.limits_of(principal))


def spend(connection: HTTPConnection, principal: Principal, seconds: float) -> None:
    """Audio heard or made outside of a call, on the account of the key."""
    if principal.key is not None:
        gate_of(connection).ledger.spend(principal.name, seconds)


def call_limit_s(max_call_s: int, seat: MeteredCall | None) -> float:
    """How long a call may last: the server's limit, or what the key has left of its day."""
    left_s = None if seat is None else seat.left_s
    return max_call_s if left_s is None else min(max_call_s, left_s)


# --- what a connection says of itself -------------------------------------------------------------


def presented_key(connection: HTTPConnection) -> str:
    """The key in clear text, empty if there is none. Never to be logged."""
    scheme, _, value = connection.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and value.strip():
        return value.strip()
    if value := connection.headers.get("api-key", "").strip():
        return value
    for item in _offered(connection):
        if item.startswith(_KEY_ITEM):
            return item.removeprefix(_KEY_ITEM)
    return ""


def chosen_subprotocol(connection: HTTPConnection) -> str | None:
    """To be answered: one that was offered, never the item with the key, and none where none was offered."""
    offered = _offered(connection)
    return next((name for name in (_REALTIME, SUBPROTOCOL) if name in offered), None)


def _offered(connection: HTTPConnection) -> list[str]:
    if connection.scope["type"] != "websocket":
        return []
    return list(connection.scope.get("subprotocols") or ())


def is_loopback(host: str) -> bool:
    """`localhost` or an address of loopback, as text; IPv6 with or without brackets."""
    bare = host.strip("[]")
    if bare.lower() == "localhost":
        return True
    try:
        address = ipaddress.ip_address(bare)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def network(setting: str, entry: str) -> Network:
    """An entry of a list of addresses and networks. Raises ConfigError."""
    try:
        return ipaddress.ip_network(entry, strict=False)
    except ValueError:
        raise ConfigError(
            f"{setting}: {entry!r} is no address and no network; write 10.0.0.1 or 10.0.0.0/24"
        ) from None


def is_local(connection: HTTPConnection, proxies: Proxies = _NO_PROXIES) -> bool:
    """The peer is this machine and no proxy of ours, none speaks for it, and it asked for this machine by a name of
    loopback.

    The last keeps out a page whose own name was made to point here (DNS rebinding), and tunnels.
    """
    if connection.client is None or not is_loopback(connection.client.host):
        return False
    if proxies.has(connection.client.host):
        return False
    if any(name in connection.headers for name in _FORWARDED):
        return False
    try:
        host = urlsplit(f"//{connection.headers.get('host', '')}").hostname
    except ValueError:  # half an IPv6 address
        return False
    return host is not None and is_loopback(host)


def origin_allowed(headers: Mapping[str, str], allowed: tuple[str, ...]) -> bool:
    """No Origin, the server's own, or a listed one (`*`: any)."""
    origin = headers.get("origin")
    if origin is None or "*" in allowed or origin.rstrip("/") in {a.rstrip("/") for a in allowed}:
        return True
    try:
        return urlsplit(origin).netloc.lower() == headers.get("host", "").lower()
    except ValueError:
        return False
