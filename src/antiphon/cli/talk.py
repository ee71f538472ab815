"""`antiphon talk`: a conversation at the terminal, by microphone and loudspeaker or from file to file."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit, urlunsplit

import typer

from antiphon.errors import AntiphonError, ConfigError, ProtocolError

if TYPE_CHECKING:
    from antiphon.client.call_table import CallTable
    from antiphon.client.live_view import LiveView
    from antiphon.client.sound_card import SoundCard
    from antiphon.client.talk_call import TalkCall
    from antiphon.models.ports import Pcm16

_SILENCES = ("min_silence_ms", "unsure_silence_ms", "plain_silence_ms", "max_silence_ms")
_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")


@dataclass(frozen=True, slots=True)
class _Outcome:
    session: CallTable
    heard: Pcm16
    rate_hz: int
    trouble: AntiphonError | None
    """What ended the call before its time."""


def talk(
    url: Annotated[
        str | None, typer.Option(help="A running server, as ws://host:port; else one is started.")
    ] = None,
    question: Annotated[
        Path | None, typer.Option("--input", help="Audio file to speak instead of a microphone.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", help="Where the answers go, as heard, with --input.")
    ] = None,
    silence_ms: Annotated[
        int | None,
        typer.Option(help="Silence that ends a turn, however it sounds.", min=100, max=10_000),
    ] = None,
    codec: Annotated[
        str | None, typer.Option(help="opus or pcm; opus to another machine unless told.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the table as JSON.")] = False,
    sets: Annotated[
        list[str] | None, typer.Option("--set", help="A setting of the server that is started.")
    ] = None,
) -> None:
    """Talk to an agent: by microphone, or from an audio file in real time. Ctrl-C hangs up.

    A server with keys is told the one in ANTIPHON_API_KEY.
    """
    from antiphon.client.local_server import server_for
    from antiphon.client.microphone import check_codec

    # Whatever can be wrong is found out before a server is started.
    if codec is not None:
        check_codec(codec)
    settings = _server_settings(url, silence_ms, sets or [])
    spoken, card = _audio_input(question, output)
    with server_for(url and _address(url), settings, _tell_start) as (address, _):
        outcome = asyncio.run(_converse(address, codec, spoken, card))
        _show(outcome.session, as_json)
    if output is not None:
        _write(output, outcome)
    if outcome.trouble is not None:
        raise outcome.trouble
    if spoken is not None and not outcome.session.answered:
        raise ProtocolError("nothing was answered; is there speech in the file?")


def _server_settings(url: str | None, silence_ms: int | None, sets: list[str]) -> list[str]:
    if url is None:
        chosen = [] if silence_ms is None else [f"conversation.{s}={silence_ms}" for s in _SILENCES]
        return [*chosen, *sets]
    if silence_ms is not None:
        raise ConfigError(
            "--silence-ms is a setting of the server, and --url names one that runs already; "
            "start that with --set conversation.max_silence_ms=..."
        )
    if sets:
        raise ConfigError("--set is for the server that is started here; leave it or --url out")
    return []


def _audio_input(
    question: Path | None, output: Path | None
) -> tuple[Pcm16 | None, SoundCard | None]:
    """-> the file to speak, or the sound card. Raises AudioError, ConfigError."""
    if question is None:
        if output is not None:
            raise ConfigError("--output goes with --input: what the microphone hears is not kept")
        from antiphon.client.sound_card import SoundCard

        return None, SoundCard()
    from antiphon.audio.containers import decode_file
    from antiphon.audio.encoding import format_of
    from antiphon.cli.common import check_place

    if output is not None:
        format_of(output)
        check_place(output)
    return decode_file(question).pcm, None


def _address(url: str) -> str:
    """What a person types for a server -> its websocket."""
    from antiphon.client.local_server import PATH

    wrong = ConfigError(f"--url takes ws://host:port, got {url!r}")
    try:
        parts = urlsplit(url if "://" in url else f"ws://{url}")
        port = parts.port  # raises for one that is no number, or too large
    except ValueError:
        raise wrong from None
    scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
    if scheme not in ("ws", "wss") or not parts.hostname or port == 0:
        raise wrong
    path = parts.path if parts.path.strip("/") else PATH
    return urlunsplit((scheme, parts.netloc, path, parts.query, ""))


def _tell_start(line: str) -> None:
    """A server's models are worth a line each; its log is not, and its last word is told as the reason."""
    if not line[:1].isdigit() and not line.startswith("antiphon:"):
        typer.echo(line, err=True)


async def _converse(
    address: str, codec: str | None, spoken: Pcm16 | None, card: SoundCard | None
) -> _Outcome:
    """One call. Raises ProtocolError when there is none to be had, AudioError for a card that cannot be opened."""
    from rich.console import Console

    from antiphon.client.live_view import LiveView
    from antiphon.client.microphone import Transfer, codec_for
    from antiphon.client.talk_call import TalkCall
    from antiphon.models.ports import STT_RATE_HZ

    transfer = Transfer(codec or codec_for(address), STT_RATE_HZ)
    view = LiveView(Console(stderr=True))
    call = TalkCall(
        address,
        transfer,
        microphone=card.read if card else None,
        playout=card.playout if card else None,
        greeting=spoken is None,
        api_key=os.environ.get("ANTIPHON_API_KEY", ""),
        on_message=view.note,
    )
    view.level_db = lambda: call.track.level_db
    if card is not None:
        card.open()
    try:
        async with call:
            return await _hold(call, view, lambda: _caller(call, spoken))
    finally:
        if card is not None:
            card.close()


async def _caller(call: TalkCall, spoken: Pcm16 | None) -> None:
    """What the caller does until it is time to hang up."""
    if spoken is None:
        await call.wait_until_over()
    else:
        await call.say(spoken)
        await call.wait_until_heard()


async def _hold(call: TalkCall, view: LiveView, caller: Callable[[], Awaitable[None]]) -> _Outcome:
    """The call until it ends by itself, by trouble or by a signal."""
    trouble: AntiphonError | None = None
    with view:
        try:
            await _unless_stopped(caller)
        except AntiphonError as error:
            trouble = error
        ended = call.ended if trouble is None else str(trouble)
        if trouble is None and not ended:
            await call.hang_up()
    return _Outcome(call.session(ended), call.heard(), call.playout.rate_hz, trouble)


async def _unless_stopped(work: Callable[[], Awaitable[None]]) -> None:
    """Ctrl-C, or the terminal's end, is how a person hangs up: the rest of the command still runs."""
    loop, stopped = asyncio.get_running_loop(), asyncio.Event()
    numbers = [getattr(signal, name) for name in _SIGNALS if hasattr(signal, name)]
    for number in numbers:
        with suppress(NotImplementedError, RuntimeError):
            loop.add_signal_handler(number, stopped.set)
    tasks = [asyncio.ensure_future(work()), asyncio.create_task(stopped.wait())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if tasks[0].done():
            await tasks[0]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for number in numbers:
            with suppress(NotImplementedError, RuntimeError):
                loop.remove_signal_handler(number)


def _show(session: CallTable, as_json: bool) -> None:
    from rich.console import Console

    if as_json:
        typer.echo(json.dumps(session.as_object(), ensure_ascii=False, indent=2))
    else:
        typer.echo(session.headline())
        Console().print(session.as_table())


def _write(output: Path, outcome: _Outcome) -> None:
    from antiphon.audio.encoding import encode_file, format_of
    from antiphon.cli.common import write_whole

    fmt = format_of(output)
    if len(outcome.heard) or fmt in ("wav", "pcm"):
        write_whole(output, encode_file(outcome.heard, outcome.rate_hz, fmt), private=True)
