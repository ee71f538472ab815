"""Traces without their words: nothing private left, and the same decisions when they are replayed."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tests.core.test_properties import AnyCall

from antiphon.core import endpointing, interruption
from antiphon.core import events as ev
from antiphon.core.history import Item, ToolRequest
from antiphon.core.policy import Policy
from antiphon.observe import call_trace
from antiphon.observe.trace_redact import Pseudonyms, redact
from antiphon.testing.virtual_call import World

TRACES = Path(__file__).parent.parent / "traces"
SECRETS = "Anna Schmidt lives at 12 Elm Street, card 4929 1234."


def test_words_become_other_words_of_the_same_shape() -> None:
    names = Pseudonyms()
    assert names.redact("Call Anna, ANNA!") == "Xxxx Xxxa, XXXA!"
    assert names.redact("anna") == "xxxa"
    assert names.redact("No, I can't. Uh-huh, wait for the bus at 10 p.m.") == (
        "No, I can'x. Uh-huh, wait for the xxx at 00 p.m."
    )


def test_digits_letters_and_addresses_stay_what_they_are_and_say_nothing() -> None:
    names = Pseudonyms()
    assert names.redact("five five nine") == "five five four"
    said = "my number is 0 1 7, J O, jo.doe@mail.example"
    redacted = names.redact(said)
    assert endpointing.being_dictated(redacted) == endpointing.being_dictated(said)
    assert "@" in redacted
    assert not re.search("doe|mail|example|J O|0 1 7", redacted)


def test_beyond_ascii() -> None:
    names = Pseudonyms()
    said = "Größe, straße… 你好。再见！ हिन्दी ٣٤ ½ ısı 🙂"
    redacted = names.redact(said)
    assert len(redacted) == len(said)
    assert not set("ßö你好再见ह") & set(redacted)
    assert [ch for ch in redacted if ch in "…。！½🙂ı"] == [ch for ch in said if ch in "…。！½🙂ı"]


TEXT = st.lists(
    st.sampled_from(
        """no stop uh-huh mmm okaaay e.g. 5:30 555 J o'clock don't and, the? maybe. Dr. number spell e-mail
        Anna twenty-five stop-and you've 你好。 été Zürich four seven at dot @home (maybe) ... — a I x y z""".split()
    )
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=6),
    max_size=8,
).map(" ".join)


@settings(derandomize=True, max_examples=400, deadline=None)
@given(TEXT, TEXT)
def test_what_the_core_asks_of_words_has_the_same_answer(heard: str, said: str) -> None:
    names = Pseudonyms()
    heard_, said_ = names.redact(heard), names.redact(said)
    assert (len(heard_), len(heard_.split())) == (len(heard), len(heard.split()))
    assert endpointing.looks_unfinished(heard_) == endpointing.looks_unfinished(heard)
    assert endpointing.being_dictated(heard_, said_) == endpointing.being_dictated(heard, said)
    assert interruption.is_backchannel(heard_) == interruption.is_backchannel(heard)
    assert interruption.is_echo(heard_, said_) == interruption.is_echo(heard, said)
    assert (heard_ == said_) == (heard == said)


@pytest.mark.parametrize("path", sorted(TRACES.glob("*.jsonl")), ids=lambda path: path.stem)
def test_golden_traces_replay_redacted(path: Path) -> None:
    lines = path.read_text().splitlines()
    redacted = redact(lines)
    assert len(redacted) == len(lines)
    assert call_trace.replay(redacted) is None


def private_call() -> World:
    world = World(Policy(greeting="Hello, this is Harriet.", apology="Oh dear."), reports=True)
    world.calls = lambda history: (
        [ToolRequest("c1", "lookup", '{"name": "Schmidt"}')] if len(history) == 2 else []
    )
    world.speak(3_000, "I am Anna Schmidt from Oslo", 1_500)
    world.speak(7_000, "wait", 700)
    world.at(12_000, ev.UserText("My PIN is 4929", reply=False))
    world.at(
        12_100, ev.AddItem(Item("x1", "user", "Elm Street", extra={"raw": [{"t": "Elm Street"}]}))
    )
    world.at(12_200, ev.RequestReply({"instructions": "Ask Anna about Oslo"}))
    return world.run(25_000)


def test_nothing_that_was_said_is_left() -> None:
    lines = private_call().lines
    assert call_trace.replay(lines) is None
    redacted = redact(lines)
    assert call_trace.replay(redacted) is None
    text = "\n".join(redacted)
    assert not re.search(
        "(?i)anna|schmidt|oslo|harriet|4929|elm|street|result of|instruct.*ask", text
    )
    assert "lookup" in text
    assert text.count("Transcript") == "\n".join(lines).count("Transcript")


def test_a_difference_in_a_decision_is_still_found() -> None:
    lines = redact(private_call().lines)
    number = next(i for i, line in enumerate(lines) if '"Commit' in line or '"Play"' in line)
    record = json.loads(lines[number])
    record["actions"].pop()
    lines[number] = json.dumps(record)
    difference = call_trace.replay(lines)
    assert difference is not None
    assert difference.line_number == number + 1


@pytest.mark.parametrize("line", ["{", "[]", "7"])
def test_what_is_no_trace(line: str) -> None:
    with pytest.raises(call_trace.TraceError):
        redact([line])


class AnyRedactedCall(AnyCall):
    """Whatever happens in a call, its redacted trace replays."""

    def teardown(self) -> None:
        super().teardown()
        if hasattr(self, "lines"):
            assert call_trace.replay(redact(self.lines)) is None


AnyRedactedCall.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=50,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
)
TestAnyRedactedCall = AnyRedactedCall.TestCase
