"""Person or machine: a table of greetings, beeps among other sounds, and a watch on a real call."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.call.support import POLICY, call
from tests.support import run, say, until

from antiphon.core import actions as act
from antiphon.models.scripted import tone
from antiphon.telephony.answering_machine import (
    Answerer,
    BeepFinder,
    GreetingFeatures,
    GreetingWatch,
    judge,
)

RATE_HZ = 8_000


@pytest.mark.parametrize(
    ("heard", "who"),
    [
        (GreetingFeatures(3_000), Answerer.UNKNOWN),
        (GreetingFeatures(1_000, [(200, 700)], "Hello?"), Answerer.UNKNOWN),
        (GreetingFeatures(2_000, [(200, 700)], "Hello?"), Answerer.HUMAN),
        (
            GreetingFeatures(4_000, [(200, 900), (1_300, 2_400)], "Yes, Miller speaking."),
            Answerer.HUMAN,
        ),
        (GreetingFeatures(4_500, [(200, 4_500)]), Answerer.MACHINE),
        (GreetingFeatures(6_500, [(200, 2_500), (3_000, 6_000)]), Answerer.MACHINE),
        (GreetingFeatures(1_500, [(200, 1_400)], "You’ve reached the Millers"), Answerer.MACHINE),
        (GreetingFeatures(1_500, [(200, 1_400)], "please leave a message"), Answerer.MACHINE),
        (
            GreetingFeatures(1_500, [(200, 1_400)], "She is not available right now"),
            Answerer.MACHINE,
        ),
        (GreetingFeatures(900, [], "", beep=True), Answerer.MACHINE),
        (GreetingFeatures(2_800, [(200, 2_600)], "Good morning, garage Miller"), Answerer.UNKNOWN),
    ],
)
def test_greetings(heard: GreetingFeatures, who: Answerer) -> None:
    assert judge(heard).who is who
    assert judge(heard).why or who is Answerer.UNKNOWN


def _voice(ms: int) -> np.ndarray[Any, np.dtype[np.int16]]:
    """A dozen harmonics of a wandering pitch."""
    time_s = np.arange(ms * RATE_HZ // 1000) / RATE_HZ
    phase = 2 * np.pi * np.cumsum(140 + 30 * np.sin(2 * np.pi * 3 * time_s)) / RATE_HZ
    wave = sum(np.sin(n * phase) / n for n in range(1, 12))
    return (np.asarray(wave) * 3_000).astype(np.int16)


def _quiet(ms: int) -> np.ndarray[Any, np.dtype[np.int16]]:
    return np.zeros(ms * RATE_HZ // 1000, np.int16)


@pytest.mark.parametrize(
    ("pieces", "beep"),
    [
        ([_voice(900), _quiet(200), tone(1_000, 400, RATE_HZ), _quiet(200)], True),
        ([tone(440, 250, RATE_HZ), _quiet(100)], True),
        ([tone(1_400, 300, RATE_HZ), _voice(500)], True),
        ([_voice(4_000)], False),
        ([tone(1_000, 60, RATE_HZ), _quiet(300)], False),  # a click
        ([tone(1_000, 4_000, RATE_HZ), _quiet(300)], False),  # a dial tone
        ([tone(1_000, 400, RATE_HZ, rms=30.0), _quiet(300)], False),
        (
            [tone(697, 300, RATE_HZ, rms=2_000) + tone(1_209, 300, RATE_HZ, rms=2_000), _quiet(99)],
            False,
        ),
        ([np.random.default_rng(1).integers(-3_000, 3_000, 8_000).astype(np.int16)], False),
    ],
    ids=["beep", "low", "then-speech", "voice", "click", "dial-tone", "faint", "key", "noise"],
)
def test_beeps(pieces: list[Any], beep: bool) -> None:
    whole = np.concatenate(pieces)
    for step in (160, 333, len(whole)):
        finder = BeepFinder(RATE_HZ)
        found = [finder.feed(whole[at : at + step]) for at in range(0, len(whole), step)]
        assert any(found) is beep


def test_a_machine_is_hung_up_on() -> None:
    told: list[str] = []

    async def main() -> None:
        async with call(policy=POLICY) as line:
            watch = GreetingWatch(line.session, "", lambda: told.append("machine"))
            line.session.feed_audio(say(550, 5_000), 16_000)
            await until(lambda: line.transport.hung_up == "an answering machine")
            assert watch.who is Answerer.MACHINE
            assert told == ["machine"]

    run(main())


def test_a_message_is_left_after_the_beep() -> None:
    async def main() -> None:
        async with call(policy=POLICY) as line:
            GreetingWatch(line.session, "Please call us back.", lambda: None)
            line.session.feed_audio(say(550, 4_500, silence_ms=300), 16_000)
            line.session.feed_audio(say(1_000, 400, silence_ms=400), 16_000)
            await until(lambda: line.transport.hung_up == "left a message")
            said = [r.reply_text for r in line.session.records if r.reply_text]
            assert said == ["Please call us back."]
            assert not [a for a in line.transport.all(act.Fault) if a.code == "internal_error"]

    run(main())


def test_a_person_is_talked_to() -> None:
    async def main() -> None:
        async with call(policy=POLICY) as line:
            watch = GreetingWatch(line.session, "", lambda: None)
            hello = say(440, 600, silence_ms=2_000)
            for overtone in (2, 3, 4, 5):  # a pure tone would be a beep
                hello = hello + say(440 * overtone, 600, silence_ms=2_000) // 2
            line.session.feed_audio(hello, 16_000)
            await line.ended()
            await until(lambda: watch.who is Answerer.HUMAN)
            assert not line.transport.hung_up

    run(main())
