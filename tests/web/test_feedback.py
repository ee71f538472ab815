"""`End with feedback`: what a teacher says of the learner's part, shown, read out and saved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect
from tests.web.driver import begin, saved, say, stat, tone, until
from tests.web.fake_server import Conversation, FakeServer

pytestmark = pytest.mark.browser

ANALYSIS: dict[str, Any] = {
    "status": "ok",
    "summary": "You talked about your weekend in simple sentences.",
    "mistakes": [
        {"said": "I goed to the market", "correction": "I went to the market", "why": "irregular"},
        {"said": "much people", "correction": "many people", "why": ""},
    ],
    "vocabulary": ["market", "fresh"],
    "estimated_level": "beginner",
    "suggestions": ["Practise the past tense."],
}
KEEP_LEVEL = "localStorage.setItem('antiphon.settings', '{\"level\":\"beginner\"}')"


def ask(page: Page, server: FakeServer) -> Conversation:
    """A conversation of a learner, up to the moment when the feedback is waited for."""
    talk = begin(page, server)
    page.get_by_role("button", name="End with feedback").click()
    talk.wait(lambda c: c.of_type("end_conversation"))
    return talk


def test_feedback_is_asked_for_shown_and_saved(
    page: Page, server: FakeServer, tmp_path: Path
) -> None:
    talk = begin(page, server)
    button = page.get_by_role("button", name="End with feedback")
    expect(button).to_be_hidden()  # nobody learns
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("Beginner").check()
    page.keyboard.press("Escape")
    talk.send("transcript", text="I goed to the market", is_final=True)
    say(talk, "r1", tone(24000, 5.0))
    until(page, "stats.queuedMs > 1000")
    button.click()
    talk.wait(lambda c: c.of_type("end_conversation"))
    status = page.get_by_role("status")
    expect(status).to_contain_text("One moment")
    expect(button).to_be_hidden()
    until(page, "stats.queuedMs === 0")  # the agent is silent at once
    assert page.evaluate("microphoneStream.getTracks()[0].readyState") == "ended"

    talk.send("analysis", data=ANALYSIS)
    section = page.get_by_role("region", name="Feedback")
    expect(section).to_be_focused()  # where a screen reader reads it out
    expect(section).to_be_in_viewport()
    expect(section.get_by_role("heading")).to_have_text(
        ["Feedback", "What to correct", "Useful words", "What to try next"]
    )
    for words in (ANALYSIS["summary"], "beginner", "market", "Practise the past tense."):
        expect(section).to_contain_text(words)
    expect(section.locator(".mistakes li").first).to_have_text(
        "You said: I goed to the market. Better: I went to the market. irregular"
    )
    expect(status).to_contain_text("Your feedback is ready")
    talk.wait(lambda c: c.over)
    assert stat(page, "phase") == "ended"

    name, text = saved(page, "Save the transcript as text", tmp_path)
    assert name.endswith(".txt")
    assert "  - You said: much people -> Better: many people\n" in text
    assert "I went to the market (irregular)\n" in text
    _, data = saved(page, "Save the transcript as JSON", tmp_path)
    assert json.loads(data)["feedback"] == ANALYSIS

    begin(page, server)  # which has none yet
    expect(section).to_have_count(0)


RUBBISH = [
    None,
    [],
    "good",
    {"summary": 7, "mistakes": "many", "vocabulary": [None, 3], "suggestions": {}},
    {"status": "ok", "summary": " ", "mistakes": [None, {"said": "this"}, {"correction": "that"}]},
]
EMPTY = {"status": "empty", "summary": "You have not said anything yet.", "mistakes": []}
FAILED = {"status": "unavailable", "summary": "The conversation could not be analysed: too slow."}


def test_a_level_that_the_owner_has_set_is_enough(page: Page, server: FakeServer) -> None:
    server.level = "beginner"
    begin(page, server)
    expect(page.get_by_role("button", name="End with feedback")).to_be_visible()


def test_feedback_without_anything_in_it_reads_sensibly(page: Page, server: FakeServer) -> None:
    page.evaluate(KEEP_LEVEL)
    page.reload()
    section = page.get_by_role("region", name="Feedback")
    for data, words in [
        *((each, "no feedback that makes sense") for each in RUBBISH),
        (EMPTY, "You have not said anything yet."),
        (FAILED, "could not be analysed: too slow."),
    ]:
        ask(page, server).send("analysis", data=data)
        expect(section).to_contain_text(words)
        expect(section.get_by_role("heading")).to_have_text(["Feedback"])
        expect(section).not_to_contain_text("level")
    talk = ask(page, server)
    talk.send("analysis", data={**ANALYSIS, "mistakes": [], "summary": "<b>Good</b>"})
    expect(section).to_contain_text("<b>Good</b>")  # text is never markup
    expect(section).to_contain_text("Nothing stood out.")


def test_feedback_that_does_not_come(page: Page, server: FakeServer) -> None:
    page.evaluate(KEEP_LEVEL)
    page.reload()
    for end in (
        lambda talk: talk.close(1011),
        lambda talk: talk.send("ended", reason="the server is shutting down"),
    ):
        end(ask(page, server))
        expect(page.get_by_role("alert")).to_contain_text("before the feedback was there")
        assert stat(page, "phase") == "ended"  # and it is not taken up again
    ask(page, server)
    page.keyboard.press("Escape")  # nobody has to wait for it
    expect(page.get_by_role("status")).to_contain_text("Conversation ended")
    expect(page.get_by_role("alert")).to_be_empty()
    talk = begin(page, server)
    talk.send("analysis", data=ANALYSIS)  # which nobody asked for
    talk.send("ai_text", text="Still here.", is_complete=True)
    expect(page.get_by_text("Still here.")).to_be_visible()
    assert stat(page, "phase") == "live"
