"""`antiphon call`: a simulated telephone call to a voice agent, measured from what the caller hears."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from antiphon.errors import ConfigError, ProtocolError

if TYPE_CHECKING:
    from antiphon.client.phone.caller import Number
    from antiphon.client.phone.script import CallResult, Script

_STAGGER_S = 0.237
"""Between the beginnings of concurrent calls: people do not dial in step. No multiple of a frame."""


_Files = Annotated[
    list[Path] | None, typer.Argument(help="What the caller says, one file a question.")
]
_Url = Annotated[
    list[str] | None,
    typer.Option(help="ws://host:port, or http://host:port for the webhook; or both."),
]
_Mode = Annotated[str, typer.Option(help="stream or record: which flow is called.")]
_BargeInAt = Annotated[
    float | None,
    typer.Option(help="Say the next file so many seconds into the answer.", min=0.0),
]
_QuietMs = Annotated[
    int, typer.Option(help="An answer is over when the agent was silent so long.", min=100)
]
_Greeting = Annotated[
    float, typer.Option(help="Seconds in which the agent may speak first.", min=0.0)
]
_Limit = Annotated[
    float, typer.Option(help="Seconds to wait for an answer, and for its end.", min=1.0)
]
_Noise = Annotated[
    float | None, typer.Option(help="Noise on the caller's side, dB below the speech.")
]
_Loss = Annotated[str, typer.Option(help="Share of the caller's packets lost, e.g. 2%.")]
_Jitter = Annotated[float, typer.Option(help="Packets leave up to so many ms late.")]
_Seed = Annotated[int, typer.Option(help="Of loss and jitter.")]
_Dtmf = Annotated[
    str, typer.Option(help="Keys to press after the greeting; a Record's finish key.")
]
_Parameter = Annotated[
    list[str] | None, typer.Option(help="Custom parameter of the stream, name=value.")
]
_Token = Annotated[
    str,
    typer.Option(
        "--token",
        "--auth-token",
        envvar="TWILIO_AUTH_TOKEN",
        show_envvar=False,
        help="Sign as Twilio with this auth token; or set TWILIO_AUTH_TOKEN.",
    ),
]
_PublicUrl = Annotated[
    str, typer.Option(help="The server's PUBLIC_URL, which signatures are made over.")
]
_Caller = Annotated[str, typer.Option("--from", help="The caller's number.")]
_Called = Annotated[str, typer.Option("--to", help="The number that is called.")]
_Calls = Annotated[int, typer.Option(help="Calls at the same time.", min=1, max=500)]
_Loop = Annotated[int, typer.Option(help="Ask all files so often in a call.", min=1)]
_Repeat = Annotated[int, typer.Option(help="Repeat the call so often.", min=1)]
_Record = Annotated[
    Path | None, typer.Option(help="Stereo WAV: caller left, agent right as heard.")
]
_AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def call(
    files: _Files = None,
    url: _Url = None,
    mode: _Mode = "stream",
    barge_in_at: _BargeInAt = None,
    quiet_ms: _QuietMs = 1_000,
    greeting: _Greeting = 3.0,
    limit: _Limit = 30.0,
    noise: _Noise = None,
    loss: _Loss = "0%",
    jitter: _Jitter = 0.0,
    seed: _Seed = 1,
    dtmf: _Dtmf = "",
    parameter: _Parameter = None,
    token: _Token = "",
    public_url: _PublicUrl = "",
    caller: _Caller = "+15550100",
    called: _Called = "+15550199",
    calls: _Calls = 1,
    loop: _Loop = 1,
    repeat: _Repeat = 1,
    record: _Record = None,
    as_json: _AsJson = False,
) -> None:
    """Call an agent as Twilio would, with recorded questions, and measure what the caller hears.

    A server with keys and without a token is told the key in ANTIPHON_API_KEY.
    """
    from antiphon.client.phone.caller import number_for
    from antiphon.client.phone.carrier_webhooks import PhoneNumbers
    from antiphon.client.phone.clips import load_clip
    from antiphon.client.phone.impairments import Impairments
    from antiphon.client.phone.script import Script

    if not files and not dtmf:
        raise ConfigError("nothing to say; give one or more audio files")
    streams = barge_in_at is not None or bool(jitter) or bool(_share(loss))
    _check(mode, record, streams=streams)
    key = os.environ.get("ANTIPHON_API_KEY", "").partition(",")[0].strip()
    number = number_for(
        url or [],
        mode,
        line=PhoneNumbers(caller, called, token, public_url, api_key=key),
        parameters=_parameters(parameter or []),
        impairments=Impairments(_share(loss), jitter, seed),
    )
    clips = [load_clip(path, noise) for path in files or []] * loop
    script = Script(clips, barge_in_at, quiet_ms, greeting, limit, dtmf)
    results = asyncio.run(_all_calls(number, script, mode, calls, repeat))
    _report(results, record, as_json)


def _check(mode: str, record: Path | None, *, streams: bool) -> None:
    """`streams`: something is asked for that only a stream can have. Raises ConfigError."""
    from antiphon.cli.common import check_place
    from antiphon.client.phone.caller import WEBHOOK_PATHS

    if mode not in WEBHOOK_PATHS:
        raise ConfigError(f"--mode is stream or record, got {mode!r}")
    if record is not None:
        check_place(record)
    if mode == "record" and streams:
        raise ConfigError(
            "--barge-in-at, --loss and --jitter need a stream; leave --mode record out"
        )


def _parameters(given: list[str]) -> dict[str, str]:
    found = {}
    for item in given:
        name, separator, value = item.partition("=")
        if not separator or not name:
            raise ConfigError(f"--parameter takes name=value, got {item!r}")
        found[name] = value
    return found


def _share(text: str) -> float:
    """`2%` or `0.02` -> 0.02. Raises ConfigError."""
    try:
        value = float(text.removesuffix("%").strip())
    except ValueError:
        raise ConfigError(f"--loss takes a share such as 2%, got {text!r}") from None
    return value / 100 if text.endswith("%") else value


async def _all_calls(
    number: Number, script: Script, mode: str, calls: int, repeat: int
) -> list[CallResult]:
    """`calls` callers at once, each with `repeat` calls one after the other."""
    from contextlib import AsyncExitStack

    from antiphon.client.phone.recorded_flow import call_recorded
    from antiphon.client.phone.recording_host import RecordingHost
    from antiphon.client.phone.script import call_once, numbered

    async with AsyncExitStack() as stack:
        host: RecordingHost | None = None
        if mode == "record":
            host = await stack.enter_async_context(RecordingHost(number.line.account_sid))

        async def one_caller(index: int) -> list[CallResult]:
            await asyncio.sleep(index * _STAGGER_S)
            done = []
            for round_ in range(repeat):
                mine = numbered(number, index + round_ * calls)
                if host is None:
                    done.append(await call_once(mine, script))
                else:
                    done.append(await call_recorded(mine, script, host))
            return done

        found = await asyncio.gather(*(one_caller(index) for index in range(calls)))
    return [result for results in found for result in results]


def _report(results: list[CallResult], record: Path | None, as_json: bool) -> None:
    """Keep the recordings, print what was measured, and fail where somebody was left without an answer."""
    if record is not None:
        _keep(record, results)
    _show(results, as_json)
    _judge(results)


def _keep(path: Path, results: list[CallResult]) -> None:
    """One file; several calls get a number each."""
    from antiphon.cli.common import write_whole

    for index, result in enumerate(results, 1):
        if result.recording is not None:
            name = path if len(results) == 1 else path.with_stem(f"{path.stem}-{index}")
            write_whole(name, result.recording.wav(), private=True)


def _show(results: list[CallResult], as_json: bool) -> None:
    from antiphon.client.phone import call_summary

    if as_json:
        typer.echo(json.dumps(call_summary.as_object(results), ensure_ascii=False, indent=2))
        return
    from rich.console import Console

    console = Console()
    for index, result in enumerate(results, 1):
        typer.echo(f"Call {index}: {result.trouble or result.ended}")
        if result.turns:
            console.print(call_summary.turn_table(result))
        if len(results) == 1:
            typer.echo(call_summary.timeline(result))
        for fault in result.faults:
            typer.echo(f"  Twilio would complain: {fault}")
    typer.echo(call_summary.headline(results))
    console.print(call_summary.sum_table(results))


def _judge(results: list[CallResult]) -> None:
    """A code that is not 0 where somebody was left without an answer."""
    troubles = [result.trouble for result in results if result.trouble]
    if troubles:
        raise ProtocolError(f"{len(troubles)} of {len(results)} calls failed: {troubles[0]}")
    unanswered = sum(result.unanswered for result in results)
    if unanswered:
        turns = sum(len(result.turns) for result in results)
        raise ProtocolError(f"{unanswered} of {turns} questions were not answered")
