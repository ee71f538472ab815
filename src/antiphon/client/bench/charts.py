"""Results as pictures: lines, rows of dots, bars of steps. Plain SVG, readable on light and on dark.

Knows numbers and names only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from antiphon.observe.svg import element, number, text

_COLOURS = ("#2563eb", "#93b4f5", "#c2410c", "#eeb08e", "#4d7c0f", "#7c3aed")
_INK, _GRID = "#6b7280", "#d1d5db"
_WIDTH, _HEIGHT = 720.0, 380.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 64.0, 24.0, 56.0, 64.0
_ROW = 34.0
_NAMES_WIDTH = 190.0

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Axis:
    """Values onto a stretch of the picture."""

    least: float
    most: float
    start: float
    end: float

    def at(self, value: float) -> float:
        span = self.most - self.least or 1.0
        return self.start + (value - self.least) / span * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Round numbers, about six of them."""
        step = _round_step((self.most - self.least) / 6)
        first = int(self.least // step) * step
        found = [first + index * step for index in range(12)]
        return [value for value in found if self.least <= value <= self.most]


def _round_step(rough: float) -> float:
    size = 1.0
    while size * 10 <= rough:
        size *= 10
    return next((size * factor for factor in (1, 2, 5, 10) if size * factor >= rough), size)


def _image(width: float, height: float, title: str, parts: Iterable[str]) -> str:
    head = text(_LEFT / 4, 22, title, font_size=15, font_weight="bold", fill=_INK)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {number(width)} {number(height)}" '
        f'font-family="sans-serif" role="img">' + head + "".join(parts) + "</svg>\n"
    )


def _legend(names: Sequence[str], y: float) -> list[str]:
    parts, x = [], _LEFT / 4
    for name, colour in zip(names, _COLOURS, strict=False):
        parts.append(element("rect", x=x, y=y - 9, width=10, height=10, fill=colour))
        parts.append(text(x + 15, y, name, font_size=12, fill=_INK))
        x += 40 + 6.6 * len(name)
    return parts


def lines(title: str, x_name: str, y_name: str, series: Mapping[str, Points]) -> str:
    """One line per series."""
    points = [point for values in series.values() for point in values]
    most_x = max((x for x, _ in points), default=1.0)
    most_y = max((y for _, y in points), default=1.0)
    across = Axis(0, most_x, _LEFT, _WIDTH - _RIGHT)
    up = Axis(0, most_y * 1.05, _HEIGHT - _BOTTOM, _TOP)
    parts = _legend(list(series), 42)
    for value in up.ticks():
        y = up.at(value)
        parts.append(element("line", x1=_LEFT, y1=y, x2=_WIDTH - _RIGHT, y2=y, stroke=_GRID))
        parts.append(
            text(_LEFT - 6, y + 4, number(value), font_size=11, fill=_INK, text_anchor="end")
        )
    for value in across.ticks():
        x = across.at(value)
        parts.append(
            text(
                x,
                _HEIGHT - _BOTTOM + 18,
                number(value),
                font_size=11,
                fill=_INK,
                text_anchor="middle",
            )
        )
    for (_, values), colour in zip(series.items(), _COLOURS, strict=False):
        ordered = sorted(values)
        path = " ".join(f"{number(across.at(x))},{number(up.at(y))}" for x, y in ordered)
        parts.append(element("polyline", points=path, fill="none", stroke=colour, stroke_width=2))
        parts += [
            element("circle", cx=across.at(x), cy=up.at(y), r=3, fill=colour) for x, y in ordered
        ]
    parts.append(
        text(_WIDTH / 2, _HEIGHT - 24, x_name, font_size=12, fill=_INK, text_anchor="middle")
    )
    parts.append(text(_WIDTH - _RIGHT, 22, y_name, font_size=12, fill=_INK, text_anchor="end"))
    return _image(_WIDTH, _HEIGHT, title, parts)


def dots(title: str, x_name: str, rows: Mapping[str, Sequence[float]]) -> str:
    """One row per series, a dot per value, a mark at the median."""
    values = [value for row in rows.values() for value in row]
    axis = Axis(0, max(values, default=1.0) * 1.02, _NAMES_WIDTH, _WIDTH - _RIGHT)
    height = _TOP + _ROW * len(rows) + _BOTTOM
    floor = _TOP + _ROW * len(rows)
    parts = [
        element("line", x1=axis.at(v), y1=_TOP - 8, x2=axis.at(v), y2=floor, stroke=_GRID)
        for v in axis.ticks()
    ]
    parts += [
        text(axis.at(v), floor + 18, number(v), font_size=11, fill=_INK, text_anchor="middle")
        for v in axis.ticks()
    ]
    for index, (name, row) in enumerate(rows.items()):
        y, colour = _TOP + _ROW * (index + 0.4), _COLOURS[index % len(_COLOURS)]
        parts.append(text(_LEFT / 4, y + 4, name, font_size=12, fill=_INK))
        parts += [
            element("circle", cx=axis.at(v), cy=y, r=3.5, fill=colour, fill_opacity=0.5)
            for v in row
        ]
        if row:
            middle = axis.at(sorted(row)[len(row) // 2])
            parts.append(
                element(
                    "line",
                    x1=middle,
                    y1=y - 10,
                    x2=middle,
                    y2=y + 10,
                    stroke=colour,
                    stroke_width=3,
                )
            )
    parts.append(
        text(_WIDTH / 2, height - 24, x_name, font_size=12, fill=_INK, text_anchor="middle")
    )
    return _image(_WIDTH, height, title, parts)


def waterfall(title: str, rows: Mapping[str, Sequence[tuple[str, float, float]]]) -> str:
    """One block per series; each stage a bar from its beginning to its end, in ms."""
    bars = [bar for row in rows.values() for bar in row]
    axis = Axis(
        0, max((end for _, _, end in bars), default=1.0) * 1.05, _NAMES_WIDTH, _WIDTH - _RIGHT
    )
    parts, y = [], _TOP
    for index, (name, row) in enumerate(rows.items()):
        colour = _COLOURS[index % len(_COLOURS)]
        parts.append(text(_LEFT / 4, y + 6, name, font_size=12, font_weight="bold", fill=_INK))
        y += 14
        for stage, start, end in row:
            parts.append(text(_LEFT / 4 + 8, y + 12, stage, font_size=11, fill=_INK))
            width = max(axis.at(end) - axis.at(start), 1)
            parts.append(
                element("rect", x=axis.at(start), y=y + 3, width=width, height=11, fill=colour)
            )
            parts.append(
                text(axis.at(end) + 4, y + 12, f"{end - start:.0f}", font_size=10, fill=_INK)
            )
            y += 18
        y += 16
    return _image(_WIDTH, y + 12, title, parts)
