"""The default weights and a voice, for the tests that are marked `weights`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import soxr

from antiphon.models.ports import Pcm16, SpeechRequest
from antiphon.models.store import WeightStore
from antiphon.models.tts.piper import Piper


@pytest.fixture(scope="session")
def weights() -> WeightStore:
    return WeightStore()


@pytest.fixture(scope="session")
def voice(weights: WeightStore) -> Piper:
    """Without variation of sound and rhythm, so that every run of a test hears the same."""
    model = Piper(weights, noise_scale=0.0, noise_w=0.0)
    model.load()
    return model


@pytest.fixture(scope="session")
def speak(voice: Piper) -> Callable[[str, int], Pcm16]:
    """Text and a sample rate -> speech."""

    def spoken(text: str, rate_hz: int) -> Pcm16:
        audio = np.concatenate(list(voice.synthesize(SpeechRequest(text))))
        resampled = soxr.resample(audio.astype(np.float32), voice.sample_rate_hz, rate_hz)
        return np.clip(np.rint(resampled), -32768, 32767).astype(np.int16)

    return spoken
