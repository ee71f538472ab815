"""The page talks with the real server: captions, the agent's voice, an interruption, a learner's feedback."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect
from tests.support import OPTIONS, STORY
from tests.web.driver import saved, stat, until
from tests.web.real_server import RealServer

pytestmark = pytest.mark.browser

ANALYSIS = {
    "summary": "You asked for a story.",
    "mistakes": [],
    "vocabulary": ["noon"],
    "estimated_level": "intermediate",
    "suggestions": ["Ask more."],
}
LLM = {"rules": {"Learner": json.dumps(ANALYSIS), **OPTIONS["llm"]["rules"]}}
"""`Learner` stands only in the transcript that is analysed."""
ASK_HZ, STOP_HZ = 550, 660
"""What the scripted speech to text hears as "tell me a story" and "stop please"."""

# A microphone that speaks when the test says so, and not by the clock.
MICROPHONE = """
navigator.mediaDevices.getUserMedia = async () => {
  const context = new AudioContext();
  const out = context.createMediaStreamDestination();
  window.speak = (hz, seconds) => {
    const voice = new OscillatorNode(context, { frequency: hz });
    voice.connect(new GainNode(context, { gain: 0.5 })).connect(out);
    voice.start();
    voice.stop(context.currentTime + seconds);
  };
  return out.stream;
};
"""


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    folder = tmp_path_factory.mktemp("server")
    server = RealServer(folder, models__options__llm__scripted=LLM)
    yield server
    server.close()


@pytest.fixture
def learner(browser: Browser, teacher: RealServer) -> Iterator[Page]:
    """In a conversation, and silent."""
    context = browser.new_context()
    context.add_init_script(MICROPHONE)
    page = context.new_page()
    page.goto(teacher.url)
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("Intermediate").check()
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Start").click()
    expect(page.locator("body")).to_have_attribute("data-phase", "live")
    yield page
    context.close()


def test_an_answer_is_heard_and_broken_off(learner: Page) -> None:
    learner.evaluate(f"speak({ASK_HZ}, 0.7)")
    asked = learner.locator(".entry.caller .said")
    expect(asked).to_have_text("tell me a story")
    until(learner, "stats.agent > 0.01 && stats.playedMs > 300")
    expect(learner.get_by_role("status")).to_contain_text("Speaking")
    learner.evaluate(f"speak({STOP_HZ}, 0.7)")
    until(learner, "stats.clears > 0 && stats.queuedMs === 0 && stats.agent < 0.0001")
    expect(asked).to_have_text(["tell me a story", "stop please"])
    told = learner.locator(".entry.agent").first
    unheard = told.locator("del").inner_text()
    assert STORY.endswith(unheard)
    heard = told.locator(".said").evaluate("node => node.firstChild.textContent")
    assert f"{heard} {unheard}" == STORY


def test_a_learner_ends_with_feedback(learner: Page, tmp_path: Path) -> None:
    learner.evaluate(f"speak({ASK_HZ}, 0.7)")
    until(learner, "stats.agent > 0.01")
    learner.get_by_role("button", name="End with feedback").click()
    section = learner.get_by_role("region", name="Feedback")
    expect(section).to_contain_text("You asked for a story.")
    expect(section).to_contain_text("Nothing stood out.")
    expect(learner.get_by_role("alert")).to_be_empty()
    _, data = saved(learner, "Save the transcript as JSON", tmp_path)
    assert json.loads(data)["feedback"] == {"status": "ok", **ANALYSIS}


def test_feedback_of_a_conversation_in_which_nothing_was_said(learner: Page) -> None:
    learner.get_by_role("button", name="End with feedback").click()
    section = learner.get_by_role("region", name="Feedback")
    expect(section).to_contain_text("not said anything yet")
    assert stat(learner, "phase") == "ended"
