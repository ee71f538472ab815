"""Asterisk's AudioSocket: frames of one type byte, a big-endian length, and a payload; samples are little-endian PCM16.

Bytes in any pieces -> frames; no I/O, no clock. Asterisk connects and names the call by a UUID in its first frame; who
calls is not said. Sources: Asterisk's AudioSocket protocol description, `res_audiosocket.c`.
"""

from __future__ import annotations

import struct
import uuid
from dataclasses import dataclass

from antiphon.audio.framing import Pcm16, pcm_from_bytes, pcm_to_bytes
from antiphon.errors import ProtocolError

RATE_HZ = 8_000
"""At which we speak: every Asterisk takes it."""
FRAME_MS = 20
FRAME_SAMPLES = RATE_HZ * FRAME_MS // 1000
HANG_UP = b"\x00\x00\x00"
DIGITS = frozenset("0123456789*#ABCD")

_HEADER = struct.Struct(">BH")
_HANGUP, _ID, _DTMF, _AUDIO, _ERROR = 0x00, 0x01, 0x03, 0x10, 0xFF
_RATES_HZ = {
    0x10: 8_000,
    0x11: 12_000,
    0x12: 16_000,
    0x13: 24_000,
    0x14: 32_000,
    0x15: 44_100,
    0x16: 48_000,
    0x17: 96_000,
    0x18: 192_000,
}
_DRAFT_BYTES = 640
"""An early draft used 0x11 for 16 kHz; its frames of 20 ms have this many bytes, those at 12 kHz have 480."""


@dataclass(frozen=True, slots=True)
class CallId:
    """First frame."""

    id: uuid.UUID


@dataclass(frozen=True, slots=True)
class AudioFrame:
    pcm: Pcm16
    """Mono."""
    rate_hz: int


@dataclass(frozen=True, slots=True)
class DigitFrame:
    digit: str


@dataclass(frozen=True, slots=True)
class HangupFrame:
    pass


@dataclass(frozen=True, slots=True)
class ErrorFrame:
    """Asterisk reports a failure of its own: 1 hang-up by the caller, 2 forwarding of frames, 4 memory."""

    code: int | None


@dataclass(frozen=True, slots=True)
class UnknownFrame:
    """A frame type that nobody told us of, to be ignored."""

    kind: int


Frame = CallId | AudioFrame | DigitFrame | HangupFrame | ErrorFrame | UnknownFrame


class AudioSocketDecoder:
    """Holds at most one frame that is not whole yet: 64 kB."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """Raises ProtocolError at the first frame that is wrong; what follows it is lost with it."""
        self._rest += data
        frames: list[Frame] = []
        at = 0
        while len(self._rest) - at >= _HEADER.size:
            kind, length = _HEADER.unpack_from(self._rest, at)
            end = at + _HEADER.size + length
            if end > len(self._rest):
                break
            payload = bytes(self._rest[at + _HEADER.size : end])
            at = end
            try:
                frames.append(_frame(kind, payload))
            except ProtocolError:
                self._rest.clear()
                raise
        del self._rest[:at]
        return frames


def _frame(kind: int, payload: bytes) -> Frame:
    if kind in _RATES_HZ:
        return _audio(kind, payload)
    if kind == _ID:
        if len(payload) != 16:
            raise ProtocolError(f"a call's id has 16 bytes, got {len(payload)}")
        return CallId(uuid.UUID(bytes=payload))
    if kind == _DTMF:
        digit = payload.decode("ascii", "replace").upper()
        if digit not in DIGITS:
            raise ProtocolError(f"a key is one of 0-9, *, #, A-D, got {digit[:8]!r}")
        return DigitFrame(digit)
    if kind == _HANGUP:
        return HangupFrame()
    if kind == _ERROR:
        return ErrorFrame(payload[0] if payload else None)
    return UnknownFrame(kind)


def _audio(kind: int, payload: bytes) -> AudioFrame:
    if len(payload) % 2:
        raise ProtocolError("audio is 16-bit samples, got an odd number of bytes")
    rate_hz = _RATES_HZ[kind]
    if kind == 0x11 and len(payload) == _DRAFT_BYTES:
        rate_hz = 16_000
    return AudioFrame(pcm_from_bytes(payload), rate_hz)


def encode_audio(pcm: Pcm16) -> bytes:
    """Samples at `RATE_HZ`, at most 32,767 of them, as one frame."""
    return _pack(_AUDIO, pcm_to_bytes(pcm))


def encode_id(call_id: uuid.UUID) -> bytes:
    """What Asterisk says first; for clients of our own."""
    return _pack(_ID, call_id.bytes)


def encode_digit(digit: str) -> bytes:
    return _pack(_DTMF, digit.encode("ascii"))


def _pack(kind: int, payload: bytes) -> bytes:
    return _HEADER.pack(kind, len(payload)) + payload
