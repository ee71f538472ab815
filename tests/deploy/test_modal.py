"""The Modal apps, as far as they can be checked without Modal's package. tests/backends/modal runs them."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from antiphon.models.ports import Kind
from antiphon.models.registry import parse_spec, shared_registry

FOLDER = Path(__file__).parents[2] / "deploy/modal"
FILES = sorted(FOLDER.glob("*.py"))
OLD_NAMES = (
    *("keep_warm", "container_idle_timeout", "concurrency_limit", "allow_concurrent_inputs"),
    *("web_endpoint", "Stub", "Mount", "copy_local_dir", "copy_local_file", "lookup", "build"),
)
"""Of Modal before 1.0."""


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_no_name_of_an_older_modal(file: Path) -> None:
    used = {
        getattr(node, field)
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        for kind, field in ((ast.Attribute, "attr"), (ast.keyword, "arg"), (ast.Name, "id"))
        if isinstance(node, kind)
    }
    assert not used & set(OLD_NAMES)


def test_the_models_that_are_deployed_by_default_are_there() -> None:
    text = "\n".join(file.read_text(encoding="utf-8") for file in FILES)
    chosen = dict(re.findall(r'variable\("(VOICE_STT|VOICE_TTS|VOICE_LLM)", "([^"]+)"\)', text))
    assert set(chosen) == {"VOICE_STT", "VOICE_TTS", "VOICE_LLM"}
    for name, spec in chosen.items():
        kind = Kind(name.removeprefix("VOICE_").lower())
        shared_registry().find(kind, parse_spec(spec)[0])


def test_variables_of_the_apps_are_no_settings() -> None:
    """Antiphon refuses to start with an `ANTIPHON_` variable that it does not know."""
    for file in FILES:
        for name in re.findall(r'variable\("(\w+)"', file.read_text(encoding="utf-8")):
            assert not name.startswith("ANTIPHON_")
