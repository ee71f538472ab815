"""Streamed text in, speakable segments out; not a word lost, whatever the text and however it comes."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.core.text_segmenter import TextSegmenter


def cut(
    text: str, *, pieces: list[str] | None = None, first_words: int = 3, max_chars: int = 140
) -> list[str]:
    cutter = TextSegmenter(first_words=first_words, max_chars=max_chars)
    segments = [
        c for piece in (pieces or re.findall(r"\s*\S+|\s+$", text)) for c in cutter.feed(piece)
    ]
    return [*segments, *cutter.flush()]


def letters(text: str) -> str:
    return "".join(ch for ch in text if ch.isalnum())


@pytest.mark.parametrize(
    ("text", "segments"),
    [
        ("", []),
        ("   \n ", []),
        ("...", []),
        ("🙂", []),
        ("Hello", ["Hello"]),
        ("Hello. ", ["Hello."]),
        ("One. Two. Three.", ["One.", "Two.", "Three."]),
        ("Is it? Yes! Good.", ["Is it?", "Yes!", "Good."]),
        # abbreviations, initials, decimals, times, money, domains
        ("Dr. Smith is in. Come.", ["Dr. Smith is in.", "Come."]),
        (
            "Mr. J. R. Hartley lives on St. James Street.",
            ["Mr. J. R. Hartley lives on St. James Street."],
        ),
        ("Pi is 3.14 and e is 2.71. Good.", ["Pi is 3.14 and e is 2.71.", "Good."]),
        ("It costs $1,299.99 in all. Fine.", ["It costs $1,299.99 in all.", "Fine."]),
        ("At 5:30 p.m. we meet.", ["At 5:30 p.m. we meet."]),
        ("Go to example.com now. Bye.", ["Go to example.com now.", "Bye."]),
        ("Use e.g. a pen. Or i.e. this.", ["Use e.g. a pen.", "Or i.e. this."]),
        # quotes and brackets belong to their sentence
        ('He said "stop." Then he left.', ['He said "stop."', "Then he left."]),
        ("(It is late.) Go.", ["(It is late.)", "Go."]),
        # ellipsis and repeated marks
        ("Well… maybe. What?! No.", ["Well…", "maybe.", "What?!", "No."]),
        # other scripts end their sentences without a space
        ("你好。今天怎么样？很好！", ["你好。", "今天怎么样？", "很好！"]),
        ("Привет. Как дела?", ["Привет.", "Как дела?"]),
    ],
)
def test_sentences(text: str, segments: list[str]) -> None:
    assert cut(text, first_words=0) == segments


def test_list_numbers_stay_with_their_line() -> None:
    text = "You need:\n1. Two eggs.\n2. A pan.\n"
    assert cut(text, first_words=0) == ["You need:\n1. Two eggs.", "2. A pan."]


def test_the_first_clause_comes_early() -> None:
    cutter = TextSegmenter(first_words=3, max_chars=140)
    assert cutter.feed("The") == []
    assert cutter.feed(" sea is") == []
    assert cutter.feed(" very") == ["The sea is"]
    assert cutter.feed(" deep and cold") == []
    assert cutter.flush() == ["very deep and cold"]


def test_a_breath_near_the_first_words_is_a_better_place_for_the_first_cut() -> None:
    assert cut("Well, of course I can do that.")[0] == "Well,"
    assert cut("Sure, no problem at all, my friend.")[0] == "Sure,"


def test_a_short_reply_is_one_clause() -> None:
    assert cut("Yes, it is.") in (["Yes, it is."], ["Yes,", "it is."])
    assert cut("It is late.", pieces=["It is late."]) == ["It is late."]


def test_long_sentences_are_cut_where_one_breathes() -> None:
    text = "When the tide comes in over the flat sands of the bay, the boats begin to lift, and then they turn."
    assert cut(text, first_words=0) == [
        "When the tide comes in over the flat sands of the bay,",
        "the boats begin to lift,",
        "and then they turn.",
    ]


def test_thousands_are_not_cut_at_their_comma() -> None:
    assert cut("There were more than 12,000 people.", first_words=0) == [
        "There were more than 12,000 people."
    ]


@pytest.mark.parametrize("text", ["word " * 400, "x" * 1_000, "字" * 600])
def test_very_long_text_without_punctuation(text: str) -> None:
    segments = cut(text)
    assert max(map(len, segments)) <= 140
    assert letters("".join(segments)) == letters(text)


def test_the_last_words_come_with_flush_and_only_once() -> None:
    cutter = TextSegmenter(first_words=0, max_chars=140)
    assert cutter.feed("Not finished") == []
    assert cutter.flush() == ["Not finished"]
    assert cutter.flush() == []


@pytest.mark.parametrize("max_chars", [0, 1, 5, 30])
def test_any_limit_works(max_chars: int) -> None:
    text = "A reply, with words. And more words"
    assert letters("".join(cut(text, max_chars=max_chars))) == letters(text)


TEXTS = st.lists(
    st.one_of(
        st.sampled_from(
            [". ", ", ", "! ", "? ", "\n", "\n\n", " ", " - ", "…", "。", "3.5", "1. ", "Dr. "]
        ),
        st.sampled_from(
            ["hello", "e.g. ", '"', ")", "(", "I", "a", "x" * 60, "字字", "🙂", "12,000"]
        ),
        st.text(max_size=8),
    ),
    max_size=60,
).map("".join)


@settings(derandomize=True, max_examples=300, deadline=None)
@given(TEXTS, st.integers(0, 5), st.sampled_from([1, 20, 140]), st.data())
def test_nothing_is_lost_and_every_clause_can_be_said(
    text: str, first_words: int, max_chars: int, data: st.DataObject
) -> None:
    ends = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    pieces = [text[a:b] for a, b in zip([0, *ends], [*ends, len(text)], strict=True)]
    segments = cut(text, pieces=pieces, first_words=first_words, max_chars=max_chars)
    assert letters("".join(segments)) == letters(text)
    for segment in segments:
        assert segment == segment.strip()
        assert letters(segment)


@settings(derandomize=True, max_examples=200, deadline=None)
@given(st.lists(st.sampled_from("the sea is deep, and cold. Yes! No? It costs 3.5 or so".split())))
def test_words_stay_whole_and_in_order(words: list[str]) -> None:
    text = " ".join(words)
    assert " ".join(cut(text)).split() == words
