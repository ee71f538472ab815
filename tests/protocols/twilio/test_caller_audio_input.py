"""The caller's voice reaches the ear by the window of voice activity detection: never later, and none of it is lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from antiphon.audio import g711
from antiphon.audio.framing import Framer, Pcm16
from antiphon.protocols.twilio.codec import AudioFormat, Media
from antiphon.protocols.twilio.reorder_buffer import CallerAudioInput
from antiphon.server.budget import WorkBudget

WINDOW = 256


class Ear:
    """The part of a call that a caller's voice meets."""

    def __init__(self) -> None:
        self.framer = Framer(WINDOW)
        self.windows = 0
        self.heard: list[Pcm16] = []

    @property
    def heard_ms(self) -> int:
        return self.windows * WINDOW // 8

    def wanted_audio(self, rate_hz: int) -> int:
        return self.framer.missing

    def feed_audio(self, pcm: Pcm16, rate_hz: int) -> None:
        self.heard.append(pcm)
        self.windows += len(self.framer.feed(pcm))

    def flush_audio(self) -> None:
        pass


def voice_to(ear: Any, clock: Callable[[], float] = lambda: 0.0) -> CallerAudioInput:
    return CallerAudioInput(ear, AudioFormat(), WorkBudget(clock=clock))


def piece(number: int, size: int = 160, at_ms: int | None = None) -> Media:
    codes = bytes((number * 7 + i) % 256 for i in range(size))
    return Media(codes, number, (number - 1) * size // 8 if at_ms is None else at_ms)


@pytest.mark.parametrize("size", [80, 160, 256, 800])
def test_no_window_is_held_back(size: int) -> None:
    ear = Ear()
    voice = voice_to(ear)
    for number in range(1, 60):
        voice.take(piece(number, size))
        assert ear.windows == number * size // WINDOW
    assert len(ear.heard) <= 59
    voice.end()
    sent = b"".join(piece(number, size).payload for number in range(1, 60))
    np.testing.assert_array_equal(np.concatenate(ear.heard), g711.decode_ulaw(sent))


def test_a_gap_comes_after_what_waits() -> None:
    ear = Ear()
    voice = voice_to(ear)
    for number, at_ms in ((1, 0), (2, 20), (3, 240)):
        voice.take(piece(number, at_ms=at_ms))
    voice.end()
    heard = np.concatenate(ear.heard)
    np.testing.assert_array_equal(
        heard[:320], g711.decode_ulaw(piece(1).payload + piece(2).payload)
    )
    assert not heard[320:-160].any()
    np.testing.assert_array_equal(heard[-160:], g711.decode_ulaw(piece(3).payload))


HOUR_MS = 3_600_000
JUMPS: dict[str, Callable[[int], int]] = {
    "forward by hours": lambda number: number * 5 * HOUR_MS,
    "forward by seconds": lambda number: number * 8_000,
    "there and back": lambda number: number % 2 * HOUR_MS,
    "backward": lambda number: 10**15 - number * HOUR_MS,
    "the last one there is": lambda number: 10**18 - 1 - number % 3 * HOUR_MS,
}


@pytest.mark.parametrize("jump", JUMPS)
def test_silence_for_gaps_never_outruns_the_clock(jump: str) -> None:
    """Three minutes of a call whose every timestamp jumps: ten seconds at once, then as much as has passed."""
    ear, now_s = Ear(), 0.0
    voice = voice_to(ear, lambda: now_s)
    for number in range(1, 9_001):
        now_s = number * 0.02
        voice.take(piece(number, at_ms=JUMPS[jump](number)))
        assert voice.filled_ms <= 10_000 + 1000 * now_s + 1
    assert ear.windows <= (9_000 * 160 + (10_001 + 180_000) * 8) // WINDOW


def test_a_long_silence_is_filled_when_it_has_passed() -> None:
    """As phone companies do it: nothing while the caller is silent, 8 s at a time, for minutes."""
    ear, now_s = Ear(), 0.0
    voice = voice_to(ear, lambda: now_s)
    for number in range(20):
        now_s = number * 8.0
        voice.take(piece(number + 1, at_ms=number * 8_000))
    assert voice.filled_ms == 19 * (8_000 - 20)


@pytest.mark.parametrize("number", [None, 0, 10**18, 10**17])
def test_numbers_of_frames_fill_nothing(number: int | None) -> None:
    ear = Ear()
    voice = voice_to(ear)
    for at in range(100):
        voice.take(Media(bytes(160), None if number is None else number * (at % 2)))
    voice.end()
    assert voice.filled_ms == 0
    assert ear.windows <= 100 * 160 // WINDOW
