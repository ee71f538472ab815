"""How calls end: silence, goodbye, hang-up at any moment."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest

from antiphon.core import actions as act
from antiphon.core import events as ev
from antiphon.core.conversation import Conversation
from antiphon.core.floor import Floor
from antiphon.observe import call_trace
from antiphon.testing.rules import CallRules
from antiphon.testing.virtual_call import World

Call = Callable[..., World]

SEA = "The sea is deep and cold and very wide."


# -- silence -----------------------------------------------------------------------------------------


def test_silence_is_asked_about_and_then_the_call_ends(call: Call) -> None:
    world = call()
    world.run(60_000)
    policy = world.policy
    assert world.said() == [policy.idle_prompt, policy.idle_prompt, policy.goodbye]
    assert world.when(act.ReplyBegan)[0] == policy.idle_prompt_after_ms
    assert [a.reason for a in world.actions(act.Hangup)] == ["nobody answered"]
    assert world.floor is Floor.ENDED


def test_an_answer_resets_the_count_of_prompts(call: Call) -> None:
    world = call()
    world.speak(17_000, "yes I am here", 900)
    world.run(40_000)
    prompt = world.policy.idle_prompt
    assert world.said() == [prompt, prompt, "You said: yes I am here.", prompt, prompt]


def test_no_prompt_when_that_is_switched_off(call: Call) -> None:
    world = call(idle_prompt_after_ms=0)
    world.run(300_000)
    assert world.log == []


def test_without_a_goodbye_the_call_just_ends(call: Call) -> None:
    world = call(goodbye="", max_idle_prompts=0)
    world.run(60_000)
    assert world.when(act.Hangup) == [7_000]


def test_the_caller_comes_back_during_the_goodbye(call: Call) -> None:
    world = call(max_idle_prompts=0)
    world.speak(7_600, "wait I am here", 1_000)
    world.run(13_000)
    assert world.actions(act.Hangup) == []
    assert world.said()[1] == "You said: wait I am here."


def test_a_goodbye_that_was_ordered_ends_the_call_whatever_the_caller_says(call: Call) -> None:
    world = call()
    world.speak(1_000, "and another thing and another", 5_000)
    world.at(2_000, ev.Finish("closing time", say_goodbye=True))
    world.run(30_000)
    assert world.said() == [world.policy.goodbye]
    assert [a.reason for a in world.actions(act.Hangup)] == ["closing time"]


def misunderstood(text: str = "Bye bye, have a nice day.") -> ev.Finish:
    return ev.Finish("the agent hung up", bool(text), text, unless_caller_speaks=True)


def test_an_agent_that_wants_to_hang_up_on_a_caller_who_goes_on_does_not(call: Call) -> None:
    world = call(idle_prompt_after_ms=0)
    world.at(1_000, misunderstood())
    world.speak(1_800, "wait I have a question", 1_200)
    world.run(12_000)
    assert world.actions(act.Hangup) == []
    assert world.said()[-1] == "You said: wait I have a question."


@pytest.mark.parametrize("goodbye", ["Bye.", ""])
def test_nobody_is_hung_up_on_in_mid_word(call: Call, goodbye: str) -> None:
    world = call(idle_prompt_after_ms=0)
    world.speak(1_000, "I would like to know something", 2_000)
    world.at(2_000, misunderstood(goodbye))
    world.run(12_000)
    assert world.actions(act.Hangup) == []
    assert world.said() == ["You said: I would like to know something."]


def test_an_agent_that_wants_to_hang_up_does_when_the_caller_is_silent(call: Call) -> None:
    world = call()
    world.at(1_000, misunderstood())
    world.run(12_000)
    assert world.said() == ["Bye bye, have a nice day."]
    assert [a.reason for a in world.actions(act.Hangup)] == ["the agent hung up"]


def test_what_ends_a_call_for_good_outweighs_an_agent_that_wants_to(call: Call) -> None:
    world = call()
    world.at(1_000, ev.Finish("closing time", say_goodbye=True))
    world.at(1_100, misunderstood())
    world.speak(1_500, "wait", 900)
    world.run(12_000)
    assert [a.reason for a in world.actions(act.Hangup)] == ["closing time"]


@pytest.mark.parametrize("hung", ["Synthesize", "Play"])
def test_a_goodbye_that_cannot_be_said_ends_the_call_all_the_same(call: Call, hung: str) -> None:
    world = call()
    world.hang(hung)
    world.at(1_000, ev.Finish("done", say_goodbye=True, text="Bye."))
    world.run(60_000)
    assert world.floor is Floor.ENDED


def test_finish_without_a_word(call: Call) -> None:
    world = call()
    world.at(1_000, ev.Finish("done"))
    world.run(5_000)
    assert world.when(act.Hangup) == [1_000]


# -- hang-up -----------------------------------------------------------------------------------------


def rich_call(world: World) -> None:
    """Greeting, a pause, an answer, an interruption, "mm-hm", a function, silence, goodbye."""
    world.reply = lambda words: SEA
    world.speak(2_000, "tell me about", 900)
    world.speak(3_300, "the sea", 700)
    world.speak(5_500, "mm-hm", 300)
    world.speak(7_300, "no stop that", 900)
    world.at(11_000, ev.UserText("and the sky?"))


def test_hanging_up_at_any_moment_is_final(call: Call) -> None:
    world = call(greeting="Good morning.", idle_prompt_after_ms=3_000, max_idle_prompts=1)
    rich_call(world)
    world.run(60_000)
    policy, steps = call_trace.read(world.lines)
    conversation = Conversation(policy)
    rules = CallRules(conversation)
    for step in steps:
        if step.event is None:
            out = conversation.tick(step.now_ms)
        else:
            out = conversation.handle(step.event, step.now_ms)
        rules.check(step.event, step.now_ms, out)
        if conversation.view.floor is not Floor.ENDED:
            hang_up(*copy.deepcopy((conversation, rules)), step.now_ms)


def hang_up(conversation: Conversation, rules: CallRules, now_ms: int) -> None:
    out = conversation.handle(ev.HungUp("gone"), now_ms)
    rules.check(
        ev.HungUp("gone"), now_ms, out
    )  # which sees to it that every reply and turn has its end
    assert out[-1] == act.Hangup("gone")
    assert conversation.view.floor is Floor.ENDED
    assert conversation.view.reply is None
    assert conversation.deadline() is None
    late = [
        ev.HungUp(),
        ev.Started(),
        ev.UserText("hello?"),
        ev.VadScored(0.9, now_ms + 32),
        ev.Transcribed(1, "hello?"),
        ev.ReplyText(2, "hello"),
        ev.AudioSent("r1", 100),
        ev.Finish("again", say_goodbye=True),
    ]
    assert [conversation.handle(event, now_ms) for event in late] == [[]] * len(late)
    assert conversation.tick(10**9) == []


def test_the_rich_call_reaches_every_state(call: Call) -> None:
    world = call(greeting="Good morning.", idle_prompt_after_ms=3_000, max_idle_prompts=1)
    rich_call(world)
    world.run(60_000)
    assert {a.floor for a in world.actions(act.FloorChanged)} == set(Floor)
    assert world.when(act.Hangup)[0] < 34_000
