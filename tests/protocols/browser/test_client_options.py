"""What a client of `/ws/conversation` may choose, and push-to-talk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.server.support import QUESTION, START, client, serving
from tests.support import nothing_left, run, say, until

from antiphon.models.ports import Kind

EXTENSIONS = ["clear", "floor", "items", "settings", "commit"]
PUSH = {**START, "extensions": EXTENSIONS, "listen": "push"}


def test_push_to_talk(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as served, client(served, start=PUSH) as caller:
            await caller.wait("connected")
            await caller.speak(QUESTION)  # with a silence that would end any other turn
            await caller.speak(say(440, 320))
            (session,) = served.calls._sessions.values()
            await until(lambda: session.heard_ms >= 2_000)
            assert not caller.of("transcript")
            await caller.send(type="commit")
            words = (await caller.wait("transcript"))["text"]
            assert words == "what time is it what time is it"
            await caller.wait("ai_audio_start")
            await caller.send(type="hold")
            await caller.wait("clear")
            await caller.wait("turn_complete")
            await caller.send(type="hold")  # there is nothing to silence: no harm
            await caller.send(type="commit")
            assert "no new audio" in (await caller.wait("error"))["message"]

    run(main())


def test_way_of_listening_changes_in_mid_call(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as served, client(served, start=PUSH) as caller:
            await caller.wait("connected")
            await caller.send(type="configure", listen="open")
            await caller.speak(QUESTION)
            await caller.wait("turn_complete")
            await caller.speak(say(440, 640))
            await until(lambda: caller.of("floor")[-1]["state"] == "caller")
            await caller.send(type="configure", listen="push")  # what is being said is a turn
            await caller.wait("turn_complete", 2)

    run(main())


def test_settings_hold_from_the_next_answer_on(tmp_path: Path) -> None:
    async def main() -> None:
        presets = {"agent__presets": {"tutor": "You teach."}, "agent__prompt": "You help."}
        async with serving(tmp_path, **presets) as served, client(served, start=PUSH) as caller:
            llm, tts = served.models.backend(Kind.LLM), served.models.backend(Kind.TTS)

            async def ask(count: int) -> tuple[str, str]:
                await caller.send(type="text", text="what time is it")
                await caller.wait("turn_complete", count)
                return llm.requests[-1].messages[0].content, tts.requests[-1].voice

            await caller.wait("connected")
            assert await ask(1) == ("You help.", "")
            await caller.send(
                type="configure", agent="tutor", voice="anna", instructions="Be brief."
            )
            prompt, voice = await ask(2)
            assert prompt.startswith("You teach.")
            assert prompt.endswith("Be brief.")
            assert voice == "anna"
            await caller.send(type="configure", agent="", instructions="", voice="")
            assert await ask(3) == ("You help.", "")
            await caller.send(type="configure", agent="tutr")
            error = (await caller.wait("error"))["message"]
            assert "no agent 'tutr'; did you mean 'tutor'?" in error
            await caller.send(type="configure", listen="never")
            assert "cannot listen 'never'" in (await caller.wait("error", 2))["message"]

    run(main())


def test_options(tmp_path: Path) -> None:
    async def main() -> None:
        chosen: dict[str, Any] = {
            "agent__presets": {"tutor": "You teach."},
            "agent__level": "beginner",
            "models__options__tts__scripted": {"voices": ["anna", "ben"]},
        }
        async with serving(tmp_path, **chosen) as served:
            found = (await served.http.get("/api/options")).json()
            assert found["agents"] == ["tutor"]
            assert found["voices"] == ["anna", "ben"]
            assert found["levels"] == ["beginner", "intermediate", "advanced"]
            assert found["level"] == "beginner"
            assert "You teach" not in str(found)

    run(main())


@pytest.mark.parametrize("late", [False, True])
def test_an_agent_that_there_is_not(late: bool, tmp_path: Path) -> None:
    """Said, and the owner's agent answers: as the first message, and after the call was opened without one."""

    async def main() -> None:
        presets = {"agent__presets": {"tutor": "You teach."}}
        async with nothing_left(), serving(tmp_path, **presets) as served:
            start = {**START, "extensions": EXTENSIONS, "agent": "tutr"}
            async with client(served, start=None if late else start) as caller:
                if late:
                    await until(lambda: len(served.calls) == 1)
                    await caller.send(**start)
                await caller.wait("connected")
                error = (await caller.wait("error"))["message"]
                assert "no agent 'tutr" in error
                assert len(error) < 200
                await caller.speak(QUESTION)
                await caller.wait("turn_complete")

    run(main())
