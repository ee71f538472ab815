"""How many calls a server holds on one core: more and more of them, until those that are on suffer.

A load is too much when the 95th percentile of voice to voice is 100 ms above that of a few calls, when a turn goes
unanswered, or when a call breaks off. Between the last load that was well and the first that was not, the limit is
searched by halves. Knows servers by their `Contender`; what they answer with is theirs.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from antiphon.client.bench import loops
from antiphon.client.bench.load import CallerBehaviour, Fleet, LoadTurn, Tally
from antiphon.client.bench.percentiles import percentiles
from antiphon.client.bench.servers import Contender, ProcessUsage, Running, own_cpu_s, running
from antiphon.errors import AntiphonError, ConfigError, ProtocolError

RISE_MS = 100.0
DRIVER_LATE_MS = 20.0
"""The driver's own P95 lateness beyond which its measurements are worth nothing: a frame of the telephone."""
_DIAL_SPREAD_S = 2.0
_FINE = 12
"""The limit is known well enough to a twelfth."""
_SILENT_S = 3_600.0


@dataclass(frozen=True, slots=True)
class RampPlan:
    """How a ramp goes."""

    base_calls: int = 4
    """The load that all others are compared with."""
    growth: float = 1.5
    max_calls: int = 400
    settle_s: float = 4.0
    window_s: float = 15.0
    min_turns: int = 20
    """The window is made longer for them, up to four times."""
    idle_calls: int = 40
    """Silent calls, for what one takes of memory; 0: not measured."""

    def __post_init__(self) -> None:
        if not 1 <= self.base_calls <= self.max_calls:
            raise ConfigError(
                "a ramp begins with at least 1 call and at most as many as it may have"
            )
        if self.growth <= 1 or self.window_s <= 0 or self.settle_s < 0:
            raise ConfigError("a ramp grows, and its windows last")


@dataclass(frozen=True, slots=True)
class LoadLevel:
    """One load. Times in ms; None where nothing was measured."""

    calls: int
    window_s: float
    turns: int
    unanswered: int
    talked_over: int
    gaps: int
    lost: tuple[str, ...]
    """Why calls broke off, or could not be had."""
    voice_to_voice_ms: Mapping[str, float] | None
    jitter_ms: Mapping[str, float] | None
    cpu_ms_per_call_s: float | None
    cores_used: float | None
    memory_mb: float | None
    threads: int | None
    driver_late_ms: float
    driver_cores: float

    @property
    def p95_ms(self) -> float | None:
        return None if self.voice_to_voice_ms is None else self.voice_to_voice_ms["p95"]


def trouble(level: LoadLevel, base: LoadLevel) -> str:
    """Why this load is too much, compared with a small one; empty where it is not."""
    if level.lost:
        return f"{len(level.lost)} calls broke off: {level.lost[0]}"
    if level.unanswered:
        return f"{level.unanswered} of {level.turns} turns unanswered"
    if level.p95_ms is None:
        return "no turn was answered"
    rise_ms = level.p95_ms - base.p95_ms if base.p95_ms is not None else 0.0
    return f"P95 rose by {rise_ms:.0f} ms" if rise_ms > RISE_MS else ""


def driver_failed(level: LoadLevel) -> bool:
    """The driver was too busy: nothing can be said of the server."""
    return level.driver_late_ms > DRIVER_LATE_MS


@dataclass(frozen=True, slots=True)
class Ramp:
    """One server, from a few calls to too many."""

    contender: str
    levels: tuple[LoadLevel, ...]
    """In the order in which they were measured."""
    knee: int
    """The most calls that were well; 0: none were."""
    ended_by: str
    """What was wrong with the next more; `driver` or `max_calls` where the server's limit was not found."""
    idle_memory_mb: float | None

    @property
    def at_knee(self) -> LoadLevel | None:
        return next((level for level in self.levels if level.calls == self.knee), None)

    def as_object(self) -> dict[str, Any]:
        at_knee = self.at_knee
        return {
            "arm": self.contender,
            "knee_calls": self.knee,
            "ended_by": self.ended_by,
            "cpu_ms_per_call_s": at_knee.cpu_ms_per_call_s if at_knee else None,
            "idle_memory_mb_per_call": self.idle_memory_mb,
            "levels": [asdict(level) for level in self.levels],
        }


async def ramp(
    server: Running,
    behaviour: CallerBehaviour,
    plan: RampPlan,
    on_level: Callable[[str, LoadLevel], None],
) -> Ramp:
    """Raises ProtocolError when not even the first calls can be had."""
    fleet = Fleet(server.url, behaviour)
    levels: list[LoadLevel] = []

    async def measure(calls: int) -> LoadLevel:
        level = await measure_level(fleet, server, calls, plan)
        levels.append(level)
        on_level(server.name, level)
        return level

    try:
        base = await measure(plan.base_calls)
        if why := trouble(base, base):
            return Ramp(server.name, tuple(levels), 0, why, None)
        idle_mb = await _idle_memory(server, behaviour, plan)
        low, _, ended_by = await search(measure, base, plan)
    finally:
        fleet.close()
    return Ramp(server.name, tuple(levels), low, ended_by, idle_mb)


async def search(
    measure: Callable[[int], Awaitable[LoadLevel]], base: LoadLevel, plan: RampPlan
) -> tuple[int, int, str]:
    """-> the most calls that were well, the fewest that were not (0: none were found), and why."""
    low, high, ended_by = await _climb(measure, base, plan)
    while high and high - low > max(1, low // _FINE):
        calls = (low + high) // 2
        level = await measure(calls)
        if driver_failed(level):
            return low, high, "driver"
        if why := trouble(level, base):
            high, ended_by = calls, why
        else:
            low = calls
    return low, high, ended_by


async def _climb(
    measure: Callable[[int], Awaitable[LoadLevel]], base: LoadLevel, plan: RampPlan
) -> tuple[int, int, str]:
    """-> the last load that was well, the first that was not (0: none was found), and why."""
    low, calls = base.calls, base.calls
    while calls < plan.max_calls:
        calls = min(max(int(calls * plan.growth), calls + 1), plan.max_calls)
        level = await measure(calls)
        why = trouble(level, base)
        if driver_failed(level):
            return low, 0, "driver"
        if why:
            return low, calls, why
        low = calls
    return low, 0, "max_calls"


async def measure_level(fleet: Fleet, server: Running, calls: int, plan: RampPlan) -> LoadLevel:
    """One load, reached and measured. What goes wrong is in it."""
    tally = Tally()
    fleet.tell(tally)
    refused = ""
    try:
        await fleet.resize(calls, _DIAL_SPREAD_S)
    except ProtocolError as error:
        refused = " ".join(str(error).split())
    await asyncio.sleep(plan.settle_s)
    tally.turns.clear()
    tally.late_ms.clear()
    loop = asyncio.get_running_loop()
    before, driver_s, began_s = server.usage(), own_cpu_s(), loop.time()
    for _ in range(4):
        await asyncio.sleep(plan.window_s)
        if len(tally.turns) >= plan.min_turns or tally.lost or refused:
            break
    took_s = loop.time() - began_s
    level = _summed(tally, calls, took_s, before, server.usage(), own_cpu_s() - driver_s)
    return replace(level, lost=(*level.lost, refused)) if refused else level


def _summed(
    tally: Tally,
    calls: int,
    took_s: float,
    before: ProcessUsage | None,
    after: ProcessUsage | None,
    driver_s: float,
) -> LoadLevel:
    turns: Sequence[LoadTurn] = tally.turns
    cpu_s = after.cpu_s - before.cpu_s if before is not None and after is not None else None
    late = percentiles(tally.late_ms)
    return LoadLevel(
        calls=calls,
        window_s=round(took_s, 2),
        turns=len(turns),
        unanswered=sum(not turn.answered for turn in turns),
        talked_over=sum(turn.talked_over for turn in turns),
        gaps=sum(turn.gaps for turn in turns),
        lost=tuple(tally.lost[:20]),
        voice_to_voice_ms=percentiles(
            t.voice_to_voice_ms for t in turns if t.voice_to_voice_ms is not None
        ),
        jitter_ms=percentiles(ms for turn in turns for ms in turn.jitter_ms),
        cpu_ms_per_call_s=None if cpu_s is None else round(1000 * cpu_s / took_s / calls, 2),
        cores_used=None if cpu_s is None else round(cpu_s / took_s, 3),
        memory_mb=None if after is None else round(after.memory_bytes / 2**20, 1),
        threads=None if after is None else after.threads,
        driver_late_ms=late["p95"] if late else 0.0,
        driver_cores=round(driver_s / took_s, 3),
    )


async def _idle_memory(server: Running, behaviour: CallerBehaviour, plan: RampPlan) -> float | None:
    """MB that one more silent call takes, once the first ones have warmed everything up."""
    if not plan.idle_calls:
        return None
    silent = Fleet(server.url, replace(behaviour, first_s=_SILENT_S), seed=900)
    before = server.usage()
    try:
        await silent.resize(plan.idle_calls, _DIAL_SPREAD_S)
        await asyncio.sleep(plan.settle_s)
        after = server.usage()
    finally:
        silent.close()
    if before is None or after is None:
        return None
    return round((after.memory_bytes - before.memory_bytes) / plan.idle_calls / 2**20, 3)


def compare(
    contenders: Sequence[Contender],
    behaviour: CallerBehaviour,
    plan: RampPlan,
    *,
    repeats: int,
    core: int | None,
    on_level: Callable[[str, LoadLevel], None],
) -> dict[str, list[dict[str, Any]]]:
    """All arms, one after the other, so often -> by name. What was not measured says why in `trouble`. Blocking."""
    found: dict[str, list[dict[str, Any]]] = {contender.name: [] for contender in contenders}
    for _ in range(repeats):
        for contender in contenders:
            try:
                with running(contender, core) as server:
                    done = loops.run_fast(ramp(server, behaviour, plan, on_level))
                found[contender.name].append(done.as_object())
            except AntiphonError as error:
                found[contender.name].append(
                    {"arm": contender.name, "knee_calls": 0, "trouble": str(error), "levels": []}
                )
    return found


def summary(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """Ratios first: ours to the peer's, for each pair of arms of which one is named after the other."""
    knees = {name: [run["knee_calls"] for run in done] for name, done in runs.items()}
    ratios = {}
    for ours, calls in knees.items():
        theirs = ours.replace("antiphon", "pipecat", 1)
        if ours != theirs and theirs in knees:
            each = [a / b if b else None for a, b in zip(calls, knees[theirs], strict=True)]
            known = [ratio for ratio in each if ratio is not None]
            ratios[f"{ours} / {theirs}"] = {
                "median": round(statistics.median(known), 2) if known else None,
                "each": [None if ratio is None else round(ratio, 2) for ratio in each],
            }
    return {
        "ratio_of_calls": ratios,
        "knee_calls": {name: statistics.median(calls) for name, calls in knees.items()},
        "cpu_ms_per_call_s": {
            name: _middle(done, "cpu_ms_per_call_s") for name, done in runs.items()
        },
        "idle_memory_mb_per_call": {
            name: _middle(done, "idle_memory_mb_per_call") for name, done in runs.items()
        },
    }


def _middle(runs: Sequence[Mapping[str, Any]], name: str) -> float | None:
    values = [run[name] for run in runs if run.get(name) is not None]
    return round(statistics.median(values), 3) if values else None
