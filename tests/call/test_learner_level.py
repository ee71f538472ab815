"""Levels of a learner: what the agent is told, and how fast it speaks."""

from __future__ import annotations

from dataclasses import replace

from tests.call.support import call
from tests.support import run, say

from antiphon.call.learner_level import LEVELS, level_prompt, level_speed
from antiphon.models.ports import Kind
from antiphon.protocols.browser import codec


def test_the_levels_are_those_of_the_protocol() -> None:
    assert tuple(LEVELS) == codec.LEVELS


def test_a_level_adds_one_paragraph_and_no_level_nothing() -> None:
    assert level_prompt("Be brief.", "") == "Be brief."
    for name, level in LEVELS.items():
        assert level_prompt("Be brief.", name) == f"Be brief.\n\n{level.paragraph}"
    assert level_prompt("", "beginner") == LEVELS["beginner"].paragraph


def test_beginners_are_spoken_to_slowly_and_within_what_voices_can() -> None:
    assert (
        level_speed(1.0, "beginner")
        < level_speed(1.0, "intermediate")
        < level_speed(1.0, "advanced")
        == 1.0
    )
    assert level_speed(0.5, "beginner") == 0.5
    assert level_speed(1.3, "") == 1.3


def test_a_level_holds_from_the_next_reply_on() -> None:
    async def scenario() -> None:
        async with call() as line:
            llm, tts = (line.models.backend(kind) for kind in (Kind.LLM, Kind.TTS))
            line.session.feed_audio(say(440, silence_ms=2_000), 16_000)
            await line.ended()
            assert llm.requests[-1].messages[0].content == "Be brief."
            for count, name in enumerate(("beginner", "advanced"), 2):
                line.session.agent = replace(line.session.agent, level=name)
                line.session.feed_audio(say(440, silence_ms=2_000), 16_000)
                await line.ended(count)
                told = llm.requests[-1].messages[0].content
                assert told == f"Be brief.\n\n{LEVELS[name].paragraph}"
                assert tts.requests[-1].speed == LEVELS[name].pace

    run(scenario())
