"""What a person can set on the page: settings, push-to-talk, the transcript as a file; and the time of an answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect
from tests.web.driver import begin, saved, say, stat, tone, until
from tests.web.fake_server import FakeServer

pytestmark = pytest.mark.browser

RECORD: dict[str, Any] = {
    "kind": "answer",
    "speech_end_ms": 5_000,
    "transcribe_ms": 5_030,
    "transcript_ms": 5_150,
    "committed_ms": 5_260,
    "generate_ms": 5_160,
    "first_token_ms": 5_400,
    "speak_ms": 5_440,
    "first_audio_ms": 5_570,
    "first_sent_ms": 5_571,
    "first_played_ms": 5_660,
}


# Settings


def test_settings_are_sent_at_once_and_kept(page: Page, server: FakeServer) -> None:
    talk = begin(page, server)
    page.get_by_role("button", name="Settings").click()
    panel = page.get_by_role("dialog", name="Settings")
    panel.get_by_role("combobox", name="Agent").select_option("Tutor")
    panel.get_by_label("Voice").select_option("anna")
    panel.get_by_label("Language").select_option("fr")
    panel.get_by_label("Beginner").check()
    panel.get_by_label("Your instructions").fill("Be brief.")
    panel.get_by_label("Your instructions").blur()
    expect(panel.get_by_role("status")).to_contain_text("from the next answer on")
    wishes = {"agent": "Tutor", "voice": "anna", "language": "fr", "instructions": "Be brief."}
    talk.wait(lambda c: len(c.of_type("configure")) == 4 and c.of_type("set_level"))
    sent = {key: value for each in talk.of_type("configure") for key, value in each.items()}
    assert sent == {"type": "configure", **wishes}
    assert talk.of_type("set_level") == [{"type": "set_level", "level": "beginner"}]
    page.keyboard.press("Escape")  # closes the settings, and does not end the conversation
    expect(panel).not_to_be_visible()
    assert stat(page, "phase") == "live"
    expect(page.get_by_role("button", name="Settings")).to_be_focused()

    page.reload()
    again = begin(page, server)
    assert wishes.items() <= again.messages[0].items()
    again.wait(lambda c: c.of_type("set_level"))
    page.get_by_role("button", name="Settings").click()
    expect(panel.get_by_role("combobox", name="Agent")).to_have_value("Tutor")
    expect(panel.get_by_label("Beginner")).to_be_checked()


def test_settings_without_a_server(page: Page, server: FakeServer) -> None:
    page.route("**/api/options", lambda route: route.abort())
    page.evaluate('localStorage.setItem(\'antiphon.settings\', \'{"listen":"never","x":1}\')')
    page.reload()
    page.get_by_role("button", name="Settings").click()
    expect(page.get_by_role("dialog").get_by_role("status")).to_contain_text("cannot be asked")
    page.get_by_role("button", name="Close the settings").click()
    expect(page.get_by_label("Open mic")).to_be_checked()


# Push-to-talk


@pytest.mark.parametrize("way", ["pointer", "space"])
def test_push_to_talk(page: Page, server: FakeServer, way: str) -> None:
    page.get_by_label("Push to talk").check()
    talk = begin(page, server)
    assert talk.messages[0]["listen"] == "push"
    hold = page.get_by_role("button", name="Hold to talk")
    expect(page.get_by_role("status")).to_contain_text("Hold the button")
    say(talk, "r1", tone(24000, 4.0))
    until(page, "stats.agent > 0.1 && stats.caller > 0.001")
    assert talk.frames == []
    if way == "pointer":
        hold.hover()
        page.mouse.down()
    else:
        page.get_by_role("log").focus()
        page.keyboard.down("Space")
    expect(hold).to_have_attribute("aria-pressed", "true")
    expect(page.get_by_role("status")).to_contain_text("Let go")
    until(page, "stats.queuedMs === 0")  # the agent is silent at once
    talk.wait(lambda c: c.of_type("hold") and len(c.frames) >= 10)
    page.mouse.up() if way == "pointer" else page.keyboard.up("Space")
    talk.wait(lambda c: c.of_type("commit"))
    count = len(talk.frames)
    until(page, "stats.caller > 0.001")
    talk.send("floor", state="thinking")
    expect(page.get_by_role("status")).to_contain_text("Thinking")
    assert len(talk.frames) == count
    page.get_by_role("button", name="End").click()
    talk.wait(lambda c: c.of_type("stop"))
    expect(page.get_by_role("button", name="Start again")).to_be_focused()


def test_short_touch_is_no_word(page: Page, server: FakeServer) -> None:
    page.get_by_label("Push to talk").check()
    talk = begin(page, server)
    page.get_by_role("button", name="Hold to talk").click()
    expect(page.get_by_role("alert")).to_contain_text("for as long as you speak")
    assert talk.of_type("commit") == []


def test_listening_is_switched_in_mid_call(page: Page, server: FakeServer) -> None:
    talk = begin(page, server)
    talk.wait(lambda c: c.frames)
    page.get_by_label("Push to talk").check()
    talk.wait(lambda c: c.of_type("configure"))
    assert talk.of_type("configure") == [{"type": "configure", "listen": "push"}]
    expect(page.get_by_role("button", name="Hold to talk")).to_be_visible()
    page.get_by_label("Open mic").check()
    talk.wait(lambda c: len(c.of_type("configure")) == 2)
    count = len(talk.frames)
    talk.wait(lambda c: len(c.frames) > count + 5)


# The time of an answer


def test_waterfall_of_each_answer(page: Page, server: FakeServer) -> None:
    talk = begin(page, server)
    for reply in ("r1", "r2"):
        talk.send("ai_text", text="An answer.", is_complete=True, reply=reply)
        talk.send("turn_complete")
        talk.send("turn", record={**RECORD, "reply": reply})
    summaries = page.locator(".timing summary")
    expect(summaries).to_have_text(["Answered after 0.66 s", "Answered after 0.66 s"])
    expect(page.locator(".timing[open]")).to_have_count(1)  # the latest one
    chart = page.get_by_role("table", name="Where the time went")
    expect(chart.get_by_role("rowheader")).to_have_count(5)
    row = chart.get_by_role("row", name="First word of the answer")
    expect(row).to_contain_text("240 ms, beginning after 160 ms")
    bar = row.locator(".track span").bounding_box()
    track = row.locator(".track").bounding_box()
    assert bar is not None
    assert track is not None
    assert (bar["x"] - track["x"]) / track["width"] == pytest.approx(160 / 660, abs=0.02)
    assert bar["width"] / track["width"] == pytest.approx(240 / 660, abs=0.02)
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("Show how long each answer took").uncheck()
    page.keyboard.press("Escape")
    expect(summaries.first).to_be_hidden()


def test_turns_without_a_question_have_no_waterfall(page: Page, server: FakeServer) -> None:
    talk = begin(page, server)
    talk.send("ai_text", text="Hello!", is_complete=True, reply="r1")
    for record in ({}, {"kind": "greeting", "first_sent_ms": 4}, {"reply": "r9"}):
        talk.send("turn", record={"reply": "r1", **record})
    talk.send("transcript", text="Hi", is_final=True)
    expect(page.locator(".entry")).to_have_count(2)
    assert page.locator(".timing").count() == 0


# The transcript


def test_transcript_as_text_and_json(page: Page, server: FakeServer, tmp_path: Path) -> None:
    talk = begin(page, server)
    talk.send("transcript", text="Tell me", is_final=True, item="u1")
    talk.send("withdrawn", item="u1")
    talk.send("transcript", text="Tell me a story", is_final=True, item="u1")
    talk.send("ai_text", text="Once upon a time", is_complete=False, reply="r1")
    talk.send("heard", reply="r1", text="Once upon", unheard="a time")
    expect(page.locator("del")).to_have_text("a time")
    expect(page.locator(".entry.caller")).to_have_count(1)

    name, text = saved(page, "Save the transcript as text", tmp_path)
    assert name.endswith(".txt")
    lines = text.splitlines()[2:]
    assert [line[10:] for line in lines] == [
        "You: Tell me a story",
        "Agent: Once upon [not heard: a time]",
    ]
    name, text = saved(page, "Save the transcript as JSON", tmp_path)
    assert name.endswith(".json")
    data = json.loads(text)
    assert data["feedback"] is None
    assert data["session_id"] == "s1"
    assert [{k: v for k, v in each.items() if k != "at"} for each in data["entries"]] == [
        {"speaker": "caller", "text": "Tell me a story", "unheard": ""},
        {"speaker": "agent", "text": "Once upon", "unheard": "a time"},
    ]
    assert all(each["at"].endswith("Z") for each in data["entries"])


# A lost connection, as the page sees it


def test_resume_names_the_call_and_what_came(page: Page, server: FakeServer) -> None:
    talk = begin(page, server)
    talk.send("connected", session_id="s1", resume="token", frames=1)
    talk.send("floor", state="open")
    talk.send("ai_text", text="Hello", is_complete=True, reply="r1")
    expect(page.get_by_text("Hello")).to_be_visible()
    talk.close(1011)
    again = server.next_conversation()
    again.wait(lambda c: c.of_type("start"))
    start = again.of_type("start")[0]
    assert (start["resume"], start["frames"]) == ("token", 3)
    again.connected(resumed=True, resume="token", frames=4)
    expect(page.get_by_text("Reconnected")).to_be_visible()
    again.send("ai_text", text=" again", is_complete=True, reply="r1")
    expect(page.locator(".entry.agent")).to_have_count(2)


def test_call_that_could_not_be_resumed_is_a_new_one(page: Page, server: FakeServer) -> None:
    talk = begin(page, server)
    talk.send("connected", session_id="s1", resume="token", frames=1)
    talk.send("ai_text", text="Hello", is_complete=True, reply="r1")
    expect(page.get_by_text("Hello")).to_be_visible()
    talk.close(1011)
    server.next_conversation().connected(session_id="s2", resumed=False, resume="b", frames=1)
    expect(page.get_by_text("A new conversation")).to_be_visible()


def test_sound_that_the_browser_put_to_sleep(page: Page, server: FakeServer) -> None:
    page.add_init_script(
        "window.AudioContext = class extends AudioContext {"
        " constructor(options) { super(options); window.sound = this; } };"
    )
    page.reload()
    begin(page, server)
    page.evaluate("sound.suspend()")
    expect(page.get_by_role("alert")).to_contain_text("put the sound of this page to sleep")
    page.get_by_role("button", name="Wake it up").click()
    expect(page.get_by_role("alert")).to_be_empty()
    until(page, "stats.contextState === 'running'")
