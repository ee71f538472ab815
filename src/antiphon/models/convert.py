"""What a simple back end returns, as the types of the ports.

Knows nothing of kinds, names or signatures: one value in, one value out. Raises ModelError for a
value that cannot be meant.
"""

from __future__ import annotations

import io
import wave
from typing import Any

import numpy as np

from antiphon.errors import ModelError
from antiphon.models.ports import STT_RATE_HZ, LlmDelta, Pcm16, Transcript


def split_pair(value: Any) -> tuple[Any, float | None]:
    """`(result, number)`, as recipes with a stop watch or a sample rate return it -> its two
    halves.

    Anything else -> (value, None).
    """
    if isinstance(value, tuple) and len(value) == 2:
        result, number = value
        if _is_number(number) and not _is_number(result):
            return result, float(number)
    return value, None


def as_transcript(value: Any) -> Transcript:
    """A Transcript, a text, None (nothing heard), or one of them with the seconds it took."""
    heard = split_pair(value)[0]
    if isinstance(heard, Transcript):
        return heard
    if heard is None:
        return Transcript("")
    if isinstance(heard, str):
        return Transcript(heard.strip())
    raise ModelError(f"transcribe() must return a text, not {type(heard).__name__}")


def as_delta(value: Any) -> LlmDelta:
    """A LlmDelta, a text, or one of them with the seconds it took."""
    said = split_pair(value)[0]
    if isinstance(said, LlmDelta):
        return said
    if isinstance(said, str):
        return LlmDelta(said)
    raise ModelError(f"generate() must give texts, not {type(said).__name__}")


def as_pcm16(value: Any) -> tuple[Pcm16, int]:
    """Samples of any kind -> (mono PCM, rate or 0 if unknown).

    Taken: int16, other integers within its range, floats within -1..1, a tensor, a WAV file as
    bytes.
    """
    if isinstance(value, bytes | bytearray):
        return _from_wav(bytes(value))
    if hasattr(value, "detach"):  # a torch tensor, without importing torch
        value = value.detach().cpu().numpy()
    samples = np.asarray(value)
    if samples.dtype.kind not in "iuf":
        raise ModelError(f"synthesize() must give samples, not {type(value).__name__}")
    if samples.ndim > 1:
        samples = samples.squeeze()
    if samples.ndim > 1:
        raise ModelError(f"synthesize() must give mono audio, not shape {samples.shape}")
    samples = samples.reshape(-1)
    if samples.dtype == np.int16:
        return samples, 0
    if samples.dtype.kind == "f":
        scaled = np.nan_to_num(samples.astype(np.float32)) * 32767.0
        return np.clip(np.rint(scaled), -32768, 32767).astype(np.int16), 0
    return np.clip(samples, -32768, 32767).astype(np.int16), 0


def as_wav_bytes(audio: Pcm16, rate_hz: int = STT_RATE_HZ) -> bytes:
    """Mono PCM [samples] as a whole WAV file in memory."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(rate_hz)
        writer.writeframes(audio.astype("<i2").tobytes())
    return buffer.getvalue()


def _from_wav(data: bytes) -> tuple[Pcm16, int]:
    try:
        with wave.open(io.BytesIO(data)) as reader:
            channels, width = reader.getnchannels(), reader.getsampwidth()
            rate_hz = reader.getframerate()
            frames = reader.readframes(reader.getnframes())
    except (wave.Error, EOFError) as error:
        raise ModelError(f"synthesize() gave bytes that are not a WAV file: {error}") from error
    if channels != 1 or width != 2:
        raise ModelError("synthesize() must give 16-bit mono WAV files")
    return np.frombuffer(frames, dtype="<i2").astype(np.int16), rate_hz


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.integer | np.floating)
