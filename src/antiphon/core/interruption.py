"""Is the user's speech over the agent's voice meant? Third stage of an interruption, after pause and wait.

Pure functions of words and durations.
"""

from __future__ import annotations

import re
from enum import Enum, auto

from antiphon.core.policy import Policy

BACKCHANNELS = frozenset(
    """mm mhm hm hmm mmm mmhmm uh-huh uhhuh uh huh um er ah oh aha ok okay yeah yep yes yup right
    sure i see got it great good nice cool wow really exactly indeed true alright fine of
    course""".split()
)
"""Words that accompany and do not interrupt, as single words; a phrase is one when all its words are."""

_MEANT = frozenset("""no stop wait hold what sorry but actually hello hey listen excuse""".split())
"""One of these is enough, however short the speech."""

LISTED_WORDS = BACKCHANNELS | _MEANT
"""All words that mean something here."""

_WORDS = re.compile(r"[a-z0-9]+(?:[-'’][a-z0-9]+)*", re.IGNORECASE)


class Verdict(Enum):
    WAIT = auto()
    MEANT = auto()
    NOTHING = auto()


def words_of(text: str) -> list[str]:
    return [w.lower().replace("’", "'") for w in _WORDS.findall(text)]


def is_backchannel(text: str) -> bool:
    """Non-empty and nothing but "mm-hm", "yeah", "I see"."""
    words = words_of(text)
    return 0 < len(words) <= 4 and all(plain(w) in BACKCHANNELS for w in words)


def is_echo(text: str, spoken: str) -> bool:
    """What was heard is (nearly) a run of what the agent has just been saying: its own voice came back."""
    heard, said = words_of(text), words_of(spoken)
    if not heard or not said:
        return False
    pairs = {tuple(said[i : i + 2]) for i in range(len(said) - 1)}
    if len(heard) == 1:
        return len(heard[0]) > 3 and heard[0] in said[-12:]
    hits = sum(1 for i in range(len(heard) - 1) if tuple(heard[i : i + 2]) in pairs)
    return hits >= max(1, round(0.75 * (len(heard) - 1)))


def judge(
    policy: Policy, *, text: str | None, speech_ms: int, silent: bool, spoken: str
) -> Verdict:
    """`text`: what was understood so far, None while unknown. `speech_ms`: how long the user has spoken.

    `silent`: the user has fallen silent again and `text` (if any) is all there will be. `spoken`: the agent's
    words around the interruption, to recognise an echo.
    """
    if text is None:
        return (
            Verdict.MEANT if speech_ms >= policy.barge_in_sure_ms and not silent else Verdict.WAIT
        )
    words = words_of(text)
    if not words:
        return Verdict.NOTHING if silent else _by_length(policy, speech_ms)
    if is_echo(text, spoken):
        return Verdict.NOTHING
    if any(w in _MEANT for w in words):
        return Verdict.MEANT
    if is_backchannel(text):
        return Verdict.NOTHING if silent else _by_length(policy, speech_ms)
    if len(words) >= 2 or silent:
        return Verdict.MEANT
    return _by_length(policy, speech_ms)


def _by_length(policy: Policy, speech_ms: int) -> Verdict:
    return Verdict.MEANT if speech_ms >= policy.barge_in_sure_ms else Verdict.WAIT


def plain(word: str) -> str:
    """`mmm` and "mhmm" are `mm` and `mhm`."""
    if word in BACKCHANNELS:
        return word
    return re.sub(r"(.)\1+", r"\1", word).replace("-", "")
