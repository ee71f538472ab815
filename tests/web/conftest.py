"""Browsers, a server and an open page for the page tests.

Browsers belong to a module: while Playwright runs, no other event loop can, and the suite shares its processes.
"""

from __future__ import annotations

import wave
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Playwright, sync_playwright
from tests.web.driver import TONE_HZ, launch, tone
from tests.web.fake_server import FakeServer

# Lets a test pull the plug, and see that the device was given back.
KEEP_STREAM = """
const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
navigator.mediaDevices.getUserMedia = async (wishes) => {
  window.microphoneWishes = wishes;
  return (window.microphoneStream = await ask(wishes));
};
"""


def tone_bursts(path: Path) -> Path:
    """Half a second of tone, a quarter of silence, and so on: stationary sound is filtered out."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(48000)
        for _ in range(8):
            file.writeframes(tone(48000, 0.5, TONE_HZ, peak=0.7) + bytes(2 * 12000))
    return path


@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as instance:
        yield instance


@pytest.fixture(scope="module")
def browser(playwright: Playwright, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    sound = tone_bursts(tmp_path_factory.mktemp("microphone") / "bursts.wav")
    browser = launch(
        playwright,
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={sound}",
    )
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def deaf_browser(playwright: Playwright) -> Iterator[Browser]:
    """A browser on a machine without any microphone."""
    browser = launch(playwright)
    yield browser
    browser.close()


@pytest.fixture
def server() -> Iterator[FakeServer]:
    server = FakeServer()
    yield server
    server.close()


@pytest.fixture
def page(browser: Browser, server: FakeServer) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    context.add_init_script(KEEP_STREAM)
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if broken(message) else None)
    page.goto(server.url)
    yield page
    context.close()
    assert errors == []


def broken(message: ConsoleMessage) -> bool:
    """Refused scripts, styles and connections show in the console; a lost server may do so."""
    on_purpose = ("WebSocket connection", "503", "net::ERR_FAILED")
    return message.type == "error" and not any(text in message.text for text in on_purpose)
