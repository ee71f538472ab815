"""Voices as numbers: what clients fetch, keep and send back, and voices learned from a clip.

Numbers are a mark of the voice's name, so nothing has to be kept for them; a learned voice lives as
long as the process.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from antiphon.audio.containers import decode_file
from antiphon.audio.encoding import encode_file
from antiphon.errors import AudioError
from antiphon.models.model_set import ModelSet, Work
from antiphon.server.http_errors import RequestRefused
from antiphon.server.speech_stream import DEFAULT_VOICE, voices_of

log = logging.getLogger(__name__)

MAX_CLIP_BYTES = 16 << 20
_CLIP_S = 10
"""More of a clip is not listened to."""
_MAX_CLIP_S = 600.0
_LEAST_CLIP_S = 1.0
_RATE_HZ = 24_000


def voice_of_numbers(models: ModelSet, numbers: Iterable[Any]) -> str | None:
    """Name of the voice that these numbers were given out for; empty: the only one; None: not one of ours."""
    name = voice_of(numbers, voices_of(models))
    if name is None:
        log.warning("a client sent a voice of another server: the default voice is used")
    return "" if name == DEFAULT_VOICE else name


async def learn(models: ModelSet, clip: bytes, work: Work) -> str:
    """The voice in a recording of any format -> its name; the same clip is the same voice.

    Raises Refused, AudioError, ModelError, BusyError.
    """
    if not models.learns_voices:
        raise RequestRefused(
            501,
            "this voice model cannot learn a voice from a clip; use xtts (a service with `models.tts=xtts`), "
            "or one of /studio_speakers",
            "unsupported_operation",
            retry=False,
        )
    name = f"clip-{hashlib.sha256(clip).hexdigest()[:16]}"
    if name not in voices_of(models):
        with tempfile.TemporaryDirectory(prefix="antiphon-clip-") as folder:
            path = Path(folder) / f"{name}.wav"
            await asyncio.to_thread(_write, clip, path)
            await models.learn_voice(name, path, work=work)
    return name


def _write(clip: bytes, path: Path) -> None:
    decoded = decode_file(clip, rate_hz=_RATE_HZ, max_duration_s=_MAX_CLIP_S)
    if decoded.duration_s < _LEAST_CLIP_S:
        raise AudioError("the clip is too short to learn a voice; send 6 to 30 s of clear speech")
    pcm = decoded.pcm[: _CLIP_S * _RATE_HZ]
    path.write_bytes(encode_file(pcm, _RATE_HZ, "wav"))


EMBEDDING_NUMBERS = 512


LATENT_NUMBERS = 1_024


_MARK = (17.0, 1.0, 19.0, 20.0, 9.0, 16.0, 8.0, 15.0)
"""What tensors of ours begin with; a real embedding has no such numbers."""


_DIGEST_BYTES = 16


_TOLERANCE = 0.4


Tensors = dict[str, list[Any]]


def tensors(voice: str) -> Tensors:
    """A voice's name as `speaker_embedding` [512] and `gpt_cond_latent` [1, 1024]."""
    numbers = [*_MARK, *_digest(voice)]
    return {
        "gpt_cond_latent": [[*numbers, *[0.0] * (LATENT_NUMBERS - len(numbers))]],
        "speaker_embedding": [*numbers, *[0.0] * (EMBEDDING_NUMBERS - len(numbers))],
    }


def voice_of(embedding: Iterable[Any], voices: Iterable[str]) -> str | None:
    """The one of `voices` whose tensor this is, however it is nested and rounded; None: a stranger's."""
    head = _first_numbers(embedding, len(_MARK) + _DIGEST_BYTES)
    for voice in voices:
        wanted = (*_MARK, *_digest(voice))
        if len(head) == len(wanted) and all(
            abs(found - number) < _TOLERANCE for found, number in zip(head, wanted, strict=True)
        ):
            return voice
    return None


def _digest(voice: str) -> list[float]:
    return [float(byte) for byte in hashlib.sha256(voice.encode()).digest()[:_DIGEST_BYTES]]


def _first_numbers(tensor: Iterable[Any], count: int, depth: int = 4) -> list[float]:
    found: list[float] = []
    for item in tensor:
        if isinstance(item, list) and depth:
            found += _first_numbers(item, count - len(found), depth - 1)
        elif isinstance(item, (int, float)):
            found.append(float(item))
        else:
            return []
        if len(found) >= count:
            break
    return found[:count]
