"""Pieces of a voice: swapped, repeated, missing, and numbered senselessly."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.protocols.twilio.reorder_buffer import HELD, MediaPiece, ReorderBuffer


def numbered(number: int | None, at_ms: int | None = None) -> MediaPiece:
    return MediaPiece(str(number).encode(), 20, number, at_ms)


def heard(order: ReorderBuffer, *numbers: int | None) -> list[str]:
    given = [payload for n in numbers for _, payload in order.take(numbered(n))]
    return [payload.decode() for payload in given]


@pytest.mark.parametrize(
    ("numbers", "out", "dropped"),
    [
        ([1, 2, 3], "1 2 3", 0),
        ([7, 8], "7 8", 0),
        ([1, 3, 2, 4], "1 2 3 4", 0),
        ([1, 2, 2, 1, 3], "1 2 3", 2),
        ([1, 5, 4, 3, 2], "1 2 3 4 5", 0),
        ([1, 3, 4, 5, 6, 7, 2], "1 3 4 5 6 7", 1),
        ([None, None], "None None", 0),
    ],
)
def test_order(numbers: list[int | None], out: str, dropped: int) -> None:
    order = ReorderBuffer()
    assert heard(order, *numbers) == out.split()
    assert order.dropped == dropped
    assert order.flush() == []


def test_what_waits_is_heard_at_the_end() -> None:
    order = ReorderBuffer()
    assert heard(order, 1, 3) == ["1"]
    assert order.flush() == [(0, b"3")]


def test_numbers_that_mean_nothing_do_not_make_a_caller_dumb() -> None:
    order = ReorderBuffer()
    assert heard(order, *[1] * 51) == ["1"]
    assert heard(order, 1, 1) == ["1", "1"]


@pytest.mark.parametrize(
    ("at_ms", "gaps"),
    [
        ([0, 20, 40], [0, 0, 0]),
        ([1_000, 1_020, 1_100], [0, 0, 60]),
        ([0, 0, 0], [0, 0, 0]),
        ([0, 60_000, 60_020], [0, 10_000, 0]),
        ([500, 0, 20], [0, 0, 0]),
        ([None, None, 5_000], [0, 0, 0]),
    ],
)
def test_gaps(at_ms: list[int | None], gaps: list[int]) -> None:
    order = ReorderBuffer()
    found = [gap for at in at_ms for gap, _ in order.take(MediaPiece(b"x", 20, None, at))]
    assert found == gaps
    assert order.filled_ms == sum(gaps)


@given(st.lists(st.integers(0, 30), max_size=60))
def test_each_number_once_and_in_order(numbers: list[int]) -> None:
    order = ReorderBuffer()
    out = [int(payload) for n in numbers for _, payload in order.take(numbered(n))]
    out += [int(payload) for _, payload in order.flush()]
    assert out == sorted(set(out))
    assert len(out) + order.dropped == len(numbers)


@given(st.permutations(range(HELD)))
def test_a_shuffled_window_is_put_right(numbers: list[int]) -> None:
    order = ReorderBuffer()
    heard(order, 0)
    out = [int(p) for n in numbers for _, p in order.take(numbered(n + 1))]
    out += [int(p) for _, p in order.flush()]
    assert out == [n + 1 for n in range(HELD)]
