"""The caller's audio on its way in: what is taken out of it, and that nothing else is lost."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from tests.support import RATE_HZ, model_set

from antiphon.errors import ConfigError
from antiphon.models.ports import Pcm16
from antiphon.session.ear import Ear

SECOND_MS = 1_000


def hiss(seconds: int) -> Pcm16:
    return np.random.default_rng(1).normal(0, 300, seconds * RATE_HZ).astype(np.int16)


def loudness(pcm: Pcm16) -> float:
    return float(np.sqrt(np.mean(pcm.astype(np.float64) ** 2)))


def test_noise_suppression_comes_and_goes_in_mid_call() -> None:
    async def scenario() -> None:
        models = model_set()
        await models.load()
        ear = Ear("call", models, 60_000, lambda *_: None, lambda: None)
        for level in (0, 2, 2, 0):
            ear.denoise(level)
            ear.feed(hiss(3), RATE_HZ)
        ear.flush()
        assert 0 <= ear.heard_ms - 12 * SECOND_MS < 100
        at = [loudness(ear.kept.slice(from_ms, from_ms + SECOND_MS)) for from_ms in (1_000, 7_000)]
        assert at[1] < at[0] / 3
        assert loudness(ear.kept.slice(10_500, 11_500)) == pytest.approx(at[0], rel=0.05)
        ear.close()
        await models.close()

    asyncio.run(scenario())


def test_without_the_filter_all_stays_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise ConfigError("not installed")

    monkeypatch.setattr("antiphon.audio.denoise._processor_class", missing)

    async def scenario() -> None:
        models = model_set()
        await models.load()
        ear = Ear("call", models, 60_000, lambda *_: None, lambda: None)
        for _ in range(2):
            with pytest.raises(ConfigError):
                ear.denoise(2)
        ear.feed(hiss(1), RATE_HZ)
        ear.close()
        await models.close()

    asyncio.run(scenario())
