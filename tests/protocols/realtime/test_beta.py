"""The beta dialect: every frame checked against the package's beta types."""

from __future__ import annotations

from pathlib import Path

from tests.protocols.realtime.support import MANUAL, WEATHER, call, spoken, talking
from tests.server.support import serving
from tests.support import OPTIONS, run

CALLS_WEATHER = {
    **OPTIONS["llm"],
    "tools": {"weather": {"name": "weather", "arguments": {"place": "Oslo"}}},
}


def test_a_spoken_turn_by_its_old_names(tmp_path: Path) -> None:
    async def main() -> None:
        async with call(tmp_path, dialect="beta") as c:
            session = {"input_audio_transcription": {"model": "whisper-1"}}
            await c.send("session.update", session=session)
            flat = (await c.wait("session.updated"))["session"]
            assert flat["turn_detection"]["type"] == "server_vad"
            assert flat["max_response_output_tokens"] == "inf"
            start = len(c.events)
            await c.speak(spoken(440, silence_ms=1000))
            await c.wait("response.done")
            kinds = [k for n, k in enumerate(c.kinds(start)) if k not in c.kinds(start)[:n]]
            assert kinds == [
                "input_audio_buffer.speech_started",
                "input_audio_buffer.speech_stopped",
                "input_audio_buffer.committed",
                "conversation.item.created",
                "response.created",
                "response.output_item.added",
                "response.content_part.added",
                "response.audio_transcript.delta",
                "response.audio.delta",
                "response.audio.done",
                "response.audio_transcript.done",
                "response.content_part.done",
                "response.output_item.done",
                "response.done",
            ]
            assert len(c.of("conversation.item.created")) == 2
            done = c.of("response.done")[0]["response"]
            assert done["output"][0]["content"] == [{"type": "audio", "transcript": "It is noon."}]
            assert (done["modalities"], done["output_audio_format"]) == (["text", "audio"], "pcm16")

    run(main())


def test_formats_tools_and_text(tmp_path: Path) -> None:
    async def main() -> None:
        async with call(
            tmp_path, dialect="beta", models__options__llm__scripted=CALLS_WEATHER
        ) as c:
            session = {
                "modalities": ["text"],
                "input_audio_format": "g711_ulaw",
                "output_audio_format": "g711_alaw",
                "max_response_output_tokens": 50,
                "tools": [WEATHER],
                "turn_detection": None,
                "temperature": 0.7,
            }
            await c.send("session.update", session=session)
            shown = (await c.wait("session.updated"))["session"]
            assert {k: shown[k] for k in session} == session
            item = {
                "type": "message",
                "role": "user",
                "content": [{"type": "input_text", "text": "x"}],
            }
            said = [{"type": "text", "text": "y"}]
            await c.send("conversation.item.create", item=item)
            await c.send(
                "conversation.item.create", item={**item, "role": "assistant", "content": said}
            )
            assert (await c.wait("conversation.item.created", 2))["item"]["content"] == said
            ask = [{"type": "input_text", "text": "how is the weather"}]
            await c.send("conversation.item.create", item={**item, "content": ask})
            done = await c.respond()
            assert done["output"][0]["type"] == "function_call"
            done = await c.respond(modalities=["text"], tools=[], max_response_output_tokens=3)
            assert done["modalities"] == ["text"]
            assert c.of("response.text.done")
            assert not c.of("error")

    run(main())


def test_an_unknown_format(tmp_path: Path) -> None:
    async def main() -> None:
        async with call(tmp_path, dialect="beta") as c:
            await c.send("session.update", session={"input_audio_format": "mp3"}, event_id="e")
            error = (await c.wait("error"))["error"]
            assert (error["param"], error["event_id"]) == ("session.input_audio_format", "e")

    run(main())


def test_a_client_that_never_said_so_is_recognised_by_its_first_update(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as served, talking(served) as c:
            await c.wait("session.created")
            c.dialect = "beta"
            await c.send("session.update", session={"modalities": ["text"], "voice": "alloy"})
            assert (await c.wait("session.updated"))["session"]["modalities"] == ["text"]
            await c.send("conversation.item.create", item=_message("what time is it"))
            await c.wait("conversation.item.created")
            await c.respond()
            assert c.of("response.text.delta")

    run(main())


def test_but_not_one_that_speaks_the_new_dialect(tmp_path: Path) -> None:
    async def main() -> None:
        async with call(tmp_path) as c:
            await c.send("session.update", session=MANUAL)
            await c.send("session.update", session={"voice": "alloy", "modalities": ["text"]})
            await c.wait("session.updated", 2)

    run(main())


def test_a_dialect_for_all_by_the_settings(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path, realtime__dialect="beta") as served, talking(served) as c:
            c.dialect = "beta"
            created = await c.wait("session.created")
            assert "modalities" in created["session"]
            await c.wait("conversation.created")

    run(main())


def test_a_transcription_session_by_its_own_event(tmp_path: Path) -> None:
    async def main() -> None:
        async with call(tmp_path, dialect="beta", query="?intent=transcription") as c:
            session = {"input_audio_transcription": {"model": "whisper-1"}}
            await c.send("transcription_session.update", session=session)
            await c.wait("transcription_session.updated")
            await c.speak(spoken(440, silence_ms=1000))
            kind = "conversation.item.input_audio_transcription.completed"
            assert (await c.wait(kind))["transcript"] == "what time is it"

    run(main())


def _message(text: str) -> dict[str, object]:
    return {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
