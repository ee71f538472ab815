"""Memory of a server after many Realtime sessions: does it end where it was after the first hundred?

    python bench/realtime_memory.py --sessions 100 --sessions 700

For each number of sessions a server of its own is started (scripted models, no weights), under a memory limit. Clients
on loopback send 30 s of speech each, half of it in turns that the server finds and half committed by hand, as fast as
the server takes it, `--at-once` at a time. Printed as JSON: resident memory in MB before, at the most, when all
sessions have ended, and what a garbage collection with `malloc_trim` would still free.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import ctypes
import gc
import json
import multiprocessing
import os
import resource
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from websockets.asyncio.client import connect

RATE_HZ = 24_000
_LIMIT_BYTES = 6 << 30
_SETTLE_S = 15.0
"""After the last session: longer than the server waits before it gives memory back."""


class _NoWeights:
    def files(self, name: str) -> dict[str, Path]:
        raise AssertionError("scripted models need no weights")


def _resident_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return round(int(line.split()[1]) / 1024, 1)
    return 0.0


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def serve(pipe: Connection) -> None:
    """In a process of its own: serve until told to stop. Asked to collect, does so."""
    resource.setrlimit(resource.RLIMIT_AS, (_LIMIT_BYTES, _LIMIT_BYTES))
    from antiphon.config import load
    from antiphon.models.ports import Kind
    from antiphon.server.app import create_app
    from antiphon.server.lifecycle import Server, listen

    values: dict[str, Any] = {f"models.{kind}": "scripted" for kind in Kind}
    values["models.options.stt.scripted"] = {"tones": {"440": "what time is it"}}
    values["models.options.llm.scripted"] = {"rules": {"time": "It is noon."}}
    values |= {"conversation.greeting": "", "conversation.idle_prompt_after_ms": 0}
    values |= {"server.max_loop_lag_ms": 0, "server.max_model_wait_ms": 0, "server.max_calls": 1000}
    settings = load(values, folder=Path(tempfile.mkdtemp()))

    async def main() -> None:
        ready: list[object] = []
        server = Server(create_app(settings, _NoWeights(), on_ready=ready.append), settings, 0)
        listener = listen("127.0.0.1", 0)
        serving = asyncio.create_task(server.serve([listener]))
        while not (server.started and ready):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        pipe.send(listener.getsockname()[1])
        while (asked := await asyncio.to_thread(pipe.recv)) != "stop":
            if asked == "collect":
                gc.collect()
                with contextlib.suppress(AttributeError, OSError):
                    ctypes.CDLL(None).malloc_trim(0)
            pipe.send("done")
        server.should_exit = True
        await serving

    asyncio.run(main())


def _appends() -> list[str]:
    """Events of 100 ms: five times three seconds of a tone and as much silence."""
    at = np.arange(RATE_HZ * 3) / RATE_HZ
    tone = (8000 * np.sin(2 * np.pi * 440 * at)).astype("<i2")
    pcm = np.tile(np.concatenate([tone, np.zeros_like(tone)]), 5)
    step = RATE_HZ // 10
    pieces = (pcm[start : start + step].tobytes() for start in range(0, len(pcm), step))
    return [
        json.dumps({"type": "input_audio_buffer.append", "audio": base64.b64encode(piece).decode()})
        for piece in pieces
    ]


async def _session(port: int, appends: list[str], by_hand: bool) -> None:
    url = f"ws://127.0.0.1:{port}/v1/realtime?model=any"
    async with connect(url, compression=None, max_size=None, open_timeout=60) as socket:
        done = asyncio.Event()
        ends = ("input_audio_buffer.committed", "error") if by_hand else ("response.done",)

        async def read() -> None:
            async for frame in socket:
                kind = json.loads(frame)["type"]
                if kind in ends:
                    done.set()

        reading = asyncio.create_task(read())
        if by_hand:
            session = {"type": "realtime", "audio": {"input": {"turn_detection": None}}}
            await socket.send(json.dumps({"type": "session.update", "session": session}))
        for append in appends:
            await socket.send(append)
        if by_hand:
            await socket.send('{"type": "input_audio_buffer.commit"}')
        async with asyncio.timeout(120):
            await done.wait()
        reading.cancel()


async def _load(port: int, pid: int, sessions: int, at_once: int) -> float:
    appends, places, most = _appends(), asyncio.Semaphore(at_once), 0.0

    async def one(number: int) -> None:
        nonlocal most
        async with places:
            await _session(port, appends, by_hand=number % 2 == 1)
        most = max(most, _resident_mb(pid))

    async with asyncio.TaskGroup() as group:
        for number in range(sessions):
            group.create_task(one(number))
    return most


def measure(sessions: int, at_once: int) -> dict[str, float]:
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs,))
    process.start()
    try:
        port, pid = ours.recv(), process.pid or 0
        before, began_s, cpu_before_s = _resident_mb(pid), time.monotonic(), _cpu_s(pid)
        most = asyncio.run(_load(port, pid, sessions, at_once))
        took_s, cpu_s = time.monotonic() - began_s, _cpu_s(pid) - cpu_before_s
        time.sleep(_SETTLE_S)
        ended = _resident_mb(pid)
        ours.send("collect")
        ours.recv()
        collected = _resident_mb(pid)
        ours.send("stop")
        process.join(30)
    finally:
        process.kill()
    return {
        "sessions": sessions,
        "before_mb": before,
        "most_mb": most,
        "ended_mb": ended,
        "collected_mb": collected,
        "took_s": round(took_s, 1),
        "cpu_s": round(cpu_s, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, action="append")
    parser.add_argument("--at-once", type=int, default=20)
    chosen = parser.parse_args()
    found = [measure(sessions, chosen.at_once) for sessions in chosen.sessions or (100, 700)]
    print(json.dumps({"at_once": chosen.at_once, "runs": found}, indent=2))


if __name__ == "__main__":
    main()
