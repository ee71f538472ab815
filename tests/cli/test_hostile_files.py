"""Every command with every kind of thing that can lie where a file is named: one line, a code, and an end."""

from __future__ import annotations

import json
import logging
import os
import signal
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.cli.support import SCRIPTED
from tests.config.test_config import clean  # noqa: F401
from tests.test_files import HOSTILE

from antiphon.cli.main import main
from antiphon.core.policy import Policy
from antiphon.observe import call_trace

LIMIT_S = 60
CONTENT: dict[str, bytes] = {
    "empty": b"",
    "mark": b"\xef\xbb\xbf",
    "deep-json": b'{"a":' * 100_000,
    "deep-list": b"[" * 100_000,
    "deep-toml": b"a = " + b"[" * 100_000,
    "digits": b"1" * 10_000,
    "long-line": b"x" * 2_000_000,
    "nul": b"\0" * 1_000,
    "audio": b"RIFF\xff\xff\xff\xffWAVEfmt ",
}
COMMANDS: dict[str, list[str]] = {
    "replay": ["replay", "FILE"],
    "report": ["report", "FILE"],
    "run": ["run", "FILE"],
    "talk": ["talk", "--input", "FILE"],
    "call": ["call", "FILE", "--url", "ws://127.0.0.1:9"],
    "dial": ["dial", "+15550100", "--agent", "FILE", "--server", "http://127.0.0.1:9"],
    "keys list": ["keys", "list", "--file", "FILE"],
    "keys create": ["keys", "create", "phone", "--file", "FILE"],
    "keys revoke": ["keys", "revoke", "phone", "--file", "FILE"],
}
MADE_ANEW = {("keys list", "missing"), ("keys create", "missing"), ("keys create", "dangling")}
"""Where no file is no fault."""


@pytest.fixture(autouse=True)
def _ends() -> Iterator[None]:
    """Only a command that hangs gets here."""

    def late(*_: object) -> None:
        raise AssertionError("it does not end")

    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level  # commands say what is logged, for their process
    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(LIMIT_S)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)
    root.handlers[:] = handlers
    root.setLevel(level)


def command(
    arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> tuple[int, str]:
    """As typed -> its code, and what it says on stderr."""
    monkeypatch.setattr(sys, "argv", ["antiphon", *arguments])
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main()
    code = ended.value.code
    assert isinstance(code, int)
    return code, capsys.readouterr().err


def lay(kind: str, path: Path) -> None:
    if kind in CONTENT:
        path.write_bytes(CONTENT[kind])
    else:
        make: Callable[[Path], object] = HOSTILE[kind][0]
        make(path)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "antiphon.toml").write_text(SCRIPTED)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("kind", [*HOSTILE, *CONTENT])
@pytest.mark.parametrize("name", COMMANDS)
def test_a_file_that_is_none(
    name: str,
    kind: str,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lay(kind, folder / "FILE")
    code, said = command(COMMANDS[name], capsys, monkeypatch)
    if (name, kind) in MADE_ANEW or (name == "report" and code == 0):
        return  # a report of what can be read of a trace
    assert code in (1, 2)
    assert said.startswith("antiphon: ")
    assert said.count("\n") == 1
    assert len(said) < 600


@pytest.mark.parametrize(
    "kind", [kind for kind in [*HOSTILE, *CONTENT] if kind not in ("missing", "empty", "mark")]
)
@pytest.mark.parametrize("name", ["antiphon.toml", ".env", "antiphon-keys.json"])
def test_settings_that_are_none(
    name: str,
    kind: str,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The file and what to do are said, with the code of a command that was called wrongly."""
    if name == ".env" and kind in CONTENT:
        return  # a line of a `.env` file may be anything
    (folder / name).unlink(missing_ok=True)
    lay(kind, folder / name)
    code, said = command(["keys", "list"], capsys, monkeypatch)
    assert code == 2
    assert name in said
    assert said.startswith("antiphon: ")
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("server = 5", "setting server: should be a table, got 5 (in antiphon.toml)"),
        ("[[server]]\nport = 1", "setting server: should be a table"),
        ("endpoint = 'sk-secret'", "setting endpoint: should be a table (in antiphon.toml)"),
        ("[server]\nhost = ''", "setting server.host: should be an address or a name"),
        ("[server]\nhost = 5", "setting server.host: input should be a valid string, got 5"),
        ("[server]\nhost = ' '", "setting server.host: should be an address or a name"),
        ('[server]\nhost = "a\\u0000b"', "setting server.host: should be an address or a name"),
        ("[server]\nport = 'x'", "setting server.port: "),
        ("[server]\nport = 1.5", "setting server.port: "),
        ("[server]\nport = true", "setting server.port: "),
        ("[server]\ncors_origins = 5", "setting server.cors_origins"),
        ("[server]\ncors_origins = [5]", "setting server.cors_origins"),
        ("[server.port]\nx = 1", "setting server.port: "),
        ("[models]\nstt = 5", "setting models.stt"),
        ("[models]\noptions = 5", "setting models.options"),
        ("[agent]\npresets = ['a']", "setting agent.presets"),
        ("[conversation]\nmin_silence_ms = 'x'", "setting conversation.min_silence_ms"),
        ("trace_dir = 5", "setting trace_dir"),
        ("conversation = 5", "setting conversation: should be a table"),
    ],
)
def test_a_setting_of_another_kind(
    text: str,
    reason: str,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (folder / "antiphon.toml").write_text(text)
    code, said = command(["keys", "list"], capsys, monkeypatch)
    assert code == 2
    assert reason in said
    assert "secret" not in said
    assert said.count("\n") == 1


def test_a_report_is_for_its_owner(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = call_trace._settings(Policy())
    (folder / "call.jsonl").write_text(
        json.dumps({"antiphon_trace": call_trace.VERSION, "policy": policy})
    )
    page = folder / "call.html"
    page.write_text("an older one")
    page.chmod(0o666)
    assert command(["report", "call.jsonl"], capsys, monkeypatch)[0] == 0
    assert stat.S_IMODE(page.stat().st_mode) == 0o600


@pytest.mark.parametrize("target", ["/dev/full", "/dev", "/proc/nothing/x", "x" * 300 + ".wav"])
def test_a_place_that_nothing_can_be_written_to(
    target: str,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (folder / "call.jsonl").write_text("{}")
    for arguments in (["run", "call.jsonl", "-o", target], ["report", "call.jsonl", "-o", target]):
        code, said = command(arguments, capsys, monkeypatch)
        assert code in (1, 2)
        assert said.startswith("antiphon: ")
        assert said.count("\n") == 1
        assert os.path.exists("/dev/full")
