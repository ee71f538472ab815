"""What `make dist` makes: a wheel that serves from an empty environment, in an empty folder."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import urllib.request
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = ["src", "pyproject.toml", "README.md", "LICENSE", "NOTICE", "CHANGELOG.md", "docs"]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources with the distribution in its `dist`, so that nothing is written into the real tree."""
    copy = tmp_path_factory.mktemp("checkout")
    for name in [*SOURCES, "Makefile", "requirements.lock", "requirements-dev.lock"]:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, copy / name)
    environment = copy / ".venv"
    environment.symlink_to(Path(sys.prefix))
    # `-o`: the environment is the one that runs this test; it is not to be made anew for the copy.
    command = ["make", "dist", "-o", ".venv/.installed", "-o", ".venv/.dev"]
    made = subprocess.run(command, cwd=copy, capture_output=True, text=True, timeout=240)
    assert made.returncode == 0, made.stdout + made.stderr
    return copy


def test_the_wheel_holds_the_product_and_nothing_else(checkout: Path) -> None:
    (wheel,) = (checkout / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert "antiphon/web/index.html" in names
    assert "antiphon/py.typed" in names
    tops = {name.split("/")[0].removesuffix(".dist-info").split("-")[0] for name in names}
    assert tops == {"antiphon"}
    assert not [name for name in names if name.endswith((".wav", ".onnx", ".gguf", ".pyc"))]


def test_checksums_name_every_file(checkout: Path) -> None:
    folder = checkout / "dist"
    listed = dict(
        reversed(line.split()) for line in (folder / "SHA256SUMS").read_text().splitlines()
    )
    assert set(listed) == {path.name for path in folder.iterdir()} - {"SHA256SUMS"}
    for name, digest in listed.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest


def test_the_list_of_components_is_that_of_the_lock_file(checkout: Path) -> None:
    document = json.loads((checkout / "dist" / "antiphon.cdx.json").read_text())
    assert document["bomFormat"] == "CycloneDX"
    assert document["metadata"]["component"]["name"] == "antiphon"
    locked = {
        line.split("==")[0]
        for line in (ROOT / "requirements.lock").read_text().splitlines()
        if "==" in line and not line.startswith((" ", "#"))
    }
    assert {component["name"] for component in document["components"]} >= locked


def test_the_wheel_serves_from_an_empty_environment(checkout: Path, tmp_path: Path) -> None:
    environment = tmp_path / "environment"
    python = environment / "bin" / "python"
    (wheel,) = (checkout / "dist").glob("*.whl")
    lock = str(ROOT / "requirements.lock")
    for command in (
        [sys.executable, "-m", "venv", str(environment)],
        [str(python), "-m", "pip", "-q", "install", "--require-hashes", "-r", lock],
        [str(python), "-m", "pip", "-q", "install", "--no-deps", str(wheel)],
    ):
        done = subprocess.run(command, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stderr
    folder = tmp_path / "empty"
    folder.mkdir()
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("ANTIPHON", "PYTHON"))}
    scripted = [f"--set=models.{kind}=scripted" for kind in ("vad", "turn", "stt", "llm", "tts")]
    command = [str(environment / "bin" / "antiphon"), "serve", "--port", "0", *scripted]
    with subprocess.Popen(
        command,
        cwd=folder,
        env={**clean, "HOME": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as server:
        try:
            assert server.stdout is not None
            ready = next((line for line in server.stdout if line.startswith("Ready: ")), "")
            address = ready.removeprefix("Ready: ").split()[0]
            with urllib.request.urlopen(f"{address}/health", timeout=10) as answer:
                assert answer.status == 200
        finally:
            server.terminate()
            server.wait(20)
