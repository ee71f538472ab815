"""The turn records of calls that a server of ours has traced: what it says itself of each turn.

Reads the files that `trace_dir` makes. Knows the records' names, not how they came about.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from antiphon.files import MAX_TRACE_BYTES, read_text

_WAIT_S = 5.0
_POLL_S = 0.05

MARKS = {
    "transcript": "transcript_ms",
    "turn detector": "turn_scored_ms",
    "first token": "first_token_ms",
    "first clause": "speak_ms",
    "first audio": "first_audio_ms",
    "turn is over": "committed_ms",
    "sent": "first_sent_ms",
}
"""Step -> the mark of a turn record at which it was done."""


class Traces:
    """Of one server. `next_call` gives the records of each call that has ended since."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: set[Path] = set()

    def settings(self) -> tuple[str, ...]:
        return (f"trace_dir={self._folder}", "trace_text=true")

    async def next_call(self, wait_s: float = _WAIT_S) -> list[dict[str, Any]]:
        """Records of the call that ended last, in order; none when no trace comes in time."""
        loop = asyncio.get_running_loop()
        end_s = loop.time() + wait_s
        while loop.time() < end_s:
            fresh = set(self._folder.glob("*.jsonl")) - self._seen
            for path in fresh:
                self._seen.add(path)
                return records(read_text(path, MAX_TRACE_BYTES))
            await asyncio.sleep(_POLL_S)
        return []


def records(trace: str) -> list[dict[str, Any]]:
    """All turn records of a trace. A line that is not whole is left out."""
    found = []
    for line in trace.splitlines():
        if '"TurnRecorded"' not in line:
            continue
        try:
            actions = json.loads(line).get("actions", [])
        except (ValueError, RecursionError):
            continue
        found += [one["record"] for one in actions if one.get("type") == "TurnRecorded"]
    return found


def stages_of(record: dict[str, Any]) -> dict[str, float]:
    """Step -> ms after the end of speech, as the server heard it. Empty for a turn that had no end."""
    end_ms = record.get("speech_end_ms")
    if end_ms is None:
        return {}
    return {
        name: float(record[mark] - end_ms)
        for name, mark in MARKS.items()
        if record.get(mark) is not None
    }
