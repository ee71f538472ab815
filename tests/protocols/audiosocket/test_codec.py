"""AudioSocket frames: a table, any cutting of the stream, and anything at all."""

from __future__ import annotations

import contextlib
import uuid

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.errors import ProtocolError
from antiphon.protocols.audiosocket import codec

ID = uuid.UUID("00112233-4455-6677-8899-aabbccddeeff")
PCM = np.array([0, 1, -1, 32_767, -32_768], np.int16)


def test_what_asterisk_sends() -> None:
    data = codec.encode_id(ID) + codec.encode_audio(PCM) + codec.encode_digit("#") + codec.HANG_UP
    assert data[:3] == b"\x01\x00\x10"
    assert data[19:24] == b"\x10\x00\x0a\x00\x00"
    call, audio, digit, end = codec.AudioSocketDecoder().feed(data)
    assert (call, digit, end) == (codec.CallId(ID), codec.DigitFrame("#"), codec.HangupFrame())
    assert isinstance(audio, codec.AudioFrame)
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
    (frame,) = codec.AudioSocketDecoder().feed(
        bytes([kind]) + size.to_bytes(2, "big") + bytes(size)
    )
    assert isinstance(frame, codec.AudioFrame)
    assert (frame.rate_hz, len(frame.pcm)) == (rate_hz, size // 2)


@pytest.mark.parametrize(
    ("data", "frame"),
    [
        (b"\xff\x00\x01\x02", codec.ErrorFrame(2)),
        (b"\xff\x00\x00", codec.ErrorFrame(None)),
        (b"\x77\x00\x02ab", codec.UnknownFrame(0x77)),
        (b"\x03\x00\x01d", codec.DigitFrame("D")),
    ],
)
def test_other_frames(data: bytes, frame: codec.Frame) -> None:
    assert codec.AudioSocketDecoder().feed(data) == [frame]


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
        codec.AudioSocketDecoder().feed(data)


@given(st.lists(st.integers(1, 40)))
def test_cutting_does_not_matter(cuts: list[int]) -> None:
    data = (
        codec.encode_id(ID) + codec.encode_audio(PCM) * 3 + codec.encode_digit("1") + codec.HANG_UP
    )
    decoder, frames, at = codec.AudioSocketDecoder(), [], 0
    for cut in [*cuts, len(data)]:
        frames += decoder.feed(data[at : at + cut])
        at += cut
    assert [type(f).__name__ for f in frames] == [
        "CallId",
        *["AudioFrame"] * 3,
        "DigitFrame",
        "HangupFrame",
    ]


@given(st.binary(max_size=400))
def test_any_bytes(data: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        codec.AudioSocketDecoder().feed(data)
