"""faster-whisper on Whisper tiny and base, and what it says when something is missing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from antiphon.errors import ModelError
from antiphon.models.ports import Kind, Pcm16
from antiphon.models.registry import Registry
from antiphon.models.store import WeightStore
from antiphon.models.stt.faster_whisper import FasterWhisper
from antiphon.testing.contracts import check_stt

SENTENCE = "The train to the airport leaves at seven in the morning."


@pytest.mark.parametrize("model", ["whisper-tiny-en", "whisper-base"])
def test_contract_on_speech(
    model: str, weights: WeightStore, speak: Callable[[str, int], Pcm16]
) -> None:
    whisper = FasterWhisper(weights, model=model)
    whisper.load()
    check_stt(whisper, speech=speak(SENTENCE, 16_000), words=["train", "airport", "morning"])
    assert "en" in whisper.info.languages
    assert ("de" in whisper.info.languages) == (model == "whisper-base")
    whisper.close()


def test_the_language_is_detected_and_long_audio_heard_whole(
    weights: WeightStore, speak: Callable[[str, int], Pcm16]
) -> None:
    whisper = FasterWhisper(weights, model="whisper-tiny-en")
    whisper.load()
    pause = np.zeros(8_000, np.int16)
    long = np.concatenate([part for _ in range(12) for part in (speak(SENTENCE, 16_000), pause)])
    heard = whisper.transcribe(long)
    assert heard.language == "en"
    assert heard.text.lower().count("airport") >= 10, heard.text


def test_partials_are_told_by_the_model(weights: WeightStore) -> None:
    whisper = FasterWhisper(weights, model="whisper-tiny-en")
    whisper.load()
    assert whisper.info.partials


def test_a_device_that_is_not_there(weights: WeightStore) -> None:
    with pytest.raises(ModelError, match="device"):
        FasterWhisper(weights, model="whisper-tiny-en", device="mps").load()


def test_a_folder_that_holds_no_model(weights: WeightStore, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot open"):
        FasterWhisper(weights, model=str(tmp_path)).load()


def test_by_its_name_in_the_registry(weights: WeightStore) -> None:
    model = Registry().create(Kind.STT, "faster-whisper:whisper-tiny-en", weights)
    assert "whisper-tiny-en" in model.info.detail
