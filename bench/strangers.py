"""Calls beside strangers: how many turns are missed, and how much later answers come, while strangers attack.

    python -m bench.strangers --calls 150 --strangers 10 --seconds 20 > result.json

A server with models that only take their time is started on a core of its own. Its calls are measured alone and then
beside strangers, who open connections without ever saying who they are and send what is costly to read: pings, empty
fragments, chunks of a byte, tiny texts, heads that do not end. Who is sent away comes again. Everything is on loopback.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx

from antiphon.cli.common import weight_store
from antiphon.client.bench import contenders, loops
from antiphon.client.bench.load import CallerBehaviour, Fleet, Tally
from antiphon.client.bench.percentiles import percentiles
from antiphon.client.bench.questions import QUESTIONS, clips_of, speak_questions
from antiphon.client.bench.servers import Running, apart, own_cpu_s, running

_MASK = bytes(4)
_PING, _TINY = b"\x89\x80" + _MASK, b"\x81\x81" + _MASK + b"x"
_BEGUN, _FRAGMENT = b"\x01\x80" + _MASK, b"\x00\x80" + _MASK
_UPGRADE = (
    b"GET %b HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
_CHUNKED = b"POST /health HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
ATTACKS: Sequence[tuple[bytes, bytes]] = (
    (_UPGRADE % b"/ws", _PING),
    (_UPGRADE % b"/media-stream" + _BEGUN, _FRAGMENT),
    (_CHUNKED, b"1\r\nx\r\n"),
    (_UPGRADE % b"/ws", _TINY),
    (b"GET / HTTP/1.1\r\n", b"a: b\r\n"),
)
"""What a connection begins with, and what follows for as long as the server takes it."""
_PIECE_BYTES = 32 << 10
_AGAIN_S = 0.05
_PROBE_S = 0.25


@dataclass(frozen=True, slots=True)
class Window:
    """What was measured in one window. Times in ms; None where nothing was."""

    turns: int
    missed: int
    lost: list[str]
    voice_to_voice_ms: dict[str, float] | None
    health_ms: dict[str, float] | None
    server_cores: float | None
    server_memory_mb: float | None
    driver_late_ms: dict[str, float] | None
    driver_cores: float


async def attack(host: str, port: int, number: int, bytes_per_s: int, told: Any) -> None:
    """One stranger, until cancelled. `told`: an array of connections and bytes, shared by all."""
    begin, again = ATTACKS[number % len(ATTACKS)]
    piece = again * (_PIECE_BYTES // len(again))
    while True:
        with suppress(OSError):
            reader, writer = await asyncio.open_connection(host, port)
            told[0] += 1
            try:
                writer.write(begin)
                # Frames that come before the answer would be lost with the request.
                if b"Upgrade" in begin:
                    await reader.readuntil(b"\r\n\r\n")
                while not reader.at_eof():
                    writer.write(piece)
                    await writer.drain()
                    told[1] += len(piece)
                    await asyncio.sleep(len(piece) / bytes_per_s)
            except asyncio.IncompleteReadError:
                pass
            finally:
                writer.transport.abort()
        await asyncio.sleep(_AGAIN_S)


def _attack_all(host: str, port: int, strangers: int, bytes_per_s: int, told: Any) -> None:
    async def main() -> None:
        await asyncio.gather(*(attack(host, port, n, bytes_per_s, told) for n in range(strangers)))

    loops.run(main())


@contextmanager
def attacked(url: str, strangers: int, bytes_per_s: int) -> Iterator[Any]:
    """From a process of their own, on the cores that this one has."""
    parts = urlsplit(url)
    context = multiprocessing.get_context("spawn")
    told = context.Array("q", 2, lock=False)
    given = (parts.hostname, parts.port, strangers, bytes_per_s, told)
    process = context.Process(target=_attack_all, args=given, daemon=True)
    process.start()
    try:
        yield told
    finally:
        process.terminate()
        process.join()


async def probe(url: str, found_ms: list[float]) -> None:
    """Somebody else's request, again and again, each on a connection of its own."""
    parts = urlsplit(url)
    address = f"http://{parts.netloc}/health"
    while True:
        began_s = time.perf_counter()
        async with httpx.AsyncClient(timeout=30) as http:
            with suppress(httpx.HTTPError):
                await http.get(address)
        found_ms.append(1000 * (time.perf_counter() - began_s))
        await asyncio.sleep(_PROBE_S)


async def window(fleet: Fleet, server: Running, seconds: float) -> Window:
    tally, health_ms = Tally(), list[float]()
    fleet.tell(tally)
    before, driver_s = server.usage(), own_cpu_s()
    probing = asyncio.create_task(probe(server.url, health_ms))
    await asyncio.sleep(seconds)
    probing.cancel()
    await asyncio.wait([probing])
    after = server.usage()
    cpu_s = after.cpu_s - before.cpu_s if before and after else None
    heard = [t.voice_to_voice_ms for t in tally.turns if t.voice_to_voice_ms is not None]
    return Window(
        turns=len(tally.turns),
        missed=sum(not turn.answered for turn in tally.turns),
        lost=tally.lost[:10],
        voice_to_voice_ms=percentiles(heard),
        health_ms=percentiles(health_ms),
        server_cores=None if cpu_s is None else round(cpu_s / seconds, 3),
        server_memory_mb=round(after.memory_bytes / 2**20, 1) if after else None,
        driver_late_ms=percentiles(tally.late_ms),
        driver_cores=round((own_cpu_s() - driver_s) / seconds, 3),
    )


async def measure(
    server: Running, manner: CallerBehaviour, options: argparse.Namespace
) -> dict[str, Any]:
    fleet = Fleet(server.url, manner)
    try:
        await fleet.resize(options.calls, options.calls / 50)
        await asyncio.sleep(options.settle)
        alone = await window(fleet, server, options.seconds)
        with attacked(server.url, options.strangers, options.bytes_per_s) as told:
            await asyncio.sleep(1)  # until they have begun
            beside = await window(fleet, server, options.seconds)
            attack_told = {"connections": told[0], "bytes": told[1]}
    finally:
        fleet.close()
    rise_ms = None
    if alone.voice_to_voice_ms and beside.voice_to_voice_ms:
        rise_ms = round(beside.voice_to_voice_ms["p95"] - alone.voice_to_voice_ms["p95"], 1)
    return {
        "alone": asdict(alone),
        "beside_strangers": asdict(beside),
        "attack": attack_told,
        "p95_rise_ms": rise_ms,
        "well": beside.missed == 0 and not beside.lost and rise_ms is not None and rise_ms <= 50,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=150)
    parser.add_argument("--strangers", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each of the two windows")
    parser.add_argument("--settle", type=float, default=4.0)
    parser.add_argument("--bytes-per-s", type=int, default=2_000_000, help="of each stranger")
    parser.add_argument("--set", action="append", default=[], help="a setting of the server")
    options = parser.parse_args()
    spoken = [q for q in speak_questions(weight_store(), len(QUESTIONS)) if not q.pauses]
    manner = CallerBehaviour(clips_of(spoken))
    quiet = (
        *contenders.simulated_models(contenders.SimulatedDelays()),
        *contenders.QUIET,
        *contenders.OPEN,
        "models.turn=",
        *options.set,
    )
    with apart() as core, running(contenders.antiphon("antiphon", quiet), core) as server:
        found = loops.run_fast(measure(server, manner, options))
    json.dump({"settings": {**vars(options), "core": core}, **found}, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
