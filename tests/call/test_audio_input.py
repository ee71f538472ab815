"""The caller's audio on its way in: what is taken out of it, and that nothing else is lost."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from tests.support import RATE_HZ, model_set

from antiphon.call.audio_input import AudioInput
from antiphon.errors import ConfigError
from antiphon.models.ports import Pcm16

SECOND_MS = 1_000


def hiss(seconds: int) -> Pcm16:
    return np.random.default_rng(1).normal(0, 300, seconds * RATE_HZ).astype(np.int16)


def loudness(pcm: Pcm16) -> float:
    return float(np.sqrt(np.mean(pcm.astype(np.float64) ** 2)))


def test_noise_suppression_comes_and_goes_in_mid_call() -> None:
    async def scenario() -> None:
        models = model_set()
        await models.load()
        audio_input = AudioInput("call", models, 60_000, lambda *_: None, lambda: None)
        for level in (0, 2, 2, 0):
            audio_input.denoise(level)
            audio_input.feed(hiss(3), RATE_HZ)
        audio_input.flush()
        assert 0 <= audio_input.heard_ms - 12 * SECOND_MS < 100
        at = [
            loudness(audio_input.kept.slice(from_ms, from_ms + SECOND_MS))
            for from_ms in (1_000, 7_000)
        ]
        assert at[1] < at[0] / 3
        assert loudness(audio_input.kept.slice(10_500, 11_500)) == pytest.approx(at[0], rel=0.05)
        audio_input.close()
        await models.close()

    asyncio.run(scenario())


def test_without_the_filter_all_stays_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise ConfigError("not installed")

    monkeypatch.setattr("antiphon.audio.denoise._processor_class", missing)

    async def scenario() -> None:
        models = model_set()
        await models.load()
        audio_input = AudioInput("call", models, 60_000, lambda *_: None, lambda: None)
        for _ in range(2):
            with pytest.raises(ConfigError):
                audio_input.denoise(2)
        audio_input.feed(hiss(1), RATE_HZ)
        audio_input.close()
        await models.close()

    asyncio.run(scenario())
