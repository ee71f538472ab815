"""Functions: run once, never for a guess, and their results told as soon as the floor is free."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from antiphon.core import actions as act
from antiphon.core import events as ev
from antiphon.core.history import Item, ToolRequest
from antiphon.core.policy import Policy
from antiphon.testing.virtual_call import World

Call = Callable[..., World]

SEA = "The sea is deep and cold and very wide, and nobody knows how many ships are lying on its ground."
WEATHER = ToolRequest("c1", "weather", "{}")


def with_tool(call: Call, **policy: object) -> World:
    world = call(**{"idle_prompt_after_ms": 0, "tool_filler": "", **policy})

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
    assert [item.role for item in world.view.history.snapshot()] == [
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


def test_what_follows_a_function_belongs_to_its_turn(call: Call) -> None:
    world = with_tool(call)
    replies = iter(["", "It is sunny."])
    world.reply = lambda words: next(replies)
    world.speak(1_000, "how is the weather", 1_200)
    world.run(9_000)
    silent, told = (action.record for action in world.actions(act.TurnRecorded))
    assert (silent.number, told.number) == (1, 1)
    assert silent.voice_to_voice_ms is None  # nothing of it was to be heard
    assert told.first_sent_ms is not None
    assert told.speech_end_ms is not None
    assert told.voice_to_voice_ms == told.first_sent_ms - told.speech_end_ms > 0


def test_a_turn_whose_answer_was_heard_already_has_one_voice_to_voice(call: Call) -> None:
    world = with_tool(call)
    world.speak(1_000, "how is the weather", 1_200)
    world.run(9_000)
    records = [action.record for action in world.actions(act.TurnRecorded)]
    assert [record.number for record in records] == [1, 1]
    assert [record.voice_to_voice_ms is not None for record in records] == [True, False]


def test_arguments_are_shown_once_the_turn_is_certain(call: Call) -> None:
    world = with_tool(call)
    world.speak(1_000, "how is the weather", 1_200)
    world.run(9_000)
    shown = (act.ReplyBegan, act.ReplyCallWords, act.ReplyCalls, act.RunTool)
    told = [a for _, a in world.log if isinstance(a, shown)]
    assert [type(a).__name__ for a in told[:5]] == [
        "ReplyBegan",
        "ReplyCallWords",
        "ReplyCallWords",
        "ReplyCalls",
        "RunTool",
    ]
    words = world.actions(act.ReplyCallWords)
    assert "".join(w.text for w in words) == WEATHER.arguments
    assert {w.item for w in words} == {a.item for a in world.actions(act.ReplyCalls)}


def test_no_function_runs_for_a_guess(call: Call) -> None:
    # livekit 3414, 3702, 5924: speculation that runs functions, or runs them twice.
    world = with_tool(call)
    world.finished = lambda words: 0.1 if words.endswith("weather") else 0.9
    world.text_end_probability = world.finished
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
    world.policy = Policy(greeting="", idle_prompt_after_ms=3_000, tool_filler="")
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
    world.policy = Policy(greeting="", idle_prompt_after_ms=3_000, tool_filler="")
    world.hang("RunTool")
    world.speak(1_000, "how is the weather", 1_200)
    world.at(20_000, ev.AddItem(Item("r", "tool_result", "sunny", call_id="c1")))
    world.run(22_900)
    assert world.said() == ["Let me see."]


def test_a_cancelled_call_for_a_function_is_not_followed_up(call: Call) -> None:
    world = with_tool(call)
    world.reply = lambda words: SEA
    world.speak(1_000, "how is the weather", 1_200)
    world.at(5_000, ev.RequestCancel())
    world.run(12_000)
    assert len(world.actions(act.Generate)) == 1


# -- exactly once -------------------------------------------------------------------------------------


def test_a_function_goes_on_when_the_answer_is_interrupted(call: Call) -> None:
    world = with_tool(call)
    world.reply = lambda words: SEA
    world.delays.tool = 4_000
    world.speak(1_000, "how is the weather", 1_200)
    world.speak(3_600, "no wait what about the sky", 1_400)
    world.run(20_000)
    assert len(world.actions(act.RunTool)) == 1
    assert world.actions(act.ReplyEnded)[0].status == "cancelled"
    assert [text for role, text in world.transcript() if role == "tool_result"] == [
        "result of weather"
    ]


def test_a_noise_before_the_answer_is_audible_does_not_call_the_function_again(call: Call) -> None:
    # The withdrawn answer has called the function: its result brings the answer, not a second attempt.
    world = with_tool(call)
    world.delays.speak = 900
    world.delays.tool = 5_000
    world.speak(1_000, "how is the weather", 1_200)
    while not world.actions(act.RunTool):
        world.run(world.now_ms + 32)
    world.speak(world.now_ms + 100, "", 200)
    world.run(20_000)
    assert len(world.actions(act.RunTool)) == 1
    assert len(world.actions(act.Generate)) == 2
    assert world.said()[-1] == "Let me see."


def test_no_function_runs_for_a_reply_that_was_cancelled_before_it_asked(call: Call) -> None:
    world = with_tool(call)
    world.reply = lambda words: SEA
    world.delays.token = 100
    world.speak(1_000, "how is the weather", 1_200)
    world.at(3_400, ev.RequestCancel())
    world.run(9_000)
    assert [a.status for a in world.actions(act.ReplyEnded)] == ["cancelled"]
    assert world.actions(act.RunTool) == []


def test_the_same_call_asked_for_twice_runs_once(call: Call) -> None:
    world = with_tool(call)
    world.calls = lambda history: (WEATHER, WEATHER)
    world.speak(1_000, "how is the weather", 1_200)
    world.run(9_000)
    assert len(world.actions(act.RunTool)) == 1


def test_a_result_after_the_end_of_the_call_is_nothing(call: Call) -> None:
    world = with_tool(call)
    world.delays.tool = 3_000
    world.speak(1_000, "how is the weather", 1_200)
    world.at(4_000, ev.HungUp())
    world.run(9_000)
    assert len(world.actions(act.RunTool)) == 1
    assert world.feed(ev.ToolReturned("c1", "too late")) == []


# -- a slow function is bridged -----------------------------------------------------------------------

WAIT = "One moment, please."


def slow(call: Call, tool_ms: int = 5_000, **policy: object) -> World:
    world = with_tool(call, **{"tool_filler": WAIT, **policy})
    world.delays.tool = tool_ms
    world.speak(1_000, "how is the weather", 1_200)
    return world


def test_a_slow_function_is_bridged_once_after_the_silence(call: Call) -> None:
    world = slow(call, 15_000)
    world.run(25_000)
    assert world.said() == ["Let me see.", WAIT, "Let me see."]
    first_over_ms = world.when(act.ReplyEnded)[0]
    assert world.when(act.ReplyBegan)[1] == first_over_ms + 1_200


def test_the_model_is_not_told_of_the_filler(call: Call) -> None:
    world = slow(call)
    world.run(15_000)
    assert WAIT not in [text for _, text in world.transcript()]
    fillers = [item for item in world.view.history if item.aside]
    assert [(item.role, item.text) for item in fillers] == [("assistant", WAIT)]
    assert [record.record.kind for record in world.actions(act.TurnRecorded)][:2] == [
        "answer",
        "filler",
    ]


def test_a_function_has_words_of_its_own(call: Call) -> None:
    world = slow(call)
    world.filler = "I am looking out of the window."
    world.run(15_000)
    assert world.said()[1] == "I am looking out of the window."


@pytest.mark.parametrize(
    "policy", [{"tool_filler": ""}, {"tool_filler_after_ms": 0}, {"speak_replies": False}]
)
def test_no_filler_is_said_when_none_is_wanted(call: Call, policy: dict[str, object]) -> None:
    world = slow(call, **policy)
    world.run(15_000)
    assert WAIT not in world.said()


def test_a_quick_function_needs_no_filler(call: Call) -> None:
    world = slow(call, 1_500)
    world.run(15_000)
    assert world.said() == ["Let me see.", "Let me see."]


def test_functions_of_the_client_are_not_bridged(call: Call) -> None:
    world = slow(call)
    world.ours = False
    world.run(15_000)
    assert world.said() == ["Let me see.", "Let me see."]


def test_the_filler_is_never_said_over_the_caller(call: Call) -> None:
    world = slow(call, 12_000)
    world.speak(4_300, "I am asking because I want to go to the sea today with all of them", 4_000)
    world.run(11_000)
    quiet_ms = 4_300 + 4_000
    began_ms = world.when(act.ReplyBegan)
    assert len(began_ms) >= 2
    assert not any(4_300 <= at_ms < quiet_ms for at_ms in began_ms)


def test_a_filler_can_be_interrupted_and_is_not_said_again(call: Call) -> None:
    world = slow(call, 20_000)
    while len(world.actions(act.Play)) < 2:
        world.run(world.now_ms + 32)
    world.speak(world.now_ms + 100, "no wait tell me about the sea", 1_500)
    world.run(18_000)
    fillers = [a.record for a in world.actions(act.TurnRecorded) if a.record.kind == "filler"]
    assert [record.status for record in fillers] == ["cancelled"]


def test_one_filler_bridges_all_that_are_running(call: Call) -> None:
    world = slow(call)
    other = ToolRequest("c2", "clock", "{}")
    plain = world.calls
    world.calls = lambda history: (WEATHER, other) if plain(history) else ()
    world.run(15_000)
    assert world.said().count(WAIT) == 1


def test_a_filler_that_cannot_be_spoken_is_no_reason_to_apologise(call: Call) -> None:
    world = slow(call)
    world.run(4_000)
    world.fail["Synthesize"] = 1
    world.run(15_000)
    assert [a.record.status for a in world.actions(act.TurnRecorded)] == [
        "completed",
        "failed",
        "completed",
    ]
    assert world.said() == ["Let me see.", "", "Let me see."]
