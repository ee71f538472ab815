"""Functions: run once, never for a guess, and their results told as soon as the floor is free."""

from __future__ import annotations

from collections.abc import Callable

from antiphon.core import actions as act
from antiphon.core import events as ev
from antiphon.core.history import Item, ToolRequest
from antiphon.core.policy import Policy
from antiphon.testing.world import World

Call = Callable[..., World]

SEA = "The sea is deep and cold and very wide, and nobody knows how many ships are lying on its ground."
WEATHER = ToolRequest("c1", "weather", "{}")


def with_tool(call: Call, **policy: object) -> World:
    world = call(idle_prompt_after_ms=0, **policy)

    def used(history: tuple[Item, ...]) -> bool:
        return any(item.role == "tool_result" for item in history)

    world.calls = lambda history: () if used(history) else (WEATHER,)
    world.reply = lambda words: "Let me see."
    return world


def test_a_function_runs_once_and_its_result_is_told(call: Call) -> None:
    world = with_tool(call)
    world.speak(1_000, "how is the weather", 1_200)
    world.run(9_000)
    assert [a.call for a in world.actions(act.RunTool)] == [WEATHER]
    assert world.said() == ["Let me see.", "Let me see."]
    assert [item.role for item in world.conversation.history.snapshot()] == [
        "user",
        "assistant",
        "tool_call",
        "tool_result",
        "assistant",
    ]
    assert [item.role for item in world.actions(act.Generate)[-1].history][-2:] == [
        "tool_call",
        "tool_result",
    ]


def test_no_function_runs_for_a_guess(call: Call) -> None:
    # livekit 3414, 3702, 5924: speculation that runs functions, or runs them twice.
    world = with_tool(call)
    world.finished = lambda words: 0.1 if words.endswith("weather") else 0.9
    world.speak(1_000, "how is the weather", 1_200)
    world.speak(2_700, "in Oslo", 700)
    world.run(2_750)
    assert len(world.actions(act.Generate)) == 1
    assert world.actions(act.RunTool) == []
    world.run(9_000)
    assert len(world.actions(act.RunTool)) == 1
    assert world.when(act.RunTool)[0] >= world.when(act.ReplyBegan)[0]
    assert [a.reply for a in world.actions(act.RunTool)] == [world.actions(act.ReplyBegan)[0].reply]


def test_a_function_that_has_run_is_not_taken_back_when_the_caller_goes_on(call: Call) -> None:
    world = with_tool(call)
    world.delays.speak = 900
    world.speak(1_000, "how is the weather", 1_200)
    world.speak(2_900, "in Oslo", 700)
    world.run(12_000)
    assert len(world.actions(act.RunTool)) == 1
    assert world.actions(act.ItemRemoved) == []
    assert [text for role, text in world.transcript() if role == "user"] == [
        "how is the weather",
        "in Oslo",
    ]


def test_the_result_comes_while_the_agent_speaks(call: Call) -> None:
    world = with_tool(call)
    world.reply = lambda words: SEA
    world.speak(1_000, "how is the weather", 1_200)
    world.run(17_000)
    assert world.said() == [SEA, SEA]


def test_the_result_comes_while_the_caller_speaks_and_is_told_in_the_answer(call: Call) -> None:
    world = with_tool(call)
    world.delays.tool = 2_500
    world.speak(1_000, "how is the weather", 1_200)
    world.speak(4_500, "and how are you today", 1_500)
    world.run(14_000)
    assert len(world.actions(act.ReplyBegan)) == 2  # and not a third one for the result
    assert "tool_result" in [item.role for item in world.actions(act.Generate)[-1].history]


def test_the_result_comes_while_there_is_noise(call: Call) -> None:
    world = with_tool(call)
    world.delays.tool = 2_500
    world.speak(1_000, "how is the weather", 1_200)
    world.speak(4_700, "", 700)
    world.run(14_000)
    assert world.said() == ["Let me see.", "Let me see."]


def test_an_answer_withdrawn_for_a_noise_is_given_after_all(call: Call) -> None:
    world = with_tool(call)
    world.delays.speak = 900
    world.speak(1_000, "how is the weather", 1_200)
    while len(world.actions(act.Generate)) < 2:  # up to the answer to the result
        world.run(world.now_ms + 32)
    world.speak(world.now_ms + 50, "", 200)
    world.run(world.now_ms + 500)
    withdrawn = world.actions(act.ReplyEnded)[-1]
    assert (withdrawn.status, withdrawn.reason) == ("cancelled", "turn_detected")
    world.run(20_000)
    assert len(world.actions(act.Generate)) == 3
    assert world.actions(act.ReplyEnded)[-1].status == "completed"
    assert world.said()[-1] == "Let me see."


def test_silence_is_not_counted_while_a_function_runs(call: Call) -> None:
    world = with_tool(call)
    world.policy = Policy(greeting="", idle_prompt_after_ms=3_000)
    world.delays.tool = 20_000
    world.speak(1_000, "how is the weather", 1_200)
    world.run(26_000)
    assert world.said() == ["Let me see.", "Let me see."]


def test_a_result_that_the_client_adds_itself_is_not_followed_up(call: Call) -> None:
    world = with_tool(call)
    world.hang("RunTool")
    world.speak(1_000, "how is the weather", 1_200)
    world.at(9_000, ev.AddItem(Item("r", "tool_result", "sunny", call_id="c1")))
    world.at(9_100, ev.ToolReturned("c1", "too late"))
    world.run(12_000)
    assert len(world.actions(act.Generate)) == 1
    assert [text for role, text in world.transcript() if role == "tool_result"] == ["sunny"]


def test_silence_is_counted_anew_when_the_client_adds_a_result(call: Call) -> None:
    world = with_tool(call)
    world.policy = Policy(greeting="", idle_prompt_after_ms=3_000)
    world.hang("RunTool")
    world.speak(1_000, "how is the weather", 1_200)
    world.at(20_000, ev.AddItem(Item("r", "tool_result", "sunny", call_id="c1")))
    world.run(22_900)
    assert world.said() == ["Let me see."]


def test_a_cancelled_call_for_a_function_is_not_followed_up(call: Call) -> None:
    world = with_tool(call)
    world.reply = lambda words: SEA
    world.speak(1_000, "how is the weather", 1_200)
    world.at(5_000, ev.CancelReply())
    world.run(12_000)
    assert len(world.actions(act.Generate)) == 1
