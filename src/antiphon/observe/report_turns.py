"""What was said, turn by turn, each with the waterfall of its waiting time; and the delays side by side.

Draws HTML and SVG from records.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from antiphon.core.turn_record import TurnRecord
from antiphon.observe.svg import clock, element, escape, number, text
from antiphon.observe.turn_figures import (
    Summary,
    detector_asked_ms,
    heard_from_ms,
    stages,
    unheard_text,
    voice_to_voice_ms,
    wasted_guesses,
    withdrawn,
)

_WIDTH, _LEFT, _RIGHT = 440, 92, 44
_ROW, _TOP = 19, 30
_STEPS_MS = (20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)
_OWN_NAMES = {
    "greeting": "Greeting",
    "prompt": "Asked whether anybody is there",
    "goodbye": "Goodbye",
    "apology": "Apology",
    "filler": "Said while a function ran",
    "said": "Said as told",
    "requested": "Asked for by the client",
    "answer": "Continued after a function",
}

Bar = tuple[str, int, int, str]
"""(class, from, to, title): ms after the end of speech."""


def turn_cards(records: Sequence[TurnRecord]) -> str:
    scale_ms = shared_scale_ms(records)
    seen: set[int] = set()
    cards = []
    for record in records:
        first = record.number not in seen
        seen.add(record.number)
        cards.append(_card(record, scale_ms, anchor=bool(record.number) and first))
    return "".join(cards)


def shared_scale_ms(records: Sequence[TurnRecord]) -> int:
    """One scale for all waterfalls, so that they compare; a turn that is far slower than most gets its own."""
    widths = [width for record in records if (width := _extent_ms(record))]
    return int(min(max(widths), 3 * median(widths)) * 1.12) if widths else 1000


def _extent_ms(record: TurnRecord) -> int:
    """From the end of speech to the last step on the way to the first sound."""
    if record.speech_end_ms is None:
        return 0
    marks = (
        heard_from_ms(record),
        record.first_audio_ms,
        record.first_token_ms,
        record.committed_ms,
        record.transcript_ms,
    )
    return max((mark - record.speech_end_ms for mark in marks if mark is not None), default=0)


def _card(record: TurnRecord, scale_ms: int, *, anchor: bool) -> str:
    head = _head(record)
    said = _speech("caller", escape(record.user_text)) if record.user_text else ""
    if record.number and not record.user_text:
        said = _speech("caller", '<span class="none">words not recorded</span>')
    said += _agent_speech(record)
    waterfall = _waterfall(record, scale_ms)
    attributes = f' id="turn-{record.number}"' if anchor else ""
    kind = "turn" if record.number else "turn own"
    body = f'<div class="said">{said}</div>{waterfall}'
    return f'<article class="{kind}"{attributes}>{head}<div class="body">{body}</div></article>'


def _head(record: TurnRecord) -> str:
    delay_ms = voice_to_voice_ms(record)
    name = f"Turn {record.number}" if record.number else _OWN_NAMES.get(record.kind, record.kind)
    at_ms = next(
        (
            ms
            for ms in (record.speech_start_ms, heard_from_ms(record), record.ended_ms)
            if ms is not None
        ),
        0,
    )
    chips = "".join(f'<li class="{kind}">{escape(words)}</li>' for kind, words in _chips(record))
    delay = f'<p class="big">{delay_ms}<small> ms</small></p>' if delay_ms is not None else ""
    return (
        f'<header><h3>{escape(name)}</h3><p class="at">{clock(at_ms, tenths=True)}</p>'
        f'<ul class="chips">{chips}</ul>{delay}</header>'
    )


def _chips(record: TurnRecord) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    if record.status == "failed":
        found.append(("bad", "failed"))
    elif record.status == "incomplete":
        found.append(("bad", "incomplete"))
    elif record.interrupted:
        found.append(("bad", f"interrupted at {record.played_ms / 1000:.1f} s"))
    elif withdrawn(record):
        found.append(("plain", "withdrawn unheard"))
    elif record.status == "none":
        found.append(("plain", "no reply wanted"))
    if record.false_interruptions:
        found.append(
            ("plain", f"{record.false_interruptions} false alarm{_s(record.false_interruptions)}")
        )
    if record.preemptive_used and not withdrawn(record):
        found.append(("good", "guess used"))
    if wasted := wasted_guesses(record):
        found.append(("plain", f"{wasted} guess{'es' if wasted > 1 else ''} wasted"))
    if record.input_tokens or record.output_tokens:
        found.append(("plain", f"{record.input_tokens} → {record.output_tokens} tokens"))
    if record.turn_probability is not None:
        found.append(("plain", f"finished {record.turn_probability:.0%}"))
    if record.text_end_probability is not None:
        found.append(("plain", f"words end {record.text_end_probability:.0%}"))
    return found


def _s(count: int) -> str:
    return "s" if count > 1 else ""


def _speech(side: str, markup: str) -> str:
    name = "Caller" if side == "caller" else "Agent"
    return f'<p class="{side}"><span class="who">{name}</span> {markup}</p>'


def _agent_speech(record: TurnRecord) -> str:
    rest = unheard_text(record)
    heard = escape(record.heard_text)
    unheard = f' <del title="not heard">{escape(rest)}</del>' if rest else ""
    if not heard and not unheard:
        if not (record.characters or record.played_ms):
            return ""
        return _speech("agent", '<span class="none">words not recorded</span>')
    return _speech("agent", heard + unheard)


# -- the waterfall -------------------------------------------------------------------------------------


def _bars(record: TurnRecord) -> list[tuple[str, list[Bar], str]]:
    """(name, bars, figure at the end) of each line; ms count from the end of speech."""
    zero, s = record.speech_end_ms, stages(record)
    assert zero is not None

    def bar(kind: str, start: int | None, end: int | None, title: str) -> list[Bar]:
        return [] if start is None or end is None else [(kind, start - zero, end - zero, title)]

    r = record
    token, done = r.first_token_ms, r.text_done_ms
    llm = [*bar("llm", r.generate_ms, token, "until the first token")]
    llm += bar("llm rest", token, done, "all text")
    tts = [*bar("tts", r.speak_ms, r.first_audio_ms, "until the first audio")]
    tts += bar("tts rest", r.first_audio_ms, r.audio_done_ms, "all audio")
    lines = [
        ("over?", bar("wait", zero, r.committed_ms, "is the turn over?"), s.end_to_commit_ms),
        ("STT", bar("stt", r.transcribe_ms, r.transcript_ms, "speech to text"), s.stt_ms),
        (
            "turn detector",
            bar("det", detector_asked_ms(r), r.turn_scored_ms, "turn detector"),
            s.turn_detector_ms,
        ),
        ("LLM", llm, s.llm_first_token_ms),
        ("TTS", tts, s.tts_first_audio_ms),
    ]
    return [
        (name, bars, "" if value is None else str(value)) for name, bars, value in lines if bars
    ]


def _waterfall(record: TurnRecord, shared_ms: int) -> str:
    extent_ms = _extent_ms(record)
    if not extent_ms:
        return ""
    lines = _bars(record)
    scale_ms = shared_ms if extent_ms <= shared_ms else int(extent_ms * 1.12)
    bottom = _TOP + _ROW * len(lines)
    parts = [_grid(scale_ms, bottom)]
    parts.append(text(_WIDTH, bottom + 13, "ms", class_="time", text_anchor="end"))
    for index, (name, bars, figure) in enumerate(lines):
        parts.append(_line(_TOP + _ROW * index, name, bars, figure, scale_ms))
    parts += _moments(record, scale_ms, bottom)
    own = " own-scale" if scale_ms != shared_ms else ""
    label = f"Waterfall of turn {record.number}: " + ", ".join(
        f"{n} {f} ms" for n, _, f in lines if f
    )
    return element(
        "svg",
        "".join(parts),
        class_=f"waterfall{own}",
        viewBox=f"0 0 {_WIDTH} {bottom + 18}",
        role="img",
        aria_label=label,
    )


def _x(ms: float, scale_ms: int) -> float:
    inside = _WIDTH - _LEFT - _RIGHT
    return _LEFT + inside * min(max(ms / scale_ms, 0), 1)


def _grid(scale_ms: int, bottom: int) -> str:
    step = next((step for step in _STEPS_MS if scale_ms / step <= 6), _STEPS_MS[-1])
    parts = []
    for ms in range(0, scale_ms + 1, step):
        x = _x(ms, scale_ms)
        parts.append(element("path", d=f"M{number(x)} {_TOP - 4}V{bottom}", class_="tick"))
        parts.append(text(x, bottom + 13, str(ms), class_="time", text_anchor="middle"))
    return "".join(parts)


def _line(y: int, name: str, bars: list[Bar], figure: str, scale_ms: int) -> str:
    parts = [text(_LEFT - 8, y + 12, name, class_="name", text_anchor="end")]
    for kind, start, stop, title in bars:
        left, right = _x(start, scale_ms), _x(stop, scale_ms)
        if right <= left and start > 0:  # beyond the scale, or nothing to see
            continue
        words = element("title", escape(f"{title}: {stop - start} ms"))
        parts.append(
            element(
                "rect",
                words,
                class_=kind,
                x=left,
                y=y + 2,
                width=max(right - left, 1.5),
                height=_ROW - 6,
                rx=2,
            )
        )
    if figure:
        parts.append(text(_WIDTH, y + 12, figure, class_="figure", text_anchor="end"))
    return "".join(parts)


def _moments(record: TurnRecord, scale_ms: int, bottom: int) -> list[str]:
    """When the turn was taken for over, and when the answer was heard."""
    zero, parts = record.speech_end_ms, []
    assert zero is not None
    heard_ms, committed_ms = heard_from_ms(record), record.committed_ms
    moments = [("committed", committed_ms, "end"), ("heard", heard_ms, "start")]
    for name, at_ms, anchor in moments:
        if at_ms is None or at_ms < zero:
            continue
        x = _x(at_ms - zero, scale_ms)
        parts.append(element("path", d=f"M{number(x)} 14V{bottom}", class_=f"moment {name}"))
        shown = "start" if x < _LEFT + 60 and name == "committed" else anchor
        if name == "heard" and x > _WIDTH - 60:
            shown = "end"
        y = 9 if name == "heard" or heard_ms is None else 22
        words = f"{name} {at_ms - zero}"
        shift = 3 if shown == "start" else -3
        parts.append(text(x + shift, y, words, class_=f"label {name}", text_anchor=shown))
    return parts


# -- all delays ----------------------------------------------------------------------------------------


def delays(records: Sequence[TurnRecord], summary: Summary) -> str:
    """Voice to voice of every turn as a bar, with the median and the 95th percentile."""
    found = [(r.number, ms) for r in records if (ms := voice_to_voice_ms(r)) is not None]
    most = max(summary.most_ms, 1) * 1.15
    width, height, left = 1000, 150, 8
    wide = min((width - 130) / max(len(found), 1), 44)
    parts = []
    for index, (turn, ms) in enumerate(found):
        tall = ms / most * (height - 24)
        x = left + index * wide
        title = element("title", f"turn {turn}: {ms} ms")
        shape = element(
            "rect", title, x=x, y=height - 20 - tall, width=max(wide - 4, 1), height=tall, rx=2
        )
        parts.append(element("a", shape, href=f"#turn-{turn}"))
        if wide > 24:
            middle = x + (wide - 4) / 2
            parts.append(
                text(middle, height - 24 - tall, str(ms), text_anchor="middle", class_="figure")
            )
            parts.append(text(middle, height - 6, str(turn), text_anchor="middle", class_="time"))
    right = left + len(found) * wide + 6
    levels = [("median", summary.median_ms)]
    if summary.p95_ms - summary.median_ms > most * 0.12:
        levels.append(("P95", summary.p95_ms))
    for name, level_ms in levels:
        y = height - 20 - level_ms / most * (height - 24)
        parts.append(element("path", d=f"M{left} {number(y)}H{number(right)}", class_="level"))
        parts.append(text(right + 5, y + 4, f"{name} {level_ms:.0f}", class_="label"))
    label = f"Voice to voice of {len(found)} turns"
    return element(
        "svg",
        "".join(parts),
        class_="delays",
        viewBox=f"0 0 {number(right + 90)} {height}",
        style=f"max-width:{number(right + 90)}px",
        role="img",
        aria_label=label,
    )
