"""What Prometheus is told."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from antiphon.core.turn_record import TurnRecord
from antiphon.models.ports import Kind, ModelStatus
from antiphon.models.scheduler import SchedulerStats
from antiphon.observe.metrics import Metrics, watch_loop_lag

DASHBOARD = Path(__file__).parents[2] / "deploy" / "grafana" / "antiphon.json"


class FakeModels:
    def __init__(self) -> None:
        self.depth = 0

    def scheduler_stats(self) -> dict[str, SchedulerStats]:
        lane = SchedulerStats(
            self.depth, 1, 2_500, served=7, cancelled=2, failed=1, refused=3, stuck=0, batches=4
        )
        return {"llm:llamacpp": lane}

    def status(self) -> list[ModelStatus]:
        return [
            ModelStatus(Kind.LLM, "llamacpp", state="ready", in_use=True),
            ModelStatus(Kind.STT, "moonshine", state="failed"),
        ]


def samples(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text = metrics.render()[0].decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(metrics: Metrics, name: str, **labels: str) -> float:
    return samples(metrics)[(name, tuple(sorted(labels.items())))]


def test_turns_of_a_call(records: list[TurnRecord]) -> None:
    metrics = Metrics()
    for record in records:
        metrics.observe_turn(record)
    assert value(metrics, "antiphon_turns_total", kind="answer", status="completed") == 3
    assert value(metrics, "antiphon_turns_total", kind="answer", status="cancelled") == 1
    assert value(metrics, "antiphon_turns_total", kind="greeting", status="completed") == 1
    assert value(metrics, "antiphon_interruptions_total") == 1
    assert value(metrics, "antiphon_false_interruptions_total") == 1
    assert value(metrics, "antiphon_preemptive_generations_total", outcome="used") == 4
    assert value(metrics, "antiphon_preemptive_generations_total", outcome="wasted") == 1
    assert value(metrics, "antiphon_voice_to_voice_seconds_count") == 4
    assert value(metrics, "antiphon_voice_to_voice_seconds_bucket", le="0.2") == 0
    assert value(metrics, "antiphon_voice_to_voice_seconds_bucket", le="0.4") == 4
    assert value(metrics, "antiphon_stage_seconds_sum", stage="llm_first_token") == pytest.approx(
        0.44
    )
    assert value(metrics, "antiphon_tokens_total", type="input") == 80


def test_a_withdrawn_reply_leaves_its_guesses_to_the_next_record() -> None:
    metrics = Metrics()
    metrics.observe_turn(
        TurnRecord(1, status="cancelled", preemptive_generations=1, preemptive_used=True)
    )
    metrics.observe_turn(
        TurnRecord(1, status="completed", preemptive_generations=2, preemptive_used=True)
    )
    assert value(metrics, "antiphon_preemptive_generations_total", outcome="used") == 1
    assert value(metrics, "antiphon_preemptive_generations_total", outcome="wasted") == 1


def test_calls_and_their_ends() -> None:
    metrics = Metrics()
    for _ in range(3):
        metrics.call_started()
    metrics.refused()
    metrics.call_ended("caller hung up", 12_000)
    metrics.call_ended("a reason that a client made up")
    assert value(metrics, "antiphon_calls_active") == 1
    assert value(metrics, "antiphon_calls_total") == 3
    assert value(metrics, "antiphon_calls_refused_total") == 1
    assert value(metrics, "antiphon_calls_ended_total", reason="caller") == 1
    assert value(metrics, "antiphon_calls_ended_total", reason="other") == 1
    assert value(metrics, "antiphon_call_duration_seconds_sum") == 12


def test_schedulers_are_read_at_the_scrape() -> None:
    models = FakeModels()
    metrics = Metrics(models)
    assert value(metrics, "antiphon_scheduler_depth", scheduler="llm:llamacpp") == 0
    models.depth = 5
    assert value(metrics, "antiphon_scheduler_depth", scheduler="llm:llamacpp") == 5
    assert value(metrics, "antiphon_scheduler_wait_seconds_total", scheduler="llm:llamacpp") == 2.5
    assert (
        value(
            metrics,
            "antiphon_scheduler_requests_total",
            scheduler="llm:llamacpp",
            outcome="refused",
        )
        == 3
    )
    assert value(metrics, "antiphon_model_ready", kind="stt", model="moonshine") == 0


def test_the_old_names_stay_for_one_release() -> None:
    models = FakeModels()
    models.depth = 5
    metrics = Metrics(models)
    metrics.observe_turn(
        TurnRecord(1, status="completed", false_interruptions=2, preemptive_generations=1)
    )
    assert value(metrics, "antiphon_lane_depth", lane="llm:llamacpp") == 5
    assert value(metrics, "antiphon_lane_wait_seconds_total", lane="llm:llamacpp") == 2.5
    assert value(metrics, "antiphon_false_alarms_total") == 2
    assert value(metrics, "antiphon_speculations_total", outcome="wasted") == 1


def test_two_of_them_do_not_meet() -> None:
    first, second = Metrics(), Metrics()
    first.call_started()
    assert value(second, "antiphon_calls_total") == 0


def test_names_and_content_type() -> None:
    metrics = Metrics(FakeModels())
    body, content_type = metrics.render()
    assert content_type.startswith("text/plain")
    families = list(text_string_to_metric_families(body.decode()))
    assert all(family.name.startswith(("antiphon_", "process_")) for family in families)
    assert not re.search(r"antiphon_\w+_(ms|milliseconds|bytes_s)\b", body.decode())
    open_metrics, kind = metrics.render("application/openmetrics-text; version=1.0.0")
    assert kind.startswith("application/openmetrics-text")
    assert open_metrics.endswith(b"# EOF\n")


def test_loop_lag_is_what_a_sleeper_waited_too_long() -> None:
    metrics = Metrics()
    now_s, late_s = 0.0, iter([0.0, 0.3, 0.004])

    async def sleep(duration_s: float) -> None:
        nonlocal now_s
        try:
            now_s += duration_s + next(late_s)
        except StopIteration:
            raise asyncio.CancelledError from None

    async def watch() -> None:
        with pytest.raises(asyncio.CancelledError):
            await watch_loop_lag(metrics, 0.25, clock=lambda: now_s, sleep=sleep)

    asyncio.run(watch())
    assert value(metrics, "antiphon_event_loop_lag_seconds_count") == 3
    assert value(metrics, "antiphon_event_loop_lag_seconds_bucket", le="0.001") == 1
    assert value(metrics, "antiphon_event_loop_lag_seconds_bucket", le="0.25") == 2
    assert value(metrics, "antiphon_event_loop_lag_seconds_bucket", le="0.5") == 3


# -- the dashboard -----------------------------------------------------------------------------------


def panels(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def test_the_dashboard_asks_only_for_what_there_is(records: list[TurnRecord]) -> None:
    metrics = Metrics(FakeModels())
    for record in records:
        metrics.observe_turn(record)
    metrics.call_started()
    metrics.call_ended("finished", 1000)
    labels: dict[str, set[str]] = {}
    for name, found in samples(metrics):
        labels.setdefault(name, set()).update(key for key, _ in found)
    targets = [
        target["expr"]
        for panel in panels(json.loads(DASHBOARD.read_text()))
        for target in panel["targets"]
    ]
    assert targets
    for expression in targets:
        names = set(re.findall(r"\b(?:antiphon|process)_\w+", expression))
        assert names, expression
        assert names <= set(labels), expression
        known = set().union(*(labels[name] for name in names)) | {"job", "instance"}
        grouped = re.findall(r"\bby ?\(([^)]*)\)", expression)
        matched = re.findall(r"(\w+)(?:=~?|!=)\"", expression)
        used = {word.strip() for group in grouped for word in group.split(",")} | set(matched)
        assert used <= known, expression


def test_the_dashboard_has_what_grafana_needs() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    assert dashboard["uid"] == "antiphon"
    assert dashboard["schemaVersion"] >= 39
    assert dashboard["templating"]["list"][0]["type"] == "datasource"
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
    for panel in panels(dashboard):
        assert panel["title"]
        assert panel["datasource"]["uid"] == "${datasource}"
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
