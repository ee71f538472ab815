"""NeMo: its real streaming code on a cache-aware transducer of two small random layers."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("nemo.collections.asr")

from antiphon.errors import ModelError
from antiphon.models.ports import Pcm16
from antiphon.models.store import WeightStore
from antiphon.models.stt.nemo import Nemo
from antiphon.testing.contracts import check_stt

LETTERS = list("abcdefghijklmnopqrstuvwxyz' ")


def config(normalise: str) -> dict[str, Any]:
    at = "nemo.collections.asr.modules."
    letters = len(LETTERS)
    preprocessor = {
        "_target_": at + "AudioToMelSpectrogramPreprocessor",
        "sample_rate": 16_000,
        "normalize": normalise,
        "window_size": 0.025,
        "window_stride": 0.01,
        "window": "hann",
        "features": 40,
        "n_fft": 512,
        "frame_splicing": 1,
        "dither": 0.00001,
        "pad_to": 0,
    }
    encoder = {
        "_target_": at + "ConformerEncoder",
        "feat_in": 40,
        "feat_out": -1,
        "n_layers": 2,
        "d_model": 32,
        "subsampling": "dw_striding",
        "subsampling_factor": 8,
        "subsampling_conv_channels": 16,
        "causal_downsampling": True,
        "ff_expansion_factor": 2,
        "self_attention_model": "rel_pos",
        "n_heads": 2,
        "att_context_size": [[70, 13], [70, 6], [70, 1], [70, 0]],
        "att_context_style": "chunked_limited",
        "xscaling": False,
        "pos_emb_max_len": 5000,
        "conv_kernel_size": 9,
        "conv_norm_type": "layer_norm",
        "conv_context_size": "causal",
        **dict.fromkeys(["dropout", "dropout_pre_encoder", "dropout_emb", "dropout_att"], 0.0),
    }
    network = {"pred_hidden": 16, "pred_rnn_layers": 1, "t_max": None, "dropout": 0.0}
    joint = {"joint_hidden": 16, "encoder_hidden": 32, "pred_hidden": 16}
    return {
        "sample_rate": 16_000,
        "compute_eval_loss": False,
        "log_prediction": False,
        "labels": LETTERS,
        "model_defaults": {"enc_hidden": 32, "pred_hidden": 16, "joint_hidden": 16},
        **dict.fromkeys(["train_ds", "validation_ds", "test_ds"]),
        "preprocessor": preprocessor,
        "encoder": encoder,
        "decoder": {
            "_target_": at + "RNNTDecoder",
            "normalization_mode": None,
            "random_state_sampling": False,
            "blank_as_pad": True,
            "vocab_size": letters,
            "prednet": network,
        },
        "joint": {
            "_target_": at + "RNNTJoint",
            "log_softmax": None,
            "preserve_memory": False,
            "fuse_loss_wer": False,
            "fused_batch_size": -1,
            "num_classes": letters,
            "vocabulary": LETTERS,
            "jointnet": {**joint, "activation": "relu", "dropout": 0.0},
        },
        "decoding": {"strategy": "greedy_batch", "greedy": {"max_symbols": 2}},
        "loss": {"loss_name": "default"},
        "optim": {"name": "adamw", "lr": 1e-3},
    }


def tiny(folder: Path, normalise: str = "NA") -> str:
    import torch
    from nemo.collections.asr.models import EncDecRNNTModel
    from omegaconf import OmegaConf

    torch.manual_seed(1)
    model = EncDecRNNTModel(cfg=OmegaConf.create(config(normalise)))
    path = str(folder / "tiny.nemo")
    model.save_to(path)
    return path


def noise(seconds: float) -> Pcm16:
    made = np.random.default_rng(3).normal(0.0, 3_000.0, int(seconds * 16_000))
    return made.astype(np.int16)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny(tmp_path_factory.mktemp("nemo"))


def loaded(file: str, look_ahead: int = 1) -> Nemo:
    model = Nemo(WeightStore(), model=file, device="cpu", look_ahead=look_ahead)
    model.load()
    return model


@pytest.mark.parametrize("look_ahead", [0, 1, 13])
def test_contract(file: str, look_ahead: int) -> None:
    model = loaded(file, look_ahead)
    check_stt(model)
    assert model.info.partials
    assert model.transcribe(noise(3.0)).text


def test_partials_hear_only_what_is_new_and_change_nothing(
    file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    audio = noise(6.0)
    whole = loaded(file).transcribe(audio).text
    model = loaded(file)
    steps: list[int] = []
    step = model._step
    monkeypatch.setattr(model, "_step", lambda *given: (steps.append(1), step(*given)))
    texts, counts = [], []
    for end in range(16_000, audio.size + 1, 16_000):
        steps.clear()
        texts.append(model.transcribe(audio[:end], partial=True).text)
        counts.append(len(steps))
    assert max(counts[1:]) <= counts[0] + 1, "each second costs as much as the first"
    assert all(later.startswith(earlier) for earlier, later in pairwise(texts))
    assert model.transcribe(audio[: 4 * 16_000]).text, "a guess at the end"
    assert model.transcribe(audio).text == whole, "and the caller went on after all"


def test_calls_do_not_mix(file: str) -> None:
    audio, other = noise(3.0), noise(4.0)[::-1].copy()
    alone = loaded(file).transcribe(audio).text
    model = loaded(file)
    for end in (16_000, 32_000):
        model.transcribe(audio[:end], partial=True)
        model.transcribe(other[:end], partial=True)
    assert model.transcribe(audio).text == alone


def test_a_look_ahead_that_the_model_was_not_trained_for(file: str) -> None:
    with pytest.raises(ModelError, match="by 13, 6, 1, 0 frames: set look_ahead"):
        loaded(file, 5)


def test_a_model_that_cannot_stream(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot stream"):
        loaded(tiny(tmp_path, "per_feature"))


def test_a_file_that_is_no_model(tmp_path: Path) -> None:
    bad = tmp_path / "bad.nemo"
    bad.write_bytes(b"nothing")
    with pytest.raises(ModelError, match="cannot stream"):
        loaded(str(bad))
