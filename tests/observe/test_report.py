"""The report page: one file, complete and harmless whatever was said; looked at in Chromium when there is one."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from antiphon.core.policy import Policy
from antiphon.core.turn_record import TurnRecord
from antiphon.errors import AntiphonError
from antiphon.observe import call_trace
from antiphon.observe.report import Track, report_file, report_html
from antiphon.observe.report_timeline import row_length_ms
from antiphon.observe.report_trace import LOG_LINES, read_call, record_of
from antiphon.observe.report_turns import shared_scale_ms
from antiphon.testing.virtual_call import World

VOID = {"meta", "br", "link", "img"}


class Page(HTMLParser):
    """Checks that elements close, and collects what matters."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.struck: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        found = dict(attrs)
        self.ids += filter(None, [found.get("id")])
        self.links += filter(None, [found.get("href"), found.get("src")])
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "del":
            self.struck.append(data)


def tone(duration_ms: int, rate_hz: int = 8_000) -> Track:
    t = np.arange(duration_ms * rate_hz // 1000) / rate_hz
    return Track((12_000 * np.sin(2 * np.pi * 200 * t)).astype(np.int16), rate_hz)


def test_a_whole_call(world: World) -> None:
    html = report_html(world.lines, title="Call <1>", caller=tone(30_000), agent=tone(30_000))
    page = Page(html)
    assert page.open == []
    assert page.ids == ["turn-1", "turn-2", "turn-3", "turn-4"]
    assert "".join(page.struck).startswith("very wide")
    assert page.tags.count("article") == 6
    assert html.count('class="wave caller"') == 2  # rows of 15 s
    assert "no tell me about the &lt;sky&gt;" in html
    assert "Call &lt;1&gt;" in html
    assert "interrupted at" in html
    assert "1 guess wasted" in html
    assert "No recording" not in html


def test_nothing_is_fetched_and_nothing_runs(world: World) -> None:
    html = report_html(world.lines)
    page = Page(html)
    assert not {"script", "img", "link", "iframe", "object", "audio"} & set(page.tags)
    assert page.links
    assert all(link.startswith("#turn-") for link in page.links)
    assert "url(" not in html
    assert "@import" not in html
    assert "default-src 'none'" in html


def test_without_recordings_the_voices_come_from_the_trace(world: World) -> None:
    html = report_html(world.lines)
    assert 'class="wave caller guess"' in html
    assert 'class="wave agent guess"' in html
    assert "No recording: the caller's voice is the VAD's curve, the agent's is a bar." in html
    half = report_html(world.lines, caller=tone(1_000))
    assert "No recording: the agent's is a bar." in half


def test_words_of_callers_and_models_are_text() -> None:
    evil = '</style><script>alert(1)</script><img src=x onerror="a()">'
    world = World(Policy(greeting=evil))
    world.reply = lambda words: evil
    world.speak(9_000, evil, 1_200)
    world.run(30_000)
    page = Page(report_html(world.lines, title=evil))
    assert "script" not in page.tags
    assert "img" not in page.tags


def test_marks_and_floors(world: World) -> None:
    call = read_call(world.lines)
    kinds = [mark.kind for mark in call.marks]
    assert kinds.count("interrupted") == 1
    assert kinds.count("false-alarm") == 1
    assert "dropped" not in kinds  # the false alarm says it
    assert kinds[-1] == "hang-up"
    assert call.end_reason == "finished"
    for before, after in zip(call.floors, call.floors[1:], strict=False):
        assert before.end_ms <= after.start_ms
    assert call.records == [a.record for _, a in world.log if hasattr(a, "record")]


def test_a_trace_that_breaks_off_gives_what_is_there(world: World) -> None:
    kept = world.lines[: len(world.lines) * 2 // 3]
    html = report_html([*kept[:-1], kept[-1][: len(kept[-1]) // 2]])
    assert "The trace is damaged: line" in html
    assert "Turn 1" in html


@pytest.mark.parametrize(
    "lines",
    [[], ["hello"], ["{}"], ['{"antiphon_trace": 99, "policy": {}}'], ["[1]"]],
    ids=["empty", "text", "no header", "another version", "not an object"],
)
def test_what_is_no_trace_is_said_so(lines: list[str]) -> None:
    with pytest.raises(AntiphonError, match="not a call's trace"):
        report_html(lines)


@pytest.mark.parametrize(
    "action",
    [
        {"type": "TurnRecorded"},
        {"type": "TurnRecorded", "record": {"number": "1"}},
        {"type": "TurnRecorded", "record": {"number": 1, "committed_ms": "soon"}},
        {"type": "TurnRecorded", "record": {"number": 1, "user_text": 7}},
        {"type": "FloorChanged", "floor": "ceiling"},
        "Hangup",
    ],
)
def test_nonsense_in_a_trace_is_damage(action: object) -> None:
    lines = [call_trace.header(Policy()), json.dumps({"t": 5, "actions": [action]})]
    assert read_call(lines).damage


def test_a_call_in_which_nothing_happened() -> None:
    html = report_html([call_trace.header(Policy())])
    assert Page(html).open == []
    assert "Nobody said anything" in html


def test_a_record_of_a_later_version_is_read() -> None:
    found = record_of({"type": "TurnRecord", "number": 4, "user_text": "hi", "mood_ms": 3})
    assert found == TurnRecord(4, user_text="hi")


def test_a_long_log_is_cut() -> None:
    step = '{"t":1,"event":{"type":"UserText","text":"x"}}'
    call = read_call([call_trace.header(Policy()), *[step] * (LOG_LINES + 7)])
    assert (len(call.log), call.log_left_out) == (LOG_LINES, 7)


@pytest.mark.parametrize(
    ("duration_ms", "row_ms"),
    [(1, 15_000), (60_000, 15_000), (60_001, 20_000), (600_000, 30_000), (3_600_000, 60_000)],
)
def test_rows_grow_with_the_call(duration_ms: int, row_ms: int) -> None:
    assert row_length_ms(duration_ms) == row_ms


def test_one_slow_turn_does_not_squeeze_the_others() -> None:
    turns = [
        TurnRecord(n, speech_end_ms=0, first_sent_ms=ms) for n, ms in enumerate([300, 310, 9_000])
    ]
    assert shared_scale_ms(turns) == int(3 * 310 * 1.12)
    assert shared_scale_ms([]) == 1000


def test_files(world: World, tmp_path: Path) -> None:
    from antiphon.audio.encoding import encode_file
    from antiphon.audio.growing_file import GrowingFile

    path, wav = tmp_path / "abc.jsonl", tmp_path / "abc.wav"
    path.write_text("\n".join(world.lines))
    wav.write_bytes(encode_file(tone(2_000).pcm, 8_000, "wav"))
    html = report_file(path, caller=wav)
    assert "<h1>Call abc</h1>" in html
    assert 'class="wave caller"' in html
    both = GrowingFile(tmp_path / "both.flac", "flac", 8_000, 2)
    both.write(np.stack([tone(2_000).pcm, tone(2_000).pcm], axis=1))
    both.close()
    html = report_file(path, recording=tmp_path / "both.flac")
    assert 'class="wave caller"' in html
    assert "No recording" not in html
    with pytest.raises(AntiphonError, match="cannot read"):
        report_file(tmp_path / "none.jsonl")


@pytest.mark.browser
def test_it_looks_right_in_a_browser(world: World, tmp_path: Path) -> None:
    sync_api = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no Chromium")
    file = tmp_path / "call.html"
    file.write_text(report_html(world.lines, caller=tone(30_000), agent=tone(30_000)))
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        colours, problems = set(), []
        for width, scheme in ((1200, "light"), (1200, "dark"), (360, "light")):
            page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
            page.on("console", lambda message: problems.append(message.text))
            page.on("request", lambda request: problems.append(request.url))
            page.goto(file.as_uri())
            assert page.evaluate("document.documentElement.scrollWidth") == width
            colours.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
            page.click("a[href='#turn-2']")
            assert page.locator("#turn-2").is_visible()
        browser.close()
    assert len(colours) == 2
    assert all(re.match("file:.*call.html", seen) for seen in problems)
