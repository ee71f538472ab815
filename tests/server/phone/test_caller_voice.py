"""The caller's voice reaches the ear by the window of voice activity detection: never later, and none of it is lost."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from antiphon.audio import g711
from antiphon.audio.framing import Framer, Pcm16
from antiphon.server.phone.caller_voice import CallerVoice
from antiphon.wire.twilio import AudioFormat, Media

WINDOW = 256


class Ear:
    """The part of a session that a caller's voice meets."""

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


def voice_to(ear: Any) -> CallerVoice:
    return CallerVoice(ear, AudioFormat())


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
