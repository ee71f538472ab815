"""Where the time of a call went: the table at the end of `antiphon talk`, and the same as an object.

Made from the server's turn records and from what the caller's side measured.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.table import Table

_STAGES = {
    "asr_ms": ("transcribe_ms", "transcript_ms"),
    "llm_ms": ("generate_ms", "speak_ms"),
    "tts_ms": ("speak_ms", "first_audio_ms"),
    "pipeline_ms": ("speech_end_ms", "first_sent_ms"),
}
"""Marks of a turn record between which a stage lies. The model's time counts until its first clause is spoken on."""

# The overhead is what the server cannot see: the way there and back, the 20 ms of a microphone's block, the codec, the
# card, and what its speech detection and an ear disagree about.
_TITLES = {
    "asr_ms": "ASR",
    "llm_ms": "LLM, first clause",
    "tts_ms": "TTS, first audio",
    "pipeline_ms": "Pipeline (server)",
    "network_overhead_ms": "Network overhead",
    "round_trip_ms": "Network round trip",
    "end_to_end_ms": "End to end",
}


@dataclass(frozen=True, slots=True)
class TalkTurn:
    """One question and its answer."""

    record: Mapping[str, Any]
    """The server's turn record, times in ms since the call began."""
    heard: bool
    """Something of the answer was."""
    end_to_end_ms: float | None
    """End of the caller's speech to the first sound of the answer, both at the caller; None where one is missing."""

    def stages_ms(self) -> dict[str, float]:
        """Those that are known, by name."""
        found: dict[str, float] = {}
        for name, (first, last) in _STAGES.items():
            start, end = self.record.get(first), self.record.get(last)
            if start is not None and end is not None:
                found[name] = end - start
        if self.end_to_end_ms is not None:
            found["end_to_end_ms"] = self.end_to_end_ms
            if "pipeline_ms" in found:
                found["network_overhead_ms"] = self.end_to_end_ms - found["pipeline_ms"]
        return found


@dataclass(slots=True)
class CallTable:
    """A call, as the table tells of it."""

    duration_s: float = 0.0
    turns: Sequence[TalkTurn] = ()
    round_trips_ms: Sequence[float] = ()
    """Of websocket pings."""
    codec: str = ""
    recorded_bytes: int = 0
    sent_bytes: int = 0
    ended: str = ""
    """Why the call is over, where that is not the caller's doing."""
    spreads: dict[str, dict[str, float]] = field(init=False)

    def __post_init__(self) -> None:
        self.spreads = {name: found for name in _TITLES if (found := _spread(self._values(name)))}

    def _values(self, name: str) -> list[float]:
        if name == "round_trip_ms":
            return list(self.round_trips_ms)
        stages = [turn.stages_ms() for turn in self.turns]
        return [found[name] for found in stages if name in found]

    @property
    def answered(self) -> int:
        """Turns of which something was heard."""
        return sum(turn.heard for turn in self.turns)

    @property
    def ratio(self) -> float | None:
        """How many times smaller than 16-bit PCM the microphone was sent."""
        return self.recorded_bytes / self.sent_bytes if self.sent_bytes else None

    def as_object(self) -> dict[str, Any]:
        """Plain JSON values; a stage that was never measured is null."""
        return {
            "calls": len(self.turns),
            "answered": self.answered,
            "duration_s": round(self.duration_s, 3),
            **{name: self.spreads.get(name) for name in _TITLES},
            "transfer": {
                "codec": self.codec,
                "recorded_bytes": self.recorded_bytes,
                "sent_bytes": self.sent_bytes,
                "ratio": None if self.ratio is None else round(self.ratio, 2),
            },
            "ended": self.ended,
            "turns": [_turn_object(turn) for turn in self.turns],
        }

    def headline(self) -> str:
        """What stands above the table."""
        sent = f"sent as {self.codec}" + (f", {self.ratio:.1f} : 1" if self.ratio else "")
        ended = f"   Ended: {self.ended}" if self.ended else ""
        return (
            f"Total calls: {len(self.turns)} ({self.answered} answered)   "
            f"Duration: {self.duration_s:.1f} s   Microphone {sent}{ended}"
        )

    def as_table(self) -> Table:
        """For a person; times in ms."""
        table = Table("ms")
        for name in ("mean", "min", "max"):
            table.add_column(name, justify="right")
        for name, label in _TITLES.items():
            found = self.spreads.get(name)
            cells = [f"{v:.1f}" for v in found.values()] if found else ["-", "-", "-"]
            table.add_row(label, *cells)
        return table


def _turn_object(turn: TalkTurn) -> dict[str, Any]:
    stages = {name: round(value, 1) for name, value in turn.stages_ms().items()}
    names = ("user_text", "reply_text", "heard_text", "status", "interrupted")
    return {**{name: turn.record.get(name) for name in names}, **stages}


def _spread(values: Sequence[float]) -> dict[str, float]:
    """-> mean, min, max; empty without values."""
    if not values:
        return {}
    found = {"mean": statistics.mean(values), "min": min(values), "max": max(values)}
    return {name: round(value, 1) for name, value in found.items()}
