"""What the page says and does when something goes wrong, in real Chromium."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser, Page, Playwright, expect
from tests.web.driver import begin, launch, say, stat, tone, until
from tests.web.fake_server import FakeServer

pytestmark = pytest.mark.browser


def test_unplugged_microphone_is_said_and_can_be_mended(page: Page, server: FakeServer) -> None:
    talk = begin(page, server)
    talk.send("transcript", text="Hello there", is_final=True)
    expect(page.get_by_text("Hello there")).to_be_visible()
    page.evaluate("microphoneStream.getTracks()[0].dispatchEvent(new Event('ended'))")
    expect(page.get_by_role("alert")).to_contain_text("microphone was disconnected")
    talk.wait(lambda c: c.over)
    page.get_by_role("button", name="Reconnect").click()
    server.next_conversation().connected()
    expect(page.locator("body")).to_have_attribute("data-phase", "live")
    expect(page.get_by_text("Hello there")).to_be_visible()


def test_denied_microphone(playwright: Playwright, server: FakeServer) -> None:
    browser = launch(playwright, "--use-fake-device-for-media-stream")  # which it does not give out
    context = browser.new_context()
    context.grant_permissions([])  # whatever is not named is refused
    page = context.new_page()
    page.goto(server.url)
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_role("alert")).to_contain_text("microphone is blocked")
    expect(page.get_by_role("button", name="Start again")).to_be_enabled()
    browser.close()


def test_missing_microphone(deaf_browser: Browser, server: FakeServer) -> None:
    context = deaf_browser.new_context()
    context.grant_permissions(["microphone"])
    page = context.new_page()
    page.goto(server.url)
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_role("alert")).to_contain_text("No microphone was found")
    context.close()


def test_page_without_https(browser: Browser, server: FakeServer) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"http://page.test:{server.port}/")
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_role("alert")).to_contain_text("https")
    context.close()


def test_error_of_the_server_is_shown_and_the_call_goes_on(page: Page, server: FakeServer) -> None:
    talk = begin(page, server)
    talk.send("error", message="The language model did not answer.")
    expect(page.get_by_role("alert")).to_contain_text("The language model did not answer.")
    page.get_by_role("button", name="Dismiss").click()
    expect(page.get_by_role("alert")).to_be_empty()
    assert stat(page, "phase") == "live"


def test_messages_that_make_no_sense_are_passed_over(page: Page, server: FakeServer) -> None:
    talk = begin(page, server)
    for text in ("no json", "[]", "null", "{}", '{"type": 7}', '{"type": "new"}'):
        talk.send_text(text)
        talk.send("ai_text", text=f"After {text}.", is_complete=True)
        expect(page.get_by_text(f"After {text}.")).to_be_visible()


def test_lost_connection_is_said_and_mended(page: Page, server: FakeServer) -> None:
    talk = begin(page, server)
    talk.send("transcript", text="Remember me", is_final=True)
    say(talk, "r1", tone(24000, 5.0))
    until(page, "stats.queuedMs > 1000")
    server.refusing = True
    talk.close(1011)
    expect(page.get_by_role("alert")).to_contain_text("connection to the server was lost")
    until(page, "stats.queuedMs === 0")  # no voice from a dead line
    server.refusing = False
    again = server.next_conversation()
    again.connected()
    expect(page.get_by_role("alert")).to_be_empty()
    expect(page.get_by_text("Reconnected")).to_be_visible()
    expect(page.get_by_text("Remember me")).to_be_visible()
    again.wait(lambda c: c.frames)


def test_refused_conversation(page: Page, server: FakeServer) -> None:
    alert = page.get_by_role("alert")
    for ready_status, words in [(200, "may be busy"), (503, "loading"), (404, "cannot be reached")]:
        server.refusing = True
        server.ready_status = ready_status
        if ready_status == 404:
            page.route("**/ready", lambda route: route.abort())
        page.get_by_role("button", name="Start").click()
        expect(alert).to_contain_text(words)
        server.refusing = False
        page.get_by_role("button", name="Reconnect now").click()
        server.next_conversation().connected()
        expect(alert).to_be_empty()
        page.keyboard.press("Escape")


def test_busy_server(page: Page, server: FakeServer) -> None:
    for reason, words in [
        ("", "busy: all conversations are taken"),
        ("there is no disk space", "there is no disk space"),
        ("all 32 lines are busy; try again soon", "busy: all conversations are taken"),
        ("the models are still loading; try again in a moment", "loading its models"),
    ]:
        page.get_by_role("button", name="Start").click()
        talk = server.next_conversation()
        if reason:
            talk.send("error", message=reason)
        talk.close(1013)
        expect(page.get_by_role("alert")).to_contain_text(words)
        server.next_conversation().connected()  # the page tries again by itself
        expect(page.get_by_role("alert")).to_be_empty()
        page.keyboard.press("Escape")


def test_refusal_for_good_is_not_tried_again(page: Page, server: FakeServer) -> None:
    talk = begin(page, server)
    talk.send("error", message="This page may not talk to the server.")
    talk.close(1008)
    expect(page.get_by_role("alert")).to_contain_text("This page may not talk to the server.")
    assert stat(page, "phase") == "failed"
    assert page.evaluate("microphoneStream.getTracks()[0].readyState") == "ended"


def test_gives_up_after_half_a_minute(page: Page, server: FakeServer) -> None:
    page.clock.install()
    talk = begin(page, server)
    server.refusing = True
    talk.close(1011)
    expect(page.get_by_role("button", name="Reconnect now")).to_be_visible()
    page.clock.run_for(40_000)
    expect(page.locator("body")).to_have_attribute("data-phase", "failed")
    server.refusing = False
    page.get_by_role("button", name="Reconnect").click()
    server.next_conversation().connected()
    expect(page.locator("body")).to_have_attribute("data-phase", "live")


def test_server_ends_the_conversation(page: Page, server: FakeServer) -> None:
    talk = begin(page, server)
    talk.send("ai_text", text="Goodbye.", is_complete=True)
    talk.send("ended", reason="nobody answered")
    talk.close(1000)
    status = page.get_by_role("status")
    expect(status).to_contain_text("Conversation ended")
    expect(status).to_contain_text("Nobody spoke for a while")
    expect(page.get_by_text("Goodbye.")).to_be_visible()
    expect(page.get_by_role("alert")).to_be_empty()
    assert page.evaluate("microphoneStream.getTracks()[0].readyState") == "ended"


def test_advice_is_shown_and_needs_nothing(page: Page, server: FakeServer) -> None:
    talk = begin(page, server)
    talk.send("notice", code="audio_quality", message="You are hard to hear; come closer.")
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("come closer")
    expect(alert).to_have_class("calm")
    page.get_by_role("button", name="Dismiss").click()
    expect(alert).to_be_empty()
    assert stat(page, "phase") == "live"
