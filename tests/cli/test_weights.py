"""`antiphon models`: what it prints and how it ends. Files come from a folder: no network."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from antiphon.cli.weights import BarProgress, LineProgress, app, progress_for, summary
from antiphon.models.store import PullReport

DATA = b"weights, honestly"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A catalogue whose only reachable entry is `mine`, from a folder."""
    for name in list(os.environ):
        if name.startswith(("ANTIPHON_", "HF_")):
            monkeypatch.delenv(name)
    folder = tmp_path / "brought"
    folder.mkdir()
    (folder / "mine.bin").write_bytes(DATA)
    (tmp_path / "mine.toml").write_text(
        '[[entry]]\nname = "mine"\nkind = "vad"\nlicence = "MIT"\n[[entry.files]]\n'
        f'name = "mine.bin"\nsha256 = "{hashlib.sha256(DATA).hexdigest()}"\n'
        f'size_bytes = {len(DATA)}\nsources = [{{ kind = "folder", folder = "{folder}" }}]\n'
    )
    monkeypatch.setenv("ANTIPHON_CATALOGUE", str(tmp_path / "mine.toml"))
    monkeypatch.setenv("ANTIPHON_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ANTIPHON_OFFLINE", "1")
    return folder


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def states() -> dict[str, str]:
    return {row["name"]: row["state"] for row in json.loads(run("list", "--json").stdout)}


def test_pull_is_idempotent() -> None:
    assert states()["mine"] == "missing"
    first, second = run("pull", "mine"), run("pull", "mine")
    assert first.exit_code == 0
    assert first.stdout.startswith("1 model ready: 1 file fetched, 0 bytes downloaded in ")
    assert "mine/mine.bin" in first.stderr
    assert (second.exit_code, second.stdout) == (0, "1 model ready: nothing to fetch\n")
    assert states()["mine"] == "present"


def test_list_is_a_table_or_json() -> None:
    table = run("list")
    assert table.exit_code == 0
    assert "silero-vad" in table.stdout
    row = next(r for r in json.loads(run("list", "--json").stdout) if r["name"] == "mine")
    assert row["kind"] == "vad"
    assert row["licence"] == "MIT"
    assert row["size_bytes"] == len(DATA)
    assert row["default"] is False
    assert row["files"] == ["mine.bin"]


def test_verify_finds_and_fixes_a_wrong_file(tmp_path: Path) -> None:
    assert run("verify").exit_code == 0
    assert run("verify", "mine").exit_code == 1, "named, and not here"
    run("pull", "mine")
    assert run("verify").exit_code == 0
    path = tmp_path / "home" / "models" / "mine" / "mine.bin"
    path.chmod(0o644)
    path.write_bytes(DATA[::-1])
    wrong = run("verify")
    assert wrong.exit_code == 1
    assert hashlib.sha256(DATA[::-1]).hexdigest() in wrong.stdout
    assert "--fix" in wrong.stderr
    assert run("verify", "--fix").exit_code == 1
    assert states()["mine"] == "missing"
    assert run("pull", "mine").exit_code == 0
    assert run("verify", "mine").exit_code == 0


def test_rm() -> None:
    run("pull", "mine")
    assert run("rm", "mine").exit_code == 0
    assert states()["mine"] == "missing"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["pull", "mien"], "did you mean 'mine'"),
        (["verify", "mien"], "did you mean 'mine'"),
        (["rm", "../mine"], "no model '../mine'"),
        (["pull"], "ANTIPHON_OFFLINE=1 is set"),
    ],
)
def test_an_error_is_one_line(arguments: list[str], reason: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 1
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("antiphon: ")]
    assert reason in line
    assert "Traceback" not in result.output


def test_a_broken_catalogue_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("[[entry")
    result = run("list")
    assert result.exit_code == 1
    assert "mine.toml is not TOML" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_wrong_file_ends_the_pull_with_both_digests(place: Path) -> None:
    (place / "mine.bin").write_bytes(DATA[::-1])
    result = run("pull", "mine")
    assert result.exit_code == 1
    assert hashlib.sha256(DATA).hexdigest() in result.stderr
    assert hashlib.sha256(DATA[::-1]).hexdigest() in result.stderr


def test_bars_on_a_terminal_and_lines_elsewhere() -> None:
    for terminal, kind in ((True, BarProgress), (False, LineProgress)):
        console = Console(force_terminal=terminal, width=100, record=True, quiet=False)
        with console.capture() as captured:
            progress = progress_for(console)
            progress.start("m/file.bin", 2_000_000)
            progress.advance(2_000_000)
            progress.note("[not markup] a note")
            progress.done()
        assert isinstance(progress, kind)
        assert "m/file.bin" in captured.get()
        assert "2.0" in captured.get()
        assert "[not markup] a note" in captured.get()


def test_the_summary_counts() -> None:
    report = PullReport(("a", "b"), ("a/x", "b/y", "b/z"), 604_000_000, 12.34)
    assert summary(report) == "2 models ready: 3 files fetched, 604 MB downloaded in 12.3 s"
