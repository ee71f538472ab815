"""`antiphon replay`: what it prints and how it ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from antiphon.cli.trace_files import replay
from antiphon.core.policy import Policy
from antiphon.errors import AntiphonError
from antiphon.observe.call_trace import header
from antiphon.testing.virtual_call import World

app = typer.Typer()
app.command("replay")(replay)


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def lines() -> list[str]:
    world = World(Policy(greeting="Hello."))
    world.speak(3_000, "what\u2028time is it", 1_200)  # a line separator is no new line of a trace
    return world.run(9_000).lines


@pytest.fixture
def path(tmp_path: Path, lines: list[str]) -> Path:
    path = tmp_path / "call.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_a_call_without_a_difference(path: Path, lines: list[str]) -> None:
    result = run(path)
    assert (result.exit_code, result.stdout) == (0, f"{len(lines) - 1} events, no difference\n")
    found = json.loads(run(path, "--json").stdout)
    assert found == {"trace": str(path), "events": len(lines) - 1, "difference": None}


def test_the_first_difference(path: Path, lines: list[str]) -> None:
    number = next(i for i, line in enumerate(lines) if "SpeechBegan" in line)
    lines[number] = lines[number].replace("SpeechBegan", "SpeechDropped")
    path.write_text("\n".join(lines), encoding="utf-8")
    result = run(path)
    assert result.exit_code == 1
    assert result.stdout.startswith(f"line {number + 1}, ")
    assert "SpeechDropped" in result.stdout
    assert "SpeechBegan" in result.stdout
    result = run(path, "--json")
    assert result.exit_code == 1
    found = json.loads(result.stdout)["difference"]
    assert found["line"] == number + 1
    assert found["recorded"] != found["replayed"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "trace version none"),
        (b'{"antiphon_trace": 99}\n', "trace version 99, this is version"),
        (b"RIFF....WAVE", "line 1 is not JSON"),
        (b"\xff\xfe\x00\x01", "it is not text"),
        (header(Policy()).encode() + b'\n{"t": 1, "event": {"ty', "line 2 is not JSON"),
    ],
)
def test_what_is_no_trace_is_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "odd"
    path.write_bytes(content)
    for place, expected in ((path, message), (tmp_path / "none", "No such"), (tmp_path, "cannot")):
        result = run(place)
        assert isinstance(result.exception, AntiphonError)
        assert expected in str(result.exception)
        assert "\n" not in str(result.exception)
        assert str(place) in str(result.exception)
