"""Captions from partial transcripts: new words at once, a change of agreed ones only when confirmed."""

from __future__ import annotations

from antiphon.core.partial_transcript import PartialTranscript


def shown(*partials: str) -> list[str]:
    agreement = PartialTranscript()
    return [agreement.feed(partial) for partial in partials]


def test_new_words_are_shown_at_once() -> None:
    partials = ["I", "I would", "I would like", "I would like a table"]
    assert shown(*partials) == partials


def test_a_word_that_was_heard_once_may_change() -> None:
    assert shown("I wood", "I would like") == ["I wood", "I would like"]


def test_a_change_of_agreed_words_waits_for_a_second_partial() -> None:
    said = shown(
        "a table for", "a table for two", "the able", "the able for two", "a table for two"
    )
    assert said == [
        "a table for",
        "a table for two",
        "a table for two",
        "a table for two",
        "a table for two",
    ]
    confirmed = shown("two four", "two four", "to forty nine", "to forty nine please")
    assert confirmed == ["two four", "two four", "two four", "to forty nine please"]


def test_case_and_punctuation_are_no_change() -> None:
    assert shown("Hello there", "hello, there", "Hello there. I am")[-1] == "Hello there. I am"


def test_a_shorter_partial_does_not_take_agreed_words_away() -> None:
    assert shown("one two three", "one two three", "one two") == ["one two three"] * 3


def test_nothing_heard_shows_what_was_there() -> None:
    assert shown("", "one two", "one two", "") == ["", "one two", "one two", "one two"]
