"""What the page plays, counts and reports, in real Chromium."""

from __future__ import annotations

import numpy as np
import pytest
from playwright.sync_api import Page
from tests.web.driver import begin, played, say, stat, tone, until
from tests.web.fake_server import FakeServer

pytestmark = pytest.mark.browser


def test_answer_is_heard_and_reported_to_its_end(page: Page, server: FakeServer) -> None:
    talk = begin(page, server)
    say(talk, "r1", tone(24000, 1.5))
    until(page, "stats.agent > 0.2")  # what leaves the player is the tone, not only a count of it
    talk.send("turn_complete")
    talk.wait(lambda c: 1500 in played(c, "r1"))
    reports = played(talk, "r1")
    assert reports == sorted(set(reports))
    assert reports[-1] == 1500
    assert 10 <= len(reports) <= 20
    assert stat(page, "renderedMs") == 1500


def test_every_rate_is_played_in_its_own_time(page: Page, server: FakeServer) -> None:
    talk = begin(page, server)
    for rate_hz in (8000, 16000, 22050, 44100, 48000):
        say(talk, f"r{rate_hz}", tone(rate_hz, 0.4), rate_hz)
        talk.send("turn_complete")
    talk.wait(lambda c: 400 in played(c, "r48000"))
    for rate_hz in (8000, 16000, 22050, 44100, 48000):
        assert played(talk, f"r{rate_hz}")[-1] == 400, rate_hz


def test_replies_are_counted_one_by_one(page: Page, server: FakeServer) -> None:
    talk = begin(page, server)
    say(talk, "r1", tone(24000, 0.3))
    say(talk, "r2", tone(16000, 0.2), 16000)
    talk.send("turn_complete")
    talk.wait(lambda c: 200 in played(c, "r2"))
    assert played(talk, "r1")[-1] == 300
    replies = [each["reply"] for each in talk.of_type("played")]
    assert replies == sorted(replies)


def test_gap_in_the_delivery_loses_nothing(page: Page, server: FakeServer) -> None:
    talk = begin(page, server)
    say(talk, "r1", tone(24000, 0.3))
    talk.wait(lambda c: 300 in played(c, "r1"))  # it ran dry, and says how far it came
    talk.send_audio(tone(24000, 0.3))
    talk.send("turn_complete")
    talk.wait(lambda c: 600 in played(c, "r1"))
    assert stat(page, "underruns") >= 1


def test_clear_silences_at_once(page: Page, server: FakeServer) -> None:
    talk = begin(page, server)
    say(talk, "r1", tone(24000, 8.0))
    talk.wait(lambda c: played(c, "r1") and played(c, "r1")[-1] > 250)
    until(page, "stats.queuedMs > 5000")
    before = played(talk, "r1")
    talk.send("clear")
    until(page, "stats.clears === 1 && stats.queuedMs === 0 && stats.agent < 0.0001")
    talk.send("turn_complete")
    say(talk, "r2", tone(24000, 0.3))
    talk.send("turn_complete")
    talk.wait(lambda c: 300 in played(c, "r2"))
    final = played(talk, "r1")
    assert final == sorted(final)
    assert before[-1] <= final[-1] < 7000
    # All that was played in this conversation is what was reported: nothing leaked after the clear.
    assert stat(page, "renderedMs") == pytest.approx(final[-1] + 300, abs=1)


def test_clear_of_an_answer_that_was_heard_repeats_its_length(
    page: Page, server: FakeServer
) -> None:
    talk = begin(page, server)
    say(talk, "r1", tone(24000, 0.2))
    talk.send("turn_complete")
    talk.wait(lambda c: 200 in played(c, "r1"))
    talk.send("clear")
    talk.wait(lambda c: played(c, "r1").count(200) == 2)


def test_answer_goes_on_after_a_clear(page: Page, server: FakeServer) -> None:
    """A false interruption: the server pauses with clear, then sends the rest of the same reply."""
    talk = begin(page, server)
    say(talk, "r1", tone(24000, 2.0))
    talk.wait(lambda c: played(c, "r1"))
    talk.send("clear")
    until(page, "stats.clears === 1 && stats.queuedMs === 0")
    paused_at = stat(page, "playedMs")
    say(talk, "r1", tone(24000, 0.5))
    talk.send("turn_complete")
    talk.wait(lambda c: played(c, "r1")[-1] == pytest.approx(paused_at + 500, abs=1))


def test_audio_of_nobody_is_not_played(page: Page, server: FakeServer) -> None:
    talk = begin(page, server)
    talk.send_audio(tone(24000, 0.5))
    say(talk, "r1", tone(24000, 0.2) + b"\x00")  # and half a sample is no sample
    talk.send("turn_complete")
    talk.wait(lambda c: 200 in played(c, "r1"))
    assert stat(page, "renderedMs") == 200


RENDER = """
async ({ rate, hz, seconds, clearAt }) => {
  const length = 48000 * (seconds + 0.2);
  const context = new OfflineAudioContext(1, length, 48000);
  await context.audioWorklet.addModule("static/player-worklet.js");
  const node = new AudioWorkletNode(context, "antiphon-player",
    { numberOfInputs: 0, outputChannelCount: [1] });
  node.connect(context.destination);
  const pcm = Int16Array.from({ length: rate * seconds },
    (_, i) => Math.round(16000 * Math.sin((2 * Math.PI * hz * i) / rate)));
  // Rendering stands still until the player has answered what was said to it.
  const at = (time, answered, ...messages) => void context.suspend(time).then(() => {
    node.port.onmessage = ({ data }) => {
      if (!answered(data)) return;
      node.port.onmessage = null;
      void context.resume();
    };
    for (const message of messages) node.port.postMessage(message);
  });
  const audio = [];
  for (let i = 0; i < pcm.length; i += 331) {
    audio.push({ type: "audio", pcm: pcm.slice(i, i + 331).buffer });
  }
  const begin = { type: "begin", reply: "r1", rate };
  at(0, (data) => data.type === "state", begin, ...audio, { type: "complete" });
  if (clearAt) at(clearAt, (data) => data.cleared, { type: "clear" });
  const sound = await context.startRendering();
  return Array.from(sound.getChannelData(0));
}
"""


def test_player_changes_nothing_but_the_rate(page: Page) -> None:
    time_s = np.arange(48000) / 48000
    wave_form = np.stack([np.sin(2000 * np.pi * time_s), np.cos(2000 * np.pi * time_s)], axis=1)
    for rate_hz in (8000, 22050, 24000, 44100, 48000):
        sent = {"rate": rate_hz, "hz": 1000, "seconds": 0.5, "clearAt": 0}
        heard = np.array(page.evaluate(RENDER, sent))[480:-10080]  # without the fades at both ends
        basis = wave_form[480 : 480 + len(heard)]
        (sine, cosine), *_ = np.linalg.lstsq(basis, heard, rcond=None)
        rest = heard - basis @ np.array([sine, cosine])
        assert sine == pytest.approx(16000 / 32768, rel=0.002), rate_hz
        assert abs(cosine) < 0.001, rate_hz  # no delay
        assert 20 * np.log10(np.std(rest) / np.std(heard)) < -60, rate_hz


def test_clear_fades_without_a_click(page: Page) -> None:
    sent = {"rate": 24000, "hz": 300, "seconds": 1, "clearAt": 0.4}
    sound = np.array(page.evaluate(RENDER, sent))
    last = np.flatnonzero(np.abs(sound) > 1e-4)[-1]
    assert 0.4 <= last / 48000 < 0.41
    steepest = 2 * np.pi * 300 / 48000 * 0.5
    assert np.abs(np.diff(sound)).max() < 1.2 * steepest
