"""How much silence ends a turn: by its words, by its sound, by what was asked."""

from __future__ import annotations

import itertools

import pytest

from antiphon.core.endpointing import (
    WEIGHTS,
    being_dictated,
    looks_unfinished,
    silence_needed_ms,
)
from antiphon.core.policy import Policy

FINISHED = """
What time is it?
What time is it
I'd like to book a table for two.
Yes.
No.
No
Nope.
Yes, please.
Not really.
I do.
Yes I do.
Yes, I am.
I think so.
That's it.
I like that.
What is that?
Where is it?
Who are you?
Tell me about the sea
It's raining.
I live in Berlin.
Call me tomorrow morning.
Goodbye!
See you then.
Never mind
Thanks a lot.
Can you help me?
I already have.
It was broken when it arrived.
My name is Anna.
""".strip().splitlines()

UNFINISHED = """
I want to
I want to go to the
So I was thinking that
Because
And
and then
I'd like a
Could you tell me if
My name is
The thing is
It's about my
I need it for
We were on the
Um
Well, um
uh
I think, maybe
Please send it to
Let me see...
Let me see…
First of all,
I want two things:
There is no
He said he would
Is it with or without
I bought this because
from Berlin to
You know, like
""".strip().splitlines()

DICTATED = [
    ("five five five", ""),
    ("five five", ""),
    ("My number is 555 12", ""),
    ("My number is zero one seven", ""),
    ("It's 0 1 7 2", ""),
    ("555-1234", ""),
    ("S M I T H", ""),
    ("My name is S M", ""),
    ("b as in bob, r e", ""),
    ("it is double five", ""),
    ("anna dot", ""),
    ("my address is anna underscore", ""),
    ("It's 555.", "What is your phone number?"),
    ("0 1 7", "Could you tell me your account number, please?"),
    ("anna@", "And your e-mail address?"),
    ("anna at example dot", "And your email address?"),
    ("B", "How do you spell that?"),
    ("nineteen oh five", "What is your date of birth?"),
]

NOT_DICTATED = [
    ("", "What is your number?"),
    ("I have two cats", ""),
    ("At nine.", ""),
    ("See you at nine.", ""),
    ("Five.", ""),
    ("in 1999", ""),
    ("I want a table for two", ""),
    ("I have a", ""),
    ("I don't know.", "What is your phone number?"),
    ("anna at example dot com", "And your e-mail address?"),
    ("It's a mad dash", ""),
    ("Five.", "How many people are you?"),
]


@pytest.mark.parametrize("text", FINISHED)
def test_finished(text: str) -> None:
    assert not looks_unfinished(text)


@pytest.mark.parametrize("text", UNFINISHED)
def test_unfinished(text: str) -> None:
    assert looks_unfinished(text)


@pytest.mark.parametrize("text", ["", "  ", "Wie spät ist es?", "现在几点了？", "¿Qué hora es?"])
def test_nothing_and_other_languages_are_not_called_unfinished(text: str) -> None:
    assert not looks_unfinished(text)


@pytest.mark.parametrize(("text", "question"), DICTATED)
def test_dictation(text: str, question: str) -> None:
    assert being_dictated(text, question)


@pytest.mark.parametrize(("text", "question"), NOT_DICTATED)
def test_no_dictation(text: str, question: str) -> None:
    assert not being_dictated(text, question)


P = Policy()
ALONE = Policy(use_turn_detector=False)
WHOLE = 0.97
"""What the language model gives words that are whole."""


@pytest.mark.parametrize(
    ("policy", "text", "probability", "question", "expected_ms"),
    [
        # words and sound agree
        (P, "What time is it?", 0.95, "", P.min_silence_ms),
        (P, "I want to go to the", 0.05, "", P.max_silence_ms),
        # they disagree: the sound says finished, the list of words does not
        (P, "I want to go to the", 0.95, "", P.unsure_silence_ms),
        # nobody knows yet
        (P, None, None, "", P.max_silence_ms),
        (P, None, 0.9, "", P.max_silence_ms),
        (P, "What time is it?", None, "", P.max_silence_ms),
        # no detector
        (ALONE, "What time is it?", None, "", P.plain_silence_ms),
        (ALONE, "I want to go to the", None, "", P.max_silence_ms),
        # dictation beats everything
        (P, "0 1 7", 0.99, "", P.dictation_silence_ms),
        (P, "It's 555.", 0.99, "What is your phone number?", P.dictation_silence_ms),
        (ALONE, "five five five", None, "", P.dictation_silence_ms),
    ],
)
def test_silence_needed(
    policy: Policy, text: str | None, probability: float | None, question: str, expected_ms: int
) -> None:
    found = silence_needed_ms(
        policy, text, probability, question=question, text_end_probability=WHOLE
    )
    assert found == expected_ms


def needed(policy: Policy, probability: float, words: float | None) -> int:
    return silence_needed_ms(policy, "What do I need?", probability, text_end_probability=words)


def test_signs_that_say_nothing_give_the_fitted_wait() -> None:
    assert needed(P, P.turn_threshold, WEIGHTS.usual_text_end) == WEIGHTS.wait_ms
    assert needed(P, P.turn_threshold, None) == WEIGHTS.wait_ms


def test_either_sign_shortens_the_wait_and_both_more() -> None:
    neither, sound = needed(P, 0.5, 0.15), needed(P, 0.99, 0.15)
    words, both = needed(P, 0.5, 0.6), needed(P, 0.99, 0.6)
    assert P.min_silence_ms < both < min(sound, words)
    assert max(sound, words) < neither < P.max_silence_ms


@pytest.mark.parametrize("words", [None, 0.0, 0.02, 0.1, 0.5, 0.9, 1.0])
def test_the_wait_falls_as_the_detector_rises_and_keeps_to_the_limits(words: float | None) -> None:
    waits = [needed(P, p / 100, words) for p in range(101)]
    assert waits == sorted(waits, reverse=True)
    assert P.min_silence_ms <= waits[-1] < waits[0] <= P.max_silence_ms or waits[0] == waits[-1]


@pytest.mark.parametrize("probability", [0.0, 0.3, 0.5, 0.9, 1.0])
def test_the_wait_falls_as_the_words_are_more_of_a_whole(probability: float) -> None:
    waits = [needed(P, probability, w / 100) for w in range(101)]
    assert waits == sorted(waits, reverse=True)
    assert waits[0] >= P.unsure_silence_ms
    assert waits[-1] < 700


def test_no_doubt_is_a_cliff() -> None:
    """A threshold lets a hundredth decide between a quarter of a second and a second."""
    waits = [needed(P, p / 100, 0.3) for p in range(101)]
    steps = [before - after for before, after in itertools.pairwise(waits)]
    assert max(steps) < 200


def test_patience_moves_every_wait_between_the_limits() -> None:
    by_patience = [
        [needed(Policy(patience=patience), p / 10, 0.2) for p in range(11)]
        for patience in (0.0, 0.25, 0.5, 0.75, 1.0)
    ]
    for eager, patient in itertools.pairwise(by_patience):
        assert all(a <= b for a, b in zip(eager, patient, strict=True))
        assert sum(eager) < sum(patient)


def test_the_limits_hold_whatever_the_patience() -> None:
    for patience in (0.0, 1.0):
        policy = Policy(patience=patience, min_silence_ms=450, max_silence_ms=900)
        for p, w in itertools.product((0.0, 0.5, 1.0), (0.0, 0.5, 1.0)):
            assert 450 <= needed(policy, p, w) <= 900


def test_one_silence_for_all_is_that_silence() -> None:
    policy = Policy(min_silence_ms=500, unsure_silence_ms=500, max_silence_ms=500)
    assert {needed(policy, p, w) for p in (0.0, 0.5, 1.0) for w in (0.0, 0.5, None)} == {500}


def test_words_that_want_to_go_on_wait_though_they_sound_finished() -> None:
    assert needed(P, 0.99, 0.01) >= P.unsure_silence_ms
    assert needed(P, 0.05, 0.001) == P.max_silence_ms


def test_an_owner_who_does_not_ask_for_words_goes_by_sound() -> None:
    policy = Policy(text_end_threshold=0)
    assert {needed(policy, 0.95, words) for words in (None, 0.0, 1.0)} == {needed(P, 0.95, None)}


def test_the_detectors_threshold_is_where_it_says_nothing() -> None:
    assert needed(Policy(turn_threshold=0.8), 0.8, None) == needed(P, 0.5, None)
    assert needed(Policy(turn_threshold=0.8), 0.9, None) > needed(P, 0.9, None)


@pytest.mark.parametrize(
    ("text", "interrupting", "expected_ms"),
    [
        ("No.", True, P.unsure_silence_ms),
        ("No.", False, P.min_silence_ms),
        ("Stop, please.", True, P.unsure_silence_ms),
        ("I meant something else.", True, P.min_silence_ms),
    ],
)
def test_a_word_that_only_stops_the_agent_is_seldom_all(
    text: str, interrupting: bool, expected_ms: int
) -> None:
    found = silence_needed_ms(P, text, 0.95, interrupting=interrupting, text_end_probability=WHOLE)
    assert found == expected_ms


def test_dictation_never_ends_sooner_than_other_turns() -> None:
    policy = Policy(dictation_silence_ms=100)
    assert silence_needed_ms(policy, "five five five", 0.99) == policy.max_silence_ms
