"""The page of models names every back end and extra that there is, and what its tests last ran on."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from tests.support import NoWeights

from antiphon.models.ports import Kind
from antiphon.models.registry import BUILT_IN, Registry

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/reference/models.md").read_text()
BACKENDS = ROOT / "tests/backends"
GROUPS = tomllib.loads((BACKENDS / "groups/groups.toml").read_text())
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def rows(kind: Kind) -> dict[str, list[str]]:
    """Name -> cells."""
    section = PAGE.split(f"({kind})\n")[1].split("\n## ")[0]
    found = [row.strip("| ").split(" | ") for row in section.splitlines() if row.startswith("| `")]
    assert len({cells[0] for cells in found}) == len(found), "each once"
    return {cells[0].strip("`"): cells for cells in found}


@pytest.mark.parametrize("kind", list(Kind))
def test_every_back_end_has_its_row(kind: Kind) -> None:
    served = {name for name in BUILT_IN[kind] if not name.startswith("scripted")}
    assert set(rows(kind)) == served


@pytest.mark.parametrize("kind", list(Kind))
def test_the_extras_are_there(kind: Kind) -> None:
    for name, cells in rows(kind).items():
        assert len(cells) == 7, name
        for extra in re.findall(r"`([\w-]+)`", cells[6]):
            assert extra in EXTRAS or extra == "espeak-ng", (name, extra)


@pytest.mark.parametrize("kind", list(Kind))
def test_a_licence_that_restricts_is_said_at_load_too(kind: Kind) -> None:
    for name, cells in rows(kind).items():
        if "not for commercial use" in cells[5]:
            info = Registry().create(kind, name, NoWeights()).info
            assert "not for commercial use" in info.licence, name


def test_what_was_run_is_what_the_groups_say() -> None:
    told = dict(re.findall(r"^\| `(\w+)` \| (.+?) \| ", PAGE.split("| group |")[1], re.M))
    assert told == {name: group["ran"] for name, group in GROUPS.items() if group.get("ran")}


def test_every_group_has_tests_and_its_extras() -> None:
    folders = {path.parent.name for path in BACKENDS.glob("*/test_*.py")}
    assert folders == set(GROUPS)
    for name, group in GROUPS.items():
        assert set(group.get("extras", ())) <= set(EXTRAS), name
