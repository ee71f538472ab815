"""`antiphon bench endpoint`: how often endpointing cuts people off, and how long it makes them wait.

Recordings of turns are heard once (`pauses`); then every rule is tried on what was heard, in virtual time: the models
take no time, so the latencies are those of the decision alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

from antiphon.client.bench.charts import lines
from antiphon.client.bench.pauses import Heard, Listeners, Pause, hear, read_index
from antiphon.client.bench.percentiles import percentiles
from antiphon.core.endpointing import WEIGHTS, Weights, looks_unfinished, silence_needed_ms
from antiphon.core.policy import Policy
from antiphon.models.ports import WeightSource
from antiphon.observe.turn_figures import percentile

STEP_MS = 32
FIRST_MS = 64
"""Silence at which a pause is credible."""
LIMIT_MS = 2_048
"""No rule waits longer."""
LEVELS = (0.02, 0.05, 0.1, 0.2)
"""Shares of turns cut off for which latencies are compared."""
PATIENCES = tuple(round(step / 20, 2) for step in range(21))

Rule = Callable[[Pause, int], float]
"""A pause and the silence so far -> the silence that ends the turn, in milliseconds."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a rule made of one recording."""

    file: str
    latency_ms: int
    """From the end of speech to the decision; negative: cut off."""
    pause: Pause
    silence_ms: int

    @property
    def cut_off(self) -> bool:
        return self.latency_ms < 0


def ours(policy: Policy, weights: Weights = WEIGHTS) -> Rule:
    """The decision of the core."""

    def needed_ms(pause: Pause, silence_ms: int) -> float:
        if not pause.text:  # nothing was said: the core drops such a turn
            return policy.plain_silence_ms
        return silence_needed_ms(
            policy,
            pause.text,
            detector_at(pause, silence_ms if policy.rescore_every_ms else FIRST_MS),
            text_end_probability=pause.text_end,
            weights=weights,
        )

    return needed_ms


def by_silence(silence_ms: int) -> Rule:
    return lambda pause, so_far_ms: silence_ms


def by_detector(threshold: float, short_ms: int, long_ms: int) -> Rule:
    """The turn detector's threshold chooses between two silences."""

    def needed_ms(pause: Pause, silence_ms: int) -> float:
        probability = detector_at(pause, silence_ms)
        return short_ms if probability is not None and probability > threshold else long_ms

    return needed_ms


def by_thresholds(short_ms: int) -> Rule:
    """How the core decided before the wait was fitted: thresholds on either sign choose between silences."""

    def needed_ms(pause: Pause, silence_ms: int) -> float:
        probability = detector_at(pause, silence_ms)
        dangling = pause.text_end is not None and pause.text_end < 0.02
        unfinished = dangling or looks_unfinished(pause.text)
        if probability is None or (probability <= 0.5 and unfinished):
            return 1_800
        if probability > 0.5:
            return max(short_ms, 700) if unfinished else short_ms
        return max(short_ms, 700 + 660 * max(1 - probability / 0.25, 0))

    return needed_ms


def detector_at(pause: Pause, silence_ms: int) -> float | None:
    """The turn detector's latest answer."""
    asked = [moment_ms for moment_ms in pause.detector if moment_ms <= silence_ms]
    return pause.detector[max(asked)] if asked else None


def decide(heard: Heard, rule: Rule) -> Outcome | None:
    """The rule's first commit; None when no speech was found in the recording."""
    for pause in heard.pauses:
        silence_ms = FIRST_MS
        while silence_ms < pause.length_ms:
            if silence_ms >= min(rule(pause, silence_ms), LIMIT_MS):
                at_ms = pause.voiced_until_ms + silence_ms
                return Outcome(heard.file, at_ms - heard.speech_end_ms, pause, silence_ms)
            silence_ms += STEP_MS
    return None


def figures(heard: Sequence[Heard], rule: Rule) -> dict[str, Any]:
    """Cut-offs with their reasons, and the latency of the turns that were not cut off."""
    outcomes = [found for one in heard if (found := decide(one, rule)) is not None]
    waits = [found.latency_ms for found in outcomes if not found.cut_off]
    cut = [found for found in outcomes if found.cut_off]
    return {
        "turns": len(outcomes),
        "cut_off": len(cut),
        "cut_off_share": round(len(cut) / max(len(outcomes), 1), 4),
        "mean_ms": round(mean(waits), 1) if waits else None,
        "latency_ms": percentiles(waits),
        "p90_ms": percentile(waits, 0.9) if waits else None,
        "reasons": [_reason(found) for found in cut],
    }


def _reason(found: Outcome) -> dict[str, Any]:
    """Which sign said "over"."""
    pause, policy = found.pause, Policy()
    detector = detector_at(pause, found.silence_ms)
    signs = []
    if detector is not None and detector > policy.turn_threshold:
        signs.append("detector")
    if pause.text_end is not None and pause.text_end > WEIGHTS.usual_text_end:
        signs.append("words")
    return {
        "file": found.file,
        "at_ms": pause.voiced_until_ms + found.silence_ms,
        "silence_ms": found.silence_ms,
        "detector": detector,
        "text_end_probability": pause.text_end,
        "text": pause.text,
        "signs": signs or ["silence"],
    }


def curve(heard: Sequence[Heard], rules: Sequence[tuple[float, Rule]]) -> list[dict[str, float]]:
    """A point for each value of a rule's knob."""
    points = []
    for knob, rule in rules:
        found = figures(heard, rule)
        if found["mean_ms"] is None:
            continue
        latency = found["latency_ms"]
        points.append(
            {
                "knob": knob,
                "cut_off_share": found["cut_off_share"],
                "mean_ms": found["mean_ms"],
                "median_ms": latency["median"],
                "p95_ms": latency["p95"],
            }
        )
    return points


def at_levels(points: Sequence[Mapping[str, float]]) -> dict[str, float | None]:
    """The least mean latency at which no more turns are cut off than each of `LEVELS`."""
    return {
        f"{level:.0%}": min(
            (point["mean_ms"] for point in points if point["cut_off_share"] <= level), default=None
        )
        for level in LEVELS
    }


def rules(policy: Policy) -> dict[str, list[tuple[float, Rule]]]:
    """Name -> the rule at each value of its knob."""
    silences = range(128, LIMIT_MS, 64)
    detectors = [
        (threshold, by_detector(threshold, short_ms, long_ms))
        for threshold in (0.3, 0.5, 0.7, 0.9)
        for short_ms in (128, 256, 384, 512, 640, 768, 1_024, 1_280, 1_536)
        for long_ms in (512, 768, 1_024, 1_536, 2_048)
    ]
    return {
        "ours": [(patience, ours(replace(policy, patience=patience))) for patience in PATIENCES],
        "ours before": [(silence_ms, by_thresholds(silence_ms)) for silence_ms in silences],
        "Smart Turn and silence": detectors,
        "silence alone": [(silence_ms, by_silence(silence_ms)) for silence_ms in silences],
    }


def hear_all(
    folder: Path,
    weights: WeightSource,
    prompt: str,
    on_heard: Callable[[int, int], None] = lambda done, of: None,
) -> list[Heard]:
    """Every recording of the folder's index. Blocking: about two seconds each. Raises AntiphonError."""
    recordings = read_index(folder)
    listeners = Listeners(weights, prompt)
    heard = []
    try:
        for number, recording in enumerate(recordings, 1):
            heard.append(hear(recording, listeners))
            on_heard(number, len(recordings))
    finally:
        listeners.close()
    return heard


def summary(heard: Sequence[Heard], policy: Policy) -> dict[str, Any]:
    """What the bench prints: the policy as it stands, and the curves."""
    curves = {name: curve(heard, knobs) for name, knobs in rules(policy).items()}
    return {
        "recordings": len(heard),
        "ours": figures(heard, ours(policy)),
        "mean_ms_at_cut_off_share": {name: at_levels(points) for name, points in curves.items()},
        "curves": curves,
    }


def chart(result: Mapping[str, Any]) -> str:
    """The curves as SVG; of a rule with several knobs the best points."""
    series = {
        name: _frontier([(point["mean_ms"], 100 * point["cut_off_share"]) for point in points])
        for name, points in result["curves"].items()
    }
    return lines(
        "End of turn: cut-offs against latency",
        "mean ms from the end of speech to the decision",
        "turns cut off, %",
        series,
    )


def _frontier(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points that no other beats in both."""
    best: list[tuple[float, float]] = []
    for ms, share in sorted(points):
        if not best or share < best[-1][1]:
            best.append((ms, share))
    return best
