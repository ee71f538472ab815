"""Callers beside one client that means harm: what do they lose?

    python bench/hostile_client.py --kind timestamps --calls 30

Starts this checkout's server (models with fixed delays, real voice activity detection) with a memory limit, lets so
many callers ask, first alone and then beside one admitted client that attacks, and prints both as JSON: turns missed,
voice to voice, what the server took. Loopback only; the load ends with the window.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import resource
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from antiphon.audio.g711 import encode_ulaw
from antiphon.cli.common import weight_store
from antiphon.client.bench import contenders, loops
from antiphon.client.bench.capacity import LoadLevel, RampPlan, measure_level
from antiphon.client.bench.load import CallerBehaviour, Fleet
from antiphon.client.bench.questions import clips_of, speak_questions
from antiphon.client.bench.servers import Contender, Running, apart, running
from antiphon.errors import ProtocolError

_SPEECH = encode_ulaw((8_000 * np.sin(np.arange(8_000) * 0.3)).astype(np.int16))
"""A second of sound."""
_JUMPS_MS: tuple[Callable[[int], int], ...] = (
    lambda n: n * 5 * 3_600_000,
    lambda n: n * 10_000,
    lambda n: n % 2 * 3_600_000,
    lambda n: 10**15 - n * 60_000,
)


@dataclass(slots=True)
class Attack:
    """What the hostile client got done."""

    sent: int = 0
    sent_bytes: int = 0
    closed: str = ""

    def count(self, frame: str | bytes) -> str | bytes:
        self.sent += 1
        self.sent_bytes += len(frame)
        return frame


@asynccontextmanager
async def _telephone(url: str) -> AsyncIterator[ClientConnection]:
    async with connect(url, compression=None, max_size=None, ping_interval=None) as socket:
        await socket.send('{"event":"connected","protocol":"Call","version":"1.0.0"}')
        start = {
            "streamSid": "MZhostile",
            "callSid": "CAhostile",
            "accountSid": "AC1",
            "tracks": ["inbound"],
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
        }
        await socket.send(json.dumps({"event": "start", "start": start}))
        yield socket


@asynccontextmanager
async def _browser(url: str, rate: int = 16_000) -> AsyncIterator[ClientConnection]:
    at = url.replace("/media-stream", "/ws/conversation")
    async with connect(at, compression=None, max_size=None, ping_interval=None) as socket:
        await socket.send(json.dumps({"type": "start", "format": "pcm_s16le", "rate": rate}))
        yield socket


def _media(codes: bytes, number: int, at_ms: int) -> str:
    payload = base64.b64encode(codes).decode()
    media = {"track": "inbound", "chunk": number, "timestamp": at_ms, "payload": payload}
    return json.dumps({"event": "media", "media": media})


async def timestamps(url: str, attack: Attack) -> None:
    """Frames of 20 ms in real time whose timestamps jump."""
    async with _telephone(url) as socket:
        number = 0
        while True:
            number += 1
            jump = _JUMPS_MS[number // 500 % len(_JUMPS_MS)]
            at = number * 160 % 8_000
            await socket.send(attack.count(_media(_SPEECH[at : at + 160], number, jump(number))))
            await asyncio.sleep(0.02)


async def fast(url: str, attack: Attack) -> None:
    """Audio as fast as the server takes it."""
    async with _telephone(url) as socket:
        for number in range(1, 10**9):
            await socket.send(attack.count(_media(_SPEECH, number, number * 1_000)))
            await asyncio.sleep(0)


async def frames(url: str, attack: Attack) -> None:
    """Messages of 22 MB that claim 4,000 Hz: 48 minutes of audio each."""
    async with _browser(url, 4_000) as socket:
        data = np.random.default_rng(1).normal(0, 3_000, 11 << 20).astype("<i2").tobytes()
        while True:
            await socket.send(attack.count(data))
            await asyncio.sleep(0.5)


async def flood(url: str, attack: Attack) -> None:
    """Typed texts, settings and buttons, as fast as the server takes them."""
    messages = [
        json.dumps(message)
        for message in (
            {"type": "text", "text": "tell me something long " * 100},
            {"type": "set_level", "level": "beginner"},
            {"type": "hold"},
            {"type": "ping"},
        )
    ]
    async with _browser(url) as socket:
        listening = asyncio.create_task(_drain(socket))
        try:
            for number in range(10**9):
                await socket.send(attack.count(messages[number % len(messages)]))
                await asyncio.sleep(0)
        finally:
            listening.cancel()


async def _drain(socket: ClientConnection) -> None:
    with suppress(WebSocketException):
        async for _ in socket:
            pass


KINDS = {attack.__name__: attack for attack in (timestamps, fast, frames, flood)}


async def _attacked(kind: str, url: str, attack: Attack) -> None:
    try:
        await KINDS[kind](url, attack)
    except (WebSocketException, OSError) as error:
        attack.closed = str(error)


def _figures(level: LoadLevel) -> dict[str, Any]:
    voice = level.voice_to_voice_ms or {}
    return {
        "calls": level.calls,
        "turns": level.turns,
        "missed": level.unanswered,
        "broken_off": len(level.lost),
        "voice_to_voice_p95_ms": voice.get("p95"),
        "voice_to_voice_max_ms": voice.get("max"),
        "cores_used": level.cores_used,
        "memory_mb": level.memory_mb,
        "driver_late_ms": level.driver_late_ms,
    }


async def _measure(
    server: Running, kind: str, calls: int, plan: RampPlan, manner: CallerBehaviour
) -> Any:
    attack, fleet = Attack(), Fleet(server.url, manner)
    try:
        alone = await measure_level(fleet, server, calls, plan)
        hostile = asyncio.create_task(_attacked(kind, server.url, attack))
        try:
            beside = await measure_level(fleet, server, calls, plan)
        finally:
            hostile.cancel()
            await asyncio.gather(hostile, return_exceptions=True)
        told = {
            "sent": attack.sent,
            "megabytes": attack.sent_bytes >> 20,
            "closed": attack.closed,
        }
        return {"alone": _figures(alone), "beside": _figures(beside), "attack": told}
    finally:
        fleet.close()


def _limited(arm: Contender, memory_gb: int) -> Contender:
    """The same command, which may take so much memory."""
    program = (
        f"import os, resource, sys; resource.setrlimit(resource.RLIMIT_AS, ({memory_gb << 30},) * 2); "
        "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    )
    return replace(arm, command=[sys.executable, "-c", program, *arm.command[1:]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kind", choices=[*KINDS, "all"], default="all")
    parser.add_argument("--calls", type=int, default=30)
    parser.add_argument("--window", type=float, default=15.0, help="seconds of each measurement")
    parser.add_argument("--memory-gb", type=int, default=12, help="address space of the server")
    parser.add_argument("--source", help="`src` of another checkout, whose server is measured")
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_NOFILE, (4_096, 4_096))
    plan = RampPlan(base_calls=1, settle_s=3.0, window_s=options.window, idle_calls=0, min_turns=1)
    manner = CallerBehaviour(clips_of(speak_questions(weight_store(), 6)))
    settings = (
        *contenders.simulated_models(contenders.SimulatedDelays()),
        *contenders.QUIET,
        *contenders.OPEN,
    )
    silence = ("models.turn=", "conversation.plain_silence_ms=600")
    found = {}
    for kind in KINDS if options.kind == "all" else [options.kind]:
        with tempfile.TemporaryDirectory() as folder, apart() as core:
            arm = contenders.antiphon("antiphon", (*settings, *silence, f"recording_dir={folder}"))
            if options.source:
                arm = replace(arm, environment={"PYTHONPATH": options.source})
            with running(_limited(arm, options.memory_gb), core) as server:
                measured = _measure(server, kind, options.calls, plan, manner)
                try:
                    found[kind] = loops.run_fast(measured)
                except ProtocolError as error:
                    found[kind] = {"trouble": str(error)}
        print(json.dumps({kind: found[kind]}), file=sys.stderr, flush=True)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
