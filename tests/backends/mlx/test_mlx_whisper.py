"""mlx-whisper: its real code on a Whisper of two small random layers, on Apple's GPU or MLX's CPU build."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("mlx_whisper")

from antiphon.errors import ModelError
from antiphon.models.devices import apple_silicon
from antiphon.models.store import WeightStore
from antiphon.models.stt.mlx_whisper import MlxWhisper
from antiphon.testing.contracts import check_stt


def tiny(folder: Path, vocabulary: int) -> str:
    """-> a folder as of mlx-community: config.json and weights.safetensors."""
    import mlx.core as mx
    from mlx.utils import tree_flatten
    from mlx_whisper.whisper import ModelDimensions, Whisper

    mx.random.seed(5)
    shape = ModelDimensions(80, 1500, 32, 2, 2, vocabulary, 448, 32, 2, 2)
    model = Whisper(shape, mx.float32)
    mx.save_safetensors(str(folder / "weights.safetensors"), dict(tree_flatten(model.parameters())))
    (folder / "config.json").write_text(json.dumps({**vars(shape), "model_type": "whisper"}))
    return str(folder)


@pytest.mark.parametrize(("vocabulary", "languages"), [(51_864, 1), (51_865, 99)])
def test_contract(tmp_path: Path, vocabulary: int, languages: int) -> None:
    device = "auto" if apple_silicon() else "cpu"
    model = MlxWhisper(WeightStore(), model=tiny(tmp_path, vocabulary), device=device)
    model.load()
    check_stt(model)
    assert len(model.info.languages) >= languages
    noise = np.random.default_rng(1).normal(0.0, 3_000.0, 48_000).astype(np.int16)
    assert model.transcribe(noise, language="en").language == "en"
    model.close()


def test_a_folder_that_holds_no_model(tmp_path: Path) -> None:
    device = "auto" if apple_silicon() else "cpu"
    with pytest.raises(ModelError, match="cannot open"):
        MlxWhisper(WeightStore(), model=str(tmp_path), device=device).load()


@pytest.mark.skipif(apple_silicon(), reason="here the GPU is Apple's")
def test_a_device_that_is_not_there() -> None:
    with pytest.raises(ModelError, match="no mlx device"):
        MlxWhisper(WeightStore(), device="mlx").load()
