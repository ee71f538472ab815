"""espeak-ng, the real program: every language it has, and clear words when it is missing."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from antiphon.audio.resample import resample
from antiphon.errors import ModelError
from antiphon.models.ports import SpeechRequest
from antiphon.models.store import WeightStore
from antiphon.models.stt.moonshine import Moonshine
from antiphon.models.tts.espeak import Espeak
from antiphon.testing.contracts import check_tts

there = pytest.mark.skipif(not shutil.which("espeak-ng"), reason="espeak-ng is not installed")


@pytest.fixture(scope="module")
def espeak() -> Espeak:
    model = Espeak()
    model.load()
    return model


@there
def test_contract(espeak: Espeak) -> None:
    check_tts(espeak)
    assert {"en", "de", "fr", "hi"} <= set(espeak.info.languages)


@there
def test_it_is_understood(espeak: Espeak, weights: WeightStore) -> None:
    ear = Moonshine(weights)
    ear.load()
    said = SpeechRequest("The train to the airport leaves at seven in the morning.")
    audio = np.concatenate(list(espeak.synthesize(said)))
    heard = ear.transcribe(resample(audio, espeak.sample_rate_hz, 16_000)).text.lower()
    assert "airport" in heard, heard


@there
@pytest.mark.parametrize("language", ["de", "fr", "hi"])
def test_languages(espeak: Espeak, language: str) -> None:
    audio = np.concatenate(list(espeak.synthesize(SpeechRequest("1 2 3", language=language))))
    assert audio.size > espeak.sample_rate_hz // 4


@there
def test_text_is_never_taken_for_an_option(espeak: Espeak) -> None:
    assert list(espeak.synthesize(SpeechRequest("--help me; $(reboot)")))


@there
def test_a_voice_that_is_not_there(espeak: Espeak) -> None:
    with pytest.raises(ModelError, match="espeak-ng failed"):
        list(espeak.synthesize(SpeechRequest("Hello.", "xx-nowhere")))


def test_without_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ModelError, match="apt-get install espeak-ng"):
        Espeak().load()
