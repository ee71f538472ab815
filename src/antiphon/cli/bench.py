"""`antiphon bench`: measurements, each a command with a JSON result."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(no_args_is_help=True, help="Measure latency and capacity; results are JSON.")


@app.callback()
def bench() -> None:
    """Measure latency and capacity; results are JSON."""


@app.command("turn")
def turn(
    turns: Annotated[int, typer.Option(help="Questions to ask.", min=1)] = 24,
    url: Annotated[
        str | None, typer.Option(help="A running server's websocket; else one is started.")
    ] = None,
    output: Annotated[Path | None, typer.Option("-o", help="Write the JSON here as well.")] = None,
    sets: Annotated[
        list[str] | None, typer.Option("--set", help="A setting of the server that is started.")
    ] = None,
) -> None:
    """Ask questions aloud in real time, and measure how long the answers take to be heard."""
    from antiphon.cli.settings import weight_store
    from antiphon.client import turn_bench

    questions = turn_bench.speak_questions(weight_store(), turns)
    memory: dict[str, float | None] = {}
    with _server(url, sets or []) as (address, pid):

        def on_turn(index: int, done: turn_bench.Turn) -> None:
            delay = done.voice_to_voice_ms
            note = "  (cut off)" if done.cut_off else ""
            typer.echo(f"{index + 1:3}  {delay or 0:6.0f} ms{note}  {done.heard}", err=True)
            if pid is not None and index + 1 in (10, turns):
                memory[f"after_{index + 1}_turns_mb"] = turn_bench.memory_mb(pid)

        measured = asyncio.run(turn_bench.measure(address, questions, on_turn))
    result = {
        **turn_bench.summarise(measured),
        "server_memory": memory,
        "machine": {
            "processor": _processor(),
            "cores": os.cpu_count(),
            "python": platform.python_version(),
        },
    }
    text = json.dumps(result, ensure_ascii=False, indent=2)
    if output is not None:
        output.write_text(text + "\n")
    typer.echo(text)


@contextmanager
def _server(url: str | None, sets: list[str]) -> Iterator[tuple[str, int | None]]:
    """The server under test: a running one, or one of our own on a free port, ended by its id."""
    if url is not None:
        yield url, None
        return
    command = [sys.executable, "-m", "antiphon", "serve", "--port", "0"]
    for item in sets:
        command += ["--set", item]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        yield f"ws://127.0.0.1:{_wait_for_port(process)}/ws/conversation", process.pid
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for_port(process: subprocess.Popen[str]) -> int:
    from antiphon.errors import ModelError

    assert process.stderr is not None
    last = ""
    for line in process.stderr:
        ready = re.search(r"http://[^ ]*:(\d+)", line)
        if ready:
            _read_on(process)
            return int(ready[1])
        last = line.strip() or last
    raise ModelError(f"the server did not start: {last}")


def _read_on(process: subprocess.Popen[str]) -> None:
    """A pipe that nobody reads would block the server's log."""
    import threading

    def read() -> None:
        assert process.stderr is not None
        for _ in process.stderr:
            pass

    threading.Thread(target=read, name="server log", daemon=True).start()


def _processor() -> str:
    info: dict[str, Any] = {}
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            name, _, value = line.partition(":")
            info.setdefault(name.strip(), value.strip())
    except OSError:
        return platform.processor()
    return str(info.get("model name", platform.processor()))
