"""`antiphon run`: an audio file in, the spoken answer as an audio file out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from antiphon.models.ports import ModelStatus


def run(
    question: Annotated[
        Path, typer.Argument(help="Audio file with a spoken question, any format.")
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="WAV, MP3, Opus or FLAC, by its extension.")
    ] = Path("answer.wav"),
    bitrate: Annotated[
        int, typer.Option(help="kbit/s of a compressed answer.", min=8, max=320)
    ] = 64,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    sets: Annotated[
        list[str] | None, typer.Option("--set", help="A setting, as section.name=value.")
    ] = None,
) -> None:
    """Answer a spoken question in a file with a spoken answer in a file."""
    from antiphon.audio.containers import decode_file
    from antiphon.audio.encoding import encode_file, format_of
    from antiphon.cli.common import check_place, quiet_log, settings_with, weight_store, write_whole
    from antiphon.local import Engine
    from antiphon.protocols.openai_http.speech_to_speech import result_fields
    from antiphon.server.model_loading import check_models

    # Whatever can be wrong is found out before models are loaded.
    fmt = format_of(output)
    check_place(output)
    settings = settings_with(sets or [])
    check_models(settings)
    quiet_log(settings.server.debug)
    heard = decode_file(question, max_duration_s=settings.server.max_file_s)
    with Engine(settings, weight_store()) as engine:
        answer = engine.answer_pcm(heard.pcm)
        _tell_fallbacks(engine.status())
    encoded = encode_file(answer.pcm, answer.rate_hz, fmt, bitrate)
    write_whole(output, encoded)
    fields = result_fields(answer, len(encoded), str(output))
    if as_json:
        typer.echo(json.dumps(fields, ensure_ascii=False, indent=2))
    else:
        typer.echo(f"heard   {answer.transcript}")
        typer.echo(f"said    {answer.reply}")
        typer.echo(f"wrote   {output}  ({fields['audio_s']} s, {answer.total_ms} ms to make)")


def _tell_fallbacks(status: list[ModelStatus]) -> None:
    for link in status:
        if link.error:
            typer.echo(f"antiphon: note: {link.kind} {link.name}: {link.error}", err=True)
