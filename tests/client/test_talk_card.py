"""The sound card of `antiphon talk`, on a stand-in for PortAudio: its interface, its threads, its ways to fail."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.server.support import serving
from tests.support import run, say, until

from antiphon.cli.talk import talk
from antiphon.client.sound_card import CardPlayout, SoundCard
from antiphon.errors import AudioError
from antiphon.models.ports import Pcm16


class PortAudioError(Exception):
    pass


class Stream:
    """A stream of the driver below; the test is PortAudio's thread."""

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.latency = 0.05
        self.closed = False

    def start(self) -> None:
        if "source" in self.options:
            threading.Thread(target=self._give, name="device").start()

    def _give(self) -> None:
        """What a device does until it is pulled out: a block each time its time has passed."""
        blocks = np.array_split(self.options["source"], len(self.options["source"]) // 320)
        next_s = time.monotonic()
        for block in blocks:
            next_s += 0.02
            time.sleep(max(next_s - time.monotonic(), 0))
            self.options["callback"](block.tobytes(), len(block), None, None)
        self.options["finished_callback"]()

    def close(self, ignore_errors: bool = True) -> None:
        self.closed = True
        self.options["finished_callback"]()  # as PortAudio does


class Driver:
    """`sounddevice`'s interface without a device behind it."""

    PortAudioError = PortAudioError

    def __init__(
        self,
        *,
        rate_hz: int = 0,
        missing: str = "",
        broken: str = "",
        source: Pcm16 | None = None,
    ) -> None:
        """`rate_hz`: the only one the devices take. `missing`: `input` or `output`. `broken`: does not open.

        `source`: what the microphone hears, in real time, until it is pulled out.
        """
        self.rate_hz, self.missing, self.broken = rate_hz, missing, broken
        self.source = source
        self.streams: dict[str, Stream] = {}

    def query_devices(self, kind: str) -> dict[str, Any]:
        if kind == self.missing:
            raise PortAudioError("Error querying device -1")
        return {"default_samplerate": float(self.rate_hz)}

    def check_input_settings(self, samplerate: int, **_: Any) -> None:
        if self.rate_hz and samplerate != self.rate_hz:
            raise PortAudioError("Invalid sample rate", -9997)

    check_output_settings = check_input_settings

    def _open(self, kind: str, options: dict[str, Any]) -> Stream:
        if kind == self.broken:
            raise PortAudioError("Device unavailable", -9985)
        self.streams[kind] = Stream(**options)
        return self.streams[kind]

    def RawInputStream(self, **options: Any) -> Stream:
        if self.source is not None:
            options["source"] = self.source
        return self._open("input", options)

    def RawOutputStream(self, **options: Any) -> Stream:
        return self._open("output", options)


@pytest.mark.parametrize(("kind", "what"), [("input", "microphone"), ("output", "loudspeaker")])
def test_a_missing_device_is_one_line_that_says_what_to_do(kind: str, what: str) -> None:
    with pytest.raises(AudioError, match=f"no {what} .*or use --input") as raised:
        SoundCard(Driver(missing=kind))
    assert "\n" not in str(raised.value)


def test_a_device_in_use_is_told_and_the_other_one_given_back() -> None:
    driver = Driver(broken="input")

    async def scenario() -> None:
        with pytest.raises(AudioError, match="cannot open the microphone \\(Device unavailable\\)"):
            SoundCard(driver).open()
        assert driver.streams["output"].closed

    run(scenario())


def test_the_microphone_is_heard_at_16_khz_whatever_its_rate() -> None:
    driver = Driver(rate_hz=48_000)
    spoken = say(440, 1_000, rate_hz=48_000)

    async def scenario() -> None:
        card = SoundCard(driver)
        card.open()
        stream = driver.streams["input"]
        assert stream.options["samplerate"] == 48_000
        for at in range(0, len(spoken), 960):
            stream.options["callback"](spoken[at : at + 960].tobytes(), 960, None, None)
        heard = np.concatenate([await card.read() for _ in range(50)])
        assert len(heard) == pytest.approx(16_000, abs=400)
        assert np.abs(heard).max() > 1_000
        card.close()
        card.close()
        assert all(stream.closed for stream in driver.streams.values())

    run(scenario())


def test_the_loudspeaker_plays_what_came_and_nothing_after_clear() -> None:
    driver = Driver()

    async def scenario() -> None:
        card = SoundCard(driver)
        card.open()
        callback = driver.streams["output"].options["callback"]
        now_s = asyncio.get_running_loop().time()
        card.playout.add("r1", np.full(480, 7, np.int16), now_s)
        out = memoryview(bytearray(1_920))
        callback(out, 960, None, None)
        assert np.frombuffer(out, np.int16).tolist() == [7] * 480 + [0] * 480
        card.playout.add("r1", np.full(24_000, 7, np.int16), now_s)
        card.playout.clear(now_s)
        callback(out, 960, None, None)
        assert not any(out)
        # What the card has already is heard a little later than it was given.
        assert card.playout.latency_s == 0.05
        assert card.playout.played_ms("r1", now_s + 0.04) == 0
        card.close()

    run(scenario())


def test_a_device_that_is_pulled_out_ends_the_reading() -> None:
    driver = Driver()

    async def scenario() -> None:
        card = SoundCard(driver)
        card.open()
        driver.streams["input"].options["callback"](bytes(640), 320, None, None)
        driver.streams["input"].options["finished_callback"]()
        assert len(await card.read()) == 320
        with pytest.raises(AudioError, match="is gone"):
            await card.read()
        card.close()

    run(scenario())


def test_a_held_up_loop_loses_the_oldest_sound_only() -> None:
    driver = Driver()

    async def scenario() -> None:
        card = SoundCard(driver)
        card.open()
        callback = driver.streams["input"].options["callback"]
        for number in range(300):
            callback(np.full(320, number, np.int16).tobytes(), 320, None, None)
        await until(lambda: card._blocks.qsize() == 250)
        assert (await card.read())[0] == 50
        card.close()

    run(scenario())


def test_an_hour_of_answers_is_not_kept() -> None:
    playout = CardPlayout()
    for number in range(60):
        playout.add(f"r{number}", np.zeros(24_000, np.int16), 60.0 * number)
        playout.take(48_000)
    assert len(playout.pieces) <= 4


def test_a_call_by_microphone_ends_with_its_table_when_the_device_is_pulled_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    driver = Driver(source=say(440, 640, silence_ms=2_560))
    monkeypatch.setitem(sys.modules, "sounddevice", driver)

    async def scenario() -> None:
        async with serving(tmp_path) as served:
            with pytest.raises(AudioError, match="is gone; plug it in"):
                await asyncio.to_thread(
                    talk,
                    url=served.ws,
                    question=None,
                    output=None,
                    silence_ms=None,
                    codec=None,
                    as_json=True,
                    sets=None,
                )

    run(scenario())
    assert all(stream.closed for stream in driver.streams.values())
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert found["answered"] == 1
    assert "is gone" in found["ended"]
    assert "you:   what time is it" in err
    assert "agent: It is noon." in err
