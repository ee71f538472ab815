from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.audio import g711

ALL_CODES = bytes(range(256))
ALL_SAMPLES = np.arange(-32768, 32768).astype(np.int16)


@pytest.mark.parametrize(
    ("code", "sample"),
    [
        (0xFF, 0),
        (0x7F, 0),
        (0x80, 32124),
        (0x00, -32124),
        (0xFE, 8),
        (0x7E, -8),
        (0xF0, 120),
        (0xEF, 132),
    ],
)
def test_ulaw_known_values(code: int, sample: int) -> None:
    assert g711.decode_ulaw(bytes([code])).tolist() == [sample]


@pytest.mark.parametrize(
    ("code", "sample"),
    [(0xD5, 8), (0x55, -8), (0xAA, 32256), (0x2A, -32256), (0xD4, 24), (0xC5, 264), (0xF5, 528)],
)
def test_alaw_known_values(code: int, sample: int) -> None:
    assert g711.decode_alaw(bytes([code])).tolist() == [sample]


def test_every_alaw_code_round_trips() -> None:
    assert g711.encode_alaw(g711.decode_alaw(ALL_CODES)) == ALL_CODES


def test_every_ulaw_code_round_trips_but_minus_zero() -> None:
    expected = bytearray(ALL_CODES)
    expected[0x7F] = 0xFF
    assert g711.encode_ulaw(g711.decode_ulaw(ALL_CODES)) == bytes(expected)


def test_silence_is_what_the_constants_say() -> None:
    assert g711.encode_ulaw(np.zeros(1, np.int16))[0] == g711.ULAW_SILENCE
    assert g711.encode_alaw(np.zeros(1, np.int16))[0] == g711.ALAW_SILENCE
    assert g711.decode_ulaw(b"\0")[0] == -32124, "a zero byte is full-scale noise"


@pytest.mark.parametrize("law", ["ulaw", "alaw"])
def test_every_sample_is_coded_within_half_a_step(law: str) -> None:
    encode, decode = getattr(g711, f"encode_{law}"), getattr(g711, f"decode_{law}")
    decoded = decode(encode(ALL_SAMPLES)).astype(int)
    error = np.abs(decoded - ALL_SAMPLES)
    # Steps double per segment: 8 (A-law 16) at the bottom, 1024 at the top, and mu-law clips at 32635.
    limit = np.maximum(16, np.abs(ALL_SAMPLES.astype(int)) / 16) / 2 + 5
    inside = np.abs(ALL_SAMPLES.astype(int)) <= 32635
    assert (error <= limit)[inside].all()
    assert (np.diff(decoded) >= 0).all()


@pytest.mark.parametrize("law", ["ulaw", "alaw"])
def test_both_halves_of_the_scale_are_cut_alike(law: str) -> None:
    codes = np.frombuffer(getattr(g711, f"encode_{law}")(ALL_SAMPLES), np.uint8)
    negative, positive = codes[:32768][::-1], codes[32768:]
    assert (negative ^ 0x80 == positive).all()


@given(st.binary(max_size=400))
def test_any_bytes_decode(data: bytes) -> None:
    assert g711.decode_ulaw(data).shape == (len(data),)
    assert g711.decode_alaw(memoryview(data)).dtype == np.int16


def test_views_and_strides_are_fine() -> None:
    every_third = ALL_SAMPLES[::3]
    assert g711.encode_ulaw(every_third) == g711.encode_ulaw(every_third.copy())
