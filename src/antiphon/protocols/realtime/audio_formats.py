"""The three audio formats of the protocol, and base64 as clients really send it.

Formats are independent per direction. Bytes need not align to samples: the odd byte waits for the next piece.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from typing import Any

import numpy as np

from antiphon.audio import g711
from antiphon.audio.framing import ByteJoiner, Pcm16, pcm_to_bytes
from antiphon.audio.resample import Resampler, resample
from antiphon.protocols.realtime.schema import RealtimeError

PCM, ULAW, ALAW = "audio/pcm", "audio/pcmu", "audio/pcma"
HEARD = "heard"
"""No format of the protocol: the caller's audio as it is kept here, 16-bit at 16 kHz."""
RATES_HZ = {PCM: 24_000, ULAW: 8_000, ALAW: 8_000, HEARD: 16_000}
SAMPLE_BYTES = {PCM: 2, ULAW: 1, ALAW: 1, HEARD: 2}
VOICE_RATE_HZ = 24_000
"""The rate of the agent's voice as it comes to `OutputAudio`."""
_URL_SAFE = str.maketrans("-_", "+/")
_BLANKS = (" ", "\n", "\r", "\t", "\f", "\v")


def format_json(kind: str) -> dict[str, Any]:
    """A format as the session object shows it."""
    return {"type": kind, "rate": 24_000} if kind == PCM else {"type": kind}


_PIECE_CHARS = 256 << 10
"""A multiple of four, and a millisecond's work."""


def base64_pieces(text: str) -> Iterator[bytes]:
    """`from_base64` in pieces, for who must not be busy for long. Raises RealtimeError in between."""
    if len(text) <= _PIECE_CHARS:
        yield from_base64(text)
        return
    rest = ""
    for start in range(0, len(text), _PIECE_CHARS):
        piece = text[start : start + _PIECE_CHARS]
        if rest or not _plain(piece):
            piece = rest + "".join(piece.split())
            whole = len(piece) if start + _PIECE_CHARS >= len(text) else len(piece) // 4 * 4
            piece, rest = piece[:whole], piece[whole:]
        yield from_base64(piece)


def _plain(text: str) -> bool:
    """Neither line breaks nor blanks in it."""
    return not any(blank in text for blank in _BLANKS)


def from_base64(text: str) -> bytes:
    """Standard or URL-safe alphabet, with or without padding and line breaks. Raises RealtimeError for other text."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        pass
    compact = "".join(text.split()).translate(_URL_SAFE).rstrip("=")
    try:
        return base64.b64decode(compact + "=" * (-len(compact) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise RealtimeError(
            "audio is not base64; send base64 of raw samples", param="audio"
        ) from None


def to_base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def duration_ms(kind: str, data_bytes: int) -> float:
    return data_bytes * 1000 / (RATES_HZ[kind] * SAMPLE_BYTES[kind])


def bytes_at(kind: str, at_ms: int) -> int:
    """Where in audio of this format the sample at `at_ms` begins."""
    return at_ms * RATES_HZ[kind] // 1000 * SAMPLE_BYTES[kind]


class InputAudio:
    """The client's bytes -> samples. Change `kind` at any time; what is left of a sample is then dropped."""

    def __init__(self) -> None:
        self._kind = PCM
        self._joiner = ByteJoiner("s16le")

    @property
    def kind(self) -> str:
        return self._kind

    @kind.setter
    def kind(self, kind: str) -> None:
        if kind != self._kind:
            self._kind = kind
            self._joiner.reset()

    @property
    def rate_hz(self) -> int:
        return RATES_HZ[self._kind]

    def feed(self, data: bytes) -> Pcm16:
        if self._kind == ULAW:
            return g711.decode_ulaw(data)
        if self._kind == ALAW:
            return g711.decode_alaw(data)
        return self._joiner.feed(data)

    def reset(self) -> None:
        """The buffer was cleared: half a sample in it as well."""
        self._joiner.reset()


def decode(kind: str, data: bytes, rate_hz: int) -> Pcm16:
    """A whole recording in this format -> samples at `rate_hz`."""
    audio = InputAudio()
    audio.kind = kind
    return resample(audio.feed(data), audio.rate_hz, rate_hz)


def encode(kind: str, pcm: Pcm16, rate_hz: int) -> bytes:
    """A whole recording at `rate_hz` -> bytes in this format."""
    pcm = resample(pcm, rate_hz, RATES_HZ[kind])
    return _codes(kind, pcm)


def _codes(kind: str, pcm: Pcm16) -> bytes:
    if kind == ULAW:
        return g711.encode_ulaw(np.ascontiguousarray(pcm))
    if kind == ALAW:
        return g711.encode_alaw(np.ascontiguousarray(pcm))
    return pcm_to_bytes(pcm)


class OutputAudio:
    """The agent's voice at `VOICE_RATE_HZ` -> bytes in the client's format, one stream per response."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._resampler = None if kind == PCM else Resampler(VOICE_RATE_HZ, RATES_HZ[kind])

    def feed(self, pcm: Pcm16) -> bytes:
        return _codes(self.kind, self._resampler.process(pcm) if self._resampler else pcm)

    def flush(self) -> bytes:
        """What the resampler still holds back."""
        return _codes(self.kind, self._resampler.flush()) if self._resampler else b""
