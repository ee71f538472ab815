"""Keys gathered until there is something to tell. Real timers, short ones."""

from __future__ import annotations

import asyncio

import pytest
from tests.support import run, until

from antiphon.telephony.keypad import MAX_KEYS, Collected, Keypad, Wanted


def press(pad: Keypad, keys: str) -> None:
    for key in keys:
        pad.press(key)


def test_keys_are_told_after_a_pause_or_when_there_are_many() -> None:
    async def main() -> None:
        told: list[str] = []
        pad = Keypad(told.append, 0.02)
        press(pad, "12")
        assert told == []
        await until(lambda: told == ["12"])
        press(pad, "7" * (MAX_KEYS + 1))
        assert told[1] == "7" * MAX_KEYS
        await until(lambda: told[2:] == ["7"])
        pad.close()

    run(main())


@pytest.mark.parametrize(
    ("wanted", "early", "keys", "result"),
    [
        (Wanted(), "", "12#", Collected("12", "terminator")),
        (Wanted(), "1", "2#", Collected("12", "terminator")),
        (Wanted(max_digits=2), "123", "", Collected("12", "max_digits")),
        (Wanted(terminator="", between_s=0.02), "", "1#", Collected("1#", "silence")),
        (Wanted(first_s=0.02), "", "", Collected("", "nothing")),
        (Wanted(), "", "#", Collected("", "terminator")),
    ],
)
def test_what_a_function_waits_for(
    wanted: Wanted, early: str, keys: str, result: Collected
) -> None:
    async def main() -> None:
        told: list[str] = []
        pad = Keypad(told.append, 5)
        press(pad, early)
        waiting = pad.collect(wanted)
        press(pad, keys)
        assert await waiting == result
        assert told == []
        pad.close()

    run(main())


def test_a_second_wait_ends_the_first() -> None:
    async def main() -> None:
        pad = Keypad(lambda _: None, 5)
        first = pad.collect(Wanted())
        press(pad, "1")
        second = pad.collect(Wanted())
        press(pad, "2#")
        assert await first == Collected("1", "silence")
        assert await second == Collected("2", "terminator")
        pad.close()

    run(main())


def test_a_wait_that_is_given_up_leaves_the_keys_to_the_next() -> None:
    async def main() -> None:
        told: list[str] = []
        pad = Keypad(told.append, 0.02)
        waiting = pad.collect(Wanted())
        waiting.cancel()
        await asyncio.sleep(0)
        press(pad, "5")
        await until(lambda: told == ["5"])
        last = pad.collect(Wanted())
        pad.close()
        assert last.cancelled()

    run(main())
