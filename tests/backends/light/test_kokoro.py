"""Kokoro on its int8 weights: understood when it speaks, and clear when a voice is missing."""

from __future__ import annotations

import numpy as np
import pytest

from antiphon.audio.resample import resample
from antiphon.errors import RequestError
from antiphon.models.ports import SpeechRequest
from antiphon.models.store import WeightStore
from antiphon.models.stt.moonshine import Moonshine
from antiphon.models.tts.kokoro import Kokoro
from antiphon.testing.contracts import check_tts


@pytest.fixture(scope="module")
def kokoro(weights: WeightStore) -> Kokoro:
    model = Kokoro(weights)
    model.load()
    return model


def test_contract(kokoro: Kokoro) -> None:
    check_tts(kokoro)


@pytest.mark.parametrize("voice", ["af_heart", "am_michael", "bf_emma"])
def test_it_is_understood(kokoro: Kokoro, weights: WeightStore, voice: str) -> None:
    ear = Moonshine(weights)
    ear.load()
    said = SpeechRequest("The train to the airport leaves at seven in the morning.", voice)
    audio = resample(np.concatenate(list(kokoro.synthesize(said))), 24_000, 16_000)
    heard = ear.transcribe(audio).text.lower()
    assert "train to the airport" in heard, heard
    assert "morning" in heard, heard


def test_a_voice_that_is_not_there(kokoro: Kokoro) -> None:
    with pytest.raises(RequestError, match="did you mean 'af_heart'"):
        list(kokoro.synthesize(SpeechRequest("Hello.", "af_hart")))


def test_a_text_longer_than_the_context(kokoro: Kokoro) -> None:
    text = "and then we went on " * 40
    audio = np.concatenate(list(kokoro.synthesize(SpeechRequest(text))))
    assert audio.size / 24_000 > 30
