"""One simulated call with everything that a view has to show, and the records of it."""

from __future__ import annotations

import pytest

from antiphon.core import actions as act
from antiphon.core import events as ev
from antiphon.core.policy import Policy
from antiphon.core.turn_record import TurnRecord
from antiphon.testing.virtual_call import World

SEA = "The sea is deep and cold and very wide, and nobody knows how many ships are lying on its ground."


@pytest.fixture(scope="session")
def world() -> World:
    """Greeting, a broken-off answer, a pause in mid-sentence (a wasted guess), a false alarm, a goodbye."""
    made = World(Policy(greeting="Hello there.", goodbye="Goodbye then.", idle_prompt_after_ms=0))
    made.reply = lambda words: SEA if "sea" in words else f"You said: {words}."
    made.finished = lambda words: 0.2 if words.endswith("time") else 0.9
    made.text_end_probability = lambda words: 0.05 if words.endswith("time") else 0.97
    made.speak(5_000, "tell me about the sea", 1_200)
    made.speak(8_500, "no tell me about the <sky>", 1_500)
    made.speak(15_000, "what time", 600)
    made.speak(15_950, "is it now", 700)
    made.speak(22_000, "and the sea again", 1_200)
    made.speak(26_500, "mm-hm", 300)
    made.at(38_000, ev.Finish("finished", say_goodbye=True))
    made.run(60_000)
    return made


@pytest.fixture(scope="session")
def records(world: World) -> list[TurnRecord]:
    return [action.record for action in world.actions(act.TurnRecorded)]
