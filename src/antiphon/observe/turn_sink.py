"""What a server does with every turn record: counts it, logs it, and makes a span of it.

The one place that knows all live views, so that whoever holds the calls needs three lines.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from antiphon.core import actions as act
from antiphon.observe.logs import log_turn
from antiphon.observe.metrics import Metrics
from antiphon.observe.otel_spans import CallSpans

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider

log = logging.getLogger(__name__)


class TurnSink:
    """One per process. `watch` for each call."""

    def __init__(
        self,
        metrics: Metrics,
        *,
        provider: TracerProvider | None = None,
        models: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        """`provider`: from `otel_spans.setup`; None: no spans. `models`: kind -> name of the model in use, now."""
        self.metrics = metrics
        self._provider = provider
        self._models = models

    def watch(self, call_id: str) -> CallWatch:
        """A call begins."""
        spans = None
        if self._provider is not None:
            began_ns = time.time_ns()
            spans = CallSpans(call_id, began_ns, provider=self._provider, models=self._models())
        self.metrics.call_started()
        return CallWatch(self.metrics, spans)


class CallWatch:
    """Sees the actions of one call."""

    def __init__(self, metrics: Metrics, spans: CallSpans | None) -> None:
        self._metrics = metrics
        self._spans = spans
        self._reason = ""

    def take(self, actions: list[act.Action]) -> None:
        """What the conversation has just decided. Never raises: watching a call must not end it."""
        for action in actions:
            if isinstance(action, act.TurnRecorded):
                try:
                    self._take_turn(action)
                except Exception:
                    log.exception("a turn could not be counted")
            elif isinstance(action, act.Hangup):
                self._reason = action.reason

    def _take_turn(self, action: act.TurnRecorded) -> None:
        self._metrics.observe_turn(action.record)
        log_turn(action.record)
        if self._spans is not None:
            self._spans.add_turn(action.record)

    def end(self, now_ms: int, audio: Mapping[str, str | int | float] | None = None) -> None:
        """The call is over, `now_ms` after it began. A call that nobody hung up ended by an error.

        `audio`: the caller's audio in figures.
        """
        self._metrics.call_ended(self._reason or "error", now_ms)
        if self._spans is not None:
            self._spans.end(now_ms, self._reason or "error", audio)
