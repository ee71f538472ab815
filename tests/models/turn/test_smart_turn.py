"""The log-mel spectrogram against its definition, and Smart Turn on the default weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from antiphon.errors import ModelError
from antiphon.models.ports import Pcm16
from antiphon.models.store import WeightStore
from antiphon.models.turn.smart_turn import SmartTurn, features, log_mel
from antiphon.testing.contracts import check_turn

Speak = Callable[[str, int], Pcm16]
SENTENCES = (
    "I would like to book a table for four people tomorrow.",
    "I have been waiting for my package since last Monday.",
    "Could you please repeat the last part of the address?",
    "There is a small coffee shop next to the station.",
    "She told me that the meeting was moved to Friday.",
    "Turn off the lights in the kitchen and lock the door.",
    "I want to cancel my subscription at the end of the month.",
    "My brother wants to learn how to play the guitar.",
)


def mel_of_hz(hz: float) -> float:
    return hz / (200 / 3) if hz < 1000 else 15 + math.log(hz / 1000) * 27 / math.log(6.4)


def hz_of_mel(mel: float) -> float:
    return mel * 200 / 3 if mel < 15 else 1000 * math.exp((mel - 15) * math.log(6.4) / 27)


def log_mel_by_definition(audio: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Frame by frame, filter by filter, in double precision, with a plain Fourier sum."""
    n = np.arange(400)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * n / 400)
    fourier = np.exp(-2j * np.pi * np.outer(n, np.arange(201)) / 400)
    padded = np.concatenate([audio[200:0:-1], audio, audio[-2:-202:-1]])
    edges = [hz_of_mel(mel_of_hz(8000) * i / 81) for i in range(82)]
    mel = np.zeros((80, audio.size // 160))
    for frame in range(mel.shape[1]):
        power = np.abs((padded[frame * 160 : frame * 160 + 400] * window) @ fourier) ** 2
        for band in range(80):
            low, middle, high = edges[band : band + 3]
            for k in range(201):
                hz = k * 40.0
                weight = min((hz - low) / (middle - low), (high - hz) / (high - middle))
                mel[band, frame] += max(0.0, weight) * 2 / (high - low) * power[k]
    log = np.log10(np.maximum(mel, 1e-10))
    return (np.maximum(log, log.max() - 8) + 4) / 4


@pytest.mark.parametrize("samples", [201, 1_600, 4_321])
def test_log_mel_is_what_whisper_defines(samples: int) -> None:
    rng = np.random.default_rng(samples)
    tone = np.sin(np.arange(samples) * 0.2) * np.linspace(0, 1, samples)
    audio = tone + rng.normal(0, 0.01, samples)
    measured = log_mel(audio.astype(np.float32))
    assert measured.dtype == np.float32
    np.testing.assert_allclose(measured, log_mel_by_definition(audio), atol=2e-4)


def test_log_mel_of_too_little() -> None:
    with pytest.raises(ValueError, match="more than 200 samples"):
        log_mel(np.zeros(200, np.float32))


def test_features_do_not_depend_on_loudness() -> None:
    speech = np.random.default_rng(0).normal(0, 4_000, 32_000)
    loud, quiet = speech.astype(np.int16), (speech / 16).astype(np.int16)
    np.testing.assert_allclose(features(loud), features(quiet), atol=0.05)


def test_features_are_of_the_last_eight_seconds() -> None:
    audio = np.random.default_rng(0).normal(0, 1_000, 200_000).astype(np.int16)
    assert features(audio).shape == (80, 800)
    np.testing.assert_array_equal(features(audio), features(audio[-128_000:]))
    short = features(audio[:16_000])
    assert short[:, :690].max() < short[:, 700:].min() + 0.5  # the zeros stand in front


class Folder:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def files(self, name: str) -> dict[str, Path]:
        return {path.name: path for path in self._folder.iterdir()}


@pytest.fixture(scope="module")
def turn(weights: WeightStore) -> SmartTurn:
    model = SmartTurn(weights)
    model.load()
    return model


@pytest.mark.weights
def test_it_keeps_the_contract(turn: SmartTurn) -> None:
    check_turn(turn)


@pytest.mark.weights
def test_whole_sentences_sound_more_finished_than_cut_ones(turn: SmartTurn, speak: Speak) -> None:
    pause = np.zeros(3_200, np.int16)
    whole, cut = [], []
    for sentence in SENTENCES:
        speech = speak(sentence, 16_000)
        whole.append(turn.predict(np.concatenate([speech, pause])))
        for part in (0.4, 0.55, 0.7):
            cut.append(turn.predict(np.concatenate([speech[: int(speech.size * part)], pause])))
    assert sum(score > 0.5 for score in whole) >= len(whole) - 1
    ranked = np.mean([w > c for w in whole for c in cut])
    assert ranked > 0.75


@pytest.mark.weights
def test_nothing_heard_is_not_a_finished_turn(turn: SmartTurn) -> None:
    assert turn.predict(np.zeros(0, np.int16)) == 0.0


def test_a_damaged_file(tmp_path: Path) -> None:
    (tmp_path / "smart-turn-v3.2-cpu.onnx").write_bytes(b"not a model")
    with pytest.raises(ModelError, match="cannot read smart-turn") as failure:
        SmartTurn(Folder(tmp_path)).load()
    assert "\n" not in str(failure.value)


def test_it_must_be_loaded_before_it_is_asked(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="not loaded"):
        SmartTurn(Folder(tmp_path)).predict(np.zeros(16_000, np.int16))
