from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.audio.framing import (
    ByteJoiner,
    Framer,
    Pcm16,
    float_to_pcm,
    mix_to_mono,
    pcm_from_bytes,
    pcm_to_bytes,
    pcm_to_float,
)
from antiphon.errors import AudioError


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    """`data` in pieces of these sizes, the rest as a last piece."""
    pieces, at = [], 0
    for size in sizes:
        pieces.append(data[at : at + size])
        at += size
    return [*pieces, data[at:]]


@given(st.binary(max_size=200), st.lists(st.integers(0, 9), max_size=40))
def test_joiner_gives_the_same_samples_however_bytes_are_cut(data: bytes, sizes: list[int]) -> None:
    joiner = ByteJoiner()
    got = np.concatenate([joiner.feed(piece) for piece in cut(data, sizes)])
    assert got.tolist() == pcm_from_bytes(data[: len(data) // 2 * 2]).tolist()


def test_joiner_of_floats() -> None:
    joiner = ByteJoiner("f32le")
    data = np.array([0.5, -1.0, 2.0], "<f4").tobytes()
    got = np.concatenate([joiner.feed(data[i : i + 1]) for i in range(len(data))])
    assert got.tolist() == [16384, -32768, 32767]


def test_joiner_reset_forgets_the_odd_byte() -> None:
    joiner = ByteJoiner()
    joiner.feed(b"\x07")
    joiner.reset()
    assert joiner.feed(b"\x01\x00").tolist() == [1]


def test_odd_bytes_and_unknown_formats_are_refused() -> None:
    with pytest.raises(AudioError, match="even number"):
        pcm_from_bytes(b"abc")
    with pytest.raises(AudioError, match="did you mean 's16le'"):
        ByteJoiner("s16")  # type: ignore[arg-type]


def test_pcm_bytes_are_little_endian() -> None:
    assert pcm_to_bytes(np.array([1, -2], np.int16)) == b"\x01\x00\xfe\xff"
    assert pcm_from_bytes(b"\x01\x00\xfe\xff").tolist() == [1, -2]


def test_int_to_float_and_back_is_exact() -> None:
    every = np.arange(-32768, 32768).astype(np.int16)
    assert (float_to_pcm(pcm_to_float(every)) == every).all()


def test_floats_are_clipped_not_wrapped() -> None:
    floats = np.array([1.0, 1.5, -1.0, -9.0, np.inf, -np.inf, np.nan], np.float32)
    assert float_to_pcm(floats).tolist() == [32767, 32767, -32768, -32768, 32767, -32768, 0]


def test_mono_is_the_mean_of_the_channels() -> None:
    loud = np.full((3, 2), 32767, np.int16)
    assert mix_to_mono(loud).tolist() == [32767] * 3
    seven = np.arange(7, dtype=np.int16).reshape(1, 7) * 100
    assert mix_to_mono(seven).tolist() == [300]
    assert mix_to_mono(np.array([[5], [6]], np.int16)).tolist() == [5, 6]
    assert mix_to_mono(np.array([5, 6], np.int16)).tolist() == [5, 6]


@given(st.integers(1, 50), st.lists(st.integers(0, 120), max_size=20))
def test_framer_windows_are_the_stream_in_order(frame: int, sizes: list[int]) -> None:
    stream: Pcm16 = np.arange(sum(sizes), dtype=np.int16)
    framer = Framer(frame)
    windows: list[Pcm16] = []
    at = 0
    for size in sizes:
        windows += framer.feed(stream[at : at + size])
        at += size
    assert all(len(window) == frame for window in windows)
    assert np.concatenate([*windows, framer.remainder]).tolist() == stream.tolist()
    assert len(framer.remainder) < frame


def test_framer_copies_only_what_spans_chunks() -> None:
    framer = Framer(4)
    chunk = np.arange(12, dtype=np.int16)
    assert all(window.base is chunk for window in framer.feed(chunk))
    framer.feed(chunk[:2])
    first, second = framer.feed(chunk[2:8])
    assert first.tolist() == [0, 1, 2, 3]
    assert second.base is chunk
    framer.feed(chunk[8:10])
    framer.feed(chunk[10:12])
    assert first.tolist() == [0, 1, 2, 3], "a window that was given out is never written again"


def test_framer_reset_drops_the_remainder() -> None:
    framer = Framer(4)
    framer.feed(np.ones(3, np.int16))
    framer.reset()
    assert framer.feed(np.zeros(4, np.int16))[0].tolist() == [0, 0, 0, 0]
    with pytest.raises(AudioError):
        Framer(0)
