"""The weights in reach, and a voice to ask with. Run by `make test-backends`, not by `make test`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from antiphon.audio.resample import resample
from antiphon.models.ports import Pcm16, SpeechRequest
from antiphon.models.store import WeightStore
from antiphon.models.tts.piper import Piper


@pytest.fixture(scope="session")
def weights() -> WeightStore:
    return WeightStore()


@pytest.fixture(scope="session")
def speak(weights: WeightStore) -> Callable[[str, int], Pcm16]:
    """Text and a sample rate -> speech, the same in every run."""
    voice = Piper(weights, noise_scale=0.0, noise_w=0.0)
    voice.load()

    def spoken(text: str, rate_hz: int) -> Pcm16:
        audio = np.concatenate(list(voice.synthesize(SpeechRequest(text))))
        return resample(audio, voice.sample_rate_hz, rate_hz)

    return spoken
