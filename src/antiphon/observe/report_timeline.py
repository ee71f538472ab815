"""The time line of a call, written like a score: rows of some seconds, the caller's voice above, the agent's below.

Between the two runs who held the floor; the waits from the end of speech to the first sound are drawn through both.
Without recordings the caller's voice is the VAD's curve and the agent's is a bar. Draws SVG; knows no page.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from antiphon.core.floor import Floor
from antiphon.core.turn_record import TurnRecord
from antiphon.models.ports import Pcm16
from antiphon.observe.report_trace import FloorSpan, Mark, TracedCall
from antiphon.observe.svg import clock, element, escape, number, text
from antiphon.observe.turn_figures import heard_from_ms, voice_to_voice_ms

WIDTH = 1000
HEIGHT = 128
_ROW_LENGTHS_MS = ((60_000, 15_000), (300_000, 20_000), (900_000, 30_000))
"""(longest call, its rows' length)."""
_LONGEST_ROW_MS = 60_000
_CALLER_Y, _AGENT_Y, _FLOOR_Y = 40, 94, 67
_TALL = 22
_QUIET = 2_000
"""A recording that is never louder than this is not blown up: silence should look like silence."""
_GLYPHS = {
    "interrupted": "✕",
    "false-alarm": "∼",
    "withdrawn": "↶",
    "tool": "ƒ",
    "fault": "!",
    "dropped": "○",
    "hang-up": "■",
}
MARK_NAMES = {
    "interrupted": "broken off by the caller",
    "false-alarm": "interruption that was nothing",
    "withdrawn": "reply withdrawn unheard",
    "tool": "function called",
    "fault": "fault",
    "dropped": "sound that was no turn",
    "hang-up": "end of the call",
}
_VOICED = (Floor.AGENT, Floor.CLOSING)


@dataclass(frozen=True, slots=True)
class Track:
    """A recording of one side: int16 mono. `start_ms`: the call's time at its first sample."""

    pcm: Pcm16
    rate_hz: int
    start_ms: int = 0

    @property
    def end_ms(self) -> float:
        return self.start_ms + 1000 * len(self.pcm) / self.rate_hz


def rows(call: TracedCall, caller: Track | None, agent: Track | None) -> list[str]:
    """The call as SVG pictures, top to bottom."""
    end_ms = max(
        [call.duration_ms, *(int(track.end_ms) for track in (caller, agent) if track is not None)]
    )
    length_ms = row_length_ms(end_ms)
    return [
        _Row(start_ms, length_ms, end_ms).draw(call, caller, agent)
        for start_ms in range(0, max(end_ms, 1), length_ms)
    ]


def row_length_ms(duration_ms: int) -> int:
    """Seconds of call in a row: few enough to see a turn's stages, more where there would be too many rows."""
    for limit_ms, length_ms in _ROW_LENGTHS_MS:
        if duration_ms <= limit_ms:
            return length_ms
    return _LONGEST_ROW_MS


def legend(call: TracedCall) -> list[tuple[str, str, str]]:
    """(kind, glyph, what it means) of the marks that this call has."""
    kinds = {mark.kind for mark in call.marks}
    return [(kind, glyph, MARK_NAMES[kind]) for kind, glyph in _GLYPHS.items() if kind in kinds]


@dataclass(frozen=True, slots=True)
class _Row:
    start_ms: int
    length_ms: int
    call_end_ms: int

    def draw(self, call: TracedCall, caller: Track | None, agent: Track | None) -> str:
        label = f"{clock(self.start_ms)} to {clock(min(self.end_ms, self.call_end_ms))}"
        parts = [
            self._axis(),
            self._waits(call.records),
            self._floors(call.floors),
            self._caller(call, caller),
            self._agent(call, agent),
            self._numbers(call.records),
            self._delays(call.records),
            self._marks(call.marks),
        ]
        return element(
            "svg",
            "".join(parts),
            class_="row",
            viewBox=f"0 0 {WIDTH} {HEIGHT}",
            role="img",
            aria_label=label,
        )

    @property
    def end_ms(self) -> int:
        return self.start_ms + self.length_ms

    def x(self, ms: float) -> float:
        share = (min(max(ms, self.start_ms), self.end_ms) - self.start_ms) / self.length_ms
        return share * WIDTH

    def touches(self, from_ms: float, to_ms: float) -> bool:
        return from_ms < self.end_ms and to_ms > self.start_ms

    def has(self, at_ms: float) -> bool:
        last = self.end_ms >= self.call_end_ms
        return self.start_ms <= at_ms < self.end_ms or (last and at_ms >= self.end_ms)

    def _axis(self) -> str:
        width = self.x(self.call_end_ms)
        lines = [
            element("path", d=f"M0 {y}H{number(width)}", class_=f"base {name}")
            for y, name in ((_CALLER_Y, "caller"), (_AGENT_Y, "agent"))
        ]
        step_ms = self.length_ms // (15 if self.length_ms == 15_000 else 10)
        for at_ms in range(self.start_ms, self.end_ms, step_ms):
            if at_ms > self.call_end_ms:
                break
            x, strong = self.x(at_ms), (at_ms - self.start_ms) % (5 * step_ms) == 0
            lines.append(element("path", d=f"M{number(x)} 16V116", class_="tick"))
            if strong:
                lines.append(text(x + 3, 126, clock(at_ms), class_="time"))
        return "".join(lines)

    def _waits(self, records: Iterable[TurnRecord]) -> str:
        parts = []
        for record in records:
            delay_ms, heard_ms = voice_to_voice_ms(record), heard_from_ms(record)
            end_ms = record.speech_end_ms
            if delay_ms is None or heard_ms is None or end_ms is None:
                continue
            if not self.touches(end_ms, heard_ms):
                continue
            left, right = self.x(end_ms), self.x(heard_ms)
            title = element("title", f"turn {record.number}: {delay_ms} ms from voice to voice")
            box = element(
                "rect", title, class_="wait", x=left, y=16, width=right - left, height=100
            )
            parts.append(box)
        return "".join(parts)

    def _delays(self, records: Iterable[TurnRecord]) -> str:
        """Written where the caller has just fallen silent, over everything else."""
        parts = []
        for record in records:
            delay_ms, heard_ms = voice_to_voice_ms(record), heard_from_ms(record)
            if delay_ms is not None and heard_ms is not None and self.has(heard_ms):
                x, anchor = self.x(heard_ms) + 4, "start"
                if x > WIDTH - 50:
                    x, anchor = WIDTH, "end"
                words = f"{delay_ms} ms"
                parts.append(text(x, _CALLER_Y + 4, words, class_="delay", text_anchor=anchor))
        return "".join(parts)

    def _floors(self, floors: Iterable[FloorSpan]) -> str:
        parts = []
        for span in floors:
            if self.touches(span.start_ms, span.end_ms):
                left, right = self.x(span.start_ms), self.x(span.end_ms)
                words = f"{span.floor.value}, {span.end_ms - span.start_ms} ms"
                title = element("title", words)
                kind = f"floor {span.floor.value}"
                width = max(right - left, 0.4)
                parts.append(
                    element(
                        "rect", title, class_=kind, x=left, y=_FLOOR_Y - 2, width=width, height=4
                    )
                )
        return "".join(parts)

    def _caller(self, call: TracedCall, track: Track | None) -> str:
        if track is not None:
            return _wave(self._peaks(track), _CALLER_Y, "caller")
        points = [(ms, p) for ms, p in call.voice if self.start_ms <= ms <= self.end_ms]
        if not points:
            return ""
        upper = [f"{number(self.x(ms))} {number(_CALLER_Y - p * _TALL * 0.8)}" for ms, p in points]
        lower = [
            f"{number(self.x(ms))} {number(_CALLER_Y + p * _TALL * 0.8)}"
            for ms, p in reversed(points)
        ]
        return element("path", d=f"M{'L'.join(upper + lower)}Z", class_="wave caller guess")

    def _agent(self, call: TracedCall, track: Track | None) -> str:
        if track is not None:
            return _wave(self._peaks(track), _AGENT_Y, "agent")
        parts = []
        for span in call.floors:
            if span.floor in _VOICED and self.touches(span.start_ms, span.end_ms):
                left, right = self.x(span.start_ms), self.x(span.end_ms)
                height = _TALL * 1.1
                bar = element(
                    "rect",
                    class_="wave agent guess",
                    x=left,
                    y=_AGENT_Y - height / 2,
                    width=right - left,
                    height=height,
                    rx=3,
                )
                parts.append(bar)
        return "".join(parts)

    def _peaks(self, track: Track) -> list[tuple[float, float, float]]:
        """(x, lowest, highest) per pixel, -1..1 of the track's own loudest."""
        scale = max(_loudest(track.pcm), _QUIET)
        step = self.length_ms * track.rate_hz / 1000 / WIDTH
        first = (self.start_ms - track.start_ms) * track.rate_hz / 1000
        edges = np.clip((first + np.arange(WIDTH + 1) * step).astype(np.int64), 0, len(track.pcm))
        found: list[tuple[float, float, float]] = []
        for x, (left, right) in enumerate(pairwise(edges.tolist())):
            if right > left:
                piece = track.pcm[left:right]
                found.append((x, int(piece.min()) / scale, int(piece.max()) / scale))
        return found

    def _numbers(self, records: Iterable[TurnRecord]) -> str:
        parts, seen = [], set()
        for record in records:
            at_ms = record.speech_start_ms
            if at_ms is None or record.number in seen or not self.has(at_ms):
                continue
            seen.add(record.number)
            x = self.x(at_ms)
            words = text(x + 3, 25, str(record.number), class_="turn")
            title = element("title", f"turn {record.number} begins at {clock(at_ms, tenths=True)}")
            parts.append(element("path", d=f"M{number(x)} 16V{_FLOOR_Y}", class_="onset"))
            parts.append(element("a", title + words, href=f"#turn-{record.number}"))
        return "".join(parts)

    def _marks(self, marks: Iterable[Mark]) -> str:
        parts = []
        for mark in marks:
            if not self.has(mark.at_ms):
                continue
            x = min(max(self.x(mark.at_ms), 5), WIDTH - 5)
            words = f"{clock(mark.at_ms, tenths=True)} {mark.text}"
            inside = element("title", escape(words))
            if mark.kind in ("interrupted", "hang-up"):
                inside += element("path", d=f"M{number(x)} 16V116", class_="cut")
            inside += text(x, 11, _GLYPHS[mark.kind], text_anchor="middle")
            parts.append(element("g", inside, class_=f"mark {mark.kind}"))
        return "".join(parts)


def _loudest(pcm: npt.NDArray[np.int16]) -> int:
    return max(abs(int(pcm.min())), abs(int(pcm.max()))) if len(pcm) else 0


def _wave(peaks: list[tuple[float, float, float]], middle: int, side: str) -> str:
    if not peaks:
        return ""
    upper = [f"{number(x)} {number(middle - max(high, 0.015) * _TALL)}" for x, _, high in peaks]
    lower = [
        f"{number(x)} {number(middle - min(low, -0.015) * _TALL)}" for x, low, _ in reversed(peaks)
    ]
    return element("path", d=f"M{'L'.join(upper + lower)}Z", class_=f"wave {side}")
