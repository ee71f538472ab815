"""A lost connection to `/ws/conversation`: the call waits, and another connection carries it on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.server.support import QUESTION, START, Client, Served, client, serving
from tests.support import STORY, nothing_left, run, say, until

EXTENSIONS = ["clear", "played", "floor", "heard", "turn", "items", "resume"]
FRESH = {**START, "extensions": EXTENSIONS}
TELL = say(550, 640, silence_ms=1200)


async def lose(caller: Client) -> dict[str, Any]:
    """Break the connection -> the `start` that takes the call up again."""
    caller.socket.transport.abort()
    await caller.wait_closed()
    return again(caller)


def again(caller: Client) -> dict[str, Any]:
    welcome = caller.of("connected")[-1]
    texts = [frame for frame in caller.frames if isinstance(frame, dict)]
    missed = texts[texts.index(welcome) + 1 :]
    return {**FRESH, "resume": welcome["resume"], "frames": welcome["frames"] + len(missed)}


async def sound(caller: Client, ms: int) -> None:
    await until(lambda: heard_ms(caller) >= ms, f"only {heard_ms(caller)} ms came")


def heard_ms(caller: Client) -> int:
    return sum(len(f) for f in caller.frames if isinstance(f, bytes)) // 48


async def play(caller: Client, from_ms: int = 0) -> None:
    """Be a loudspeaker that is never late, until the reply is over."""
    begin = caller.of("ai_audio_start")[-1]
    while not caller.of("turn_complete"):
        ms = heard_ms(caller)
        await caller.send(type="played", reply=begin["reply"], ms=from_ms + ms)
        await until(lambda before=ms: caller.of("turn_complete") or heard_ms(caller) > before)


def test_the_answer_goes_on_where_it_was_heard(tmp_path: Path) -> None:
    async def main() -> None:
        async with nothing_left(), serving(tmp_path, server__max_calls=1) as served:
            async with client(served, "?start=1", start=FRESH) as caller:
                first = await caller.wait("connected")
                assert (first["resumed"], first["frames"]) == (False, 1)
                await caller.speak(TELL)
                await sound(caller, 600)
                await caller.send(type="played", reply="r1", ms=600)
                await until(lambda: position(served) >= 600)
                start = await lose(caller)
            async with client(served, "?start=1", start=start) as back:
                welcome = await back.wait("connected")
                assert welcome["session_id"] == first["session_id"]
                assert welcome["resumed"] is True
                assert back.frames[0] == welcome
                begin = await back.wait("ai_audio_start")
                assert begin["reply"] == "r1"
                assert 100 <= begin["from_ms"] <= 700
                await play(back, begin["from_ms"])
                assert begin["from_ms"] + heard_ms(back) == 2_600
                record = (await back.wait("turn"))["record"]
                assert (record["status"], record["heard_text"]) == ("completed", STORY)
                assert not back.of("heard")
                assert (
                    "".join(m["text"] for m in (caller.of("ai_text") + back.of("ai_text"))) == STORY
                )
                await back.send(type="stop")
                assert await back.wait_closed() == (1000, "")
            await until(lambda: len(served.calls) == 0)

    run(main())


def position(served: Served) -> int:
    (session,) = served.calls._sessions.values()
    reply = session.view.reply
    return reply.playout.position(session.now_ms) if reply else 0


def test_what_was_on_its_way_comes_again(tmp_path: Path) -> None:
    """Text that the lost connection swallowed, and the answer to what was said before it broke."""

    async def main() -> None:
        async with serving(tmp_path) as served:
            async with client(served, "?start=1", start=FRESH) as caller:
                await caller.speak(QUESTION)
                await caller.wait("ai_text", 2)
                start = await lose(caller)
            start["frames"] = 1  # as if nothing after `connected` had come
            async with client(served, "?start=1", start=start) as back:
                await back.wait("ai_audio_start")
                await until(lambda: "".join(m["text"] for m in back.of("ai_text")) == "It is noon.")
                assert back.of("transcript")[-1]["text"] == "what time is it"
                assert [k for k in back.kinds() if k in ("pong", "clear")] == []

    run(main())


def test_nobody_comes_back(tmp_path: Path) -> None:
    async def main() -> None:
        async with nothing_left(), serving(tmp_path, server__resume_s=1) as served:
            async with client(served, start=FRESH) as caller:
                await caller.wait("connected")
                start = await lose(caller)
            assert len(served.calls) == 1
            await until(lambda: len(served.calls) == 0)
            async with client(served, start=start) as late:
                welcome = await late.wait("connected")
                assert welcome["resumed"] is False
                assert welcome["resume"] != start["resume"]

    run(main())


@pytest.mark.parametrize("case", ["goodbye", "no room", "switched off", "no extension"])
def test_calls_that_do_not_wait(case: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {}
    if case == "no room":
        options["server__max_parked"] = 0
    elif case == "switched off":
        options["server__resume_s"] = 0

    async def main() -> None:
        start = {**FRESH, "extensions": ["resume"]} if case == "no extension" else FRESH
        async with nothing_left(), serving(tmp_path, **options) as served:
            async with client(served, start=start) as caller:
                welcome = await caller.wait("connected")
                assert ("resume" in welcome) == (case in ("goodbye", "no room"))
                if case != "goodbye":
                    caller.socket.transport.abort()
            await until(lambda: len(served.calls) == 0)

    run(main())


def test_the_newest_tab_wins(tmp_path: Path) -> None:
    async def main() -> None:
        async with nothing_left(), serving(tmp_path) as served:
            async with client(served, start=FRESH) as one:
                await one.wait("connected")
                async with client(served, start=again(one)) as two:
                    assert (await two.wait("connected"))["resumed"] is True
                    assert (await one.wait("ended"))["reason"] == "taken over by another tab"
                    assert (await one.wait_closed())[0] == 4001
                    await two.send(type="text", text="what time is it")
                    await two.wait("ai_audio_start")
                    await two.send(type="stop")
                    await two.wait("ended")
            await until(lambda: len(served.calls) == 0)

    run(main())


@pytest.mark.parametrize("token", ["nonsense", "", "x" * 4_000, "{id}.guess", "{id}"])
def test_a_guessed_token_opens_nothing(token: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as served, client(served, start=FRESH) as caller:
            call_id = (await caller.wait("connected"))["session_id"]
            start = {**FRESH, "resume": token.replace("{id}", call_id)}
            async with client(served, start=start) as thief:
                welcome = await thief.wait("connected")
                assert welcome["resumed"] is False
                assert welcome["session_id"] != call_id
            await caller.send(type="ping")
            await caller.wait("pong")

    run(main())


def test_the_server_ends_while_a_call_waits(tmp_path: Path) -> None:
    async def main() -> None:
        async with nothing_left():
            async with serving(tmp_path) as served:
                async with client(served, start=FRESH) as caller:
                    await caller.wait("connected")
                    await lose(caller)
                calls = served.calls
                assert len(calls) == 1
            assert len(calls) == 0

    run(main())


def test_silence_while_away_is_nobodys_fault(tmp_path: Path) -> None:
    """No "are you still there?" to an empty line; it is asked once the client is back."""

    async def main() -> None:
        idle = {
            "conversation__idle_prompt_after_ms": 200,
            "conversation__idle_prompt": "Still there?",
            "server__resume_s": 30,
        }
        async with serving(tmp_path, **idle) as served:
            async with client(served, start=FRESH) as caller:
                await caller.wait("connected")
                start = await lose(caller)
            (session,) = served.calls._sessions.values()
            left_ms = session.now_ms
            await until(lambda: session.now_ms > left_ms + 500)
            assert session._conversation.deadline() is None
            async with client(served, start=start) as back:
                assert "Still" in (await back.wait("ai_text"))["text"]

    run(main())
