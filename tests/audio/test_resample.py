from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.audio.framing import Pcm16
from antiphon.audio.resample import QUALITIES, Resampler, resample
from antiphon.errors import AudioError

PAIRS = [
    (8_000, 16_000),
    (16_000, 8_000),
    (22_050, 24_000),
    (22_050, 16_000),
    (24_000, 16_000),
    (22_050, 8_000),
    (24_000, 8_000),
    (48_000, 16_000),
    (16_000, 24_000),
    (44_100, 16_000),
    (44_101, 16_000),
]
NOISE = np.random.default_rng(7).integers(-20_000, 20_000, 24_000).astype(np.int16)


def tone(hz: float, rate_hz: int, seconds: float = 1.0, amplitude: int = 16_000) -> Pcm16:
    at = np.arange(round(rate_hz * seconds)) / rate_hz
    return np.rint(amplitude * np.sin(2 * np.pi * hz * at)).astype(np.int16)


def run(resampler: Resampler, pcm: Pcm16, sizes: list[int]) -> Pcm16:
    out, at = [], 0
    for size in sizes:
        out.append(resampler.process(pcm[at : at + size]))
        at += size
    return np.concatenate([*out, resampler.process(pcm[at:]), resampler.flush()])


def level_db(pcm: Pcm16) -> float:
    """RMS of the inner part, relative to a tone of amplitude 16000."""
    inner = pcm[400:-400].astype(float)
    return float(20 * np.log10(np.sqrt(np.mean(inner**2)) / (16_000 / np.sqrt(2)) + 1e-9))


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(PAIRS),
    st.sampled_from(["auto", "auto", "LQ", "QQ"]),
    st.integers(0, 5_000),
    st.lists(st.integers(0, 700), max_size=12),
)
def test_chunking_does_not_change_the_result(
    pair: tuple[int, int], quality: str, length: int, sizes: list[int]
) -> None:
    pcm = NOISE[:length]
    whole = run(Resampler(*pair, quality), pcm, [])
    cut = run(Resampler(*pair, quality), pcm, sizes)
    assert cut.tolist() == whole.tolist()
    assert abs(len(whole) - length * pair[1] / pair[0]) <= 1


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("quality", ["auto", "HQ"])
def test_a_tone_keeps_its_level_and_place(pair: tuple[int, int], quality: str) -> None:
    before = tone(1_000, pair[0])
    after = run(Resampler(*pair, quality), before, [100, 480, 7])
    expected = tone(1_000, pair[1]).astype(int)
    inner = slice(300, -300)
    difference = after[inner].astype(int) - expected[: len(after)][inner]
    assert np.abs(difference).max() < 40, "not shifted, not scaled"


@pytest.mark.parametrize("quality", ["auto", "LQ", "HQ"])
def test_what_cannot_be_told_at_8_khz_vanishes(quality: str) -> None:
    after = run(Resampler(24_000, 8_000, quality), tone(6_000, 24_000), [480] * 50)
    assert level_db(after) < -60


def test_qq_is_not_chosen_by_itself_because_it_aliases() -> None:
    assert level_db(run(Resampler(24_000, 8_000, "QQ"), tone(6_000, 24_000), [])) > -3


@pytest.mark.parametrize(("hz", "lowest_db"), [(300, -0.1), (3_400, -0.1)])
def test_the_telephone_band_passes(hz: int, lowest_db: float) -> None:
    assert level_db(run(Resampler(24_000, 8_000), tone(hz, 24_000), [])) > lowest_db


def test_images_are_removed_when_the_rate_rises() -> None:
    after = run(Resampler(8_000, 16_000), tone(3_000, 8_000), []).astype(float)
    spectrum = np.abs(np.fft.rfft(after * np.hanning(len(after))))
    image = spectrum[int(len(spectrum) * 4_600 / 8_000) :].max()
    assert 20 * np.log10(image / spectrum.max()) < -60


@pytest.mark.parametrize("pair", [p for p in PAIRS if p != (44_101, 16_000)])
def test_the_default_holds_back_under_3_ms_at_any_moment(pair: tuple[int, int]) -> None:
    resampler = Resampler(*pair)
    step = pair[0] // 200
    taken = given_out = 0
    worst_ms = 0.0
    while taken + step <= len(NOISE):
        given_out += len(resampler.process(NOISE[taken : taken + step]))
        taken += step
        worst_ms = max(worst_ms, 1000 * (taken / pair[0] - given_out / pair[1]))
    assert worst_ms <= resampler.delay_ms + 1000 / pair[1]
    assert resampler.delay_ms < 3


def test_delay_of_soxr_is_known() -> None:
    assert Resampler(24_000, 8_000, "QQ").delay_ms < 2
    assert 10 < Resampler(24_000, 8_000, "LQ").delay_ms < Resampler(24_000, 8_000, "VHQ").delay_ms


def test_equal_rates_pass_through() -> None:
    resampler = Resampler(16_000, 16_000)
    assert resampler.process(NOISE) is NOISE
    assert len(resampler.flush()) == 0
    assert resampler.delay_ms == 0
    assert resample(NOISE, 8_000, 8_000) is NOISE


@pytest.mark.parametrize("quality", ["auto", "LQ"])
def test_reset_and_flush_begin_anew(quality: str) -> None:
    resampler = Resampler(24_000, 8_000, quality)
    first = run(resampler, NOISE[:5_000], [])
    assert len(resampler.flush()) == 0
    assert run(resampler, NOISE[:5_000], []).tolist() == first.tolist()
    resampler.process(NOISE[:777])
    resampler.reset()
    assert run(resampler, NOISE[:5_000], []).tolist() == first.tolist()


def test_loud_audio_is_clipped_not_wrapped() -> None:
    square = np.where(np.arange(4_800) // 40 % 2, 32767, -32768).astype(np.int16)
    after = run(Resampler(16_000, 24_000), square, []).astype(int)
    assert np.abs(np.diff(after)).max() < 65_000
    assert after.max() == 32767


def test_one_shot_has_the_length_of_the_ratio() -> None:
    for length in (0, 1, 2, 100, 1_001):
        assert len(resample(NOISE[:length], 24_000, 8_000)) == pytest.approx(length / 3, abs=0.5)
    assert level_db(resample(tone(6_000, 24_000), 24_000, 8_000)) < -70


def test_bad_arguments_say_what_is_possible() -> None:
    with pytest.raises(AudioError, match="did you mean 'VHQ'"):
        Resampler(8_000, 16_000, "VHHQ")
    with pytest.raises(AudioError, match="rates are 1 or more"):
        Resampler(0, 16_000)
    with pytest.raises(AudioError, match="rates are 1 or more"):
        resample(NOISE, 8_000, 0)
    assert QUALITIES[0] == "auto"
