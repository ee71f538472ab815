"""Tones of keys: what is made is recognised, through mu-law and noise; speech is not."""

from __future__ import annotations

import numpy as np
import pytest

from antiphon.audio import g711
from antiphon.audio.dtmf import DtmfDetector, tones
from antiphon.audio.framing import Pcm16
from antiphon.errors import AudioError

KEYS = "0123456789*#ABCD55"


@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 24_000])
@pytest.mark.parametrize("piece", [160, 163, 100_000])
def test_every_key(rate_hz: int, piece: int) -> None:
    pcm = tones(KEYS, rate_hz)
    assert len(pcm) == len(KEYS) * rate_hz // 5
    detector = DtmfDetector(rate_hz)
    found = [detector.feed(pcm[at : at + piece]) for at in range(0, len(pcm), piece)]
    assert "".join(found) == KEYS


def test_through_a_telephone_with_noise() -> None:
    pcm = tones(KEYS, 8_000, level=0.15)
    noise = np.random.default_rng(3).normal(0, 500, len(pcm))
    noisy: Pcm16 = (pcm + noise).astype(np.int16)
    assert DtmfDetector(8_000).feed(g711.decode_ulaw(g711.encode_ulaw(noisy))) == KEYS


def test_a_pause_is_silent_and_nothing_clips() -> None:
    pcm = tones("1,2", 8_000)
    assert len(pcm) == 8_000 * (200 + 500 + 200) // 1000
    assert not pcm[8_000 * 130 // 1000 : 8_000 * 690 // 1000].any()
    assert np.abs(pcm.astype(int)).max() < 32_000
    assert not len(tones("", 8_000))


def test_what_is_no_key() -> None:
    detector = DtmfDetector(8_000)
    times_s = np.arange(16_000) / 8_000
    rng = np.random.default_rng(5)
    others = [
        np.zeros(16_000),
        np.sin(2 * np.pi * 697 * times_s) * 9_000,  # half a key
        sum(np.sin(2 * np.pi * 130 * n * times_s) * 12_000 / n for n in range(1, 20)),  # a vowel
        rng.normal(0, 5_000, 16_000),
        (np.sin(2 * np.pi * 440 * times_s) + np.sin(2 * np.pi * 350 * times_s))
        * 8_000,  # dial tone
    ]
    for wave in others:
        assert detector.feed(np.asarray(wave).astype(np.int16)) == ""


def test_a_click_is_no_key() -> None:
    assert DtmfDetector(8_000).feed(tones("5", 8_000, tone_ms=20, gap_ms=100)) == ""


def test_mistakes() -> None:
    with pytest.raises(AudioError, match="'X' is no key"):
        tones("1x", 8_000)
    with pytest.raises(AudioError, match="4000 Hz"):
        DtmfDetector(2_000)
