"""coqui-tts: its real loading and inference code on an XTTS and a VITS of a few random layers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("TTS")

from antiphon.errors import ModelError
from antiphon.models.ports import SpeechRequest
from antiphon.models.store import WeightStore
from antiphon.models.tts.coqui import Coqui, Xtts

SENTENCE = SpeechRequest("Good morning, how can I help you today?")


def tiny_xtts(folder: Path) -> str:
    """-> a folder as the real one: config.json, model.pth, vocab.json, speakers_xtts.pth."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from TTS.tts.configs.xtts_config import XttsConfig
    from TTS.tts.models.xtts import Xtts as Model

    words = Tokenizer(models.BPE(unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    special = ["[STOP]", "[UNK]", "[SPACE]", "[START]", "[en]"]
    words.train_from_iterator(
        ["good morning how can i help you today , . ?"] * 9,
        trainers.BpeTrainer(special_tokens=special, show_progress=False),
    )
    words.save(str(folder / "vocab.json"))
    torch.manual_seed(3)
    config = XttsConfig()
    config.languages = ["en"]
    arguments: dict[str, Any] = {
        "tokenizer_file": str(folder / "vocab.json"),
        "gpt_layers": 2,
        "gpt_n_model_channels": 64,
        "gpt_n_heads": 2,
        "decoder_input_dim": 64,
        "gpt_number_text_tokens": words.get_vocab_size(),
        "gpt_start_text_token": words.token_to_id("[START]"),
        "gpt_stop_text_token": words.token_to_id("[STOP]"),
        "gpt_max_audio_tokens": 100,
        "gpt_use_perceiver_resampler": True,
    }
    for name, value in arguments.items():
        setattr(config.model_args, name, value)
    model = Model.init_from_config(config)
    config.save_json(str(folder / "config.json"))
    model.init_models()
    torch.save({"model": model.state_dict()}, folder / "model.pth")
    voice = {"gpt_cond_latent": torch.randn(1, 32, 64), "speaker_embedding": torch.randn(1, 512, 1)}
    torch.save({"Ana": voice, "Bo": dict(voice)}, folder / "speakers_xtts.pth")
    return str(folder)


def tiny_vits(folder: Path) -> str:
    import torch
    from TTS.tts.configs.vits_config import VitsConfig
    from TTS.tts.models.vits import Vits, VitsArgs

    torch.manual_seed(4)
    config = VitsConfig(
        model_args=VitsArgs(
            hidden_channels=16,
            hidden_channels_ffn_text_encoder=32,
            num_layers_text_encoder=1,
            num_layers_flow=1,
            num_layers_posterior_encoder=1,
            upsample_initial_channel_decoder=32,
        ),
        use_phonemes=False,
        text_cleaner="english_cleaners",
        run_name="tiny",
    )
    model = Vits.init_from_config(config)
    config.save_json(str(folder / "config.json"))
    torch.save({"model": model.state_dict()}, folder / "model.pth")
    return str(folder)


@pytest.fixture(scope="module")
def xtts(tmp_path_factory: pytest.TempPathFactory) -> Xtts:
    model = Xtts(WeightStore(), model=tiny_xtts(tmp_path_factory.mktemp("xtts")), chunk_tokens=10)
    model.load()
    return model


def test_xtts_streams_and_names_its_voices_and_licence(xtts: Xtts) -> None:
    pieces = list(xtts.synthesize(SENTENCE))
    assert len(pieces) > 1, "it comes in pieces"
    assert all(piece.dtype == np.int16 and piece.size for piece in pieces)
    assert xtts.info.voices == ("Ana", "Bo")
    assert "not for commercial use" in xtts.info.licence
    assert not list(xtts.synthesize(SpeechRequest("...")))


def test_xtts_stops_in_mid_stream(xtts: Xtts) -> None:
    stream = xtts.synthesize(SENTENCE)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert list(xtts.synthesize(SENTENCE))


def test_a_voice_that_is_not_there(xtts: Xtts) -> None:
    with pytest.raises(ModelError, match="did you mean 'Ana'"):
        list(xtts.synthesize(SpeechRequest("Hello.", "Anna")))


def test_a_clip_is_cloned(xtts: Xtts, tmp_path: Path) -> None:
    import wave

    clip = tmp_path / "clip.wav"
    with wave.open(str(clip), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(22_050)
        noise = np.random.default_rng(1).normal(0, 3_000, 22_050 * 7)
        file.writeframes(noise.astype("<i2").tobytes())
    latents, embedding = xtts.clone(clip)
    assert latents.shape[-1] == 64
    assert embedding.shape[1] == 512


def test_the_licence_must_be_accepted_before_anything_is_fetched() -> None:
    with pytest.raises(ModelError, match="accept_licence"):
        Xtts(WeightStore()).load()


def test_vits_speaks_sentence_by_sentence(tmp_path: Path) -> None:
    model = Coqui(WeightStore(), model=tiny_vits(tmp_path))
    model.load()
    pieces = list(model.synthesize(SpeechRequest("Good morning. How can I help you?")))
    assert len(pieces) == 2
    assert model.sample_rate_hz == 22_050
    assert not list(model.synthesize(SpeechRequest("...")))


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot open"):
        Coqui(WeightStore(), model=str(tmp_path)).load()
