"""The phone bot's three latency reports: what each service took, how long the caller waited, and a table per call.

Measured by Pipecat itself, from the end of speech as its VAD has it to the first audio that it sends. Pipecat 1.9 on.
"""

from __future__ import annotations

import sys
from statistics import mean
from typing import Any

from pipecat.frames.frames import CancelFrame, EndFrame
from pipecat.observers.base_observer import BaseObserver, FramePushed
from pipecat.observers.loggers.metrics_log_observer import MetricsLogObserver
from pipecat.observers.user_bot_latency_observer import LatencyBreakdown, UserBotLatencyObserver

METRICS_LOG = "pipecat.observers.loggers.metrics_log_observer"
"""Where the first report is logged, at level DEBUG."""


def tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


class LatencyReport(BaseObserver):
    """A line per turn, and at the end of the call a summary and a table of where the time went."""

    def __init__(self) -> None:
        super().__init__()
        self._inner = UserBotLatencyObserver()
        self._waits_ms: list[float] = []
        self._parts_ms: list[dict[str, float]] = []
        self._told = False

        @self._inner.event_handler("on_latency_measured")
        async def measured(_observer: Any, latency_s: float) -> None:
            self._waits_ms.append(1000 * latency_s)
            tell(f"turn {len(self._waits_ms)}: user to bot {1000 * latency_s:.0f} ms")

        @self._inner.event_handler("on_latency_breakdown")
        async def broken_down(_observer: Any, breakdown: LatencyBreakdown) -> None:
            parts: dict[str, float] = {}
            for part in breakdown.contributions:
                parts[part.label] = parts.get(part.label, 0.0) + 1000 * part.duration_secs
            self._parts_ms.append(parts)

    async def on_pipeline_started(self) -> None:
        await self._inner.on_pipeline_started()

    async def on_push_frame(self, data: FramePushed) -> None:
        await self._inner.on_push_frame(data)
        if isinstance(data.frame, (EndFrame, CancelFrame)) and not self._told:
            self._told = True
            self._tell_all()

    def _tell_all(self) -> None:
        waits = self._waits_ms
        if not waits:
            tell("user to bot: no turn was answered")
            return
        tell(
            f"user to bot: {len(waits)} turns, mean {mean(waits):.0f}, least {min(waits):.0f}, most {max(waits):.0f} ms"
        )
        names = list(dict.fromkeys(name for parts in self._parts_ms for name in parts))
        width = max((len(name) for name in names), default=0)
        for name in names:
            cells = "".join(f"{parts.get(name, 0):8.0f}" for parts in self._parts_ms)
            tell(f"  {name:<{width}}{cells}")


def observers() -> list[BaseObserver]:
    """Of one call."""
    return [MetricsLogObserver(), LatencyReport()]
