"""The screen that stays on, a tab that is put to sleep, and pages that hold still for those who ask for it."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect
from tests.web.driver import begin, until
from tests.web.fake_server import FakeServer

pytestmark = pytest.mark.browser

# What belongs to the browser and its windows, played by the test.
BROWSER = """
window.locks = [];
Object.defineProperty(navigator, "wakeLock", { value: {
  request: async (kind) => {
    const lock = Object.assign(new EventTarget(), { kind, released: false, release: async () => {
      lock.released = true;
      lock.dispatchEvent(new Event("release"));
    } });
    window.locks.push(lock);
    return lock;
  },
} });
window.AudioContext = class extends AudioContext {
  constructor(options) { super(options); window.sound = this; }
};
window.look = (state) => {
  Object.defineProperty(document, "visibilityState", { value: state, configurable: true });
  document.dispatchEvent(new Event("visibilitychange"));
};
"""
LOCKS = "locks.map(({ kind, released }) => [kind, released])"


def test_screen_stays_on_and_a_tab_wakes_up(page: Page, server: FakeServer) -> None:
    page.add_init_script(BROWSER)
    page.reload()
    assert page.evaluate(LOCKS) == []
    begin(page, server)
    assert page.evaluate(LOCKS) == [["screen", False]]

    page.evaluate("look('hidden'); locks[0].release()")  # as browsers do with hidden pages
    page.evaluate("sound.suspend()")
    page.evaluate("look('visible')")
    expect(page.get_by_role("alert")).to_contain_text("It is awake again")
    until(page, "stats.contextState === 'running'")
    assert page.evaluate(LOCKS) == [["screen", True], ["screen", False]]

    page.evaluate("look('hidden')")
    page.evaluate("look('visible')")  # a short look elsewhere is nothing to talk about
    page.keyboard.press("Escape")
    expect(page.get_by_role("status")).to_contain_text("Conversation ended")
    assert page.evaluate(LOCKS) == [["screen", True], ["screen", True]]
    page.evaluate("look('hidden'); look('visible')")
    assert len(page.evaluate(LOCKS)) == 2


MOTION = """
[...document.querySelectorAll("#meter, .entry, #settings, .pill, .choice span")].flatMap((node) => {
  const { animationName, transitionDuration } = getComputedStyle(node);
  return [animationName !== "none", parseFloat(transitionDuration) > 0];
}).filter(Boolean).length
"""


def test_nothing_moves_for_who_asks_for_it(page: Page, server: FakeServer) -> None:
    page.emulate_media(reduced_motion="reduce")
    talk = begin(page, server)
    talk.send("transcript", text="Hello", is_final=True)
    talk.send("floor", state="thinking")  # which makes the ring breathe
    expect(page.get_by_role("status")).to_contain_text("Thinking")
    expect(page.locator(".entry")).to_have_count(1)
    page.get_by_role("button", name="Settings").click()
    assert page.evaluate(MOTION) == 0
    page.emulate_media(reduced_motion="no-preference")
    assert page.evaluate(MOTION) > 4
