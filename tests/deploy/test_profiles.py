"""Every profile loads, names back ends that exist, and gives them options that they take."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.config.test_config import clean  # noqa: F401

from antiphon.config import load
from antiphon.models.ports import Kind
from antiphon.models.registry import parse_spec, shared_registry
from antiphon.models.store import WeightStore
from antiphon.server.model_loading import chains, check_models

PROFILES = sorted((Path(__file__).parents[2] / "deploy/profiles").glob("*.toml"))
EMBEDDED = {Kind.VAD: "silero", Kind.STT: "moonshine", Kind.LLM: "llamacpp", Kind.TTS: "piper"}


def test_all_are_here() -> None:
    names = {path.stem for path in PROFILES}
    assert names == {"cpu", "gpu-16gb", "gpu-24gb", "gpu-48gb", "apple-silicon"}


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_a_profile_can_be_served(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTIPHON_CONFIG", str(path))
    settings = load(folder=tmp_path)
    check_models(settings)
    named = {name for chain in chains(settings) for name in map(_name, chain.specs)}
    for chain in chains(settings):
        for spec in chain.specs:  # constructed, not loaded: options that do not exist are refused
            options = chain.options.get(_name(spec), {})
            shared_registry().create(chain.kind, spec, WeightStore(tmp_path), options)
        if chain.kind in EMBEDDED:  # a chain ends in what always works
            assert _name(chain.specs[-1]) == EMBEDDED[chain.kind]
    given = {name for name in settings.models.options if name not in ("stt", "llm", "tts")}
    assert given <= named, "options of a back end that the profile does not use"


def _name(spec: str) -> str:
    return parse_spec(spec)[0]
