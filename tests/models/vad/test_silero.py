"""Silero on the default weights, and what it says about wrong input."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from antiphon.errors import ModelError
from antiphon.models.ports import Pcm16
from antiphon.models.store import WeightStore
from antiphon.models.vad.silero import Silero
from antiphon.testing.contracts import check_vad

Speak = Callable[[str, int], Pcm16]
SENTENCE = "Good morning, I would like to book a table for two."


class Folder:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def files(self, name: str) -> dict[str, Path]:
        return {path.name: path for path in self._folder.iterdir()}


@pytest.fixture(scope="module")
def vad(weights: WeightStore) -> Silero:
    model = Silero(weights)
    model.load()
    return model


def probabilities(vad: Silero, audio: Pcm16, rate_hz: int) -> list[float]:
    size = vad.window_samples(rate_hz)
    state = vad.new_state(rate_hz)
    starts = range(0, audio.size - size + 1, size)
    return [vad.score([audio[start : start + size]], [state])[0] for start in starts]


@pytest.mark.weights
@pytest.mark.parametrize("rate_hz", [8_000, 16_000])
def test_it_keeps_the_contract_and_finds_speech(vad: Silero, speak: Speak, rate_hz: int) -> None:
    check_vad(vad, speech=speak(SENTENCE, rate_hz), speech_rate_hz=rate_hz)


@pytest.mark.weights
@pytest.mark.parametrize("rate_hz", [8_000, 16_000])
def test_speech_stands_out_from_the_silence_around_it(
    vad: Silero, speak: Speak, rate_hz: int
) -> None:
    silence = np.zeros(rate_hz, np.int16)
    scores = probabilities(
        vad, np.concatenate([silence, speak(SENTENCE, rate_hz), silence]), rate_hz
    )
    windows_per_s = rate_hz // vad.window_samples(rate_hz)
    assert max(scores[: windows_per_s - 1]) < 0.2
    assert max(scores) > 0.95
    assert max(scores[-windows_per_s // 2 :]) < 0.2


@pytest.mark.weights
def test_a_batch_of_calls_scores_as_each_call_alone(vad: Silero, speak: Speak) -> None:
    speech = speak(SENTENCE, 8_000)
    size = vad.window_samples(8_000)
    calls = [speech[offset : offset + size * 20] for offset in range(0, 16 * 100, 100)]
    alone = [probabilities(vad, call, 8_000) for call in calls]
    states = [vad.new_state(8_000) for _ in calls]
    for step in range(20):
        windows = [call[step * size : (step + 1) * size] for call in calls]
        together = vad.score(windows, states)
        np.testing.assert_allclose(together, [scores[step] for scores in alone], atol=1e-3)


@pytest.mark.weights
def test_nothing_to_score(vad: Silero) -> None:
    assert vad.score([], []) == []


@pytest.mark.weights
def test_a_window_of_another_size_or_rate_is_refused(vad: Silero) -> None:
    state = vad.new_state(8_000)
    with pytest.raises(ModelError, match="256 samples at 8000 Hz"):
        vad.score([np.zeros(512, np.int16)], [state])
    window = np.zeros(256, np.int16)
    with pytest.raises(ModelError, match="256 samples at 8000 Hz"):
        vad.score([window, window], [state, vad.new_state(16_000)])


def test_a_rate_it_does_not_take() -> None:
    with pytest.raises(ModelError, match="8000 or 16000 Hz, not 44100 Hz"):
        Silero(Folder(Path())).new_state(44_100)


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"\x08\x07\x12\xff\xff"])
def test_a_damaged_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "silero_vad.onnx").write_bytes(content)
    with pytest.raises(ModelError, match=r"cannot read silero_vad\.onnx") as failure:
        Silero(Folder(tmp_path)).load()
    assert "\n" not in str(failure.value)


def test_weights_of_another_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"'other' have no file silero_vad\.onnx"):
        Silero(Folder(tmp_path), model="other").load()


def test_it_must_be_loaded_before_it_is_asked(tmp_path: Path) -> None:
    vad = Silero(Folder(tmp_path))
    with pytest.raises(ModelError, match="not loaded"):
        vad.score([np.zeros(256, np.int16)], [vad.new_state(8_000)])
