"""`antiphon bench`: measurements, each a command with a table, a JSON result and a chart."""

from __future__ import annotations

import json
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from antiphon.errors import ConfigError

if TYPE_CHECKING:
    from rich.table import Table

    from antiphon.client.bench.capacity import LoadLevel
    from antiphon.client.bench.contenders import SimulatedDelays
    from antiphon.client.bench.servers import Contender
    from antiphon.client.bench.turn import Contestant
    from antiphon.client.phone.clips import Clip

app = typer.Typer(no_args_is_help=True, help="Measure latency and capacity; results are JSON.")

Output = Annotated[
    Path | None, typer.Option("-o", "--output", help="Write the JSON here, and an SVG beside it.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
Sets = Annotated[list[str] | None, typer.Option("--set", help="A setting of our server.")]
Say = Annotated[
    list[Path] | None,
    typer.Option("--say", help="What callers say, instead of the embedded voice's questions."),
]
Peer = Annotated[
    str,
    typer.Option(help="The Pipecat bot's environment (bench/pipecat/setup makes it), or `none`."),
]


@app.callback()
def bench() -> None:
    """Measure latency and capacity; results are JSON."""
    # So that the servers that were started are ended, however the command is.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


@app.command("vad")
def vad(
    sentences: Annotated[int, typer.Option(help="Sentences to speak.", min=1, max=24)] = 20,
    output: Annotated[Path | None, typer.Option("-o", help="Write the JSON here as well.")] = None,
    as_table: Annotated[bool, typer.Option("--table", help="Print a Markdown table.")] = False,
) -> None:
    """Compare voice activity detectors on speech in noise."""
    from antiphon.cli.common import weight_store
    from antiphon.client.bench import vad_bench

    result = vad_bench.run(weight_store(), sentences)
    text = json.dumps(result, indent=2)
    if output is not None:
        output.write_text(text + "\n")
    typer.echo(vad_bench.table(result) if as_table else text)


@app.command("turn")
def turn(
    turns: Annotated[int, typer.Option(help="Questions to ask of each server.", min=1)] = 48,
    per_call: Annotated[int, typer.Option(help="Questions a call.", min=1)] = 3,
    peer: Peer = "",
    say: Say = None,
    sets: Sets = None,
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """Ask questions over the telephone wire in real time, and measure how long the answers take to be heard."""
    from antiphon.client.bench import contenders, result_tables
    from antiphon.client.bench import turn as bench_turn

    questions = [bench_turn.BenchQuestion(clip, pause) for clip, pause in _questions(say)]
    asked = [questions[index % len(questions)] for index in range(turns)]

    def on_turn(server: str, question: Any, figures: Any) -> None:
        delay = figures.voice_to_voice_ms
        shown = f"{delay:6.0f} ms" if delay is not None else "   none   "
        note = "  (cut off)" if figures.talked_over else ""
        typer.echo(f"{server:10} {shown}  {question.clip.name}{note}", err=True)

    with tempfile.TemporaryDirectory() as folder:
        contestants = _contestants(
            Path(folder),
            lambda more: contenders.turn_contenders(
                (*more, *(sets or ())), contenders.find_peer(peer)
            ),
        )
        bench_turn.compare(contestants, asked, per_call=per_call, core=None, on_turn=on_turn)
    found = bench_turn.summary(contestants)
    settings = {"turns": turns, "per_call": per_call, "set": sets or []}
    result = _finish("turn", settings, found, output, result_tables.turn_chart)
    _print(result, as_json, result_tables.turn_table(result), result_tables.stages_table(result))


@app.command("capacity")
def capacity(
    repeats: Annotated[int, typer.Option(help="Runs of each server, in turns.", min=1)] = 3,
    base: Annotated[int, typer.Option(help="Calls that all loads are compared with.", min=1)] = 4,
    most: Annotated[int, typer.Option(help="Go no further than this.", min=1)] = 400,
    window: Annotated[float, typer.Option(help="Seconds of measuring at each load.")] = 15.0,
    settle: Annotated[float, typer.Option(help="Seconds before it.")] = 4.0,
    growth: Annotated[float, typer.Option(help="Each load is so many times the last.")] = 1.5,
    idle: Annotated[int, typer.Option(help="Silent calls, to see what one takes.", min=0)] = 40,
    only: Annotated[str, typer.Option(help="Of the servers, those whose name has this.")] = "",
    here: Annotated[
        bool, typer.Option("--here", help="Of this machine, with the models it is set up with.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="With --here: write the limit.")] = False,
    peer: Peer = "",
    say: Say = None,
    sets: Sets = None,
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """Find out how many calls one core holds, with models that only take their time; beside Pipecat's bot."""
    from antiphon.client.bench import capacity as bench_capacity
    from antiphon.client.bench import contenders, result_tables
    from antiphon.client.bench.load import CallerBehaviour
    from antiphon.client.bench.servers import apart

    plan = bench_capacity.RampPlan(
        1 if here else base, growth, most, settle, window, 5 if here else 20, idle
    )
    delays = contenders.SimulatedDelays()
    servers = _here(sets) if here else _compared(delays, sets, peer)
    servers = [contender for contender in servers if only in contender.name]
    behaviour = CallerBehaviour([clip for clip, pause in _questions(say) if not pause])

    with apart(not here) as core:
        runs = bench_capacity.compare(
            servers,
            behaviour,
            plan,
            repeats=1 if here else repeats,
            core=core,
            on_level=_tell_level,
        )
    found = {**bench_capacity.summary(runs), "runs": runs}
    settings = {**asdict(plan), "core": core, "delays": asdict(delays), "set": sets or []}
    result = _finish(
        "here" if here else "capacity", settings, found, output, result_tables.capacity_chart
    )
    _print(result, as_json, result_tables.capacity_table(result))
    if here:
        _offer_limit(runs, yes)


@app.command("barge-in")
def barge_in(
    count: Annotated[
        int, typer.Option(help="Interruptions, and as many other sounds.", min=1)
    ] = 40,
    seed: Annotated[int, typer.Option(help="Of the moments.")] = 1,
    peer: Peer = "",
    sets: Sets = None,
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """Interrupt the agent, and make sounds that are no interruption, at random moments."""
    from antiphon.cli.common import weight_store
    from antiphon.client.bench import contenders, interruption_bench, result_tables
    from antiphon.client.bench.questions import speak_texts
    from antiphon.client.phone.clips import RATE_HZ, make_clip

    said = speak_texts(
        weight_store(),
        ("Tell me a story.", *interruption_bench.INTERRUPTIONS, *interruption_bench.SIGNS),
    )
    last = 1 + len(interruption_bench.INTERRUPTIONS)
    coughs = [make_clip("cough", interruption_bench.cough(index), RATE_HZ) for index in range(8)]
    trials = interruption_bench.trials(said[1:last], said[last:], coughs, count, seed)

    def on_trial(server: str, outcome: interruption_bench.Outcome) -> None:
        delay = "" if outcome.stop_ms is None else f"{outcome.stop_ms:.0f} ms"
        typer.echo(
            f"{server:10} {outcome.name:40} {outcome.result:8} {delay} {outcome.trouble}", err=True
        )

    with tempfile.TemporaryDirectory() as folder:
        contestants = _contestants(
            Path(folder),
            lambda more: contenders.interruption_contenders(
                (*more, *(sets or ())), contenders.find_peer(peer), interruption_bench.STORY
            ),
        )
        outcomes = interruption_bench.compare(
            contestants, said[0], trials, core=None, on_trial=on_trial
        )
    settings = {"count": count, "seed": seed, "set": sets or []}
    result = _finish(
        "barge-in",
        settings,
        interruption_bench.summary(outcomes),
        output,
        result_tables.barge_in_chart,
    )
    _print(result, as_json, result_tables.barge_in_table(result))


@app.command("endpoint")
def endpoint(
    folder: Annotated[Path, typer.Argument(help="Recordings of one turn each, with an index.tsv.")],
    offline: Annotated[
        bool, typer.Option("--offline", help="In virtual time, without a server.")
    ] = False,
    signs: Annotated[
        Path | None,
        typer.Option(help="What was heard: read from here if it exists, else written here."),
    ] = None,
    sets: Sets = None,
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """Count how many people are cut off in a pause, and how long the others wait, for each way to decide."""
    from antiphon.cli.common import settings_with, weight_store
    from antiphon.client.bench import endpoint, pauses, result_tables

    settings = settings_with([*(sets or ())])
    if not offline:
        raise ConfigError("bench endpoint cannot call a server in real time yet; add --offline")
    if signs is not None and signs.exists():
        heard = pauses.load(signs)
    else:
        heard = endpoint.hear_all(folder, weight_store(), settings.agent.prompt, _tell_heard)
        if signs is not None:
            pauses.save(signs, heard)
    found = endpoint.summary(heard, settings.conversation)
    options = {"folder": folder.name, "set": sets or []}
    result = _finish("endpoint", options, found, output, endpoint.chart)
    _print(result, as_json, result_tables.endpoint_table(result))


@app.command("soak")
def soak(
    calls: Annotated[int, typer.Option(help="Short calls in all.", min=1)] = 10_000,
    at_once: Annotated[int, typer.Option(help="At the same time.", min=1)] = 50,
    samples: Annotated[int, typer.Option(help="How often to look at the server.", min=3)] = 20,
    models: Annotated[
        str, typer.Option(help="`fake`, or `default` for the models that are set up.")
    ] = "fake",
    say: Say = None,
    sets: Sets = None,
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """Call again and again, and see whether anything of the calls remains."""
    from antiphon.client.bench import contenders, result_tables
    from antiphon.client.bench import soak as bench_soak
    from antiphon.client.bench.load import CallerBehaviour
    from antiphon.client.bench.servers import apart

    if models not in ("fake", "default"):
        raise ConfigError(f"--models is fake or default, got {models!r}")
    plan = bench_soak.SoakPlan(calls, at_once, samples)
    behaviour = CallerBehaviour(
        [clip for clip, pause in _questions(say) if not pause], answer_limit_s=20, first_s=0.3
    )
    contender = contenders.soak_contender(models == "fake", sets or ())

    def on_sample(sample: bench_soak.Sample) -> None:
        typer.echo(f"{sample.calls:6} calls  {sample.memory_mb} MB  {sample.tasks} tasks", err=True)

    with apart(models == "fake") as core:
        found = bench_soak.soak(contender, behaviour, plan, core=core, on_sample=on_sample)
    settings = {**asdict(plan), "models": models, "core": core, "set": sets or []}
    result = _finish("soak", settings, found, output, result_tables.soak_chart)
    _print(result, as_json, result_tables.soak_table(result))


# -- what they share --------------------------------------------------------------------------------


def _questions(say: list[Path] | None) -> list[tuple[Clip, bool]]:
    """(question, whether it has a pause in mid-sentence)."""
    from antiphon.client.phone.clips import load_clip

    if say:
        return [(load_clip(path), False) for path in say]
    from antiphon.cli.common import weight_store
    from antiphon.client.bench.questions import QUESTIONS, clips_of, speak_questions

    spoken = speak_questions(weight_store(), len(QUESTIONS))
    return [(clip, q.pauses > 0) for clip, q in zip(clips_of(spoken), spoken, strict=True)]


def _contestants(folder: Path, make: Any) -> list[Contestant]:
    """Ours traces its calls into `folder`: its turn records are taken from there."""
    from antiphon.client.bench.traced_records import Traces
    from antiphon.client.bench.turn import Contestant

    traces = Traces(folder)
    ours, *others = make(traces.settings())
    return [Contestant(ours, traces), *(Contestant(contender) for contender in others)]


def _tell_level(server: str, level: LoadLevel) -> None:
    delay = level.voice_to_voice_ms or {"median": 0.0, "p95": 0.0}
    cpu = level.cpu_ms_per_call_s or 0.0
    typer.echo(
        f"{server:24} {level.calls:4} calls  {delay['median']:6.0f} / {delay['p95']:6.0f} ms  "
        f"{cpu:5.1f} ms CPU per call-s  {level.unanswered} unanswered",
        err=True,
    )


def _here(sets: list[str] | None) -> list[Contender]:
    from antiphon.client.bench import contenders

    return [contenders.antiphon("antiphon", (*contenders.QUIET, *contenders.OPEN, *(sets or ())))]


def _compared(delays: SimulatedDelays, sets: list[str] | None, peer: str) -> list[Contender]:
    from antiphon.client.bench import contenders

    return contenders.capacity_contenders(delays, sets or (), contenders.find_peer(peer))


def _offer_limit(runs: Mapping[str, Sequence[Mapping[str, Any]]], yes: bool) -> None:
    from antiphon.client.bench import finder

    run = next(iter(runs.values()))[-1]
    if not run["knee_calls"]:
        why = run.get("trouble") or run.get("ended_by", "")
        raise ConfigError(f"not even one call was well: {why}; no limit was written")
    calls, path = finder.limit_for(run["knee_calls"]), finder.settings_file()
    found = f"{run['knee_calls']} calls were well"
    if yes or typer.confirm(f"{found}. Write max_calls = {calls} into {path}?"):
        finder.write_limit(path, calls)
        typer.echo(f"{found}; {path} now has server.max_calls = {calls}.", err=True)


def _finish(
    bench: str,
    settings: Mapping[str, Any],
    found: Mapping[str, Any],
    output: Path | None,
    chart: Any,
) -> dict[str, Any]:
    from antiphon.client.bench.result import envelope, save

    result = envelope(bench, settings, found)
    if output is not None:
        for path in save(result, chart(result), output):
            typer.echo(f"written: {path}", err=True)
    return result


def _print(result: Mapping[str, Any], as_json: bool, *tables: Table) -> None:
    if as_json:
        typer.echo(json.dumps(result, ensure_ascii=False, indent=1))
        return
    from rich.console import Console

    for table in tables:
        Console().print(table)


def _tell_heard(done: int, of: int) -> None:
    if done % 20 == 0 or done == of:
        typer.echo(f"{done} of {of} recordings heard", err=True)
