"""Whether this machine can carry one more call: measured, not guessed.

Two things are watched: how late the event loop runs its timers, and how long work waits in line for a model. Both are
smoothed over a few seconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from antiphon.models.model_set import ModelSet
from antiphon.models.scheduler import SchedulerStats

EVERY_S = 0.5
_MEMORY_S = 4.0
"""What happened longer ago counts for little."""
_WATCHED = ("stt", "llm", "turn")
"""Speech is made ahead of its playing time and may wait; these may not."""


class LoadShedder:
    """Of one process. A limit of 0 is none."""

    def __init__(self, max_loop_lag_ms: int, max_model_wait_ms: int) -> None:
        self._limits = (max_loop_lag_ms, max_model_wait_ms)
        self.loop_lag_ms = 0.0
        self.lane_wait_ms = 0.0
        self._before: dict[str, SchedulerStats] = {}

    def observe(
        self, lag_s: float, schedulers: Mapping[str, SchedulerStats], passed_s: float
    ) -> None:
        """`lag_s`: by how much a timer of `passed_s` came late. `lanes`: by `kind:model`, of `lane_stats`."""
        weight = min(passed_s / _MEMORY_S, 1.0)
        self.loop_lag_ms += weight * (lag_s * 1000 - self.loop_lag_ms)
        waits = [
            self._mean_wait_ms(name, stats)
            for name, stats in schedulers.items()
            if name.startswith(_WATCHED)
        ]
        self.lane_wait_ms += weight * (max(waits, default=0.0) - self.lane_wait_ms)
        self._before = dict(schedulers)

    def _mean_wait_ms(self, name: str, stats: SchedulerStats) -> float:
        """Of the work let through since the last look."""
        before = self._before.get(name)
        if before is None or stats.served <= before.served:
            return 0.0
        return (stats.waited_ms - before.waited_ms) / (stats.served - before.served)

    def shortage(self) -> str:
        """Why another call would be too much, for the log and the client; empty while there is room."""
        lag_limit_ms, wait_limit_ms = self._limits
        if lag_limit_ms and self.loop_lag_ms > lag_limit_ms:
            return f"the machine is busy (timers are {self.loop_lag_ms:.0f} ms late)"
        if wait_limit_ms and self.lane_wait_ms > wait_limit_ms:
            return f"the models are busy (work waits {self.lane_wait_ms:.0f} ms in line)"
        return ""


async def watch(load_shedder: LoadShedder, models: ModelSet) -> None:
    """Until cancelled."""
    loop = asyncio.get_running_loop()
    while True:
        began_s = loop.time()
        await asyncio.sleep(EVERY_S)
        late_s = max(loop.time() - began_s - EVERY_S, 0.0)
        load_shedder.observe(late_s, models.scheduler_stats(), EVERY_S + late_s)
