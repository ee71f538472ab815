"""The simulated caller against the real server with scripted models."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.server.support import serving
from tests.support import STORY, nothing_left, run, say, until

from antiphon.client.talker import Talker
from antiphon.errors import ProtocolError


def test_a_conversation(tmp_path: Path) -> None:
    async def main() -> None:
        async with nothing_left(), serving(tmp_path) as served, Talker(served.ws) as caller:
            asked = await caller.say(say(440, 640))
            assert 0.55 < asked.end_s - asked.start_s < 0.75
            turn = await caller.wait_for("turn")
            assert turn.message["record"]["reply_text"] == "It is noon."
            heard_s = caller.playout.first_audible_s(asked.start_s)
            assert heard_s is not None
            assert heard_s > asked.end_s
            assert caller.playout.played_ms("r1", caller.now_s + 1) == 300
            assert not caller.messages("error")

    run(main())


def test_an_interruption_that_was_nothing_then_one_that_is(tmp_path: Path) -> None:
    """Positions stay right over a `clear` and what is sent again: no report of ours is refused."""

    async def main() -> None:
        async with serving(tmp_path) as served, Talker(served.ws) as caller:
            await caller.say(say(550, 640))
            began = await caller.wait_for("ai_audio_start")
            await until(lambda: caller.playout.played_ms("r1", caller.now_s) > 400)
            await caller.say(say(880, 320))
            resumed = await caller.wait_for("ai_audio_start", after_s=began.at_s + 0.01)
            assert resumed.message["from_ms"] > 0
            await until(lambda: caller.playout.played_ms("r1", caller.now_s) > 1_200)
            await caller.say(say(660, 640))
            heard = await caller.wait_for("heard")
            assert STORY.startswith(heard.message["text"])
            # A word takes 100 ms: what the server takes for heard is what was played, within two of them.
            words = len(heard.message["text"].split())
            assert abs(words - caller.playout.played_ms("r1", caller.now_s) / 100) <= 2
            assert not caller.messages("error")

    run(main())


def test_a_busy_server_is_an_error_with_its_reason(tmp_path: Path) -> None:
    async def main() -> None:
        async with (
            nothing_left(),
            serving(tmp_path, server__max_calls=1) as served,
            Talker(served.ws),
        ):
            with pytest.raises(
                ProtocolError, match="before 'connected' came: all 1 lines are busy"
            ):
                await Talker(served.ws).__aenter__()

    run(main())


def test_a_line_that_is_cut_ends_what_waits(tmp_path: Path) -> None:
    async def main() -> None:
        async with nothing_left(), serving(tmp_path) as served, Talker(served.ws) as caller:
            saying = asyncio.create_task(caller.say(say(440, 60_000)))
            await until(lambda: caller.messages("floor"))
            served.server.should_exit = True
            with pytest.raises(ProtocolError, match="before everything was said"):
                await saying
            with pytest.raises(ProtocolError, match="before 'turn_complete' came"):
                await caller.wait_for("turn_complete")

    run(main())
