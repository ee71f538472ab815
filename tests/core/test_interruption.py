"""Is speech over the agent's meant?"""

from __future__ import annotations

import pytest

from antiphon.core.interruption import Verdict, is_backchannel, is_echo, judge
from antiphon.core.policy import Policy

P = Policy()
SPOKEN = "The museum opens at nine and closes at six in the evening"


@pytest.mark.parametrize(
    "text",
    """mm-hm
Mm-hmm.
mmm
mhm
Uh-huh
yeah
Yeah, yeah.
ok
Okay.
right
I see
of course
oh really
Yes
Sure, sure
Ah, okay
yep
hmmm""".splitlines(),
)
def test_backchannels(text: str) -> None:
    assert is_backchannel(text)


@pytest.mark.parametrize(
    "text",
    ["", "...", "no", "stop", "wait", "yes but", "okay okay okay okay okay", "I saw it", "tell me"],
)
def test_no_backchannels(text: str) -> None:
    assert not is_backchannel(text)


@pytest.mark.parametrize(
    ("text", "echo"),
    [
        ("opens at nine", True),
        ("The museum opens", True),
        ("nine and closes at six", True),
        ("nine and close at six in the", True),  # a word misheard
        ("museum", True),
        ("at", False),  # too short to say
        ("I want to go at six", False),
        ("what about Sundays", False),
        ("", False),
    ],
)
def test_echo(text: str, echo: bool) -> None:
    assert is_echo(text, SPOKEN) is echo


def test_nothing_is_an_echo_of_silence() -> None:
    assert not is_echo("hello there", "")


@pytest.mark.parametrize(
    ("text", "speech_ms", "silent", "verdict"),
    [
        # nothing understood yet
        (None, 200, False, Verdict.WAIT),
        (None, 950, False, Verdict.MEANT),
        (None, 950, True, Verdict.WAIT),
        # no words: a cough, or a model that heard none yet
        ("", 200, False, Verdict.WAIT),
        ("", 200, True, Verdict.NOTHING),
        ("", 1_000, False, Verdict.MEANT),
        ("", 1_000, True, Verdict.NOTHING),
        ("...", 300, True, Verdict.NOTHING),
        # accompanying words
        ("mm-hm", 200, False, Verdict.WAIT),
        ("mm-hm", 200, True, Verdict.NOTHING),
        ("yeah yeah", 1_000, True, Verdict.NOTHING),
        ("yeah", 1_000, False, Verdict.MEANT),
        # words that are always meant
        ("stop", 150, False, Verdict.MEANT),
        ("no", 150, True, Verdict.MEANT),
        ("okay wait", 200, False, Verdict.MEANT),
        # words
        ("tomorrow", 200, False, Verdict.WAIT),
        ("tomorrow", 200, True, Verdict.MEANT),
        ("what about Sundays", 200, False, Verdict.MEANT),
        # its own voice, however long
        ("opens at nine", 300, False, Verdict.NOTHING),
        ("opens at nine and closes at six", 3_000, False, Verdict.NOTHING),
    ],
)
def test_verdicts(text: str | None, speech_ms: int, silent: bool, verdict: Verdict) -> None:
    assert judge(P, text=text, speech_ms=speech_ms, silent=silent, spoken=SPOKEN) is verdict


def test_once_all_is_known_there_is_no_waiting() -> None:
    for text in ("", "yes", "stop", "tomorrow", "opens at nine", "what about it", "…", "?"):
        for speech_ms in (0, 100, 2_000):
            verdict = judge(P, text=text, speech_ms=speech_ms, silent=True, spoken=SPOKEN)
            assert verdict is not Verdict.WAIT
