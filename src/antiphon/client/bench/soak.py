"""Thousands of short calls, one after another and many at once: of a call that has ended, nothing should remain.

Each caller asks one question, hears the answer and hangs up. Memory, threads, files and tasks are looked at on the way,
always when no call is on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import httpx
import numpy as np

from antiphon.client.bench import loops
from antiphon.client.bench.load import CallerBehaviour, Fleet
from antiphon.client.bench.percentiles import percentiles
from antiphon.client.bench.servers import Contender, Running, running
from antiphon.errors import ConfigError, ProtocolError

_END_S = 60.0
"""For the last calls of a batch to end."""
_SETTLE_S = 1.0
_METRIC_S = 5.0
_TASKS = "antiphon_tasks "
_MAX_REFUSED = 20


@dataclass(frozen=True, slots=True)
class SoakPlan:
    calls: int = 10_000
    at_once: int = 50
    samples: int = 20

    def __post_init__(self) -> None:
        if min(self.calls, self.at_once) < 1 or self.samples < 3:
            raise ConfigError("a soak has calls, some at once, and at least three samples")


@dataclass(frozen=True, slots=True)
class Sample:
    """With no call on. None where the system or the server does not tell."""

    calls: int
    """So far."""
    memory_mb: float | None
    threads: int | None
    files: int | None
    tasks: int | None


def soak(
    contender: Contender,
    behaviour: CallerBehaviour,
    plan: SoakPlan,
    *,
    core: int | None,
    on_sample: Callable[[Sample], None],
) -> dict[str, Any]:
    """-> a JSON object. Blocking. Raises ModelError when the server does not start, ProtocolError when it refuses."""
    with running(contender, core) as server:
        return loops.run_fast(run_on(server, replace(behaviour, turns=1), plan, on_sample))


async def run_on(
    server: Running, behaviour: CallerBehaviour, plan: SoakPlan, on_sample: Callable[[Sample], None]
) -> dict[str, Any]:
    """Of a server that runs. `manner` with a number of turns, or the calls do not end. Raises ProtocolError."""
    fleet = Fleet(server.url, behaviour)
    samples: list[Sample] = []
    done, refused = 0, 0

    async def look() -> None:
        await fleet.until(0, _END_S)
        await asyncio.sleep(_SETTLE_S)
        samples.append(await _sample(server, done))
        on_sample(samples[-1])

    try:
        batch = max(plan.calls // plan.samples, 1)
        while done < plan.calls:
            size = min(batch, plan.calls - done)
            refused += await _batch(fleet, size, min(plan.at_once, size))
            if refused > _MAX_REFUSED:
                raise ProtocolError(f"{refused} calls were refused; the soak was given up")
            done += size
            await look()
    finally:
        fleet.close()
    turns = fleet.tally.turns
    return {
        "calls": done,
        "turns": len(turns),
        "unanswered": sum(not turn.answered for turn in turns),
        "refused": refused,
        "lost": len(fleet.tally.lost),
        "why_lost": fleet.tally.lost[:10],
        "talked_over": sum(turn.talked_over for turn in turns),
        "voice_to_voice_ms": percentiles(
            t.voice_to_voice_ms for t in turns if t.voice_to_voice_ms is not None
        ),
        **trend(samples),
        "samples": [asdict(sample) for sample in samples],
    }


async def _batch(fleet: Fleet, calls: int, at_once: int) -> int:
    """-> how many could not be had."""
    refused = 0
    for _ in range(calls):
        await fleet.until(at_once - 1, _END_S)
        try:
            await fleet.dial()
        except ProtocolError:
            refused += 1
        await asyncio.sleep(0.02)
    return refused


async def _sample(server: Running, calls: int) -> Sample:
    usage = server.usage()
    tasks = await _tasks(server.url)
    if usage is None:
        return Sample(calls, None, None, None, tasks)
    return Sample(calls, round(usage.memory_bytes / 2**20, 2), usage.threads, usage.files, tasks)


async def _tasks(url: str) -> int | None:
    """Of the server's event loop, by its metrics."""
    address = url.replace("ws://", "http://").rpartition("/")[0] + "/metrics"
    try:
        async with httpx.AsyncClient(timeout=_METRIC_S) as client:
            answer = await client.get(address)
    except httpx.HTTPError:
        return None
    lines = [line for line in answer.text.splitlines() if line.startswith(_TASKS)]
    return int(float(lines[0].removeprefix(_TASKS))) if lines else None


def trend(samples: Sequence[Sample]) -> dict[str, Any]:
    """What grew over the last two thirds: the first third warms caches up. None for too few samples."""
    later = samples[len(samples) // 3 :]
    memory = [(s.calls, s.memory_mb) for s in later if s.memory_mb is not None]
    slope = None
    if len(memory) > 1:
        calls, sizes = zip(*memory, strict=True)
        slope = round(float(np.polyfit(calls, sizes, 1)[0]) * 1024, 3)
    return {
        "memory_kb_per_call": slope,
        **{f"{name}_grown": _grown(later, name) for name in ("threads", "files", "tasks")},
    }


def _grown(samples: Sequence[Sample], name: str) -> int | None:
    values = [getattr(s, name) for s in samples if getattr(s, name) is not None]
    return values[-1] - values[0] if len(values) > 1 else None
