"""The page and the real server together: a whole turn, a lost connection, two tabs, reports that lie."""

from __future__ import annotations

import wave
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Playwright, expect
from tests.support import STORY
from tests.web.driver import launch, stat, tone, until
from tests.web.real_server import RealServer

pytestmark = pytest.mark.browser

ASKING_HZ = 550
"""What the scripted speech to text hears as "tell me a story"."""


@pytest.fixture(scope="module")
def asking_browser(
    playwright: Playwright, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Browser]:
    """Its microphone asks for a story, then is silent for a while, again and again."""
    path = tmp_path_factory.mktemp("asking") / "story.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(48_000)
        quiet = bytes(2 * 48_000)
        file.writeframes(quiet[:48_000] + tone(48_000, 0.7, ASKING_HZ, peak=0.6) + 8 * quiet)
    browser = launch(
        playwright,
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={path}",
    )
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def real_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    server = RealServer(tmp_path_factory.mktemp("server"))
    yield server
    server.close()


@pytest.fixture
def context(asking_browser: Browser) -> Iterator[BrowserContext]:
    context = asking_browser.new_context()
    yield context
    context.close()


def start(context: BrowserContext, server: RealServer) -> Page:
    page = context.new_page()
    page.goto(server.url)
    page.get_by_role("button", name="Start").click()
    expect(page.locator("body")).to_have_attribute("data-phase", "live")
    return page


def test_lost_connection_resumes_the_same_session(
    context: BrowserContext, real_server: RealServer
) -> None:
    page = start(context, real_server)
    expect(page.locator(".entry.caller .said")).to_have_text("tell me a story")
    until(page, "stats.agent > 0.01 && stats.playedMs > 300")
    before = stat(page, "sessionId")
    real_server.drop_connections()
    until(page, "stats.phase === 'lost'")
    expect(page.get_by_text("Reconnected")).to_be_visible()
    assert stat(page, "sessionId") == before
    until(page, "stats.agent > 0.01")  # the voice goes on
    expect(page.locator(".entry.agent .said")).to_have_text(STORY)
    expect(page.locator(".timing summary")).to_contain_text("Answered after")
    assert page.locator("del").count() == 0
    until(page, "stats.lastTurn?.status === 'completed'")
    assert stat(page, "lastTurn.heard_text") == STORY
    expect(page.get_by_role("alert")).to_be_empty()


def test_second_tab_takes_over(context: BrowserContext, real_server: RealServer) -> None:
    first = start(context, real_server)
    expect(first.locator(".entry.caller .said")).to_have_text("tell me a story")
    kept = first.evaluate("sessionStorage.getItem('antiphon.resume')")
    assert kept
    second = context.new_page()
    second.goto(real_server.url)
    second.evaluate("kept => sessionStorage.setItem('antiphon.resume', kept)", kept)
    second.reload()
    expect(second.get_by_role("alert")).to_contain_text("cut off a moment ago")
    second.get_by_role("button", name="Go on with it").click()
    expect(second.locator("body")).to_have_attribute("data-phase", "live")
    expect(first.get_by_role("alert")).to_contain_text("goes on in another tab")
    assert stat(first, "phase") == "failed"
    assert stat(first, "sessionId") == stat(second, "sessionId")
    expect(second.locator(".entry.caller .said")).to_have_text("tell me a story")
    first.close()  # which is not the end of the other one's conversation
    until(second, "stats.agent > 0.01")


LIES = """
const send = WebSocket.prototype.send;
WebSocket.prototype.send = function (data) {
  const message = typeof data === "string" ? JSON.parse(data) : null;
  send.call(this, message?.type === "played" ? JSON.stringify({ ...message, ms: 99999 }) : data);
};
"""


def test_reports_that_lie_do_no_harm(context: BrowserContext, real_server: RealServer) -> None:
    context.add_init_script(LIES)
    page = start(context, real_server)
    expect(page.get_by_role("alert")).to_contain_text("went beyond what was sent")
    expect(page.locator(".entry.agent .said")).to_have_text(STORY)
    until(page, "stats.lastTurn?.status === 'completed'")
    assert stat(page, "phase") == "live"
    assert stat(page, "lastTurn.played_ms") <= 2_600


def test_server_that_asks_for_a_key(
    context: BrowserContext, tmp_path_factory: pytest.TempPathFactory
) -> None:
    server = RealServer(
        tmp_path_factory.mktemp("locked"), security__api_key="open-sesame-1234567890"
    )
    try:
        page = context.new_page()
        page.goto(server.url)
        page.get_by_role("button", name="Start").click()
        expect(page.get_by_role("alert")).to_contain_text("asks for an access key")
        page.get_by_role("button", name="Open the settings").click()
        page.get_by_label("Access key").fill("open-sesame-1234567890")
        page.get_by_role("button", name="Close the settings").click()
        page.get_by_role("button", name="Start again").click()
        expect(page.locator(".entry.caller .said")).to_have_text("tell me a story")
    finally:
        server.close()
