from __future__ import annotations

import numpy as np
import pytest

from antiphon.audio import g711, levels
from antiphon.audio.framing import Pcm16
from antiphon.audio.levels import LevelBand
from antiphon.audio.resample import resample

RATE_HZ = 16_000
RNG = np.random.default_rng(3)


def voice(seconds: float, rate_hz: int = RATE_HZ, level: float = 6_000) -> Pcm16:
    """Something with the shape of voiced speech: harmonics of 120 Hz, four syllables a second."""
    at = np.arange(round(seconds * rate_hz)) / rate_hz
    harmonics = sum(np.sin(2 * np.pi * 120 * n * at + n) / n for n in range(1, 12))
    syllables = 0.3 + 0.7 * np.abs(np.sin(2 * np.pi * 2 * at))
    return np.rint(level * harmonics * syllables).astype(np.int16)


def noise(seconds: float, level: float) -> Pcm16:
    return (RNG.standard_normal(round(seconds * RATE_HZ)) * level).astype(np.int16)


def within(speech: Pcm16, room: float) -> Pcm16:
    """One second of room, the speech, one and a half seconds of room."""
    padded = np.concatenate([np.zeros(RATE_HZ, np.int16), speech, np.zeros(24_000, np.int16)])
    return padded + noise(len(padded) / RATE_HZ, room) if room else padded


def test_rms_peak_and_dbfs() -> None:
    square = np.array([1000, -1000] * 50, np.int16)
    assert levels.rms(square) == pytest.approx(1000)
    assert levels.peak(np.array([3, -32768], np.int16)) == 32768
    assert levels.dbfs(32768) == 0
    assert levels.dbfs(3276.8) == pytest.approx(-20)
    assert levels.dbfs(0) == float("-inf")
    assert (
        levels.rms(square[:0]) == levels.peak(square[:0]) == levels.clipped_share(square[:0]) == 0
    )


@pytest.mark.parametrize(
    ("level", "band"),
    [
        (0, LevelBand.SILENCE),
        (9.9, LevelBand.SILENCE),
        (10, LevelBand.QUIET),
        (1000, LevelBand.NORMAL),
        (8000, LevelBand.NORMAL),
        (8001, LevelBand.LOUD),
        (30001, LevelBand.NOISE),
    ],
)
def test_bands(level: float, band: LevelBand) -> None:
    assert levels.band_of(level) == band


def test_measure_of_a_clipped_recording() -> None:
    found = levels.measure(np.array([32767, -32768] * 100, np.int16))
    assert found.clipped_share == 1
    assert found.band == LevelBand.NOISE
    assert found.dbfs == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("room", [0, 5, 30, 150])
@pytest.mark.parametrize("level", [1_500, 6_000])
def test_speech_is_found_to_10_ms_in_any_room(room: float, level: float) -> None:
    pcm = within(voice(1.5, level=level), room)
    start, end = levels.speech_bounds(pcm, RATE_HZ) or (0, 0)
    assert abs(start - 16_000) <= 160
    assert abs(end - 40_000) <= 160
    assert levels.speech_start_sample(pcm, RATE_HZ) == start
    assert levels.speech_end_sample(pcm, RATE_HZ) == end


def test_clicks_far_from_speech_do_not_count() -> None:
    pcm = within(voice(1.5), 20)
    pcm[1_000:1_016] = 25_000
    pcm[-4_000:-3_900] = -25_000
    start, end = levels.speech_bounds(pcm, RATE_HZ) or (0, 0)
    assert abs(start - 16_000) <= 160
    assert abs(end - 40_000) <= 160


def test_the_room_of_a_padded_clip_is_not_speech() -> None:
    clip = np.concatenate([noise(0.3, 60), voice(1.0), noise(0.4, 60)])
    pcm = within(clip, 0)
    start, end = levels.speech_bounds(pcm, RATE_HZ) or (0, 0)
    assert abs(start - 20_800) <= 160
    assert abs(end - 36_800) <= 160


def test_a_recording_without_pauses_is_speech_from_end_to_end() -> None:
    start, end = levels.speech_bounds(voice(2.0), RATE_HZ) or (0, 0)
    assert start < 800
    assert end > 31_000


@pytest.mark.parametrize(
    "pcm",
    [
        np.zeros(0, np.int16),
        np.zeros(1, np.int16),
        np.zeros(16_000, np.int16),
        noise(1.0, 3),
        noise(2.0, 800),
    ],
    ids=["none", "one sample", "silence", "hiss", "steady noise"],
)
def test_no_speech(pcm: Pcm16) -> None:
    assert levels.speech_bounds(pcm, RATE_HZ) is None
    assert levels.speech_end_sample(pcm, RATE_HZ) is None
    assert len(levels.trim_silence(pcm, RATE_HZ)) == 0


def test_trim_keeps_a_margin() -> None:
    trimmed = levels.trim_silence(within(voice(1.0), 0), RATE_HZ, keep_ms=100)
    assert len(trimmed) == pytest.approx(16_000 + 3_200, abs=320)


SPEECH_8K = voice(1.0, 8_000)
ENCODED = {
    "pcm_s16le": SPEECH_8K.astype("<i2").tobytes(),
    "pcm_s16be": SPEECH_8K.astype(">i2").tobytes(),
    "mulaw": g711.encode_ulaw(SPEECH_8K),
    "alaw": g711.encode_alaw(SPEECH_8K),
}


@pytest.mark.parametrize("actual", ENCODED)
@pytest.mark.parametrize("declared", ENCODED)
def test_the_wrong_encoding_is_noticed(actual: str, declared: str) -> None:
    hint = levels.looks_like_wrong_encoding(ENCODED[actual], declared)
    if actual == declared:
        assert hint == ""
    elif {actual, declared} != {"mulaw", "alaw"}:  # those two are alike: named only when clear
        assert hint == actual


def test_silence_in_the_wrong_encoding() -> None:
    assert levels.looks_like_wrong_encoding(bytes(3_200), "mulaw") == "pcm_s16le"
    assert levels.looks_like_wrong_encoding(b"\xff" * 3_200, "pcm_s16le") == "mulaw"
    assert levels.looks_like_wrong_encoding(bytes(3_200), "pcm_s16le") == ""
    assert levels.looks_like_wrong_encoding(b"\xff" * 3_200, "mulaw") == ""


def test_too_little_noise_and_unknown_names_give_no_hint() -> None:
    assert levels.looks_like_wrong_encoding(ENCODED["mulaw"][:1_000], "pcm_s16le") == ""
    assert levels.looks_like_wrong_encoding(ENCODED["mulaw"], "opus") == ""
    hiss = noise(1.0, 3_000)
    assert levels.looks_like_wrong_encoding(hiss.tobytes(), "pcm_s16le") == ""
    assert levels.looks_like_wrong_encoding(g711.encode_ulaw(hiss), "mulaw") == ""
    wide = resample(SPEECH_8K, 8_000, 16_000)
    assert levels.looks_like_wrong_encoding(wide.tobytes(), "pcm_s16le") == ""


def test_a_hiss_in_mu_law_is_not_taken_for_another_encoding() -> None:
    hiss = np.random.default_rng(5).normal(0, 900, 8_000).astype(np.int16)
    assert levels.looks_like_wrong_encoding(g711.encode_ulaw(hiss), "mulaw") == ""
    assert levels.looks_like_wrong_encoding(g711.encode_alaw(hiss), "alaw") == ""
