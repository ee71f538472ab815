"""`antiphon call` as a person types it, against an agent that runs."""

from __future__ import annotations

import asyncio
import json
import sys
import wave
from pathlib import Path

import pytest
from tests.client.phone.fake_agent import fake_agent
from tests.support import run, say

from antiphon.audio.encoding import encode_file
from antiphon.cli import main

QUICK = ["--greeting", "0", "--quiet-ms", "200", "--limit", "5"]


def question(folder: Path, hz: int = 440) -> str:
    path = folder / f"{hz}.wav"
    path.write_bytes(encode_file(say(hz, 300), 16_000, "wav"))
    return str(path)


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["antiphon", "call", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_a_call_as_json_and_its_recording(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def scenario() -> int:
        async with fake_agent() as agent:
            files = [question(tmp_path), question(tmp_path, 550)]
            given = [*files, "--url", agent.ws, "--json", "--record", str(tmp_path / "out.wav")]
            given += ["--noise", "30", "--loss", "1%", "--jitter", "10", "--parameter", "a=b"]
            return await asyncio.to_thread(command, monkeypatch, *given, *QUICK)

    assert run(scenario()) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["sum"]["turns"] == 2
    assert shown["sum"]["voice_to_voice_ms"]["count"] == 2
    assert [turn["question"] for turn in shown["calls"][0]["turns"]] == ["440.wav", "550.wav"]
    with wave.open(str(tmp_path / "out.wav")) as file:
        assert (file.getnchannels(), file.getframerate()) == (2, 8_000)
        assert file.getnframes() / 8_000 == pytest.approx(shown["calls"][0]["duration_s"], abs=0.1)


def test_several_calls_for_a_person(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def scenario() -> int:
        async with fake_agent(answer_ms=200) as agent:
            given = [question(tmp_path), "--url", agent.ws, "--calls", "2", "--repeat", "2"]
            given += ["--record", str(tmp_path / "out.wav")]
            return await asyncio.to_thread(command, monkeypatch, *given, *QUICK)

    assert run(scenario()) == 0
    out = capsys.readouterr().out
    assert "4 calls, 4 turns, 0 unanswered" in out
    assert "voice to voice" in out
    assert len(list(tmp_path.glob("out-*.wav"))) == 4


def test_no_answer_is_a_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def scenario() -> int:
        async with fake_agent(answer_ms=0) as agent:
            given = [question(tmp_path), "--url", agent.ws, "--greeting", "0", "--limit", "1"]
            return await asyncio.to_thread(command, monkeypatch, *given)

    assert run(scenario()) == 1
    assert "1 of 1 questions were not answered" in capsys.readouterr().err


def test_the_recording_flow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def scenario() -> int:
        async with fake_agent() as agent:
            given = [question(tmp_path), "--url", f"http://{agent.address}", "--mode", "record"]
            return await asyncio.to_thread(command, monkeypatch, *given, "--dtmf", "#", "--json")

    assert run(scenario()) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["calls"][0]["mode"] == "record"
    assert shown["sum"]["unanswered"] == 0


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (["--url", "ws://h"], "nothing to say"),
        (["FILE", "--url", "ftp://h"], "--url takes"),
        (["FILE"], "nobody to call"),
        (["FILE", "--url", "ws://h", "--mode", "fax"], "stream or record"),
        (["FILE", "--url", "ws://h", "--loss", "many"], "--loss takes"),
        (["FILE", "--url", "ws://h", "--loss", "90%"], "0% to 50%"),
        (["FILE", "--url", "ws://h", "--parameter", "a"], "name=value"),
        (["FILE", "--url", "http://h", "--mode", "record", "--loss", "1%"], "need a stream"),
        (["FILE", "--url", "ws://127.0.0.1:1"], "1 of 1 calls failed: 31902"),
        (["FILE", "--url", "ws://h", "--record", "/nowhere/x.wav"], "no folder"),
        (["/nowhere.wav", "--url", "ws://h"], "nowhere.wav"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    wrong: list[str],
    reason: str,
) -> None:
    given = [question(tmp_path) if item == "FILE" else item for item in wrong]
    assert command(monkeypatch, *given) == 1
    error = capsys.readouterr().err
    assert reason in error
    assert error.count("\n") == 1
