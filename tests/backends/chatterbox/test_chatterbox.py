"""Chatterbox turbo: its library's real loading and inference code on random weights and a small language model."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("chatterbox")

from tests.backends.transformers import tiny

from antiphon.errors import ModelError
from antiphon.models.ports import SpeechRequest
from antiphon.models.store import WeightStore
from antiphon.models.tts.chatterbox import Chatterbox
from antiphon.testing.contracts import check_tts


def random_weights(folder: Path) -> str:
    """-> a folder as the hub's repository, without a voice of its own."""
    import torch
    from chatterbox.models.s3gen import S3Gen
    from chatterbox.models.t3 import T3
    from chatterbox.models.t3.modules.t3_config import T3Config
    from chatterbox.models.voice_encoder import VoiceEncoder
    from safetensors.torch import save_file

    torch.manual_seed(8)
    shape = T3Config(text_tokens_dict_size=50_276)
    shape.llama_config_name = "GPT2_medium"
    shape.speech_tokens_dict_size = 6_563
    shape.input_pos_emb = None
    shape.speech_cond_prompt_len = 375
    shape.use_perceiver_resampler = False
    shape.emotion_adv = False
    speech = T3(shape)
    with torch.no_grad():  # any sound, and the end after about fifty of them
        speech.speech_head.weight.zero_()
        speech.speech_head.bias.zero_()
        speech.speech_head.bias[shape.stop_speech_token] = 2.4
    save_file(speech.state_dict(), folder / "t3_turbo_v1.safetensors")
    save_file(S3Gen(meanflow=True).state_dict(), folder / "s3gen_meanflow.safetensors")
    save_file(VoiceEncoder().state_dict(), folder / "ve.safetensors")
    tiny.tokenizer(folder)
    return str(folder)


def clip(folder: Path, seconds: int) -> str:
    path = folder / f"clip{seconds}.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(24_000)
        noise = np.random.default_rng(1).normal(0, 3_000, 24_000 * seconds)
        file.writeframes(noise.astype("<i2").tobytes())
    return str(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    from chatterbox.models.t3 import llama_configs

    config = llama_configs.LLAMA_CONFIGS["GPT2_medium"]
    config.update(n_layer=2, n_head=2, n_embd=64, hidden_size=64)
    return random_weights(tmp_path_factory.mktemp("chatterbox"))


@pytest.fixture(scope="module")
def chatterbox(folder: str, tmp_path_factory: pytest.TempPathFactory) -> Chatterbox:
    clips = {"ana": clip(tmp_path_factory.mktemp("clips"), 7)}
    model = Chatterbox(WeightStore(), model=folder, clips=clips, device="cpu")
    model.load()
    return model


def test_contract(chatterbox: Chatterbox) -> None:
    import torch

    torch.manual_seed(11)
    check_tts(chatterbox)
    assert chatterbox.info.voices == ("ana",)
    assert chatterbox.info.languages == ("en",)


def test_it_speaks_sentence_by_sentence(chatterbox: Chatterbox) -> None:
    said = SpeechRequest("Good morning. How can I help you?")
    assert len(list(chatterbox.synthesize(said))) == 2


def test_a_voice_that_is_not_there(chatterbox: Chatterbox) -> None:
    with pytest.raises(ModelError, match="did you mean 'ana'"):
        list(chatterbox.synthesize(SpeechRequest("Hello.", "anna")))


def test_without_any_voice_it_says_what_to_set(folder: str) -> None:
    with pytest.raises(ModelError, match="set clips"):
        Chatterbox(WeightStore(), model=folder, device="cpu").load()


def test_a_clip_that_is_too_short_or_not_there(folder: str, tmp_path: Path) -> None:
    for path, said in ((clip(tmp_path, 2), "cannot be cloned"), ("nowhere.wav", "no clip")):
        with pytest.raises(ModelError, match=said):
            Chatterbox(WeightStore(), model=folder, clips={"x": path}, device="cpu").load()


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot open"):
        Chatterbox(WeightStore(), model=str(tmp_path), device="cpu").load()
