"""`/ws/conversation` over real sockets: whole turns, as an older client and a newer one see them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.server.support import QUESTION, START, Client, client, serving
from tests.support import STORY, nothing_left, run, say, until

from antiphon.models.ports import Kind

EVERYTHING = ["clear", "played", "floor", "heard", "turn", "items"]


def test_an_older_client_sees_its_protocol_and_nothing_else(tmp_path: Path) -> None:
    async def main() -> None:
        async with nothing_left(), serving(tmp_path) as served:
            async with client(served, "?rate=16000") as caller:
                first = await caller.wait("connected")
                assert caller.frames[0] == first
                assert set(first) == {"type", "session_id"}
                await caller.send(type="ping")
                await caller.wait("pong")
                await caller.send(type="set_level", level="advanced")
                await caller.speak(QUESTION)
                await caller.wait("turn_complete")
                texts = caller.of("ai_text")
                assert "".join(m["text"] for m in texts) == "It is noon."
                assert [m["is_complete"] for m in texts[-2:]] == [False, True]
                assert caller.of("transcript")[-1] == {
                    "type": "transcript",
                    "text": "what time is it",
                    "is_final": True,
                }
                assert caller.of("ai_audio_start") == [
                    {"type": "ai_audio_start", "sample_rate": 24_000}
                ]
                pcm = b"".join(f for f in caller.frames if isinstance(f, bytes))
                assert len(pcm) == 3 * 24_000 // 10 * 2
                kinds = [k for k in caller.kinds() if k != "pong"]
                order = [
                    "connected",
                    "transcript",
                    "ai_text",
                    "ai_audio_start",
                    "(pcm)",
                    "turn_complete",
                ]
                assert [k for n, k in enumerate(kinds) if k not in kinds[:n]] == order
                await caller.send(type="end_conversation")
                assert await caller.wait_closed() == (1000, "")
                assert caller.kinds()[-1] == "analysis"
            await until(lambda: len(served.calls) == 0)

    run(main())


def test_all_extensions(tmp_path: Path) -> None:
    async def main() -> None:
        async with (
            nothing_left(),
            serving(tmp_path) as served,
            client(served, start={**START, "extensions": [*EVERYTHING, "new"]}) as caller,
        ):
            connected = await caller.wait("connected")
            assert connected["extensions"] == sorted(EVERYTHING)
            assert connected["sample_rate"] == 24_000
            await caller.speak(QUESTION)
            begin = await caller.wait("ai_audio_start")
            await until(
                lambda: sum(len(f) for f in caller.frames if isinstance(f, bytes)) == 14_400
            )
            await caller.send(type="played", reply=begin["reply"], ms=300)
            turn = await caller.wait("turn")
            assert turn["record"]["user_text"] == "what time is it"
            assert turn["record"]["first_played_ms"] is not None
            floors = [m["state"] for m in caller.of("floor")]
            assert floors == ["caller", "deciding", "thinking", "agent", "open"]
            await caller.send(type="played", reply=begin["reply"], ms=10**30)
            await caller.send(type="stop")
            assert (await caller.wait("ended"))["reason"] == "caller hung up"

    run(main())


def test_written_instead_of_spoken(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as served, client(served) as caller:
            await caller.send(type="text", text="what time is it")
            await caller.wait("turn_complete")
            assert "".join(m["text"] for m in caller.of("ai_text")) == "It is noon."

    run(main())


def test_voice_and_language_of_the_client(tmp_path: Path) -> None:
    async def main() -> None:
        start = {**START, "voice": "anna", "language": "fr"}
        async with serving(tmp_path) as served, client(served, start=start) as caller:
            await caller.speak(QUESTION)
            await caller.wait("turn_complete")
            asked = served.models.backend(Kind.TTS).requests[-1]
            assert (asked.voice, asked.language) == ("anna", "fr")

    run(main())


def test_a_start_that_was_long_on_its_way(tmp_path: Path) -> None:
    """Over a satellite `start` comes after we have taken the client for an older one."""

    async def main() -> None:
        options: dict[str, Any] = {"conversation__greeting": "Hello there, how are you doing?"}
        async with serving(tmp_path, **options) as served, client(served) as caller:
            await caller.wait("connected")
            assert await caller.wait("ai_audio_start") == {
                "type": "ai_audio_start",
                "sample_rate": 24_000,
            }
            await caller.send(**START, extensions=EVERYTHING, greeting=False)
            assert (await caller.wait("connected", 2))["extensions"] == sorted(EVERYTHING)
            await caller.wait("turn_complete")
            await caller.speak(QUESTION)
            assert (await caller.wait("ai_audio_start", 2))["reply"] == "r2"
            await caller.send(**START)
            assert "must come once" in (await caller.wait("error"))["message"]

    run(main())


def test_barge_in_and_resume_over_the_socket(tmp_path: Path) -> None:
    async def main() -> None:
        start = {**START, "extensions": EVERYTHING}
        async with serving(tmp_path) as served, client(served, start=start) as caller:
            await caller.speak(say(550, 640, silence_ms=1200))
            await caller.wait("ai_audio_start")
            await _pcm(caller, 48 * 700)
            await caller.send(type="played", reply="r1", ms=500)
            await caller.speak(say(880, 320, silence_ms=1600))
            await caller.wait("clear")
            resumed = await caller.wait("ai_audio_start", 2)
            assert resumed["reply"] == "r1"
            assert 300 <= resumed["from_ms"] <= 1_500
            await _pcm(caller, 48 * 1_200)
            await caller.speak(say(660, 640, silence_ms=1200))
            heard = await caller.wait("heard")
            assert f"{heard['text']} {heard['unheard']}" == STORY
            after = caller.frames[caller.frames.index(caller.of("clear")[-1]) :]
            sound = [f for f in after if isinstance(f, bytes) or f["type"] == "ai_audio_start"]
            assert not sound or isinstance(sound[0], dict)  # nothing of r1 after its last clear
            await caller.wait("turn_complete", 2)
            assert not caller.of("error")

    run(main())


async def _pcm(caller: Client, size: int) -> None:
    await until(lambda: sum(len(f) for f in caller.frames if isinstance(f, bytes)) >= size)
