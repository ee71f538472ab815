"""A reply that does not end by itself."""

from __future__ import annotations

import pytest

from antiphon.call.reply_limit import ReplyLimit


def taken(text: str, max_chars: int, piece: int) -> str:
    limit = ReplyLimit(max_chars)
    return "".join(limit.take(text[at : at + piece]) for at in range(0, len(text), piece))


@pytest.mark.parametrize("piece", [1, 7, 100_000])
def test_a_long_reply_ends_with_a_sentence(piece: int) -> None:
    found = taken("This is a sentence. " * 500, 2_000, piece)
    assert 1_500 <= len(found) <= 2_000
    assert found.endswith("sentence.") or (piece == 1 and found.endswith("sentence. "))


@pytest.mark.parametrize("piece", [1, 7, 100_000])
@pytest.mark.parametrize("text", ["I" * 10_000, "word " * 2_000, "😀" * 10_000])
def test_without_a_sentence_it_ends_all_the_same(text: str, piece: int) -> None:
    assert 1_990 <= len(taken(text, 2_000, piece)) <= 2_000


def test_a_short_reply_and_one_without_a_limit_stay_whole() -> None:
    assert taken("Short.", 2_000, 2) == "Short."
    assert taken("x" * 5_000, 0, 10) == "x" * 5_000
