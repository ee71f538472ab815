"""Text that no voice was made for: the number and the length of what is made of it are bounded.

Whatever grows with the square of the text would need hours here: the test would not end.
"""

from __future__ import annotations

import pytest

from antiphon.core.text_segmenter import TextSegmenter
from antiphon.models.tts.normalise import normalise, split_sentences

N = 100_000
TEXTS = {
    "one letter": "I" * N,
    "one word": "abc" * (N // 3),
    "digits": "7" * N,
    "points": "." * N,
    "quotes": "." + '"' * N,
    "commas": "," * N,
    "brackets": "[" * N,
    "links": "[](" * (N // 3),
    "tags": "<a" * (N // 2),
    "stars": "**a" * (N // 3),
    "table": "|-" * (N // 2),
    "backticks": "`" * N,
    "an address": "a" * N + "@",
    "a host": "a-" * (N // 2),
    "a path": "http://" + "a/" * (N // 2),
    "numbers": "1,2." * (N // 4),
    "money": "$1" * (N // 2),
    "dashes": "-" * N,
    "combining characters": "a" + "\u0301\u0316" * (N // 2),
    "emoji": "\U0001f600" * N,
    "joiners": "\u200d" * N,
    "right to left": "\u202e" * N + "a",
    "spaces": " " * N + "x",
    "lines": "\n" * N + "x",
    "Chinese": "日本" * (N // 2),
}


@pytest.mark.parametrize("name", TEXTS)
def test_clauses_are_bounded(name: str) -> None:
    for step in (N + 10, 997):
        cutter = TextSegmenter(first_words=3, max_chars=140)
        text = TEXTS[name]
        clauses = [c for at in range(0, len(text), step) for c in cutter.feed(text[at : at + step])]
        clauses += cutter.flush()
        assert max(map(len, clauses), default=0) <= 140
        assert len(clauses) <= N // 20


@pytest.mark.parametrize("language", ["en", "de"])
@pytest.mark.parametrize("name", TEXTS)
def test_sentences_are_bounded(name: str, language: str) -> None:
    sentences = split_sentences(normalise(TEXTS[name], language))
    assert max(map(len, sentences), default=0) <= 300
    assert len(sentences) <= N // 20


@pytest.mark.parametrize("name", TEXTS)
def test_no_word_is_longer_than_a_phonemiser_can_bear(name: str) -> None:
    words = [word for s in split_sentences(normalise(TEXTS[name])) for word in s.split()]
    letters = (len(word) for word in words if word.replace("-", "").isalpha() and word.isascii())
    assert max(letters, default=0) <= 60


def test_drawn_out_words_are_short_and_numbers_stay() -> None:
    assert normalise("Nooooooooo, 10000000 times!") == "Noooo, ten million times!"


def test_a_long_text_reads_like_its_parts() -> None:
    part = "On 3 March 2024 it cost $5.50, Dr. Smith said."
    once = normalise(part)
    assert normalise(" ".join([part] * 100)) == " ".join([once] * 100)
