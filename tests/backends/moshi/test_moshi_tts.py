"""Kyutai TTS: the moshi package's real code on a model and a codec of a few random layers."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("moshi")

from antiphon.errors import ModelError
from antiphon.models.ports import SpeechRequest
from antiphon.models.store import WeightStore
from antiphon.models.tts.moshi_tts import MoshiTts

SENTENCE = SpeechRequest("Good morning, how can I help you today?")
CODEBOOKS = 4
CARD = 32


def codec_config() -> dict[str, Any]:
    layers = {"n_filters": 4, "n_residual_layers": 1, "ratios": [8, 6, 5, 4], "dimension": 16}
    seanet = {
        **layers,
        "channels": 1,
        "causal": True,
        "activation": "ELU",
        "compress": 2,
        "dilation_base": 2,
        "disable_norm_outer_blocks": 0,
        "kernel_size": 7,
        "residual_kernel_size": 3,
        "last_kernel_size": 3,
        "norm": "none",
        "pad_mode": "constant",
        "true_skip": True,
    }
    transformer = {
        "d_model": 16,
        "num_heads": 2,
        "num_layers": 1,
        "causal": True,
        "layer_scale": 0.01,
        "context": 50,
        "conv_layout": True,
        "max_period": 10000,
        "gating": "none",
        "norm": "layer_norm",
        "positional_embedding": "rope",
        "dim_feedforward": 32,
        "input_dimension": 16,
        "output_dimensions": [16],
    }
    quantizer = {
        "dimension": 8,
        "n_q": CODEBOOKS,
        "bins": CARD,
        "input_dimension": 16,
        "output_dimension": 16,
    }
    return {
        "sample_rate": 24000,
        "channels": 1,
        "frame_rate": 12.5,
        "seanet": seanet,
        "quantizer": quantizer,
        "transformer": transformer,
    }


def model_config() -> dict[str, Any]:
    return {
        "dim": 64,
        "text_card": 100,
        "existing_text_padding_id": 3,
        "n_q": CODEBOOKS,
        "dep_q": CODEBOOKS,
        "card": CARD,
        "num_heads": 2,
        "num_layers": 1,
        "hidden_scale": 2.0,
        "causal": True,
        "layer_scale": None,
        "context": 100,
        "max_period": 10000,
        "gating": "silu",
        "norm": "rms_norm_f32",
        "positional_embedding": "rope",
        "depformer_dim": 32,
        "depformer_dim_feedforward": 64,
        "depformer_num_heads": 2,
        "depformer_num_layers": 1,
        "depformer_layer_scale": None,
        "depformer_multi_linear": True,
        "depformer_context": CODEBOOKS,
        "depformer_max_period": 10000,
        "depformer_gating": "silu",
        "depformer_pos_emb": "none",
        "depformer_weights_per_step": True,
        "delays": [0, 0, 2, 2, 2],
        "conditioners": {
            "speaker_wavs": {"type": "tensor", "tensor": {"dim": 8}},
            "cfg": {
                "type": "lut",
                "lut": {
                    "n_bins": 8,
                    "dim": 8,
                    "tokenizer": "noop",
                    "possible_values": ["1.0", "2.0"],
                },
            },
            "control": {
                "type": "lut",
                "lut": {"n_bins": 2, "dim": 8, "tokenizer": "noop", "possible_values": ["ok"]},
            },
        },
        "fuser": {
            "sum": ["control", "cfg"],
            "prepend": [],
            "cross": ["speaker_wavs"],
            "cross_attention_pos_emb": True,
            "cross_attention_pos_emb_scale": 1.0,
        },
        "cross_attention": True,
        "moshi_name": "model.safetensors",
        "mimi_name": "mimi.safetensors",
        "mimi_config_name": "mimi.json",
        "tokenizer_name": "words.model",
        "tts_config": {"audio_delay": 1.28, "second_stream_ahead": 2},
        "demux_second_stream": True,
        "model_id": {"sig": "abc", "epoch": 1},
        "model_type": "tts",
    }


def tiny(folder: Path) -> str:
    """-> a folder as the hub's: configuration, model, codec, words and one voice."""
    import sentencepiece
    import torch
    from moshi.models import loaders
    from safetensors.torch import save_file

    torch.manual_seed(6)
    text = folder / "text.txt"
    text.write_text("good morning how can I help you today\n" * 50)
    sentencepiece.SentencePieceTrainer.train(
        input=str(text),
        model_prefix=str(folder / "words"),
        vocab_size=40,
        pad_id=3,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    (folder / "config.json").write_text(json.dumps(model_config()))
    (folder / "mimi.json").write_text(json.dumps(codec_config()))
    codec = loaders.get_mimi(None, codec_config(), num_codebooks=CODEBOOKS)
    save_file(codec.state_dict(), folder / "mimi.safetensors")
    settings = dict(model_config())
    for key in ("moshi_name", "mimi_name", "mimi_config_name", "tokenizer_name", "tts_config"):
        del settings[key]
    del settings["model_id"], settings["model_type"]
    model = loaders.get_moshi_lm(None, lm_kwargs=settings, dtype=torch.float32)
    save_file(model.state_dict(), folder / "model.safetensors")
    save_file({"speaker_wavs": torch.randn(1, 8, 25)}, folder / "ana.safetensors")
    return str(folder)


@pytest.fixture(scope="module")
def kyutai(tmp_path_factory: pytest.TempPathFactory) -> MoshiTts:
    folder = tiny(tmp_path_factory.mktemp("moshi"))
    voice = f"{folder}/ana.safetensors"
    model = MoshiTts(WeightStore(), model=folder, voices=(voice,), codebooks=CODEBOOKS)
    model.load()
    return model


def test_audio_comes_a_frame_at_a_time(kyutai: MoshiTts) -> None:
    pieces = list(kyutai.synthesize(SENTENCE))
    assert len(pieces) > 5
    assert all(piece.dtype == np.int16 and piece.shape == (1_920,) for piece in pieces)
    assert kyutai.sample_rate_hz == 24_000
    assert "not for commercial use" in kyutai.info.licence
    assert not list(kyutai.synthesize(SpeechRequest("...")))


def test_it_stops_in_mid_stream_and_leaves_no_thread(kyutai: MoshiTts) -> None:
    stream = kyutai.synthesize(SpeechRequest("Good morning, how can I help you today? " * 10))
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name == "moshi"]
    assert list(kyutai.synthesize(SENTENCE))


def test_a_voice_that_was_not_offered(kyutai: MoshiTts) -> None:
    with pytest.raises(ModelError, match="add it to the option voices"):
        list(kyutai.synthesize(SpeechRequest("Hello.", "anna")))


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot open"):
        MoshiTts(WeightStore(), model=str(tmp_path)).load()
