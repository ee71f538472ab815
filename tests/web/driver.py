"""What the page tests share: Chromium as they need it, and the steps that most of them take."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import Browser, Page, Playwright, expect
from tests.web.fake_server import Conversation, FakeServer

expect.set_options(timeout=15_000)
TONE_HZ = 700
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--autoplay-policy=no-user-gesture-required",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-quic",
    "--host-resolver-rules=MAP page.test 127.0.0.1",
]


def tone(rate_hz: int, seconds: float, hz: float = 440.0, peak: float = 0.5) -> bytes:
    """A sine as s16le mono PCM; peak 1 is full scale."""
    time_s = np.arange(round(rate_hz * seconds)) / rate_hz
    return np.round(np.sin(2 * np.pi * hz * time_s) * peak * 32767).astype("<i2").tobytes()


def launch(playwright: Playwright, *flags: str) -> Browser:
    """The machine's own Chromium, headless and without traffic of its own."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    assert chromium, "Chromium is missing; make test installs it (Debian's package chromium)"
    return playwright.chromium.launch(executable_path=chromium, args=[*FLAGS, *flags])


def begin(page: Page, server: FakeServer) -> Conversation:
    """Presses the button and accepts the conversation."""
    page.get_by_role("button", name="Start").click()
    talk = server.next_conversation()
    talk.wait(lambda c: c.of_type("start"))
    talk.connected()
    expect(page.locator("body")).to_have_attribute("data-phase", "live")
    return talk


def stat(page: Page, name: str) -> Any:
    """One of the page's counters."""
    return page.evaluate(f"antiphonDebug.stats().{name}")


WAIT_IN_PAGE = """
() => new Promise((held, failed) => {
  const last = performance.now() + 15000;
  const look = () => {
    const stats = antiphonDebug.stats();
    if (CONDITION) held();
    else if (performance.now() > last) failed(new Error(JSON.stringify(stats)));
    else requestAnimationFrame(look);
  };
  look();
})
"""


def until(page: Page, condition: str) -> None:
    """Until a condition on `stats`, the counters of the page, holds.

    Not page.wait_for_function: it compiles in the page, which the security policy forbids.
    """
    page.evaluate(WAIT_IN_PAGE.replace("CONDITION", condition))


def say(talk: Conversation, reply: str, pcm: bytes, rate_hz: int = 24000) -> None:
    """Sends the audio of a reply, which may still go on."""
    talk.send("ai_audio_start", sample_rate=rate_hz, reply=reply)
    talk.send_audio(pcm)


def saved(page: Page, button: str, folder: Path) -> tuple[str, str]:
    """-> the name and the text of the file that this button saves."""
    with page.expect_download() as download:
        page.get_by_role("button", name=button).click()
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return path.name, path.read_text(encoding="utf-8")


def played(talk: Conversation, reply: str) -> list[int]:
    """What the page reported as heard of this reply so far, in ms."""
    return [each["ms"] for each in talk.of_type("played") if each["reply"] == reply]
