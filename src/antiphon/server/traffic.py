"""How much of the event loop a connection may take, before and after it is known who it is.

The unit is a small thing to parse: a websocket frame of any kind, a line of an HTTP head or of a chunked body; or so
many bytes of a large thing. One unit takes the server 5 to 20 microseconds. Strangers, that is connections that nobody
has let in yet, share what there is: each has a rate of its own, those of one address have one together, and all of them
have one. A connection that is let in has a generous rate of its own and gives back what it took from the others.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

from starlette.requests import HTTPConnection

from antiphon.config.sections import ServerSettings
from antiphon.errors import ConfigError

ADMIT = "antiphon.admit"
"""Key of an ASGI scope: called without arguments when it is known who the client is."""
HANG_UP = "antiphon.hang_up"
"""Key of an ASGI scope: called without arguments, it closes the connection once everything was sent."""
_MAX_ADDRESSES = 4_096
"""Addresses whose use is remembered; beyond them, the one that has been quiet for longest is forgotten."""


@dataclass(frozen=True, slots=True)
class Rate:
    """So many units a second, and so many at once after a rest; so many bytes are one more unit."""

    per_s: float
    burst: float
    unit_bytes: int = 1 << 10


STRANGER = Rate(200, 1_000)
ADDRESS = Rate(400, 4_000)
STRANGERS = Rate(2_000, 8_000)
CLIENT = Rate(2_000, 8_000, unit_bytes=64 << 10)
"""A call has 50 frames a second, and a few hundred at once after a stall of the network."""
REQUEST_UNITS = 20
"""What a stranger's connection, and each of its requests, costs beside its lines."""


class ReadPace:
    """Keeps a rate. What is taken may exceed what is there: the debt is waited for."""

    __slots__ = ("_burst_s", "_even_s", "_unit_s")

    def __init__(self, rate: Rate) -> None:
        self._unit_s = 1 / rate.per_s
        self._burst_s = rate.burst / rate.per_s
        self._even_s = 0.0
        """When everything that was taken will have been paid for."""

    def spend(self, units: float, now_s: float) -> None:
        self._even_s = max(self._even_s, now_s) + units * self._unit_s

    def give_back(self, units: float) -> None:
        self._even_s -= units * self._unit_s

    def wait_s(self, now_s: float) -> float:
        """Until more may be taken; 0 or less: now."""
        return self._even_s - now_s - self._burst_s

    def rested(self, now_s: float) -> bool:
        return self._even_s <= now_s


class Evictable(Protocol):
    """A connection, as far as its place among the strangers is concerned."""

    @property
    def idle(self) -> bool:
        """Nothing is being done for it."""
        ...

    def drop(self) -> None:
        """Break it off."""
        ...


class Address:
    """What the strangers of one address have in common. An IPv6 network of 64 bits counts as one address."""

    __slots__ = ("connections", "pace")

    def __init__(self) -> None:
        self.pace = ReadPace(ADDRESS)
        self.connections: dict[Evictable, None] = {}


class Strangers:
    """All connections that nobody has let in yet. One per server."""

    def __init__(self, settings: ServerSettings, proxies: Iterable[str] = ()) -> None:
        """`proxies`: addresses or networks that many clients share; they are no address for `Address`.

        Raises ConfigError for one that is neither.
        """
        self.pace = ReadPace(STRANGERS)
        self.settings = settings
        try:
            self._proxies = tuple(ipaddress.ip_network(proxy, strict=False) for proxy in proxies)
        except ValueError as error:
            raise ConfigError(f"trusted_proxies: {error}; write 10.0.0.1 or 10.0.0.0/24") from None
        self._places: dict[Evictable, Address] = {}
        """In the order in which they came."""
        self._addresses: dict[str, Address] = {}

    def __len__(self) -> int:
        return len(self._places)

    def enter(self, connection: Evictable, host: str, now_s: float) -> Address | None:
        """A place for it, if need be that of an idle one; None: there is none, and it has to go."""
        address = self._address(host, now_s)
        shared = address.connections
        if len(shared) >= self.settings.max_strangers_per_address and not _evict(shared):
            return None
        if len(self._places) >= self.settings.max_strangers and not _evict(self._places):
            return None
        shared[connection] = None
        self._places[connection] = address
        return address

    def leave(self, connection: Evictable) -> None:
        """It was let in, or is gone. Idempotent."""
        address = self._places.pop(connection, None)
        if address is not None:
            address.connections.pop(connection, None)

    def _address(self, host: str, now_s: float) -> Address:
        name, shared = _network_of(host)
        if shared is not None and any(shared in proxy for proxy in self._proxies):
            return Address()
        address = self._addresses.pop(name, None) or Address()
        self._addresses[name] = address  # at the end: the one that was seen last
        if len(self._addresses) > _MAX_ADDRESSES:
            self._forget(now_s)
        return address

    def _forget(self, now_s: float) -> None:
        quiet = (
            name
            for name, address in self._addresses.items()
            if not address.connections and address.pace.rested(now_s)
        )
        oldest = next(quiet, next(iter(self._addresses)))
        del self._addresses[oldest]


def _evict(connections: Iterable[Evictable]) -> bool:
    for connection in connections:
        if connection.idle:
            connection.drop()
            return True
    return False


@lru_cache(maxsize=1_024)
def _network_of(host: str) -> tuple[str, ipaddress.IPv4Address | ipaddress.IPv6Address | None]:
    """-> what counts as one address, and the address itself where the text is one."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host, None
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped), address.ipv4_mapped
        return str(ipaddress.ip_network((address, 64), strict=False)), address
    return str(address), address


def admit(connection: HTTPConnection) -> None:
    """It is known who this is: from now on the connection is no stranger."""
    let_in = connection.scope.get(ADMIT)
    if let_in is not None:
        let_in()
