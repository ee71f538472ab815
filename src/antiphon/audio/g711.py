"""G.711 companding: one byte per sample at 8 kHz, the audio of telephony.

Encoding and decoding are one table look-up each. The tables are computed at import from the arithmetic of
ITU-T Recommendation G.711 in the form that ITU-T's own reference software (G.191) uses: negative samples
are taken by one's complement, so that both halves of the scale are cut at the same magnitudes. (Python's
old `audioop` and Sun's g711.c negate instead and are off by one step for some negative values.)
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from antiphon.audio.framing import Pcm16

Codes = npt.NDArray[np.uint8]

ULAW_SILENCE = 0xFF
"""The mu-law code of a zero sample. A zero byte is full-scale noise."""
ALAW_SILENCE = 0xD5
"""The A-law code of the smallest positive sample, +8: A-law has no zero."""

_SEGMENTS = 8


def _ulaw_decode_table() -> Pcm16:
    code = ~np.arange(256) & 0xFF
    magnitude = ((((code & 0x0F) << 3) + 0x84) << ((code & 0x70) >> 4)) - 0x84
    return np.where(code & 0x80, -magnitude, magnitude).astype(np.int16)


def _alaw_decode_table() -> Pcm16:
    code = np.arange(256) ^ 0x55
    segment = (code & 0x70) >> 4
    step = ((code & 0x0F) << 4) + 8
    magnitude = np.where(segment == 0, step, (step + 0x100) << np.maximum(segment - 1, 0))
    return np.where(code & 0x80, magnitude, -magnitude).astype(np.int16)


def _magnitude() -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """One's complement magnitude and "is negative" of every sample, ordered by its bits as uint16."""
    samples = np.arange(65536).astype(np.uint16).view(np.int16).astype(np.int64)
    negative = samples < 0
    return np.where(negative, ~samples, samples), negative


def _segment(value: npt.NDArray[np.int64], first_limit: int) -> npt.NDArray[np.int64]:
    """How many of the limits first, 2 * first, 4 * first ... each value has reached."""
    limits = first_limit << np.arange(_SEGMENTS - 1)
    return np.searchsorted(limits, value, side="right").astype(np.int64)


def _ulaw_encode_table() -> Codes:
    magnitude, negative = _magnitude()
    value = np.minimum((magnitude >> 2) + 33, 0x1FFF)
    segment = _segment(value, 64)
    code = (segment << 4) | ((value >> (segment + 1)) & 0x0F)
    codes: Codes = (~(code | np.where(negative, 0x80, 0)) & 0xFF).astype(np.uint8)
    return codes


def _alaw_encode_table() -> Codes:
    magnitude, negative = _magnitude()
    value = magnitude >> 4
    segment = _segment(value, 16)
    code = (segment << 4) | ((value >> np.maximum(segment - 1, 0)) & 0x0F)
    return ((code | np.where(negative, 0, 0x80)) ^ 0x55).astype(np.uint8)


_ULAW_TO_PCM = _ulaw_decode_table()
_ALAW_TO_PCM = _alaw_decode_table()
_PCM_TO_ULAW = _ulaw_encode_table()
_PCM_TO_ALAW = _alaw_encode_table()


def decode_ulaw(data: bytes | bytearray | memoryview) -> Pcm16:
    """Mu-law bytes -> samples of shape [len(data)]. Any bytes are valid."""
    return _ULAW_TO_PCM.take(np.frombuffer(data, np.uint8))


def encode_ulaw(pcm: Pcm16) -> bytes:
    """Samples of shape [n] -> n mu-law bytes. Exact for all codes but 0x7F (minus zero), which becomes 0xFF."""
    return _PCM_TO_ULAW.take(pcm.view(np.uint16)).tobytes()


def decode_alaw(data: bytes | bytearray | memoryview) -> Pcm16:
    """A-law bytes -> samples of shape [len(data)]. Any bytes are valid."""
    return _ALAW_TO_PCM.take(np.frombuffer(data, np.uint8))


def encode_alaw(pcm: Pcm16) -> bytes:
    """Samples of shape [n] -> n A-law bytes. Decoding and encoding again is exact for all 256 codes."""
    return _PCM_TO_ALAW.take(pcm.view(np.uint16)).tobytes()
