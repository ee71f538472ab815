"""Recordings, debug audio and the diagnosis of callers' audio, on a real server."""

from __future__ import annotations

import json
import logging
import os
import re
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.server.support import QUESTION, START, Client, client, serving
from tests.support import run, say, until

from antiphon.audio.containers import decode_file
from antiphon.audio.growing_file import read_sides
from antiphon.audio.levels import rms
from antiphon.observe.report import report_file

RATE_HZ = 16_000


async def talk_once(talk: Client) -> str:
    """-> the call's id."""
    name = (await talk.wait("connected"))["session_id"]
    await talk.speak(QUESTION)
    await talk.wait("turn_complete")
    return str(name)


@pytest.mark.parametrize("fmt", ["opus", "flac", "wav"])
def test_a_call_is_recorded_and_reported_with_both_voices(tmp_path: Path, fmt: str) -> None:
    async def scenario() -> str:
        overrides: dict[str, Any] = {
            "recording_dir": tmp_path / "calls",
            "recording_format": fmt,
            "trace_dir": tmp_path / "traces",
        }
        async with serving(tmp_path, **overrides) as served, client(served, start=START) as talk:
            return await talk_once(talk)

    (tmp_path / "traces").mkdir(mode=0o755)
    older = tmp_path / "traces" / "older.jsonl"
    older.write_text("")
    older.chmod(0o644)
    before = os.umask(0)
    try:
        name = run(scenario())
    finally:
        os.umask(before)
    path = tmp_path / "calls" / f"{name}.{fmt}"
    trace = tmp_path / "traces" / f"{name}.jsonl"
    modes = [stat.S_IMODE(found.stat().st_mode) for found in (path, trace, older)]
    assert modes == [0o600] * 3
    folders = [stat.S_IMODE(found.parent.stat().st_mode) for found in (path, trace)]
    assert folders == [0o700] * 2
    caller, agent = read_sides(path, RATE_HZ)
    assert rms(caller) > 300
    assert rms(agent) > 300
    # The question came first.
    assert np.flatnonzero(np.abs(caller) > 500)[0] < np.flatnonzero(np.abs(agent) > 500)[0]
    html = report_file(tmp_path / "traces" / f"{name}.jsonl", recording=path)
    assert "No recording" not in html


def test_a_call_that_the_server_ends_is_recorded_to_its_end(tmp_path: Path) -> None:
    async def scenario() -> str:
        async with (
            serving(tmp_path, recording_dir=tmp_path / "calls") as served,
            client(served, start=START) as talk,
        ):
            name = str((await talk.wait("connected"))["session_id"])
            await talk.send(type="text", text="tell me a story")
            await talk.wait("ai_audio_start")
            await until(lambda: sum(isinstance(f, bytes) for f in talk.frames) > 3)
            served.server.should_exit = True
            await talk.wait_closed()
            return name

    name = run(scenario())
    _, agent = read_sides(tmp_path / "calls" / f"{name}.opus", RATE_HZ)
    assert rms(agent) > 300


def test_a_folder_that_cannot_be_written_never_costs_the_call(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")

    async def scenario() -> None:
        folders: dict[str, Any] = {
            "recording_dir": tmp_path / "file",
            "debug_audio_dir": tmp_path / "file",
        }
        async with serving(tmp_path, **folders) as served, client(served, start=START) as talk:
            await talk_once(talk)
            assert talk.of("error") == []

    with caplog.at_level(logging.ERROR):
        run(scenario())
    told = sorted(r.getMessage() for r in caplog.records if r.levelno == logging.ERROR)
    assert len(told) == 2
    assert re.search("its debug audio could not be written", told[0])
    assert re.search("its recording could not be written", told[1])


def test_debug_audio_and_the_line_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "debug"

    async def scenario() -> str:
        async with (
            serving(tmp_path, debug_audio_dir=folder) as served,
            client(served, start=START | {"rate": 48_000}) as talk,
        ):
            name = str((await talk.wait("connected"))["session_id"])
            await talk.speak(say(440, 640, silence_ms=1_200, rate_hz=48_000))
            await talk.wait("turn_complete")
            return name

    with caplog.at_level(logging.INFO, logger="antiphon.audio"):
        name = run(scenario())
    raw = decode_file(folder / f"{name}.caller.wav", rate_hz=None)
    assert raw.rate_hz == 48_000
    assert np.array_equal(raw.pcm, say(440, 640, silence_ms=1_200, rate_hz=48_000))
    (line,) = (folder / "calls.jsonl").read_text().splitlines()
    found = json.loads(line)
    assert found["call"] == name
    assert found["band"] == "normal"
    assert found["rate_hz"] == 48_000
    (record,) = [r for r in caplog.records if r.name == "antiphon.audio"]
    assert record.__dict__["audio_band"] == "normal"
    assert record.getMessage().startswith("the caller's audio: normal, RMS")


@pytest.mark.parametrize("asked", [True, False])
def test_a_client_is_told_once_what_is_wrong_with_its_audio(tmp_path: Path, asked: bool) -> None:
    async def scenario() -> None:
        start = START | {"extensions": ["notice"] if asked else []}
        noise = np.random.default_rng(2).normal(0, 40_000, 8 * RATE_HZ)
        loud = np.clip(noise, -32_768, 32_767).astype(np.int16)
        async with serving(tmp_path) as served, client(served, start=start) as talk:
            await talk.wait("connected")
            await talk.speak(loud)
            told = await talk.wait("notice" if asked else "error")
            assert told["message"] == "your audio is clipped: lower the microphone's level"
            await talk.send(type="ping")
            await talk.wait("pong")
            assert len(talk.of("notice")) + len(talk.of("error")) == 1

    run(scenario())
