"""How much silence ends a turn, given how it sounds, how it reads, and what was asked for.

A turn detector errs in about one case of five either way (MODELS.md), and so do the words. So the wait depends smoothly
on both: `Weights` says how, fitted on human speech by `bench/endpointing/train.py`, and `patience` moves the whole
curve. Silence limits stand beside it. English word lists; other languages fall back on sound and punctuation. Pure
functions.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from antiphon.core.policy import Policy

_UNFINISHED = frozenset(
    """a an the and or but so because if when while although though unless until since that which
    who whose whom to of in on at by for from with without into onto about between through
    during before after over under than as my your his her its our their this these those some
    any every each no i he she we they is are was were am be been being has have had do does
    did will would can could should may might must not very really quite just um uh er erm hmm
    like maybe perhaps also then plus versus""".split()
)
"""A turn that ends in one of these is seldom over."""

_CLOSED = frozenset(
    """am are is do does did have has will would can could should must was were be it that so
    then to on in""".split()
)
"""Words of the list above that do end questions and short answers: "yes I do", "what is that"."""

_ANSWERS = frozenset(
    """do am is was did it that so have can will no not then really maybe perhaps also though
    this these those her""".split()
)
"""Those that do end statements, when there is a full stop: "I do.", "not really.", "see you then."."""

_ASKS_DICTATION = re.compile(
    r"\b(number|digits?|spell|spelling|e-?mail|address|code|zip|postcode|reference|account|date of birth|pin)\b",
    re.IGNORECASE,
)
_DIGIT_WORDS = frozenset(
    """zero oh one two three four five six seven eight nine ten double triple hundred hyphen dash
    dot at underscore""".split()
)
_JOINERS = frozenset("""oh dot dash hyphen underscore double triple""".split())
"""Words of dictation that are no proof without a digit or a letter."""
LISTED_WORDS = _UNFINISHED | _CLOSED | _ANSWERS | _DIGIT_WORDS | _JOINERS
"""All words that mean something here."""

_OPENING_WORDS = 2
_TOKEN = re.compile(r"[A-Za-z0-9@'’.]+")


def looks_unfinished(text: str) -> bool:
    """The words ask for more: a conjunction, an article, a filler, a comma or an ellipsis at the end."""
    text = text.strip()
    if not text:
        return False
    if text.endswith(("...", "…", ",", "-", "—", ":", ";")):
        return True
    word = _last_word(text)
    if text.endswith("?") and word in _CLOSED:
        return False
    if word == "no" and len(_TOKEN.findall(text)) == 1:
        return False
    if text.endswith((".", "!")) and word in _ANSWERS:
        return False
    return word in _UNFINISHED


def being_dictated(text: str, question: str = "") -> bool:
    """Digits, letters or an e-mail address are under way, or `question` (the agent's last words) asked for some."""
    words = [w.strip(".'’").lower() for w in _TOKEN.findall(text)]
    if not words:
        return False
    tail = words[-2:]
    if len(tail) == 2 and "at" not in tail and all(map(_spelled, tail)):
        return not all(w in _JOINERS for w in tail)
    if len(words) >= 2 and words[-1] in {"dot", "underscore"}:
        return True
    asked = _ASKS_DICTATION.search(question) is not None and question.rstrip().endswith(
        ("?", ".", ":")
    )
    return asked and _spelled(words[-1])


@dataclass(frozen=True, slots=True)
class Weights:
    """How the wait depends on the signs: `wait_ms * exp(-(detector * D + words * W))`.

    D and W are log odds: of the turn detector's probability against `turn_threshold`, and of the text end-of-turn
    probability against `usual_text_end`. Nothing here knows how long the user has spoken: recorded commands are all of
    one length, which would teach nothing about people.
    """

    wait_ms: float
    """Of a turn whose signs say nothing, at a patience of one half."""
    detector: float
    words: float
    usual_text_end: float
    """Probability that says nothing; also assumed where the words are not judged."""
    patience_factor: float
    """How many times longer the wait is at a patience of 1 than at one half, and shorter at 0."""


WEIGHTS = Weights(
    wait_ms=1_000.0, detector=0.15, words=0.3, usual_text_end=0.15, patience_factor=2.5
)
"""Fitted with Silero, Smart Turn 3.2, Moonshine tiny and Qwen2.5 0.5B; docs/decisions/0020 has data and figures."""
_LEAST_PROBABILITY = 0.01
"""Detectors are not as sure as they say."""


def silence_needed_ms(
    policy: Policy,
    text: str | None,
    probability: float | None,
    *,
    text_end_probability: float | None = None,
    question: str = "",
    interrupting: bool = False,
    weights: Weights = WEIGHTS,
) -> int:
    """Silence after which the turn is over.

    `text`: transcript so far, None while unknown. `probability`: of the turn detector, None while unknown or when there
    is no detector. `text_end_probability`: what the language model gives the words to end here, None while unknown.
    `interrupting`: the turn began over the agent's voice.
    """
    if text is None:
        return policy.max_silence_ms
    if being_dictated(text, question):
        return max(policy.dictation_silence_ms, policy.max_silence_ms)
    if policy.text_end_threshold <= 0:
        text_end_probability = None
    dangling = text_end_probability is not None and text_end_probability < policy.text_end_threshold
    unfinished = dangling or looks_unfinished(text)
    if probability is None:
        if policy.use_turn_detector:
            return policy.max_silence_ms
        return policy.max_silence_ms if unfinished else policy.plain_silence_ms
    # "No, I meant ...": who interrupts often makes the agent stop first, and then says why.
    opening = interrupting and len(_TOKEN.findall(text)) <= _OPENING_WORDS
    least_ms = policy.unsure_silence_ms if unfinished or opening else policy.min_silence_ms
    if unfinished and probability <= policy.turn_threshold:
        least_ms = policy.max_silence_ms
    calibrated_ms = _calibrated_ms(policy, probability, text_end_probability, weights)
    return round(min(max(calibrated_ms, least_ms), policy.max_silence_ms))


def _calibrated_ms(
    policy: Policy, probability: float, text_end_probability: float | None, weights: Weights
) -> float:
    sound = _log_odds(probability) - _log_odds(policy.turn_threshold)
    usual = weights.usual_text_end
    words = _log_odds(usual if text_end_probability is None else text_end_probability)
    doubt = -(weights.detector * sound + weights.words * (words - _log_odds(usual)))
    scale = math.pow(weights.patience_factor, 2 * policy.patience - 1)
    return weights.wait_ms * scale * math.exp(doubt)


def _log_odds(probability: float) -> float:
    inside = min(max(probability, _LEAST_PROBABILITY), 1 - _LEAST_PROBABILITY)
    return math.log(inside / (1 - inside))


def _last_word(text: str) -> str:
    words = _TOKEN.findall(text)
    return words[-1].strip(".'’").lower() if words else ""


def _spelled(word: str) -> bool:
    return (
        word.isdigit()
        or word in _DIGIT_WORDS
        or "@" in word
        or (len(word) == 1 and word not in {"a", "i"})
    )
