"""What the benches show and write: charts, tables, the settings file, the commands themselves."""

from __future__ import annotations

import json
import os
import select
import tomllib
import wave
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from tests.cli.support import SCRIPTED, Command
from tests.support import say

from antiphon.client.bench import charts, contenders, finder, result_tables, servers
from antiphon.client.bench.result import envelope, save
from antiphon.errors import ConfigError

ALL_SCRIPTED = ("vad", "turn", "stt", "llm", "tts")


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter() if element.text]


def test_charts_are_well_formed_and_say_what_they_show() -> None:
    lines = charts.lines("Calls <1>", "calls", "ms", {"a & b": [(4, 500), (8, 900)], "c": []})
    assert {"Calls <1>", "a & b", "c", "calls", "ms"} <= set(texts(lines))
    dots = charts.dots("Stops", "ms", {"ours": [210.0, 240.0], "none": []})
    assert dots.count("<circle") == 2
    falls = charts.waterfall("Turn", {"ours": [("stt", 0, 60), ("token", 60, 170)]})
    assert {"ours", "stt", "60", "110"} <= set(texts(falls))
    for empty in (
        charts.lines("t", "x", "y", {}),
        charts.dots("t", "x", {}),
        charts.waterfall("t", {}),
    ):
        ElementTree.fromstring(empty)


def test_ticks_are_round() -> None:
    assert charts.Axis(0, 100, 0, 1).ticks() == [0, 20, 40, 60, 80, 100]
    assert charts.Axis(0, 1, 0, 1).ticks()[0] == 0


def capacity_result(**run: Any) -> Mapping[str, Any]:
    level = {"calls": 4, "voice_to_voice_ms": {"median": 500.0, "p95": 600.0}, "jitter_ms": None}
    runs = {"antiphon": [{"knee_calls": 4, "ended_by": "max_calls", "levels": [level], **run}]}
    return {
        "ratio_of_calls": {"antiphon / pipecat": {"median": None, "each": [None]}},
        "cpu_ms_per_call_s": {"antiphon": None},
        "idle_memory_mb_per_call": {"antiphon": 0.1},
        "runs": runs,
    }


def test_capacity_is_shown_even_where_nothing_was_measured() -> None:
    assert result_tables.capacity_table(capacity_result()).row_count == 1
    assert "antiphon" in texts(result_tables.capacity_chart(capacity_result()))
    failed = capacity_result(knee_calls=0, trouble="did not start", levels=[])
    assert result_tables.capacity_table(failed).row_count == 1
    ElementTree.fromstring(result_tables.capacity_chart(failed))


def test_a_result_says_where_it_was_measured(tmp_path: Path) -> None:
    result = envelope("turn", {"turns": 2}, {"ratio": 0.5})
    assert list(result)[:2] == ["bench", "ratio"]
    assert result["machine"]["cores"] >= 1
    assert result["versions"]["numpy"]
    path, image = save(result, charts.dots("t", "x", {}), tmp_path / "new" / "turn.json")
    assert json.loads(path.read_text())["settings"] == {"turns": 2}
    assert image.name == "turn.svg"
    with pytest.raises(ConfigError, match="cannot write"):
        save(result, "", path / "below-a-file.json")


# -- servers ------------------------------------------------------------------------------------------


def test_usage_is_read_from_outside() -> None:
    command = [
        "python3",
        "-c",
        "import sys, time; print('Ready: http://127.0.0.1:4321', file=sys.stderr, flush=True);"
        "print('stages: {\"sent\": 7}', file=sys.stderr, flush=True); time.sleep(60)",
    ]
    with servers.apart() as core, servers.running(servers.Contender("x", command), core) as running:
        assert running.url == "ws://127.0.0.1:4321/media-stream"
        usage = running.usage()
        assert usage is not None
        assert usage.memory_bytes > 0
        assert usage.threads == 1
    assert running.usage() is None  # it has ended


def test_a_peer_tells_its_stages() -> None:
    lines = ["noise", 'stages: {"sent": 7}', "stages"]
    running = servers.Running("pipecat", "ws://x", 0, False, lines)
    assert running.stages_since(0) == [{"sent": 7}]
    assert running.stages_since(2) == []


def test_arms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = contenders.capacity_contenders(
        contenders.SimulatedDelays(stt_ms=7), ["server.debug=true"], None
    )
    assert [contender.name for contender in ours] == ["antiphon", "antiphon + smart turn"]
    assert "models.options.stt.scripted-remote.delay_ms=7" in ours[0].command
    assert ours[0].command[-1] == "server.debug=true"
    monkeypatch.chdir(tmp_path)
    assert contenders.find_peer("") is None
    assert contenders.find_peer("none") is None
    with pytest.raises(ConfigError, match=r"source.*setup"):
        contenders.find_peer(str(tmp_path))


def test_the_peer_is_made_by_the_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[3])
    with pytest.raises(ConfigError, match="bench/pipecat/setup"):
        contenders.find_peer(str(tmp_path))
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.touch()
    peer = contenders.find_peer(str(tmp_path))
    assert peer is not None
    both = contenders.capacity_contenders(contenders.SimulatedDelays(stt_ms=7), [], peer)
    assert [one.name for one in both][1::2] == ["pipecat", "pipecat + smart turn"]
    assert both[1].command[:2] == [str(python), "bench/pipecat/bot.py"]
    assert both[1].command[both[1].command.index("--stt-ms") + 1] == "7"
    (story,) = contenders.interruption_contenders((), peer, "a story")[1:]
    assert story.command[-3:] == ["--models", "same", "--stages"]


# -- the finder ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "kept"),
    [
        ("", {}),
        ("# mine\n[server]\nport = 9000", {"port": 9000}),
        ("[server]\nmax_calls = 7 # old\nport = 9000\n", {"port": 9000}),
        ("[agent]\nprompt = 'x'\n\n[ server ]\nport = 1\n[phone]\nmax_calls_ = 3\n", {"port": 1}),
    ],
    ids=["none", "added", "changed", "among others"],
)
def test_the_limit_in_a_settings_file(before: str, kept: dict[str, Any]) -> None:
    text = finder.with_limit(before, 12)
    found = tomllib.loads(text)
    assert found["server"] == {**kept, "max_calls": 12}
    expected = tomllib.loads(before)
    assert {k: v for k, v in found.items() if k != "server"} == {
        k: v for k, v in expected.items() if k != "server"
    }
    assert all(line in text for line in before.splitlines() if "max_calls =" not in line)


def test_a_file_that_cannot_be_told_apart_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "antiphon.toml"
    path.write_text("server = { port = 1 }\n")
    with pytest.raises(ConfigError, match="yourself"):
        finder.write_limit(path, 3)
    assert path.read_text() == "server = { port = 1 }\n"
    assert (finder.limit_for(100), finder.limit_for(1)) == (80, 1)


# -- the commands -------------------------------------------------------------------------------------


@pytest.fixture
def command(tmp_path: Path) -> Command:
    (tmp_path / "antiphon.toml").write_text(SCRIPTED)
    with wave.open(str(tmp_path / "question.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        quiet = np.zeros(1_600, np.int16)
        file.writeframes(np.concatenate([quiet, say(440, 480), quiet]).tobytes())
    return Command(tmp_path)


def test_turn_command(command: Command) -> None:
    done = command(
        *("bench", "turn", "--turns", "1", "--say", "question.wav", "--peer", "none"),
        *("-o", "out.json"),
    )
    assert done.returncode == 0, done.stderr
    result = json.loads((command.folder / "out.json").read_text())
    assert (result["bench"], result["ratio"]) == ("turn", None)
    assert result["arms"]["antiphon"]["turns"] == 1
    assert result["arms"]["antiphon"]["stages_ms"]
    assert (command.folder / "out.svg").read_text().startswith("<svg")
    assert "antiphon" in done.stdout


def test_finder_command(command: Command) -> None:
    done = command(
        *("bench", "capacity", "--here", "--yes", "--most", "2", "--window", "1.5"),
        *("--settle", "0", "--idle", "1", "--say", "question.wav", "--json"),
    )
    (found,) = json.loads(done.stdout)["runs"]["antiphon"]
    assert found["levels"][0]["calls"] == 1
    settings = tomllib.loads((command.folder / "antiphon.toml").read_text())
    assert settings["models"]["vad"] == ["scripted"]
    if found["knee_calls"]:
        assert done.returncode == 0, done.stderr
        assert settings["server"]["max_calls"] == finder.limit_for(found["knee_calls"])
    else:  # a machine that is busy with something else: said, and nothing written
        assert "no limit was written" in done.stderr
        assert "server" not in settings


def test_commands_with_nobody_to_ask(command: Command) -> None:
    done = command("bench", "soak", "--models", "best", "--say", "question.wav")
    assert done.returncode == 1
    assert "fake or default" in done.stderr
    done = command("bench", "turn", "--peer", "nowhere", "--say", "question.wav")
    assert done.returncode == 1
    assert "bench/pipecat/setup" in done.stderr


def test_a_bench_that_is_ended_ends_its_servers(command: Command) -> None:
    running = command.start(
        "bench",
        "soak",
        "--say",
        "question.wav",
        "--samples",
        "5",
        "--calls",
        "20",
        "--set",
        "models.vad=scripted",
    )
    try:
        assert running.stderr is not None
        assert "calls" in running.stderr.readline()
        children = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
        ends = [
            os.pidfd_open(int(child)) for child in children
        ]  # the server, and a decoder of files
        assert ends
        running.terminate()
        assert running.wait(30) == 143
        for end in ends:
            assert select.select([end], [], [], 10)[0], "a process that was started lives on"
            os.close(end)
    finally:
        running.kill()
        running.communicate()
