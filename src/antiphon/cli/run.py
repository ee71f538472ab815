"""`antiphon run`: an audio file in, the spoken answer as an audio file out."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer


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
    from antiphon.audio.encoding import encode_file, format_of
    from antiphon.cli.settings import settings_with, weight_store
    from antiphon.errors import AudioError
    from antiphon.local import Engine
    from antiphon.server.files import result_fields

    fmt = format_of(output)
    settings = settings_with(sets or [])
    audio = _read(question, settings.server.max_upload_bytes)
    with Engine(settings, weight_store()) as engine:
        answer = engine.answer(audio)
    encoded = encode_file(answer.pcm, answer.rate_hz, fmt, bitrate)
    try:
        _write_whole(output, encoded)
    except OSError as error:
        raise AudioError(f"cannot write {output}: {error.strerror}") from None
    fields = {**result_fields(answer, len(encoded)), "output": str(output)}
    if as_json:
        typer.echo(json.dumps(fields, ensure_ascii=False, indent=2))
    else:
        typer.echo(f"heard   {answer.transcript}")
        typer.echo(f"said    {answer.reply}")
        typer.echo(f"wrote   {output}  ({fields['audio_s']} s, {answer.total_ms} ms to make)")


def _read(path: Path, max_bytes: int) -> bytes:
    from antiphon.errors import AudioError

    try:
        if path.stat().st_size > max_bytes:
            raise AudioError(
                f"{path} is larger than {max_bytes >> 20} MiB; cut it, or raise server.max_upload_bytes"
            )
        return path.read_bytes()
    except OSError as error:
        raise AudioError(f"cannot read {path}: {error.strerror}") from None


def _write_whole(path: Path, data: bytes) -> None:
    """The file is there complete or not at all."""
    partial = path.with_name(f".{path.name}.part")
    try:
        partial.write_bytes(data)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
