"""A TCP listener for Wyoming, the protocol of Home Assistant's voice services: speech to text, or text to speech.

Wyoming has no keys and no encryption: only this machine is served, unless `server.wyoming_peers` lists others. Knows no
byte of the protocol (`wire/wyoming.py`).
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import Sequence

from antiphon.config.sections import ServerSettings
from antiphon.errors import AntiphonError, ConfigError, ProtocolError, told
from antiphon.models.ports import Kind
from antiphon.server.security import is_loopback
from antiphon.server.services.streams import Streams
from antiphon.server.services.wyoming_work import Listener, Reader, info
from antiphon.wire.wyoming import Decoder, Event, encode

log = logging.getLogger(__name__)

_READ_BYTES = 64 << 10
_IDLE_S = 300.0
"""Home Assistant keeps some connections open."""
_SEND_S = 10.0
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class WyomingServer:
    """The listener and its connections. Close it."""

    def __init__(self, streams: Streams, kind: Kind) -> None:
        """Raises ConfigError like `check_peers`."""
        chosen = streams.settings.server
        self._streams, self._kind = streams, kind
        self._host, self._port = chosen.wyoming_host, chosen.wyoming_port
        self._peers = check_peers(chosen)
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def listen(self, port: int | None = None) -> int:
        """Begin to listen, if a port is set. `port`: instead of the configured one -> the port, 0: off.

        Raises ConfigError when the address cannot be had.
        """
        wanted = self._port if port is None else port
        if not wanted and port is None:
            return 0
        try:
            self._server = await asyncio.start_server(self._connected, self._host, wanted)
        except OSError as error:
            raise ConfigError(
                f"Wyoming cannot listen on {self._host} port {wanted}: {error.strerror}; "
                "set server.wyoming_port to another"
            ) from None
        found: int = self._server.sockets[0].getsockname()[1]
        log.info("Wyoming listens on %s port %d", self._host, found)
        return found

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        tasks = tuple(self._connections)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        peer = writer.get_extra_info("peername")
        host = peer[0] if peer else ""
        self._connections.add(task)
        try:
            if not _allowed(host, self._peers):
                log.warning("Wyoming: refused %s; add it to server.wyoming_peers", host)
            elif len(self._connections) > self._streams.settings.server.max_calls:
                await Wire(reader, writer).send(_busy())
            else:
                await _Connection(self._streams, self._kind, Wire(reader, writer)).serve()
        except asyncio.CancelledError:
            pass  # the service ends; asyncio would log it as a failure
        except (OSError, TimeoutError) as error:
            log.info("Wyoming: %s is gone: %s", host, error)
        except Exception:
            log.exception("Wyoming: a connection of %s failed", host)
        finally:
            self._connections.discard(task)
            writer.close()


class Wire:
    """Events in and out of one socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._decoder = Decoder()
        self._waiting: list[Event] = []

    async def receive(self) -> Event | None:
        """None at the end. Raises ProtocolError, OSError, TimeoutError."""
        while not self._waiting:
            async with asyncio.timeout(_IDLE_S):
                data = await self._reader.read(_READ_BYTES)
            if not data:
                return None
            self._waiting = self._decoder.feed(data)
        return self._waiting.pop(0)

    async def send(self, event: Event) -> None:
        """Raises OSError, TimeoutError."""
        self._writer.write(encode(event))
        async with asyncio.timeout(_SEND_S):
            await self._writer.drain()


class _Connection:
    """What every service answers, and the work of this one."""

    def __init__(self, streams: Streams, kind: Kind, wire: Wire) -> None:
        self._streams, self._kind, self._wire = streams, kind, wire
        work = Listener if kind is Kind.STT else Reader
        self._work: Listener | Reader = work(streams, wire.send)

    async def serve(self) -> None:
        try:
            while (event := await self._wire.receive()) is not None:
                try:
                    await self._answer(event)
                except AntiphonError as error:
                    log.warning("Wyoming: %s", error)
                    await self._wire.send(_error(error))
        except ProtocolError as error:
            log.warning("Wyoming: %s", error)
            await self._wire.send(_error(error))
        finally:
            self._work.close()

    async def _answer(self, event: Event) -> None:
        """Types that mean nothing to us are ignored: peers of later versions send more."""
        if event.type == "describe":
            await self._wire.send(info(self._streams.models, self._kind))
        elif event.type == "ping":
            await self._wire.send(Event("pong", {"text": event.text("text")}))
        else:
            await self._work.take(event)


def _error(error: AntiphonError) -> Event:
    return Event("error", {"text": told(error), "code": type(error).__name__})


def _busy() -> Event:
    return Event("error", {"text": "no free channels; try again soon", "code": "BusyError"})


def check_peers(chosen: ServerSettings) -> tuple[_Network, ...]:
    """Raises ConfigError for peers that are no addresses, and for a door that is open to everybody."""
    is_open = chosen.wyoming_port and not is_loopback(chosen.wyoming_host)
    if is_open and not chosen.wyoming_peers:
        raise ConfigError(
            f"server.wyoming_host {chosen.wyoming_host} is open to others; list your Home Assistant in "
            "server.wyoming_peers"
        )
    return tuple(_network(peer) for peer in chosen.wyoming_peers)


def _network(text: str) -> _Network:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ConfigError(
            f"server.wyoming_peers: {text!r} is no address and no network; write 10.0.0.1 or 10.0.0.0/24"
        ) from None


def _allowed(host: str, peers: Sequence[_Network]) -> bool:
    if is_loopback(host):
        return True
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    address = getattr(address, "ipv4_mapped", None) or address
    return any(address in network for network in peers)
