"""Piper on the default voice, the last touches on its audio, and voices that cannot be used."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from antiphon.errors import ModelError
from antiphon.models.ports import Pcm16, SpeechRequest
from antiphon.models.store import WeightStore
from antiphon.models.tts.piper import Piper
from antiphon.models.tts.postprocess import active_rms, finish, limit
from antiphon.testing.contracts import check_tts

RATE_HZ = 22_050
VOICE = "piper-en_US-joe-medium"


class NoWeights:
    def files(self, name: str) -> dict[str, Path]:
        raise AssertionError("asked for weights")


def say(voice: Piper, text: str, speed: float = 1.0) -> list[Pcm16]:
    return list(voice.synthesize(SpeechRequest(text, speed=speed)))


def edges_ms(audio: Pcm16) -> tuple[float, float]:
    """Silence before the first and after the last audible sample."""
    loud = np.flatnonzero(np.abs(audio.astype(np.int32)) > 400)
    return loud[0] / RATE_HZ * 1000, (audio.size - 1 - loud[-1]) / RATE_HZ * 1000


# --- the default voice --------------------------------------------------------------------------


@pytest.mark.weights
def test_it_keeps_the_contract(voice: Piper) -> None:
    check_tts(voice)


@pytest.mark.weights
def test_one_array_per_sentence(voice: Piper) -> None:
    pieces = say(voice, "Yes, of course. It opens at 5:30! Anything else?")
    assert len(pieces) == 3
    assert all(piece.size > 0.3 * RATE_HZ for piece in pieces)


@pytest.mark.weights
@pytest.mark.parametrize("text", ["", "...", "😀 👍🏽", "—", "**", "?!", "\u200b\n"])
def test_nothing_to_say(voice: Piper, text: str) -> None:
    assert say(voice, text) == []


@pytest.mark.weights
@pytest.mark.parametrize(
    ("text", "longest_tail_ms"),
    [("I can help you.", 200), ("Of course,", 140), ("So the first thing", 100)],
)
def test_no_long_silence_at_either_end(voice: Piper, text: str, longest_tail_ms: int) -> None:
    (audio,) = say(voice, text)
    lead_ms, tail_ms = edges_ms(audio)
    assert lead_ms < 60
    assert tail_ms < longest_tail_ms


@pytest.mark.weights
def test_no_click_and_no_clipping(voice: Piper) -> None:
    (audio,) = say(voice, "Yes, of course I would be happy to help you with that.")
    assert audio[0] == 0
    assert audio[-1] == 0
    peak = int(np.abs(audio.astype(np.int32)).max())
    assert 6_000 < peak < 32_767


@pytest.mark.weights
def test_speed(voice: Piper) -> None:
    text = "How are you today, my dear old friend?"
    slow, normal, fast = (sum(a.size for a in say(voice, text, s)) for s in (0.5, 1.0, 2.0))
    assert slow > 1.4 * normal > 1.4 * 1.4 * fast
    assert sum(a.size for a in say(voice, text, 99.0)) == fast


@pytest.mark.weights
def test_a_voice_from_a_folder(weights: WeightStore, tmp_path: Path) -> None:
    for name, path in weights.files(VOICE).items():
        shutil.copyfile(path, tmp_path / name)
    path = tmp_path / "en_US-joe-medium.onnx"
    voice = Piper(NoWeights(), model=str(path))
    voice.load()
    assert voice.sample_rate_hz == RATE_HZ
    assert voice.info.languages == ("en",)
    assert say(voice, "Hello there.")


# --- voices that cannot be used -----------------------------------------------------------------


def config(**changes: Any) -> str:
    ids = {"_": [0], "^": [1], "$": [2], " ": [3], "a": [4]}
    whole = {
        "audio": {"sample_rate": RATE_HZ},
        "espeak": {"voice": "en-us"},
        "phoneme_id_map": ids,
        "inference": {"noise_scale": 0.6, "length_scale": 1, "noise_w": 0.8},
    }
    return json.dumps(whole | changes)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "cannot read the voice's configuration"),
        ("{", "cannot read the voice's configuration"),
        ("[]", "not a Piper voice's configuration"),
        ("{}", "lacks or garbles 'audio'"),
        (config(phoneme_id_map={"a": [1]}), "lacks or garbles"),
        (config(audio={"sample_rate": "fast"}), "lacks or garbles"),
        (config(espeak={"voice": "de"}), "speaks 'de'; .*antiphon\\[piper\\]"),
        (config(), r"cannot read voice\.onnx"),
    ],
)
def test_a_broken_voice(tmp_path: Path, text: str | None, reason: str) -> None:
    path = tmp_path / "voice.onnx"
    path.write_bytes(b"not a model")
    if text is not None:
        (tmp_path / "voice.onnx.json").write_text(text)
    with pytest.raises(ModelError, match=reason) as failure:
        Piper(NoWeights(), model=str(path)).load()
    assert "\n" not in str(failure.value)


def test_a_voice_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no Piper voice at"):
        Piper(NoWeights(), model=str(tmp_path / "none.onnx")).load()


def test_an_entry_that_is_no_voice(tmp_path: Path) -> None:
    class Wrong:
        def files(self, name: str) -> dict[str, Path]:
            return {"model.gguf": tmp_path / "model.gguf"}

    with pytest.raises(ModelError, match="not a Piper voice"):
        Piper(Wrong()).load()


def test_it_must_be_loaded_before_it_is_asked() -> None:
    with pytest.raises(ModelError, match="not loaded"):
        next(Piper(NoWeights()).synthesize(SpeechRequest("Hello")))


# --- the last touches ---------------------------------------------------------------------------


def burst(lead_ms: int, sound_ms: int, tail_ms: int, level: float = 0.5) -> np.ndarray:
    sound = level * np.ones(RATE_HZ * sound_ms // 1000)
    lead, tail = (np.zeros(RATE_HZ * ms // 1000) for ms in (lead_ms, tail_ms))
    return np.concatenate([lead, sound, tail]).astype(np.float32)


@pytest.mark.parametrize(
    ("text", "tail_ms"),
    [("Yes.", 120), ("Yes!", 120), ('"Yes?"', 120), ("Well,", 70), ("So:", 70), ("so the", 30)],
)
@pytest.mark.parametrize("own_tail_ms", [0, 300])
def test_silence_is_set_by_punctuation(text: str, tail_ms: int, own_tail_ms: int) -> None:
    audio = finish(burst(400, 500, own_tail_ms), 1.0, text, RATE_HZ)
    lead, tail = edges_ms(audio)
    assert lead == pytest.approx(10, abs=6)
    assert tail == pytest.approx(tail_ms, abs=6)


def test_speech_that_begins_at_once_is_kept() -> None:
    audio = finish(burst(0, 500, 0), 1.0, "so", RATE_HZ)
    lead, _ = edges_ms(audio)
    assert lead < 1
    assert audio.size >= RATE_HZ // 2


@pytest.mark.parametrize("samples", [1, 50, 1_000])
def test_silence_and_scraps_do_no_harm(samples: int) -> None:
    assert not finish(np.zeros(samples, np.float32), 4.0, "a", RATE_HZ).any()


def test_the_limiter_bends_only_what_is_too_loud() -> None:
    audio = np.array([0.0, 0.5, -0.79, 0.9, -1.5, 8.0], np.float32)
    before = audio.copy()
    limit(audio)
    np.testing.assert_array_equal(audio[:3], before[:3])
    assert 0.8 < audio[3] < 0.9
    assert -1.0 <= audio[4] < -0.9
    assert audio[5] <= 1.0


def test_active_rms_leaves_out_silence() -> None:
    assert active_rms(burst(1_000, 100, 1_000, level=0.25)) == pytest.approx(0.25)
    assert active_rms(np.zeros(100, np.float32)) == 0.0
    assert active_rms(np.zeros(0, np.float32)) == 0.0
