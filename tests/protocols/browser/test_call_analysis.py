"""`set_level` and `end_conversation` on a real server, as an old client and a new one see them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.server.support import QUESTION, START, Client, client, serving
from tests.support import OPTIONS, run, until

from antiphon.call.learner_level import LEVELS
from antiphon.models.ports import Kind

ANALYSIS = {
    "summary": "You asked for the time.",
    "mistakes": [],
    "vocabulary": ["noon"],
    "estimated_level": "intermediate",
    "suggestions": ["Ask more."],
}
LLM = {"rules": {"Learner": json.dumps(ANALYSIS), **OPTIONS["llm"]["rules"]}}
"""`Learner` stands only in the transcript that is analysed."""


def teacher(folder: Path, **overrides: Any) -> Any:
    return serving(folder, models__options__llm__scripted=LLM, **overrides)


async def end(talk: Client) -> dict[str, Any]:
    """-> the analysis; the call ends in order after it."""
    await talk.send(type="end_conversation")
    found = await talk.wait("analysis")
    assert (await talk.wait_closed())[0] == 1000
    assert talk.frames[-1] == found or talk.kinds()[-2:] == ["analysis", "ended"]
    data = found["data"]
    assert isinstance(data, dict)
    return data


def test_an_old_client_gets_its_analysis_and_then_the_end(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with teacher(tmp_path) as served, client(served, "?rate=16000") as talk:
            await talk.wait("connected")
            await talk.speak(QUESTION)
            await talk.wait("turn_complete")
            assert await end(talk) == {"status": "ok", **ANALYSIS}
            assert talk.of("error") == []

    run(scenario())


def test_nothing_was_said(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with teacher(tmp_path) as served, client(served, start=START) as talk:
            await talk.wait("connected")
            data = await end(talk)
            assert data["status"] == "empty"
            assert set(data) == {"status", *ANALYSIS}

    run(scenario())


def test_the_agent_falls_silent_first_and_nothing_new_begins(tmp_path: Path) -> None:
    async def scenario() -> None:
        start = START | {"extensions": ["clear", "played", "floor"]}
        async with teacher(tmp_path) as served, client(served, start=start) as talk:
            await talk.wait("connected")
            await talk.send(type="text", text="tell me a story")
            await talk.wait("ai_audio_start")
            await talk.send(type="end_conversation")
            await talk.send(type="text", text="what time is it")
            await talk.speak(QUESTION)
            await talk.send(type="end_conversation")
            await talk.wait_closed()
            assert len(talk.of("analysis")) == len(talk.of("ai_audio_start")) == 1
            kinds = talk.kinds()
            assert kinds.index("clear") < kinds.index("turn_complete") < kinds.index("analysis")
            assert "(pcm)" not in kinds[kinds.index("turn_complete") :]
            assert kinds[-1] == "ended"

    run(scenario())


def test_what_was_being_said_counts(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with teacher(tmp_path) as served, client(served, start=START) as talk:
            await talk.wait("connected")
            await talk.speak(QUESTION[:8_000])  # no pause that would end the turn
            await talk.wait("transcript")
            assert (await end(talk))["status"] == "ok"
            asked = served.models.backend(Kind.LLM).requests[-1]
            assert "Learner: what time is it" in asked.messages[-1].content

    run(scenario())


def test_a_slow_model_does_not_hold_the_client(tmp_path: Path) -> None:
    async def scenario() -> None:
        slow = LLM | {"delay_ms": 1_500}
        overrides: dict[str, Any] = {
            "models__options__llm__scripted": slow,
            "agent__analysis_s": 1.0,
        }
        async with serving(tmp_path, **overrides) as served, client(served, start=START) as talk:
            await talk.wait("connected")
            await talk.send(type="text", text="hello there")
            data = await end(talk)
            assert data["status"] == "unavailable"
            assert "longer than 1 seconds" in data["summary"]

    run(scenario())


def test_a_client_that_does_not_wait_for_it_leaves_nothing_behind(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with teacher(tmp_path) as served:
            async with client(served, start=START) as talk:
                await talk.wait("connected")
                await talk.send(type="text", text="hello there")
                await talk.wait("ai_text")
                await talk.send(type="end_conversation")
            await until(lambda: not len(served.calls), "the call is still on")

    run(scenario())


def test_levels(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with (
            teacher(tmp_path) as served,
            client(served, start=START | {"level": "beginner"}) as talk,
        ):
            llm = served.models.backend(Kind.LLM)
            await talk.wait("connected")
            await talk.send(type="text", text="what time is it")
            await talk.wait("turn_complete")
            assert llm.requests[-1].messages[0].content.endswith(LEVELS["beginner"].paragraph)
            await talk.send(type="set_level", level="expert")
            wrong = await talk.wait("error")
            assert "the levels are beginner, intermediate, advanced" in wrong["message"]
            await talk.send(type="set_level", level="advanced")
            await talk.send(type="text", text="what time is it")
            await talk.wait("turn_complete", 2)
            assert llm.requests[-1].messages[0].content.endswith(LEVELS["advanced"].paragraph)

    run(scenario())


def test_a_start_with_a_level_that_there_is_not(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with (
            teacher(tmp_path) as served,
            client(served, start=START | {"level": "C3"}) as talk,
        ):
            wrong = await talk.wait("error")
            assert wrong["message"].startswith("start: unknown level 'C3'; the levels are")

    run(scenario())
