"""`antiphon bench`: measurements, each a command with a JSON result."""

from __future__ import annotations

import asyncio
import json
import os
import platform
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(no_args_is_help=True, help="Measure latency and capacity; results are JSON.")


@app.callback()
def bench() -> None:
    """Measure latency and capacity; results are JSON."""


@app.command("vad")
def vad(
    sentences: Annotated[int, typer.Option(help="Sentences to speak.", min=1, max=24)] = 20,
    output: Annotated[Path | None, typer.Option("-o", help="Write the JSON here as well.")] = None,
    as_table: Annotated[bool, typer.Option("--table", help="Print a Markdown table.")] = False,
) -> None:
    """Compare voice activity detectors on speech in noise."""
    from antiphon.cli.settings import weight_store
    from antiphon.client import vad_bench

    result = vad_bench.run(weight_store(), sentences)
    text = json.dumps(result, indent=2)
    if output is not None:
        output.write_text(text + "\n")
    typer.echo(vad_bench.table(result) if as_table else text)


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
    from antiphon.client.local_server import server_for

    questions = turn_bench.speak_questions(weight_store(), turns)
    memory: dict[str, float | None] = {}
    with server_for(url, sets or []) as (address, pid):

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


def _processor() -> str:
    info: dict[str, Any] = {}
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            name, _, value = line.partition(":")
            info.setdefault(name.strip(), value.strip())
    except OSError:
        return platform.processor()
    return str(info.get("model name", platform.processor()))
