"""Draw docs/images/architecture.svg: `python docs/draw_architecture.py`.

The boxes are the packages of `src/antiphon`; the arrows are the directions in which they may import each other, as
import-linter checks them. The coordinates are set by hand, because a few boxes are read best where a person put them.
"""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 960, 560
INK, PAPER, ACCENT, SOFT = "#1d2b2a", "#ffffff", "#00796b", "#e6f2f0"

# x, y, width, height, title, lines
BOXES = [
    (30, 70, 220, 50, "phone", ["Twilio, Telnyx, Plivo, Asterisk"]),
    (270, 70, 140, 50, "browser", ["page, websocket"]),
    (430, 70, 230, 50, "OpenAI clients", ["Realtime, WebRTC, HTTP"]),
    (680, 70, 250, 50, "files, microphone, services", ["process_audio, XTTS, Wyoming"]),
    (
        30,
        170,
        900,
        64,
        "protocols/",
        [
            "a package each: codec.py turns bytes into events and actions into frames; server.py holds its routes"
        ],
    ),
    (
        30,
        290,
        420,
        84,
        "call/",
        [
            "one loop per call: feed an event to the Conversation,",
            "perform the actions, arm one timer",
        ],
    ),
    (
        30,
        430,
        420,
        84,
        "core/",
        ["the Conversation: who speaks when.", "Pure: no clock, no I/O, no audio"],
    ),
    (
        530,
        290,
        400,
        84,
        "models/",
        [
            "STT, LLM, TTS, VAD, turn detector behind five ports;",
            "loaded once, shared by all calls, scheduled fairly",
        ],
    ),
    (530, 430, 190, 84, "audio/", ["codecs, resampling,", "framing, decoding"]),
    (740, 430, 190, 84, "observe/", ["turn records become", "metrics, traces, reports"]),
]
# from x, y to x, y, label, label x, label y
ARROWS = [
    (130, 120, 130, 168, "bytes, JSON", 138, 150),
    (330, 120, 330, 168, "", 0, 0),
    (545, 120, 545, 168, "", 0, 0),
    (805, 120, 805, 168, "", 0, 0),
    (200, 234, 200, 288, "events", 208, 266),
    (280, 288, 280, 236, "frames", 288, 266),
    (200, 374, 200, 428, "event, now", 120, 406),
    (280, 428, 280, 376, "actions", 288, 406),
    (450, 322, 528, 322, "asks", 470, 314),
    (528, 348, 452, 348, "results", 466, 366),
    (625, 374, 625, 428, "", 0, 0),
]


def box(x: int, y: int, width: int, height: int, title: str, lines: list[str]) -> str:
    fill = SOFT if title.endswith("/") else PAPER
    parts = [
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="8" fill="{fill}" stroke="{ACCENT}"/>',
        f'<text x="{x + 14}" y="{y + 22}" font-weight="600">{escape(title)}</text>',
    ]
    parts += [
        f'<text x="{x + 14}" y="{y + 40 + 17 * row}" font-size="13">{escape(line)}</text>'
        for row, line in enumerate(lines)
    ]
    return "\n".join(parts)


def arrow(x1: int, y1: int, x2: int, y2: int, label: str, label_x: int, label_y: int) -> str:
    line = f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="{INK}" marker-end="url(#head)"/>'
    return line + (
        f'\n<text x="{label_x}" y="{label_y}" font-size="12">{escape(label)}</text>'
        if label
        else ""
    )


def draw() -> str:
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img"'
            f' aria-label="Architecture of Antiphon" font-family="system-ui, sans-serif" font-size="15" fill="{INK}">',
            '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4"'
            ' markerWidth="8" markerHeight="8" orient="auto">'
            f'<path d="M0 0 8 4 0 8z" fill="{INK}"/></marker></defs>',
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="{PAPER}"/>',
            '<text x="30" y="42" font-size="20" font-weight="600">One engine behind every door</text>',
            *(box(*b) for b in BOXES),
            *(arrow(*a) for a in ARROWS),
            "</svg>",
            "",
        ]
    )


if __name__ == "__main__":
    target = Path(__file__).parent / "images" / "architecture.svg"
    target.write_text(draw())
    print(f"wrote {target.relative_to(Path(__file__).parents[1])}")
