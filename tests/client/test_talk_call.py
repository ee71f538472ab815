"""A person's call over a real socket: the real server with scripted models, and servers that misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.server.support import client, serving
from tests.support import run, say, until
from websockets.asyncio.server import ServerConnection, serve

from antiphon.client.microphone import Transfer
from antiphon.client.talk_call import OUTPUT_RATE_HZ, TalkCall
from antiphon.errors import AudioError, ProtocolError
from antiphon.models.ports import Pcm16
from antiphon.models.scripted import tone

TIME, STOP, STORY = 440, 660, 550


def call_to(url: str, codec: str = "pcm", **options: Any) -> TalkCall:
    return TalkCall(url, Transfer(codec, 16_000), **options)


@contextlib.asynccontextmanager
async def line_to(handle: Callable[[ServerConnection], Awaitable[None]]) -> AsyncIterator[str]:
    """A server that is not ours. -> its address."""
    async with serve(handle, "127.0.0.1", 0) as server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def welcome(socket: ServerConnection) -> None:
    await socket.recv()
    await socket.send(json.dumps({"type": "connected", "session_id": "s", "extensions": []}))


@pytest.mark.parametrize("codec", ["pcm", "opus"])
def test_every_question_of_a_file_is_answered_and_timed(tmp_path: Path, codec: str) -> None:
    questions = np.concatenate([say(TIME, 640, silence_ms=2_500), say(TIME, 640)])

    async def scenario() -> None:
        async with serving(tmp_path) as served, call_to(served.ws, codec) as call:
            await call.say(questions)
            await call.wait_until_heard()
            session, heard = call.session(), call.heard()
        assert [turn.record["user_text"] for turn in session.turns] == ["what time is it"] * 2
        assert session.answered == 2
        for turn in session.turns:
            stages = turn.stages_ms()
            assert stages["end_to_end_ms"] > 0
            assert set(stages) >= {"asr_ms", "llm_ms", "tts_ms", "pipeline_ms"}
            assert stages["network_overhead_ms"] == pytest.approx(
                stages["end_to_end_ms"] - stages["pipeline_ms"]
            )
        assert session.round_trips_ms
        assert (session.ratio or 0) > 4 if codec == "opus" else session.ratio == 1
        # On the call's time line: silence while the question was asked, then the answer.
        question = heard[: 640 * OUTPUT_RATE_HZ // 1000]
        assert len(heard) > len(questions) * OUTPUT_RATE_HZ // 16_000
        assert not np.any(question)
        assert np.any(heard)

    run(scenario())


def test_an_interruption_empties_the_player(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as served, call_to(served.ws) as call:
            await call.say(say(STORY, 640))
            await until(lambda: call.playout.first_audible_s(0.0), "the story is not heard")
            await call.say(say(STOP, 960))
            cleared = await call.wait_for("clear")
            await call.wait_until_heard()
            story = call.turns[0]
            assert story.record["interrupted"]
            assert story.record["played_ms"] < story.record["audio_ms"]
            own = [p for p in call.playout.pieces if p.reply == story.record["reply"]]
            end_s = own[-1].start_s + len(own[-1].pcm) / OUTPUT_RATE_HZ
            assert end_s <= cleared.at_s

    run(scenario())


def test_hanging_up_in_mid_answer_keeps_its_turn(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as served, call_to(served.ws) as call:
            await call.say(say(STORY, 640))

            def heard() -> bool:
                first_s = call.playout.first_audible_s(0.0)
                return first_s is not None and call.now_s > first_s + 0.05

            await until(heard, "the story is not heard")
            await call.hang_up()
            ended_s = call.now_s
            assert call.session().answered == 1
            assert call.turns[0].record["status"] != "completed"
            assert call.playout.end_s <= ended_s

    run(scenario())


def test_a_call_without_speech_ends_unanswered(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as served, call_to(served.ws) as call:
            await call.say(np.zeros(3_200, np.int16))
            await call.wait_until_heard()
            assert call.session().answered == 0
            assert not np.any(call.heard())

    run(scenario())


def test_waiting_for_an_answer_that_never_comes_has_an_end() -> None:
    async def never(socket: ServerConnection) -> None:
        await welcome(socket)
        await socket.send(json.dumps({"type": "floor", "state": "thinking"}))
        await socket.wait_closed()

    async def scenario() -> None:
        async with line_to(never) as url, call_to(url) as call:
            await call.wait_for("floor")
            await call.wait_until_heard(limit_s=0.2)
            assert call.floor == "thinking"
            assert call.session().answered == 0

    run(scenario())


def test_a_lost_line_leaves_what_was_received() -> None:
    answer = tone(600, 1_000, OUTPUT_RATE_HZ)

    async def breaks_off(socket: ServerConnection) -> None:
        await welcome(socket)
        await socket.send(json.dumps({"type": "ai_audio_start", "reply": "r1"}))
        await socket.recv()  # the call's time line begins with the caller's first sample
        await socket.send(answer.tobytes())
        await (await socket.ping())  # it has arrived
        socket.transport.abort()

    async def scenario() -> None:
        async with line_to(breaks_off) as url, call_to(url) as call:
            with pytest.raises(ProtocolError, match=r"closed the connection|connection was lost"):
                await call.say(np.zeros(32_000, np.int16))
            with pytest.raises(ProtocolError, match="connection was lost"):
                await call.wait_until_heard()
            heard = call.heard()
        assert np.count_nonzero(heard) == np.count_nonzero(answer)

    run(scenario())


def test_a_busy_server_says_so(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path, server__max_calls=1) as served, client(served) as first:
            await first.wait("connected")
            with pytest.raises(ProtocolError, match="refuses the call: all 1 lines are busy"):
                async with call_to(served.ws):
                    pass

    run(scenario())


def test_no_server_and_no_conversation_are_told_apart(tmp_path: Path) -> None:
    async def deaf(socket: ServerConnection) -> None:
        await socket.close(1008, "not for you")

    async def scenario() -> None:
        async with serving(tmp_path) as served:
            with pytest.raises(ProtocolError, match="answers HTTP 4"):
                async with call_to(f"ws://{served.address}/elsewhere"):
                    pass
            gone = served.ws
        with pytest.raises(ProtocolError, match=r"cannot reach .*is the server running"):
            async with call_to(gone):
                pass
        async with line_to(deaf) as url:
            with pytest.raises(ProtocolError, match="refuses the call"):
                async with call_to(url):
                    pass

    run(scenario())


class DeskMicrophone:
    """Blocks of 20 ms from a recording; at its end the device is pulled out."""

    def __init__(self, pcm: Pcm16) -> None:
        self._blocks = list(np.array_split(pcm, len(pcm) // 320))
        self._next_s = asyncio.get_running_loop().time()

    async def read(self) -> Pcm16:
        if not self._blocks:
            raise AudioError("the microphone is gone")
        self._next_s += 0.02  # a device gives a block when its time has passed
        await asyncio.sleep(self._next_s - asyncio.get_running_loop().time())
        return self._blocks.pop(0)


def test_a_microphone_that_is_unplugged_ends_the_call_with_its_times(tmp_path: Path) -> None:
    async def scenario() -> None:
        microphone = DeskMicrophone(say(TIME, 640, silence_ms=2_560))
        async with serving(tmp_path) as served:
            async with call_to(served.ws, microphone=microphone.read) as call:
                with pytest.raises(AudioError, match="microphone is gone"):
                    await call.wait_until_over()
                session = call.session("the microphone is gone")
            assert session.answered == 1
            assert session.turns[0].end_to_end_ms is not None
            assert session.as_object()["ended"] == "the microphone is gone"

    run(scenario())


def test_the_server_may_end_the_call(tmp_path: Path) -> None:
    quiet = {
        "conversation__idle_prompt_after_ms": 100,
        "conversation__max_idle_prompts": 0,
        "conversation__goodbye": "Bye.",
    }

    async def scenario() -> None:
        async with serving(tmp_path, **quiet) as served:
            microphone = DeskMicrophone(np.zeros(16_000 * 20, np.int16))
            async with call_to(served.ws, microphone=microphone.read) as call:
                await call.wait_until_over()
                assert call.ended == call.messages("ended")[0]["reason"]

    run(scenario())


def test_a_server_that_sends_rubbish_ends_the_call() -> None:
    async def rubbish(socket: ServerConnection) -> None:
        await welcome(socket)
        await socket.send("not JSON")
        await socket.wait_closed()

    async def scenario() -> None:
        async with line_to(rubbish) as url, call_to(url) as call:
            with pytest.raises(ProtocolError, match="what is no message"):
                await call.wait_until_over()

    run(scenario())
