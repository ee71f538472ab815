"""A list of numbers in five: what every bench says of its figures. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Iterable

from antiphon.observe.turn_figures import percentile


def percentiles(values: Iterable[float]) -> dict[str, float] | None:
    """Count, median, P95 (nearest rank), least and most; None for no values."""
    found = list(values)
    if not found:
        return None
    return {
        "count": len(found),
        "median": round(statistics.median(found), 1),
        "p95": round(percentile(found, 0.95), 1),
        "min": round(min(found), 1),
        "max": round(max(found), 1),
    }
