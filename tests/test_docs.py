"""The documentation builds as a site, every link in it leads somewhere, and what is generated is up to date."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


def test_the_site_builds_without_a_broken_link(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(tmp_path)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert built.returncode == 0, built.stderr
    assert "self-hosted voice agent server" in (tmp_path / "index.html").read_text()


def test_the_architecture_picture_is_what_its_script_draws() -> None:
    drawn = runpy.run_path(str(DOCS / "draw_architecture.py"))["draw"]()
    assert (DOCS / "images" / "architecture.svg").read_text() == drawn, (
        "run python docs/draw_architecture.py"
    )


def test_every_decision_is_listed() -> None:
    index = (DOCS / "decisions" / "index.md").read_text()
    for page in DOCS.glob("decisions/0*.md"):
        assert f"({page.name})" in index, f"add {page.name} to docs/decisions/index.md"
