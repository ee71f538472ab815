"""The agent's voice is known again by its waveform; other voices, and silence, are not taken for it."""

from __future__ import annotations

import numpy as np
import pytest

from antiphon.audio import g711
from antiphon.audio.echo import is_echo
from antiphon.models.ports import Pcm16

RATE_HZ = 8_000


def voice(seed: int, seconds: float = 3.0, rate_hz: int = RATE_HZ) -> Pcm16:
    """Noise through two resonances that wander, in syllables: as little like itself elsewhere as speech is."""
    rng = np.random.default_rng(seed)
    count = int(seconds * rate_hz)
    t = np.arange(count) / rate_hz
    glide = (
        150
        + 40 * np.sin(2 * np.pi * 0.7 * t + seed)
        + 10 * rng.standard_normal(count).cumsum() / 60
    )
    phase = 2 * np.pi * np.cumsum(glide) / rate_hz
    tones = sum(np.sin(n * phase + rng.uniform(0, 6)) / n for n in range(1, 12))
    syllables = np.clip(np.sin(2 * np.pi * 3.1 * t + seed), 0, 1)
    noise = rng.standard_normal(count) * 0.2
    return ((tones + noise) * syllables * 4_000).clip(-32_768, 32_767).astype(np.int16)


def came_back(sent: Pcm16, gain: float, ms: tuple[int, int]) -> Pcm16:
    """A stretch of it, through a telephone, with some noise."""
    rng = np.random.default_rng(9)
    piece = sent[ms[0] * 8 : ms[1] * 8] * gain + rng.normal(0, 8, (ms[1] - ms[0]) * 8)
    return g711.decode_ulaw(g711.encode_ulaw(piece.astype(np.int16)))


@pytest.mark.parametrize("gain", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("ms", [(100, 500), (1_200, 2_400), (2_500, 2_900)])
def test_the_agents_own_voice_is_known(gain: float, ms: tuple[int, int]) -> None:
    sent = voice(1)
    assert is_echo(came_back(sent, gain, ms), RATE_HZ, sent, RATE_HZ)


def test_it_is_known_at_other_rates_and_after_silence() -> None:
    sent = voice(2, rate_hz=24_000)
    heard = np.concatenate([np.zeros(8_000, np.int16), sent[24_000:48_000:3] // 8])
    assert is_echo(np.repeat(heard, 2), 16_000, sent, 24_000)


@pytest.mark.parametrize("seed", range(3, 9))
def test_another_voice_is_not(seed: int) -> None:
    assert not is_echo(voice(seed, 0.6), RATE_HZ, voice(1), RATE_HZ)


def test_a_caller_over_the_echo_is_heard() -> None:
    sent = voice(1)
    both = came_back(sent, 0.1, (500, 1_300)) + voice(5, 0.8)
    assert not is_echo(both, RATE_HZ, sent, RATE_HZ)


@pytest.mark.parametrize(
    ("heard", "sent"),
    [
        (np.zeros(4_000, np.int16), voice(1)),
        (voice(1), np.zeros(24_000, np.int16)),
        (voice(1, 0.05), voice(1)),
        (voice(1), voice(1, 0.2)),
        (np.empty(0, np.int16), np.empty(0, np.int16)),
    ],
)
def test_what_can_say_nothing_says_no(heard: Pcm16, sent: Pcm16) -> None:
    assert not is_echo(heard, RATE_HZ, sent, RATE_HZ)
