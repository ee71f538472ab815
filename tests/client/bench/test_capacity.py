"""The capacity and soak benches: what makes a load too much, how the limit is searched, and both on a real server."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.client.bench.test_load import MANNER, asks, url_of
from tests.server.support import serving
from tests.support import run

from antiphon.client.bench import capacity, soak
from antiphon.client.bench.capacity import LoadLevel, RampPlan
from antiphon.client.bench.load import CallerBehaviour
from antiphon.client.bench.servers import Contender, Running
from antiphon.errors import ConfigError, ModelError

GOOD = LoadLevel(4, 5.0, 20, 0, 0, 0, (), {"p95": 500.0}, None, 8.0, 0.1, 90.0, 5, 1.0, 0.1)


def test_what_is_too_much() -> None:
    assert capacity.trouble(GOOD, GOOD) == ""
    assert capacity.trouble(replace(GOOD, voice_to_voice_ms={"p95": 600.0}), GOOD) == ""
    slow = replace(GOOD, voice_to_voice_ms={"p95": 601.0})
    assert capacity.trouble(slow, GOOD) == "P95 rose by 101 ms"
    assert capacity.trouble(replace(GOOD, unanswered=1), GOOD) == "1 of 20 turns unanswered"
    assert capacity.trouble(replace(GOOD, lost=("gone",)), GOOD) == "1 calls broke off: gone"
    assert capacity.trouble(replace(GOOD, voice_to_voice_ms=None), GOOD) == "no turn was answered"
    assert capacity.driver_failed(replace(GOOD, driver_late_ms=25.0))
    assert not capacity.driver_failed(GOOD)


def climbed(
    limit: int, plan: RampPlan, late_from: int = 10_000
) -> tuple[tuple[int, int, str], list[int]]:
    """A server that holds `limit` calls, measured by a driver that drives fewer than `late_from`."""
    asked: list[int] = []

    async def measure(calls: int) -> LoadLevel:
        asked.append(calls)
        lost = ("gone",) if calls > limit else ()
        late_ms = 50.0 if calls >= late_from else 1.0
        return replace(GOOD, calls=calls, lost=lost, driver_late_ms=late_ms)

    return asyncio.run(capacity.search(measure, GOOD, plan)), asked


def test_the_limit_is_searched_by_halves() -> None:
    (knee, _, why), asked = climbed(23, RampPlan(base_calls=4, max_calls=400))
    assert 21 <= knee <= 23
    assert why == "1 calls broke off: gone"
    assert len(asked) == len(set(asked))


def test_no_limit_is_claimed_where_none_was_found() -> None:
    assert climbed(1_000, RampPlan(base_calls=4, max_calls=50))[0] == (50, 0, "max_calls")
    assert climbed(1_000, RampPlan(base_calls=4, max_calls=50), late_from=9)[0] == (6, 0, "driver")


def test_ratios_come_first_and_only_where_there_are_two() -> None:
    runs = {
        "antiphon": [{"knee_calls": 200, "cpu_ms_per_call_s": 4.0}, {"knee_calls": 240}],
        "pipecat": [{"knee_calls": 20}, {"knee_calls": 30}],
        "antiphon + smart turn": [{"knee_calls": 40}, {"knee_calls": 40}],
    }
    found = capacity.summary(runs)
    assert next(iter(found)) == "ratio_of_calls"
    assert found["ratio_of_calls"] == {"antiphon / pipecat": {"median": 9.0, "each": [10.0, 8.0]}}
    assert found["knee_calls"]["antiphon"] == 220
    assert found["cpu_ms_per_call_s"]["antiphon"] == 4.0
    dead = capacity.summary({"antiphon": [{"knee_calls": 9}], "pipecat": [{"knee_calls": 0}]})
    assert dead["ratio_of_calls"]["antiphon / pipecat"] == {"median": None, "each": [None]}


def test_a_ramp_on_a_real_server(tmp_path: Path) -> None:
    told: list[tuple[str, int]] = []

    async def scenario() -> capacity.Ramp:
        async with serving(tmp_path) as served:
            server = Running("antiphon", url_of(served), os.getpid(), False)
            behaviour = CallerBehaviour([asks(440)], 200, rest_s=(0.0, 0.1), first_s=0.1)
            plan = RampPlan(1, 2.0, 2, settle_s=0.0, window_s=1.0, min_turns=1, idle_calls=1)
            return await capacity.ramp(
                server, behaviour, plan, lambda name, level: told.append((name, level.calls))
            )

    ramp = run(scenario())
    found = ramp.as_object()
    assert found["arm"] == "antiphon"
    assert [level["calls"] for level in found["levels"]] == [calls for _, calls in told]
    assert found["levels"][0]["turns"] >= 1
    assert found["levels"][0]["voice_to_voice_ms"]["count"] >= 1
    assert found["levels"][0]["lost"] == ()
    assert ramp.knee in (0, 1, 2)
    assert ramp.ended_by


def test_a_server_that_does_not_start_is_a_result_too() -> None:
    broken = Contender("broken", ["python3", "-c", "raise SystemExit('no models')"])
    found = capacity.compare(
        [broken], MANNER, RampPlan(), repeats=2, core=None, on_level=lambda name, level: None
    )
    assert [run_["knee_calls"] for run_ in found["broken"]] == [0, 0]
    assert "broken did not start: no models" in found["broken"][0]["trouble"]


def test_senseless_plans() -> None:
    with pytest.raises(ConfigError, match="at least 1 call"):
        RampPlan(base_calls=5, max_calls=4)
    with pytest.raises(ConfigError, match="grows"):
        RampPlan(growth=1.0)
    with pytest.raises(ConfigError, match="three samples"):
        soak.SoakPlan(samples=2)


# -- soak ---------------------------------------------------------------------------------------------


def soaked(folder: Path, plan: soak.SoakPlan, **settings: Any) -> dict[str, Any]:
    async def scenario() -> dict[str, Any]:
        async with serving(folder, **settings) as served:
            server = Running("antiphon", url_of(served), os.getpid(), False)
            return await soak.run_on(server, MANNER, plan, lambda sample: None)

    found = run(scenario())
    assert isinstance(found, dict)
    return found


def test_a_soak_counts_every_call(tmp_path: Path) -> None:
    found = soaked(tmp_path, soak.SoakPlan(calls=6, at_once=2, samples=3))
    assert (found["calls"], found["turns"], found["unanswered"], found["lost"]) == (6, 6, 0, 0)
    assert [sample["calls"] for sample in found["samples"]] == [2, 4, 6]
    assert all(sample["tasks"] for sample in found["samples"])


def test_lost_calls_of_a_soak_are_told(tmp_path: Path) -> None:
    found = soaked(tmp_path, soak.SoakPlan(calls=3, at_once=3, samples=3), server__max_call_s=1)
    assert found["turns"] + found["lost"] == 3


def sampled(memory: Sequence[float], threads: Callable[[int], int]) -> list[soak.Sample]:
    return [
        soak.Sample(100 * index, size, threads(index), 10, 5)
        for index, size in enumerate(memory, 1)
    ]


def test_growth_is_taken_from_the_last_two_thirds() -> None:
    flat = soak.trend(sampled([50, 90, 100, 100, 100, 100], lambda index: 8))
    assert flat["memory_kb_per_call"] == pytest.approx(0.0, abs=0.01)
    assert (flat["threads_grown"], flat["files_grown"], flat["tasks_grown"]) == (0, 0, 0)
    leak = soak.trend(sampled([50, 90, 100, 101, 102, 103], lambda index: index))
    assert leak["memory_kb_per_call"] == pytest.approx(10.24)
    assert leak["threads_grown"] == 3
    assert soak.trend([]) == {
        "memory_kb_per_call": None,
        "threads_grown": None,
        "files_grown": None,
        "tasks_grown": None,
    }


def test_a_soak_needs_a_server() -> None:
    broken = Contender("broken", ["python3", "-c", "raise SystemExit('no models')"])
    with pytest.raises(ModelError, match="did not start"):
        soak.soak(broken, MANNER, soak.SoakPlan(), core=None, on_sample=lambda sample: None)
