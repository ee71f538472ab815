"""The how-to's package, installed as it stands there: its own test passes, and a caller talks to it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/howto/add-a-model.md"

CALLER = """
import asyncio, sys
from pathlib import Path
from tests.server.support import QUESTION, START, client, serving

async def main() -> None:
    manner = {"manner": "I heard"}
    async with serving(
        Path(sys.argv[1]), models__llm=("parrot",), models__options__parrot=manner
    ) as served:
        async with client(served, start=START) as caller:
            await caller.speak(QUESTION)
            await caller.wait("turn_complete")
            print("".join(message["text"] for message in caller.of("ai_text")))

asyncio.run(main())
"""


@pytest.fixture
def installed(tmp_path: Path) -> dict[str, str]:
    """-> an environment in which the package is installed, offline: its files, and what an installer writes."""
    files = dict(re.findall(r"^`([\w.]+)`:\n\n```\w+\n(.*?)^```", PAGE.read_text(), re.M | re.S))
    assert set(files) == {"parrot.py", "pyproject.toml", "test_parrot.py"}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    lines = [line for text in files.values() for line in text.splitlines() if line.strip()]
    assert len(lines) <= 36, "the page promises thirty lines or so"
    project = tomllib.loads(files["pyproject.toml"])["project"]
    info = tmp_path / f"{project['name']}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    points = project["entry-points"]["antiphon.models"]
    named = "".join(f"{name} = {value}\n" for name, value in points.items())
    (info / "entry_points.txt").write_text(f"[antiphon.models]\n{named}")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}


def test_its_own_test_passes(installed: dict[str, str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull]
    done = subprocess.run(
        [*command, "--rootdir", str(tmp_path), str(tmp_path / "test_parrot.py")],
        env=installed,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_caller_talks_to_it(installed: dict[str, str], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CALLER, str(tmp_path)],
        env=installed,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.strip() == "I heard: what time is it.", done.stdout + done.stderr
