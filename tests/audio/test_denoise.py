"""The noise filter on a synthetic voice: less noise, the same speech, at the same place, however it is cut."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from antiphon.audio.denoise import Denoiser, check_available
from antiphon.audio.framing import Pcm16
from antiphon.errors import AudioError, ConfigError

RNG = np.random.default_rng(5)


def voice(rate_hz: int, seconds: float) -> Pcm16:
    """Half a second of a vowel, half a second of nothing: harmonics of 120 Hz under two formants, at 4 Hz."""
    t = np.arange(int(seconds * rate_hz)) / rate_hz
    pitch = 120 + 15 * np.sin(2 * np.pi * 1.3 * t)
    phase = 2 * np.pi * np.cumsum(pitch) / rate_hz
    sound = np.zeros(len(t))
    for number in range(1, 28):
        hz = 120 * number
        gain = np.exp(-(((hz - 600) / 250) ** 2)) + 0.6 * np.exp(-(((hz - 1500) / 350) ** 2))
        sound += (gain + 0.02) * np.sin(number * phase)
    sound *= (np.sin(2 * np.pi * 4 * t) + 1.2) * (t % 1.0 < 0.5)
    pcm: Pcm16 = (sound / np.abs(sound).max() * 12_000).astype(np.int16)
    return pcm


def noisy(clean: Pcm16, rms: float) -> Pcm16:
    mixed: Pcm16 = np.clip(clean + RNG.normal(0, rms, len(clean)), -32768, 32767).astype(np.int16)
    return mixed


def denoised(pcm: Pcm16, rate_hz: int, *, chunk: int = 320, level: int = 2) -> Pcm16:
    filter_ = Denoiser(rate_hz, level)
    pieces = [filter_.process(pcm[start : start + chunk]) for start in range(0, len(pcm), chunk)]
    return np.concatenate([*pieces, filter_.flush()])


def level_db(pcm: Pcm16) -> float:
    return float(10 * np.log10(np.mean(pcm.astype(np.float64) ** 2) + 1e-9))


@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 48_000])
def test_noise_falls_by_10_db_and_speech_stays(rate_hz: int) -> None:
    clean = voice(rate_hz, 6.0)
    heard = noisy(clean, 400)
    out = denoised(heard, rate_hz)
    assert len(out) == len(heard)
    t = np.arange(len(clean)) / rate_hz
    known = t > 2.0  # by then the filter knows the noise
    pause, speech = known & (t % 1.0 > 0.65), known & (t % 1.0 < 0.45)
    assert level_db(heard[pause]) - level_db(out[pause]) >= 10
    assert abs(level_db(out[speech]) - level_db(clean[speech])) < 1.5


@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 22_050])
def test_nothing_is_shifted(rate_hz: int) -> None:
    clean = voice(rate_hz, 3.0)
    out = denoised(clean, rate_hz).astype(np.float64)
    shifts = range(-rate_hz // 100, rate_hz // 100 + 1)
    middle = slice(rate_hz // 10, -rate_hz // 10)
    match = {
        by: float(np.dot(out[middle], np.roll(clean, by)[middle].astype(float))) for by in shifts
    }
    best = max(match, key=match.__getitem__)
    assert abs(best) * 1000 / rate_hz <= 0.5


@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 44_100])
def test_the_result_does_not_depend_on_the_cut_and_the_delay_is_kept(rate_hz: int) -> None:
    heard = noisy(voice(rate_hz, 1.0), 300)
    whole = denoised(heard, rate_hz, chunk=len(heard))
    filter_ = Denoiser(rate_hz)
    pieces, taken, given = [], 0, 0
    while taken < len(heard):
        piece = heard[taken : taken + int(RNG.integers(0, 700))]
        taken += len(piece)
        pieces.append(filter_.process(piece))
        given += len(pieces[-1])
        assert 0 <= (taken - given) * 1000 / rate_hz <= filter_.delay_ms
    np.testing.assert_array_equal(np.concatenate([*pieces, filter_.flush()]), whole)


def test_after_a_flush_another_stream_begins() -> None:
    heard = noisy(voice(16_000, 0.6), 300)
    filter_ = Denoiser()
    first = np.concatenate([filter_.process(heard), filter_.flush()])
    again = np.concatenate([filter_.process(heard), filter_.flush()])
    np.testing.assert_array_equal(first, again)
    assert len(filter_.flush()) == 0
    assert len(filter_.process(heard[:0])) == 0


def test_higher_levels_take_more() -> None:
    hiss = noisy(np.zeros(48_000, np.int16), 500)
    levels = [level_db(denoised(hiss, 16_000, level=level)[32_000:]) for level in (1, 2, 3, 4)]
    assert levels == sorted(levels, reverse=True)


def test_silence_stays_silent() -> None:
    assert not denoised(np.zeros(8_000, np.int16), 16_000).any()


def test_wrong_arguments() -> None:
    with pytest.raises(ConfigError, match="must be 1, 2, 3 or 4, got 5"):
        Denoiser(level=5)
    with pytest.raises(AudioError, match="0 Hz"):
        Denoiser(0)


def test_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    check_available()
    monkeypatch.setitem(sys.modules, "webrtc_noise_gain", None)
    with pytest.raises(ConfigError, match=r"pip install 'antiphon\[denoise\]'") as refused:
        check_available()
    assert "\n" not in str(refused.value)
