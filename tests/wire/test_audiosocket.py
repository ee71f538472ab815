"""AudioSocket frames: a table, any cutting of the stream, and anything at all."""

from __future__ import annotations

import contextlib
import uuid

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.errors import ProtocolError
from antiphon.wire import audiosocket as wire

ID = uuid.UUID("00112233-4455-6677-8899-aabbccddeeff")
PCM = np.array([0, 1, -1, 32_767, -32_768], np.int16)


def test_what_asterisk_sends() -> None:
    data = wire.encode_id(ID) + wire.encode_audio(PCM) + wire.encode_digit("#") + wire.HANG_UP
    assert data[:3] == b"\x01\x00\x10"
    assert data[19:24] == b"\x10\x00\x0a\x00\x00"
    call, audio, digit, end = wire.Decoder().feed(data)
    assert (call, digit, end) == (wire.CallId(ID), wire.Digit("#"), wire.HungUp())
    assert isinstance(audio, wire.Audio)
    assert audio.rate_hz == 8_000
    assert audio.pcm.tolist() == PCM.tolist()


@pytest.mark.parametrize(
    ("kind", "size", "rate_hz"),
    [
        (0x10, 320, 8_000),
        (0x11, 480, 12_000),
        (0x11, 640, 16_000),
        (0x12, 640, 16_000),
        (0x16, 1_920, 48_000),
    ],
)
def test_rates(kind: int, size: int, rate_hz: int) -> None:
    (frame,) = wire.Decoder().feed(bytes([kind]) + size.to_bytes(2, "big") + bytes(size))
    assert isinstance(frame, wire.Audio)
    assert (frame.rate_hz, len(frame.pcm)) == (rate_hz, size // 2)


@pytest.mark.parametrize(
    ("data", "frame"),
    [
        (b"\xff\x00\x01\x02", wire.PeerError(2)),
        (b"\xff\x00\x00", wire.PeerError(None)),
        (b"\x77\x00\x02ab", wire.Unknown(0x77)),
        (b"\x03\x00\x01d", wire.Digit("D")),
    ],
)
def test_other_frames(data: bytes, frame: wire.Frame) -> None:
    assert wire.Decoder().feed(data) == [frame]


@pytest.mark.parametrize(
    "data",
    [
        b"\x01\x00\x02ab",
        b"\x03\x00\x00",
        b"\x03\x00\x02\x31\x32",
        b"\x03\x00\x01\xb2",
        b"\x10\x00\x01a",
    ],
)
def test_wrong_frames(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        wire.Decoder().feed(data)


@given(st.lists(st.integers(1, 40)))
def test_cutting_does_not_matter(cuts: list[int]) -> None:
    data = wire.encode_id(ID) + wire.encode_audio(PCM) * 3 + wire.encode_digit("1") + wire.HANG_UP
    decoder, frames, at = wire.Decoder(), [], 0
    for cut in [*cuts, len(data)]:
        frames += decoder.feed(data[at : at + cut])
        at += cut
    assert [type(f).__name__ for f in frames] == ["CallId", *["Audio"] * 3, "Digit", "HungUp"]


@given(st.binary(max_size=400))
def test_any_bytes(data: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        wire.Decoder().feed(data)
