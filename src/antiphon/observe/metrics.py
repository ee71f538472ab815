"""Prometheus metrics of one process, in a registry of their own.

Fed with turn records and the ends of calls; what models have in line is read when somebody scrapes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from antiphon.core.turn_record import TurnRecord
from antiphon.models.ports import ModelStatus
from antiphon.models.scheduler import SchedulerStats
from antiphon.observe.turn_figures import stages, voice_to_voice_ms, wasted_guesses, withdrawn

VOICE_BUCKETS_S = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1, 1.25, 1.5, 2, 3, 5, 10)
"""Dense where a conversation still feels natural, so that a quantile there is worth something."""
STAGE_BUCKETS_S = (0.005, 0.01, 0.02, 0.04, 0.06, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1, 2, 5, 10)
LAG_BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
CALL_BUCKETS_S = (5, 15, 30, 60, 120, 300, 600, 1200, 1800, 3600)

_STAGE_LABELS = {
    "stt_ms": "stt",
    "turn_detector_ms": "turn_detector",
    "llm_first_token_ms": "llm_first_token",
    "llm_total_ms": "llm_total",
    "tts_first_audio_ms": "tts_first_audio",
    "end_to_commit_ms": "end_to_commit",
    "end_to_audio_ready_ms": "end_to_audio_ready",
}
_REASONS = {
    "caller hung up": "caller",
    "the client is gone": "client_gone",
    "the client stopped reading": "client_gone",
    "session closed": "client_gone",
    "the call reached its longest duration": "too_long",
    "the server is shutting down": "shutdown",
    "finished": "finished",
    "nobody answered": "nobody_answered",
    "error": "error",
}
"""Why calls end -> label. Anything else is `other`: a client's own words must not become time series."""
LAG_EVERY_S = 0.25
_OLD_NAMES = {
    "antiphon_scheduler_": "antiphon_lane_",
    "antiphon_false_interruptions": "antiphon_false_alarms",
    "antiphon_preemptive_generations": "antiphon_speculations",
}
"""How names of metrics begin -> how they began before version 0.2. Both are there for one release."""
_OLD_LABELS = {"scheduler": "lane"}


class Schedulers(Protocol):
    """What is asked of the models at each scrape: `models.model_set.ModelSet` has it."""

    def scheduler_stats(self) -> Mapping[str, SchedulerStats]: ...

    def status(self) -> list[ModelStatus]: ...


class Metrics:
    """All metrics of a process. Methods are cheap and never raise; call them on the event loop's thread."""

    def __init__(self, schedulers: Schedulers | None = None) -> None:
        self.registry = CollectorRegistry()
        self._add_calls()
        self._add_turns()
        self._lag = Histogram(
            "antiphon_event_loop_lag_seconds",
            "How much later than asked the event loop woke a sleeper.",
            buckets=LAG_BUCKETS_S,
            registry=self.registry,
        )
        self._tasks = Gauge(
            "antiphon_tasks", "Tasks of the event loop, a moment ago.", registry=self.registry
        )
        info = Gauge("antiphon_info", "1, with the version.", ["version"], registry=self.registry)
        info.labels(_version()).set(1)
        ProcessCollector(registry=self.registry)
        renamed: list[Collector] = [self._false_alarms, self._guesses]
        if schedulers is not None:
            collector = _SchedulerCollector(schedulers)
            self.registry.register(collector)
            renamed.append(collector)
        self.registry.register(_OldNames(renamed))

    def _add_calls(self) -> None:
        r = self.registry
        self._active = Gauge("antiphon_calls_active", "Calls on now.", registry=r)
        self._started = Counter("antiphon_calls_total", "Calls begun.", registry=r)
        self._ended = Counter("antiphon_calls_ended_total", "Calls over.", ["reason"], registry=r)
        self._refused = Counter(
            "antiphon_calls_refused_total", "Calls turned away, busy or not ready.", registry=r
        )
        self._length = Histogram(
            "antiphon_call_duration_seconds", "Calls.", buckets=CALL_BUCKETS_S, registry=r
        )

    def _add_turns(self) -> None:
        r = self.registry
        self._turns = Counter(
            "antiphon_turns_total",
            "Turn records, by what was said (answer, greeting, ...) and how it ended.",
            ["kind", "status"],
            registry=r,
        )
        self._voice = Histogram(
            "antiphon_voice_to_voice_seconds",
            "Acoustic end of the caller's speech to the first sound of the answer.",
            buckets=VOICE_BUCKETS_S,
            registry=r,
        )
        self._stage = Histogram(
            "antiphon_stage_seconds",
            "Stages of a turn.",
            ["stage"],
            buckets=STAGE_BUCKETS_S,
            registry=r,
        )
        for label in _STAGE_LABELS.values():
            self._stage.labels(label)
        self._interruptions = Counter(
            "antiphon_interruptions_total", "Replies that the caller broke off.", registry=r
        )
        self._false_alarms = Counter(
            "antiphon_false_interruptions_total", "Interruptions that were nothing.", registry=r
        )
        self._guesses = Counter(
            "antiphon_preemptive_generations_total",
            "Replies begun before the turn was certain.",
            ["outcome"],
            registry=r,
        )
        self._tokens = Counter("antiphon_tokens_total", "LLM tokens.", ["type"], registry=r)
        for name in ("used", "wasted"):
            self._guesses.labels(name)
        for name in ("input", "output", "cached"):
            self._tokens.labels(name)
        self._characters = Counter(
            "antiphon_reply_characters_total", "Text of replies.", registry=r
        )
        self._played = Counter(
            "antiphon_played_audio_seconds_total", "The agent's voice, as far as heard.", registry=r
        )

    # -- calls ----------------------------------------------------------------------------------

    def call_started(self) -> None:
        self._started.inc()
        self._active.inc()

    def call_ended(self, reason: str = "", duration_ms: int | None = None) -> None:
        """`reason`: as in `Hangup`; reasons that are not ours count as `other`."""
        self._active.dec()
        self._ended.labels(_REASONS.get(reason, "other")).inc()
        if duration_ms is not None:
            self._length.observe(duration_ms / 1000)

    def refused(self) -> None:
        self._refused.inc()

    # -- turns ----------------------------------------------------------------------------------

    def observe_turn(self, record: TurnRecord) -> None:
        """Count a turn that has ended."""
        self._turns.labels(record.kind, record.status or "none").inc()
        found = stages(record)
        for name, label in _STAGE_LABELS.items():
            self._observe(self._stage.labels(label), getattr(found, name))
        self._observe(self._voice, voice_to_voice_ms(record))
        self._interruptions.inc(int(record.interrupted))
        self._false_alarms.inc(record.false_interruptions)
        self._tokens.labels("input").inc(record.input_tokens)
        self._tokens.labels("output").inc(record.output_tokens)
        self._tokens.labels("cached").inc(record.cached_tokens)
        self._characters.inc(record.characters)
        self._played.inc(max(record.played_ms, 0) / 1000)
        if not withdrawn(record):  # else the turn's next record counts its guesses
            self._guesses.labels("used").inc(int(record.preemptive_used))
            self._guesses.labels("wasted").inc(wasted_guesses(record))

    def observe_lag(self, lag_s: float) -> None:
        self._lag.observe(max(lag_s, 0.0))

    def observe_tasks(self, tasks: int) -> None:
        self._tasks.set(tasks)

    @staticmethod
    def _observe(histogram: Histogram, value_ms: int | None) -> None:
        if value_ms is not None:
            histogram.observe(value_ms / 1000)

    # -- out ------------------------------------------------------------------------------------

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """All metrics as text, and their content type. `accept`: the request's header; it may ask for OpenMetrics."""
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type


class _OldNames(Collector):
    """The metrics that have a new name, under their old one."""

    def __init__(self, collectors: Iterable[Collector]) -> None:
        self._collectors = tuple(collectors)

    def collect(self) -> Iterator[Metric]:
        for family in (f for collector in self._collectors for f in collector.collect()):
            for new, old in _OLD_NAMES.items():
                if family.name.startswith(new):
                    yield self._renamed(family, new, old)

    @staticmethod
    def _renamed(family: Metric, new: str, old: str) -> Metric:
        name = family.name.replace(new, old, 1)
        twin = Metric(name, f"The old name of {family.name}.", family.type, family.unit)
        for sample in family.samples:
            labels = {
                _OLD_LABELS.get(label, label): value for label, value in sample.labels.items()
            }
            twin.add_sample(sample.name.replace(new, old, 1), labels, sample.value)
        return twin


class _SchedulerCollector(Collector):
    """Reads the models' lines at the moment of the scrape."""

    def __init__(self, schedulers: Schedulers) -> None:
        self._schedulers = schedulers

    def collect(self) -> Iterator[Metric]:
        stats = self._schedulers.scheduler_stats()
        yield _gauge("antiphon_scheduler_depth", "Requests in line.", stats, lambda s: s.depth)
        yield _gauge("antiphon_scheduler_running", "Requests at work.", stats, lambda s: s.running)
        yield _gauge("antiphon_scheduler_stuck", "Threads left behind.", stats, lambda s: s.stuck)
        yield _counter(
            "antiphon_scheduler_wait_seconds",
            "Time in line of all requests that were let through.",
            stats,
            lambda s: s.waited_ms / 1000,
        )
        yield _counter(
            "antiphon_scheduler_batches", "Runs of a batched model.", stats, lambda s: s.batches
        )
        requests = CounterMetricFamily(
            "antiphon_scheduler_requests",
            "Requests by how they ended.",
            labels=["scheduler", "outcome"],
        )
        for scheduler, found in stats.items():
            for outcome in ("served", "cancelled", "failed", "refused"):
                requests.add_metric([scheduler, outcome], getattr(found, outcome))
        yield requests
        yield self._ready()

    def _ready(self) -> Metric:
        family = GaugeMetricFamily(
            "antiphon_model_ready", "1: loaded and well.", labels=["kind", "model"]
        )
        states = {(s.kind.value, s.name): s.state == "ready" for s in self._schedulers.status()}
        for labels, ready in states.items():
            family.add_metric(labels, int(ready))
        return family


def _gauge(
    name: str,
    text: str,
    stats: Mapping[str, SchedulerStats],
    read: Callable[[SchedulerStats], float],
) -> Metric:
    family = GaugeMetricFamily(name, text, labels=["scheduler"])
    for scheduler, found in stats.items():
        family.add_metric([scheduler], read(found))
    return family


def _counter(
    name: str,
    text: str,
    stats: Mapping[str, SchedulerStats],
    read: Callable[[SchedulerStats], float],
) -> Metric:
    family = CounterMetricFamily(name, text, labels=["scheduler"])
    for scheduler, found in stats.items():
        family.add_metric([scheduler], read(found))
    return family


async def watch_loop_lag(
    metrics: Metrics,
    every_s: float = LAG_EVERY_S,
    *,
    clock: Callable[[], float] | None = None,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Measure until cancelled. `clock` and `sleep`: for tests."""
    now = clock or asyncio.get_running_loop().time
    while True:
        due_s = now() + every_s
        await sleep(every_s)
        metrics.observe_lag(now() - due_s)
        metrics.observe_tasks(len(asyncio.all_tasks()))


def _version() -> str:
    try:
        return version("antiphon")
    except PackageNotFoundError:  # run from a source tree
        return "unknown"
