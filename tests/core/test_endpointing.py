"""How much silence ends a turn: by its words, by its sound, by what was asked."""

from __future__ import annotations

import pytest

from antiphon.core.endpointing import being_dictated, looks_unfinished, silence_needed_ms
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


@pytest.mark.parametrize(
    ("policy", "text", "probability", "question", "expected_ms"),
    [
        # words and sound agree
        (P, "What time is it?", 0.95, "", P.min_silence_ms),
        (P, "I want to go to the", 0.05, "", P.max_silence_ms),
        # they disagree: the sound says finished, the words do not
        (P, "I want to go to the", 0.95, "", P.unsure_silence_ms),
        # it sounds half finished
        (P, "What time is it?", 0.3, "", P.unsure_silence_ms),
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
    assert silence_needed_ms(policy, text, probability, question=question) == expected_ms


@pytest.mark.parametrize(
    ("policy", "probability", "ends_here", "expected_ms"),
    [
        (P, 0.95, 0.0, 1_360),  # it sounds finished, the words want to go on
        (P, 0.95, P.text_end_threshold / 2, 1_030),
        (P, 0.05, 0.001, P.max_silence_ms),
        (P, 0.95, P.text_end_threshold, P.min_silence_ms),
        (P, 0.95, 0.9, P.min_silence_ms),
        (P, 0.3, 0.9, P.unsure_silence_ms),  # whole words do not outweigh a voice that stays up
        (Policy(text_end_threshold=0), 0.95, 0.0, P.min_silence_ms),
    ],
)
def test_what_the_language_model_thinks_of_the_words(
    policy: Policy, probability: float, ends_here: float, expected_ms: int
) -> None:
    words = "What do I need?"
    assert (
        silence_needed_ms(policy, words, probability, text_end_probability=ends_here) == expected_ms
    )


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
    assert silence_needed_ms(P, text, 0.95, interrupting=interrupting) == expected_ms


def test_the_more_it_sounds_unfinished_the_longer_the_wait_and_never_beyond_the_limit() -> None:
    waits = [silence_needed_ms(P, "What time is it?", p / 100) for p in range(101)]
    assert waits == sorted(waits, reverse=True)
    assert max(waits) < P.max_silence_ms
    assert min(waits) == P.min_silence_ms


def test_dictation_never_ends_sooner_than_other_turns() -> None:
    policy = Policy(dictation_silence_ms=100)
    assert silence_needed_ms(policy, "five five five", 0.99) == policy.max_silence_ms
