"""The page in real Chromium: the microphone, captions, words, keyboard and layout."""

from __future__ import annotations

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect
from tests.web.driver import TONE_HZ, begin, say, stat, tone, until
from tests.web.fake_server import EXTENSIONS, FakeServer

pytestmark = pytest.mark.browser


# Before anything is said


def test_page_is_quiet_until_asked(page: Page) -> None:
    expect(page.get_by_role("button", name="Start")).to_be_enabled()
    expect(page.get_by_role("status")).to_contain_text("Ready when you are")
    expect(page.get_by_role("alert")).to_be_empty()
    assert page.evaluate("window.microphoneStream") is None
    assert page.title() == "Antiphon"


def test_nothing_is_loaded_from_elsewhere(browser: Browser, server: FakeServer) -> None:
    context = browser.new_context()
    page = context.new_page()
    addresses: list[str] = []
    page.on("request", lambda request: addresses.append(request.url))
    page.goto(server.url)
    begin(page, server)
    context.close()
    assert len(addresses) > 8
    assert [url for url in addresses if not url.startswith(server.url)] == []


# The microphone


def test_start_announces_what_is_then_sent(page: Page, server: FakeServer) -> None:
    talk = begin(page, server)
    rate_hz = stat(page, "contextHz")
    assert talk.messages[0] == {
        "type": "start",
        "format": "pcm_s16le",
        "rate": rate_hz,
        "extensions": EXTENSIONS,
    }
    talk.wait(lambda c: len(c.frames) >= 50)
    frames = talk.frames[:50]
    assert {len(frame) for frame in frames} == {round(rate_hz * 0.04) * 2}
    # The announced rate is the true one: the tone of the fake microphone has its pitch.
    samples = np.frombuffer(b"".join(frames), "<i2").astype(float)
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    assert np.argmax(spectrum) * rate_hz / len(samples) == pytest.approx(TONE_HZ, abs=10)


def test_no_audio_before_the_server_is_there(page: Page, server: FakeServer) -> None:
    page.get_by_role("button", name="Start").click()
    talk = server.next_conversation()
    talk.wait(lambda c: c.of_type("start"))
    until(page, "stats.caller > 0.001")  # the microphone runs
    assert talk.frames == []
    talk.connected()
    talk.wait(lambda c: c.frames)


def test_microphone_is_asked_for_echo_cancellation(page: Page, server: FakeServer) -> None:
    begin(page, server)
    assert page.evaluate("window.microphoneWishes.audio") == {
        "echoCancellation": True,
        "noiseSuppression": True,
        "autoGainControl": True,
        "channelCount": 1,
    }


# Captions


def test_captions_of_both_sides(page: Page, server: FakeServer) -> None:
    talk = begin(page, server)
    talk.send("transcript", text="What is", is_final=False)
    caller = page.locator(".entry.caller .said")
    expect(caller).to_have_text("What is")
    lighter = caller.evaluate("node => getComputedStyle(node).color")
    talk.send("transcript", text="What is the capital of France?", is_final=True)
    expect(caller).to_have_text("What is the capital of France?")
    expect(caller).not_to_have_css("color", lighter)

    for piece in ["The capital", " of France", " is Paris."]:
        talk.send("ai_text", text=piece, is_complete=False)
    agent = page.locator(".entry.agent .said")
    expect(agent).to_have_text("The capital of France is Paris.")
    expect(agent).to_have_css("color", lighter)
    talk.send("ai_text", text="", is_complete=True)
    expect(agent).not_to_have_css("color", lighter)

    middle = page.locator("#captions").evaluate(
        "n => n.getBoundingClientRect().x + n.clientWidth / 2"
    )
    assert caller.bounding_box()["x"] > middle > agent.bounding_box()["x"]  # type: ignore[index]


def test_each_turn_has_its_own_entry(page: Page, server: FakeServer) -> None:
    talk = begin(page, server)
    for number in ("one", "two"):
        talk.send("transcript", text=f"Question {number}", is_final=True)
        talk.send("ai_text", text=f"Answer {number}", is_complete=True)
        talk.send("turn_complete")
    expect(page.locator(".entry .said")).to_have_text(
        ["Question one", "Answer one", "Question two", "Answer two"]
    )


def test_partial_text_that_comes_to_nothing_goes_away(page: Page, server: FakeServer) -> None:
    talk = begin(page, server)
    talk.send("transcript", text="Hm", is_final=False)
    expect(page.locator(".entry")).to_have_count(1)
    talk.send("transcript", text="", is_final=True)
    expect(page.locator(".entry")).to_have_count(0)


def test_text_is_never_markup(page: Page, server: FakeServer) -> None:
    talk = begin(page, server)
    talk.send("ai_text", text="<img src=x onerror=alert(1)>", is_complete=True)
    expect(page.locator(".entry.agent .said")).to_have_text("<img src=x onerror=alert(1)>")


def test_words_that_were_not_heard_are_struck_out(page: Page, server: FakeServer) -> None:
    talk = begin(page, server)
    talk.send("ai_text", text="Let me tell you the whole story.", is_complete=False)
    say(talk, "r1", tone(24000, 0.2))
    talk.send("clear")
    talk.send("transcript", text="Stop", is_final=False)
    talk.send("heard", reply="r1", text="Let me tell", unheard="you the whole story.")
    talk.send("turn_complete")
    said = page.locator(".entry.agent .said")
    expect(said.locator("del")).to_have_text("you the whole story.")
    expect(said.locator("del")).to_have_css("text-decoration-line", "line-through")
    expect(said).to_have_text("Let me tell (not heard: you the whole story.)")
    talk.send("ai_text", text="All right.", is_complete=True)
    expect(page.locator(".entry .said").last).to_have_text("All right.")


# Who has the floor


def test_floor_in_words(page: Page, server: FakeServer) -> None:
    talk = begin(page, server)
    for floor, words in [
        ("thinking", "Thinking"),
        ("open", "Say something"),
        ("agent", "You may interrupt at any time"),
        ("caller", "Take your time"),
        ("closing", "Saying goodbye"),
        ("one of a later version", "Say something"),
    ]:
        talk.send("floor", state=floor)
        expect(page.get_by_role("status")).to_contain_text(words)


def test_server_without_extensions(page: Page, server: FakeServer) -> None:
    page.get_by_role("button", name="Start").click()
    talk = server.next_conversation()
    talk.send("connected", session_id="old")
    status = page.get_by_role("status")
    expect(status).to_contain_text("Listening")
    talk.send("transcript", text="Hello", is_final=True)
    expect(status).to_contain_text("Thinking")
    talk.send("ai_text", text="Hello to you", is_complete=True)
    talk.send("ai_audio_start", sample_rate=24000)
    expect(status).to_contain_text("Speaking")
    talk.send_audio(tone(24000, 0.3))
    talk.send("turn_complete")
    expect(status).to_contain_text("Listening")
    until(page, "stats.renderedMs === 300")
    talk.wait(lambda c: len(c.frames) > 5)
    assert [each["type"] for each in talk.messages] == ["start"]


# By hand and by keyboard


def test_keyboard_starts_and_escape_ends(page: Page, server: FakeServer) -> None:
    page.keyboard.press("Tab")  # the settings
    page.keyboard.press("Tab")
    for key in ("Space", "Enter"):
        page.keyboard.press(key)
        talk = server.next_conversation()
        talk.connected()
        expect(page.get_by_role("button", name="End")).to_be_focused()
        expect(page.locator("body")).to_have_attribute("data-phase", "live")
        page.keyboard.press("Escape")
        expect(page.get_by_role("status")).to_contain_text("Conversation ended")
        talk.wait(lambda c: c.over)
        assert talk.messages[-1] == {"type": "stop"}
        assert page.evaluate("microphoneStream.getTracks()[0].readyState") == "ended"


def test_escape_while_the_browser_asks(deaf_browser: Browser, server: FakeServer) -> None:
    context = deaf_browser.new_context()
    context.add_init_script(
        "navigator.mediaDevices.getUserMedia = () => new Promise((done) => { window.allow = done })"
    )
    page = context.new_page()
    page.goto(server.url)
    page.get_by_role("button", name="Start").press("Space")
    expect(page.get_by_role("status")).to_contain_text("Waiting for the microphone")
    page.keyboard.press("Escape")
    expect(page.get_by_role("status")).to_contain_text("Conversation ended")
    # Allowed too late: the device is given back at once.
    page.evaluate(
        "window.late = new AudioContext().createMediaStreamDestination().stream; allow(late)"
    )
    until(page, "late.getTracks()[0].readyState === 'ended'")
    context.close()


def test_second_conversation_starts_afresh(page: Page, server: FakeServer) -> None:
    talk = begin(page, server)
    talk.send("ai_text", text="First time.", is_complete=True)
    expect(page.get_by_text("First time.")).to_be_visible()
    page.get_by_role("button", name="End").click()
    begin(page, server)
    expect(page.locator(".entry")).to_have_count(0)


def test_reader_of_older_words_is_left_there(page: Page, server: FakeServer) -> None:
    talk = begin(page, server)
    for number in range(30):
        talk.send("transcript", text=f"Sentence {number}", is_final=True)
    expect(page.get_by_text("Sentence 29")).to_be_in_viewport()
    page.get_by_role("log").hover()
    page.mouse.wheel(0, -3000)
    expect(page.get_by_text("Sentence 0")).to_be_in_viewport()
    talk.send("transcript", text="One more", is_final=True)
    expect(page.get_by_text("One more")).not_to_be_in_viewport()
    expect(page.get_by_text("Sentence 0")).to_be_in_viewport()


FITS = """
document.documentElement.scrollWidth <= innerWidth && document.documentElement.scrollHeight <= innerHeight
"""
SCREENS = [(360, 640), (390, 844), (844, 390), (1920, 1080)]


def test_fits_the_screen(page: Page, server: FakeServer) -> None:
    for width, height in SCREENS:
        page.set_viewport_size({"width": width, "height": height})
        assert page.evaluate(FITS), (width, height)
    page.evaluate("localStorage.setItem('antiphon.settings', '{\"level\":\"beginner\"}')")
    page.reload()  # a learner's page has a button more
    talk = begin(page, server)
    for number in range(12):
        talk.send("transcript", text=f"Question number {number}, with some words.", is_final=True)
        talk.send("ai_text", text="An answer that is a little longer. " * 4, is_complete=True)
        talk.send("turn_complete")
    expect(page.locator(".entry")).to_have_count(24)
    for width, height in SCREENS:
        page.set_viewport_size({"width": width, "height": height})
        assert page.evaluate(FITS), (width, height)
        expect(page.locator(".entry").last).to_be_in_viewport()
        expect(page.get_by_role("button", name="End", exact=True)).to_be_in_viewport(ratio=1)
        expect(page.get_by_role("button", name="End with feedback")).to_be_in_viewport(ratio=1)
        expect(page.get_by_role("status")).to_be_in_viewport()
