"""Small helpers to write SVG and HTML safely: everything that is not markup is escaped."""

from __future__ import annotations

from html import escape

__all__ = ["attributes", "clock", "element", "escape", "number", "text"]


def number(value: float) -> str:
    """A coordinate: one decimal, and none where it is not needed."""
    return f"{value:.1f}".removesuffix(".0")


def attributes(**values: str | float) -> str:
    """`class_` -> `class`, `stroke_width` -> `stroke-width`; numbers are shortened, text is escaped."""
    parts = []
    for name, value in values.items():
        shown = escape(value) if isinstance(value, str) else number(value)
        parts.append(f'{name.rstrip("_").replace("_", "-")}="{shown}"')
    return " ".join(parts)


def element(name: str, inside: str = "", **values: str | float) -> str:
    """`inside` is markup already."""
    opening = f"{name} {attributes(**values)}".strip()
    return f"<{opening}>{inside}</{name}>" if inside else f"<{opening}/>"


def text(x: float, y: float, words: str, **values: str | float) -> str:
    return element("text", escape(words), x=x, y=y, **values)


def clock(ms: float, *, tenths: bool = False) -> str:
    """A time of the call: `1:05`, or `1:05.3`."""
    total = round(ms / 100) if tenths else int(ms / 1000) * 10
    minutes, rest = divmod(total, 600)
    return f"{minutes}:{rest / 10:04.1f}" if tenths else f"{minutes}:{rest // 10:02d}"
