"""`antiphon serve` as a process: it starts, answers, says little, and stops as it is told."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.cli.support import LIMIT_S, SCRIPTED, Command
from websockets.asyncio.client import connect

from antiphon.audio.growing_file import read_sides


@pytest.fixture
def antiphon(tmp_path: Path) -> Command:
    (tmp_path / "antiphon.toml").write_text(SCRIPTED)
    return Command(tmp_path)


@contextlib.contextmanager
def serving(
    antiphon: Command, *arguments: str
) -> Iterator[tuple[subprocess.Popen[str], str, list[str]]]:
    """-> the process, its address, and what it has said so far."""
    process = antiphon.start("serve", "--port", "0", *arguments)
    said: list[str] = []
    try:
        assert process.stderr is not None
        for line in process.stderr:
            said.append(line.rstrip("\n"))
            found = re.search(r"http://localhost:(\d+)", line)
            if found:
                yield process, f"127.0.0.1:{found[1]}", said
                return
        raise AssertionError(f"it did not start: {said}")
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=LIMIT_S)


def stop(process: subprocess.Popen[str], number: signal.Signals) -> tuple[int, str, str]:
    process.send_signal(number)
    out, err = process.communicate(timeout=LIMIT_S)
    return process.returncode, out, err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_starts_answers_and_stops(number: signal.Signals, antiphon: Command) -> None:
    with serving(antiphon) as (process, address, said):
        assert len(said) == 6
        for kind, line in zip(("vad", "turn", "stt", "llm", "tts"), said, strict=False):
            assert re.fullmatch(rf"  {kind} +scripted +.* \d+\.\d s", line)
        assert re.fullmatch(r"Ready: http://localhost:\d+  \(\d+\.\d s; Ctrl-C stops\)", said[5])
        assert httpx.get(f"http://{address}/ready").json()["status"] == "ready"
        code, out, err = stop(process, number)
    assert (code, out, err) == (0, "", "")


def test_stops_with_a_call_on(antiphon: Command) -> None:
    async def main() -> None:
        with serving(antiphon) as (process, address, _):
            async with connect(f"ws://{address}/ws/conversation") as socket:
                await socket.send('{"type":"start","extensions":["heard"]}')
                assert json.loads(await socket.recv())["type"] == "connected"
                process.send_signal(signal.SIGINT)
                async with httpx.AsyncClient() as http, asyncio.timeout(LIMIT_S):
                    while (await http.get(f"http://{address}/ready")).status_code == 200:
                        pass
                process.send_signal(signal.SIGINT)  # no patience
                kinds = [json.loads(f)["type"] async for f in socket if isinstance(f, str)]
                assert kinds[-1] == "ended"
            out, err = await asyncio.to_thread(process.communicate, timeout=LIMIT_S)
            assert process.returncode == 0
            assert "Traceback" not in out + err

    asyncio.run(main())


def test_a_call_is_a_line_at_its_beginning_and_its_end(antiphon: Command) -> None:
    async def main(address: str) -> None:
        async with connect(f"ws://{address}/ws/conversation") as socket:
            await socket.send('{"type":"start","greeting":false}')
            await socket.recv()
            await socket.send('{"type":"stop"}')
            await socket.wait_closed()

    with serving(antiphon) as (process, address, _):
        asyncio.run(main(address))
        code, _, err = stop(process, signal.SIGTERM)
    assert code == 0
    began, ended = err.splitlines()
    assert re.search(r"INFO +server\.admission: call \w{16} began", began)
    assert re.search(r"call \w{16} ended after \d\.\d s, 0 turns", ended)


@pytest.mark.parametrize("killed", [False, True])
def test_folders_on_the_command_line(antiphon: Command, tmp_path: Path, killed: bool) -> None:
    """Stopped or killed in mid-call: the recording can be read up to then, and reported."""
    from tests.support import say

    async def talk(address: str) -> str:
        async with connect(f"ws://{address}/ws/conversation?rate=16000") as socket:
            await socket.send('{"type":"start","format":"pcm_s16le","extensions":["floor"]}')
            name = json.loads(await socket.recv())["session_id"]
            pcm = say(440, 640, silence_ms=2_400).tobytes()
            for at in range(0, len(pcm), 640):
                await socket.send(pcm[at : at + 640])
            replies = 0
            while replies < 2:  # the greeting and the answer
                frame = await socket.recv()
                replies += isinstance(frame, str) and json.loads(frame)["type"] == "turn_complete"
            if (
                killed
            ):  # the latest two seconds are not on the disk yet: go on until there are earlier ones
                path = folders[1] / f"{name}.opus"
                while path.stat().st_size < 4_000:
                    await socket.send(pcm[:640])
                    await asyncio.sleep(0.02)
            else:
                await socket.send('{"type":"stop"}')
                await socket.wait_closed()
        return str(name)

    folders = [tmp_path / name for name in ("traces", "calls", "debug")]
    options = zip(("--trace", "--record", "--debug-audio"), map(str, folders), strict=True)
    with serving(antiphon, *(word for pair in options for word in pair)) as (process, address, _):
        name = asyncio.run(talk(address))
        code, _, _ = stop(process, signal.SIGKILL if killed else signal.SIGTERM)
    assert code == (-signal.SIGKILL if killed else 0)
    left, right = read_sides(folders[1] / f"{name}.opus", 16_000)
    assert len(left) == len(right)
    assert (folders[2] / f"{name}.caller.wav").is_file()
    if killed:
        return
    assert "what time is it" not in (folders[0] / f"{name}.jsonl").read_text()
    antiphon.variables = {
        "ANTIPHON_TRACE_DIR": str(folders[0]),
        "ANTIPHON_RECORDING_DIR": str(folders[1]),
    }
    done = antiphon("report", name, "-o", "call.html")
    assert done.returncode == 0, done.stderr
    assert "No recording" not in (tmp_path / "call.html").read_text()


def test_stops_while_it_starts(antiphon: Command) -> None:
    options = "models.options.llm.openai.base_url=http://127.0.0.1:9/v1"
    process = antiphon.start("serve", "--port", "0", "--set", "models.llm=openai", "--set", options)
    assert process.stderr is not None
    assert process.stderr.readline().startswith("  vad")
    code, _, err = stop(process, signal.SIGTERM)
    assert code in (0, 1)  # 1: the endpoint was found missing first
    assert "Traceback" not in err


def test_a_port_in_use(antiphon: Command) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        done = antiphon("serve", "--port", str(port))
    assert done.returncode == 1
    assert done.stderr == (
        f"antiphon: cannot listen on 127.0.0.1 port {port}: Address already in use; "
        "choose another with --host and --port\n"
    )


def test_a_fallback_is_said_once(antiphon: Command) -> None:
    with serving(antiphon, "--set", "models.stt=moonshine,scripted") as (process, address, said):
        assert len([line for line in said if "moonshine" in line]) == 1
        assert re.search(r"stt +moonshine +failed: ", "\n".join(said))
        models = httpx.get(f"http://{address}/ready").json()["models"]
        assert [m["name"] for m in models if m["fallback"]] == ["scripted"]
        assert stop(process, signal.SIGTERM)[0] == 0


def test_no_model_at_all(antiphon: Command) -> None:
    done = antiphon("serve", "--port", "0", "--set", "models.stt=moonshine")
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert lines[-1].startswith("antiphon: no stt model can be loaded: moonshine: ")
    assert not any("Traceback" in line or "Ready" in line for line in lines)
