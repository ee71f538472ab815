"""Keys in both directions, and what the agent may do on the line."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from tests.protocols.twilio.streams import (
    Stream,
    dtmf_frame,
    history_of,
    llm_of,
    phone_call,
    session_of,
)
from tests.server.support import Served, serving
from tests.support import OPTIONS, nothing_left, run, say, until

from antiphon.audio.dtmf import DtmfDetector
from antiphon.core.floor import Floor
from antiphon.errors import ModelError
from antiphon.protocols.twilio.phone_tools import numbers_by_name

QUESTION = say(440, 640, silence_ms=1200, rate_hz=8_000)
STORY = say(550, 640, silence_ms=1200, rate_hz=8_000)


def asking_for(name: str, **arguments: Any) -> dict[str, Any]:
    """A language model that calls this function when it hears of time."""
    tools = {"time": {"name": name, "arguments": arguments}}
    return {
        "models__options__llm__scripted": {**OPTIONS["llm"], "tools": tools},
        "phone__tools": "hang_up, transfer_call, collect_digits, send_digits",
    }


async def press(line: Stream, keys: str) -> None:
    for key in keys:
        await line.send(dtmf_frame(key))


async def told(served: Served) -> str:
    """What the language model was told of its function."""

    def results() -> list[str]:
        found = history_of(session_of(served))
        return [text for role, text in found if role == "tool_result"]

    await until(results, "the function has not returned")
    return results()[0]


def test_keys_are_told_to_the_language_model(tmp_path: Path) -> None:
    async def main() -> None:
        async with (
            serving(tmp_path, phone__keypad_pause_ms=200) as served,
            phone_call(served) as line,
        ):
            await press(line, "12#")
            said = "(The caller pressed on the telephone: 1 2 #)"
            await until(lambda: ("user", said) in history_of(session_of(served)))
            await until(
                lambda: ("assistant", f"You said: {said}") in history_of(session_of(served))
            )

    run(main())


def test_a_key_stops_the_agent(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as served, phone_call(served) as line:
            await line.speak(STORY)
            await line.wait("media", 3)
            await press(line, "0")
            await line.wait("clear")
            await until(lambda: session_of(served).view.floor is Floor.OPEN)
            role, text = history_of(session_of(served))[1]
            assert role == "assistant"
            assert len(text.split()) < 26

    run(main())


@pytest.mark.parametrize(
    ("arguments", "keys", "digits", "why"),
    [
        ({}, "1234#", "1234", "terminator"),
        ({"terminator": "*"}, "12*", "12", "terminator"),
        ({"max_digits": 4}, "98765", "9876", "max_digits"),
        ({"wait_s": 1}, "", "", "nothing"),
    ],
)
def test_digits_are_collected(
    arguments: dict[str, Any], keys: str, digits: str, why: str, tmp_path: Path
) -> None:
    async def main() -> None:
        options = asking_for("collect_digits", **arguments)
        options |= {"conversation__tool_filler_after_ms": 0}
        async with serving(tmp_path, **options) as served, phone_call(served) as line:
            await line.speak(QUESTION)
            await until(lambda: "tool_call" in [r for r, _ in history_of(session_of(served))])
            # Its result comes by keys: nothing else is waited for.
            await press(line, keys)
            assert json.loads(await told(served)) == {"digits": digits, "ended_by": why}

    run(main())


def test_a_prompt_is_said_first_and_a_key_stops_it(tmp_path: Path) -> None:
    async def main() -> None:
        options = asking_for("collect_digits", prompt=" ".join(["please"] * 40), max_digits=2)
        async with serving(tmp_path, **options) as served, phone_call(served) as line:
            await line.speak(QUESTION)
            await line.wait("media", 2)
            await press(line, "42")
            assert json.loads(await told(served))["digits"] == "42"
            await line.wait("clear")

    run(main())


def test_the_agent_presses_keys(tmp_path: Path) -> None:
    async def main() -> None:
        options = asking_for("send_digits", digits="1 9#")
        async with serving(tmp_path, **options) as served, phone_call(served) as line:
            await line.speak(QUESTION)
            assert await told(served) == "Pressed 19#."
            assert DtmfDetector(8_000).feed(line.heard()) == "19#"

    run(main())


@pytest.mark.parametrize("digits", ["", "1x", "1" * 60])
def test_keys_that_cannot_be_pressed(digits: str, tmp_path: Path) -> None:
    async def main() -> None:
        options = asking_for("send_digits", digits=digits)
        async with serving(tmp_path, **options) as served, phone_call(served) as line:
            await line.speak(QUESTION)
            assert "error" in json.loads(await told(served))

    run(main())


def test_the_agent_hangs_up_without_a_word(tmp_path: Path) -> None:
    """No goodbye was given: the configured one is said."""

    async def main() -> None:
        options = {**asking_for("hang_up"), "conversation__goodbye": "Goodbye then."}
        async with nothing_left(), serving(tmp_path, **options) as served:
            async with phone_call(served) as line:
                session = session_of(served)
                await line.speak(QUESTION)
                assert await line.wait_closed() == (1000, "")
                assert history_of(session)[-1] == ("assistant", "Goodbye then.")
            await until(lambda: len(served.calls) == 0)

    run(main())


@dataclass(slots=True)
class Switchboard:
    """The phone company's side of a transfer; `fail` on request."""

    fail: bool = False
    transfers: list[tuple[str, str]] = field(default_factory=list)

    async def transfer(self, call_id: str, number: str) -> None:
        self.transfers.append((call_id, number))
        if self.fail:
            raise ModelError("error 20003")


ALLOWED = {"phone__transfer_numbers": "sales=+1 555 0123, +15550124"}


@pytest.mark.parametrize(
    ("to", "number"),
    [("sales", "+15550123"), ("+15550124", "+15550124"), ("+19005550666", "")],
)
def test_transfer_to_listed_numbers_only(to: str, number: str, tmp_path: Path) -> None:
    async def main() -> None:
        options = asking_for("transfer_call", to=to, announcement="One moment.")
        board = Switchboard()
        async with serving(tmp_path, **ALLOWED, **options) as served:
            served.app.state.phone.lines = board
            async with phone_call(served) as line:
                await line.speak(QUESTION)
                result = await told(served)
                if number:
                    assert board.transfers == [("CA1", number)]
                    assert ("assistant", "One moment.") in history_of(session_of(served))
                else:
                    assert board.transfers == []
                    assert "error" in result

    run(main())


def test_a_transfer_that_fails_keeps_the_caller(tmp_path: Path) -> None:
    async def main() -> None:
        options = asking_for("transfer_call", to="sales")
        async with serving(tmp_path, **ALLOWED, **options) as served:
            served.app.state.phone.lines = Switchboard(fail=True)
            async with phone_call(served) as line:
                await line.speak(QUESTION)
                result = await told(served)
                assert "still here" in result
                assert "20003" not in result
                await line.speak(STORY)
                await until(lambda: ("user", "tell me a story") in history_of(session_of(served)))

    run(main())


def test_no_transfers_without_numbers(tmp_path: Path) -> None:
    async def main() -> None:
        chosen = "hang_up, transfer_call, collect_digits"
        async with serving(tmp_path, phone__tools=chosen) as served:
            served.app.state.phone.lines = Switchboard()
            async with phone_call(served) as line:
                await line.speak(QUESTION)
                await line.wait("media")
                names = {t["function"]["name"] for t in llm_of(served).requests[-1].tools}
                assert names == {"hang_up", "collect_digits"}

    run(main())


@pytest.mark.parametrize("able", [True, False])
def test_small_models_are_given_only_what_was_named(tmp_path: Path, able: bool) -> None:
    async def main() -> None:
        for named, given in (("auto", {"hang_up"} if able else set()), ("hang_up", {"hang_up"})):
            async with serving(tmp_path, phone__tools=named) as served:
                llm = llm_of(served)
                llm.info = replace(llm.info, calls_functions=able)
                async with phone_call(served) as line:
                    await line.speak(QUESTION)
                    await line.wait("media")
                    names = {t["function"]["name"] for t in llm.requests[-1].tools}
                    assert names == given

    run(main())


def test_numbers_by_name() -> None:
    assert numbers_by_name(("a b=+1-555", "+49 30 1", "desk=sip:desk@pbx.example")) == {
        "a b": "+1555",
        "+49301": "+49301",
        "desk": "sip:desk@pbx.example",
    }
