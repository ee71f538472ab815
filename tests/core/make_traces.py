"""Writes the golden traces: `python tests/core/make_traces.py`, after a change of behaviour that is meant.

Look at the difference of tests/traces before committing it; `test_golden_traces.py` says what each trace is there to
show.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from antiphon.core import actions as act
from antiphon.core import events as ev
from antiphon.core.history import ToolRequest
from antiphon.core.policy import Policy
from antiphon.testing.virtual_call import World

FOLDER = Path(__file__).parents[1] / "traces"

SHIPS = "The sea is deep and cold, and nobody knows how many ships lie there."


def clean_turn() -> World:
    world = World(Policy(greeting="Hello."))
    world.speak(2_000, "what time is it", 1_200)
    return world.run(6_000)


def pause_in_mid_sentence() -> World:
    world = World(Policy(greeting=""))
    world.finished = lambda words: 0.1 if words.endswith("to") else 0.9
    world.speak(500, "I want to go to", 1_500)
    world.speak(2_900, "the sea", 600)
    return world.run(7_000)


def talking_agent() -> World:
    """The agent speaks from about 2.2 s to 6.5 s."""
    world = World(Policy(greeting="", client_can_clear=True))
    world.reply = lambda words: SHIPS if "sea" in words else f"You said: {words}."
    world.speak(500, "tell me about the sea", 1_200)
    return world


def barge_in() -> World:
    world = talking_agent()
    world.speak(3_900, "no wait what about the sky", 1_400)
    return world.run(9_000)


def mm_hm() -> World:
    world = talking_agent()
    world.speak(3_900, "mm-hm", 300)
    return world.run(8_500)


def late_transcript() -> World:
    world = World(Policy(greeting="", partial_every_ms=0))
    world.delays.transcribe = 2_600
    world.speak(500, "what time is it", 1_200)
    world.run(5_990)
    done = next(a for a in world.actions(act.Transcribe) if not a.partial)
    world.at(
        6_000, ev.Transcribed(done.job, "what time is it then")
    )  # once more, when it is settled
    return world.run(7_500)


def llm_failure() -> World:
    world = World(Policy(greeting=""))
    world.fail["Generate"] = 2
    world.speak(500, "what time is it", 1_200)
    world.speak(7_000, "and in Oslo", 900)
    return world.run(11_000)


def hang_up_while_speaking() -> World:
    world = talking_agent()
    world.at(4_000, ev.HungUp())
    return world.run(9_000)


def preemptive_reply_thrown_away() -> World:
    world = World(Policy(greeting="", idle_prompt_after_ms=0))
    world.finished = lambda words: 0.1 if words.endswith("the") else 0.9
    weather = ToolRequest("c1", "weather", '{"city": "Oslo"}')
    world.calls = lambda history: (weather,)
    world.speak(500, "tell me the", 900)
    world.speak(2_000, "", 1_000)
    world.at(3_030, ev.ClearInput(3_030))
    return world.run(6_000)


def greeting_interrupted() -> World:
    world = World(Policy(greeting="Good morning, this is the harbour office. How can I help you?"))
    world.speak(1_500, "what time is it", 1_200)
    return world.run(6_000)


def idle_goodbye() -> World:
    world = World(Policy(greeting="Hello.", idle_prompt_after_ms=2_000, max_idle_prompts=1))
    return world.run(20_000)


def manual_turn() -> World:
    policy = Policy(greeting="", auto_turns=False, auto_reply=False, idle_prompt_after_ms=0)
    world = World(policy)
    world.speak(500, "what time is it", 1_200)
    world.at(1_800, ev.CommitInput(1_800))
    world.at(2_000, ev.RequestReply({"instructions": "be brief"}))
    world.at(3_200, ev.TruncateItem("a1", 700))
    return world.run(5_000)


def tool_call() -> World:
    world = World(Policy(greeting=""))
    weather = ToolRequest("c1", "weather", '{"city": "Oslo"}')
    world.calls = lambda history: () if history[-1].role == "tool_result" else (weather,)
    world.reply = lambda words: "Let me have a look."
    world.speak(500, "how is the weather in Oslo", 1_500)
    return world.run(7_000)


def tool_slow() -> World:
    world = World(Policy(greeting=""))
    weather = ToolRequest("c1", "weather", '{"city": "Oslo"}')
    world.calls = lambda history: () if history[-1].role == "tool_result" else (weather,)
    world.reply = lambda words: "Let me have a look."
    world.delays.tool = 6_000
    world.speak(500, "how is the weather in Oslo", 1_500)
    return world.run(12_000)


SCENARIOS: tuple[Callable[[], World], ...] = (
    clean_turn,
    pause_in_mid_sentence,
    barge_in,
    mm_hm,
    late_transcript,
    llm_failure,
    hang_up_while_speaking,
    preemptive_reply_thrown_away,
    greeting_interrupted,
    idle_goodbye,
    manual_turn,
    tool_call,
    tool_slow,
)


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for scenario in SCENARIOS:
        path = FOLDER / f"{scenario.__name__.replace('_', '-')}.jsonl"
        path.write_text("\n".join(scenario().lines) + "\n", encoding="utf-8")
        print(path.name)


if __name__ == "__main__":
    main()
