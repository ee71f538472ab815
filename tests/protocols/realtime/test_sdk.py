"""The official `openai` SDK against the real server on a real socket."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from openai import AsyncOpenAI
from openai.resources.realtime.realtime import AsyncRealtimeConnection
from tests.protocols.realtime.strict import check
from tests.protocols.realtime.support import WEATHER, b64, spoken
from tests.server.support import Served, serving
from tests.support import OPTIONS, run

STORY_SLOWLY = {**OPTIONS["llm"], "piece_delay_ms": 25}


@contextlib.asynccontextmanager
async def sdk(served: Served) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(
        base_url=f"http://{served.address}/v1",
        websocket_base_url=f"ws://{served.address}/v1",
        api_key="sk-any",
    ) as client:
        yield client


@contextlib.asynccontextmanager
async def connected(folder: Path, **overrides: Any) -> AsyncIterator[AsyncRealtimeConnection]:
    async with (
        serving(folder, **overrides) as served,
        sdk(served) as client,
        client.realtime.connect(model="gpt-realtime") as connection,
    ):
        yield connection


async def next_of(connection: Any, *kinds: str, dialect: str = "ga") -> Any:
    """The next event of one of these types; every frame on the way is checked strictly."""
    async with asyncio.timeout(8):
        while True:
            raw = await connection.recv_bytes()
            check(raw, dialect)
            event = connection.parse_event(raw)
            if event.type in kinds:
                return event


async def ask(connection: Any, text: str) -> None:
    part = {"type": "input_text", "text": text}
    await connection.conversation.item.create(
        item={"type": "message", "role": "user", "content": [part]}
    )
    await next_of(connection, "conversation.item.done")


def test_the_handshake_and_a_text_turn(tmp_path: Path) -> None:
    async def main() -> None:
        async with connected(tmp_path) as c:
            created = await next_of(c, "session.created")
            assert created.session.model == "gpt-realtime"
            await c.session.update(session={"type": "realtime", "output_modalities": ["text"]})
            updated = await next_of(c, "session.updated")
            assert updated.session.output_modalities == ["text"]
            assert updated.session.audio.input.turn_detection.interrupt_response is True
            await ask(c, "what time is it")
            await c.response.create()
            assert (await next_of(c, "response.output_text.done")).text == "It is noon."
            done = await next_of(c, "response.done")
            assert done.response.status == "completed"
            assert done.response.output[0].content[0].text == "It is noon."
            assert done.response.usage.output_tokens == 3

    run(main())


def test_an_audio_turn_with_server_vad(tmp_path: Path) -> None:
    async def main() -> None:
        async with connected(tmp_path) as c:
            await c.session.update(
                session={
                    "type": "realtime",
                    "audio": {"input": {"transcription": {"model": "whisper-1"}}},
                }
            )
            await c.input_audio_buffer.append(audio=b64(spoken(440, silence_ms=1000)))
            started = await next_of(c, "input_audio_buffer.speech_started")
            stopped = await next_of(c, "input_audio_buffer.speech_stopped")
            committed = await next_of(c, "input_audio_buffer.committed")
            assert started.item_id == stopped.item_id == committed.item_id
            assert stopped.audio_end_ms - started.audio_start_ms >= 1000
            heard = await next_of(c, "conversation.item.input_audio_transcription.completed")
            assert (heard.item_id, heard.transcript) == (started.item_id, "what time is it")
            said = await next_of(c, "response.output_audio_transcript.done")
            assert said.transcript == "It is noon."
            assert (await next_of(c, "response.done")).response.status == "completed"

    run(main())


def test_barge_in_then_truncate_and_the_history_holds_what_was_heard(tmp_path: Path) -> None:
    async def main() -> None:
        async with (
            serving(tmp_path, models__options__llm__scripted=STORY_SLOWLY) as served,
            sdk(served) as client,
            client.realtime.connect(model="m") as c,
        ):
            await c.input_audio_buffer.append(audio=b64(spoken(550, silence_ms=900)))
            item = (await next_of(c, "response.output_item.added")).item
            for _ in range(3):
                await next_of(c, "response.output_audio.delta")
            await c.input_audio_buffer.append(audio=b64(spoken(660, 640)))
            await next_of(c, "input_audio_buffer.speech_started")
            done = await next_of(c, "response.done", "response.output_audio.delta")
            assert done.type == "response.done"  # nothing is to be played after the interruption
            assert done.response.status == "cancelled"
            assert done.response.status_details.reason == "turn_detected"
            await c.conversation.item.truncate(item_id=item.id, content_index=0, audio_end_ms=250)
            cut = await next_of(c, "conversation.item.truncated")
            assert (cut.item_id, cut.audio_end_ms) == (item.id, 250)
            await c.conversation.item.retrieve(item_id=item.id)
            shown = (await next_of(c, "conversation.item.retrieved")).item
            assert shown.status == "incomplete"
            assert len(base64.b64decode(shown.content[0].audio)) == 250 * 48
            await c.input_audio_buffer.append(audio=b64(spoken(440, 1, silence_ms=1000)))
            await next_of(c, "response.done")
            asked = served.models.backend("llm").requests[-1].messages
            assert [m.content for m in asked if m.role == "assistant"] == ["word1 word2"]

    run(main())


def test_manual_turns(tmp_path: Path) -> None:
    async def main() -> None:
        async with connected(tmp_path) as c:
            await c.session.update(
                session={"type": "realtime", "audio": {"input": {"turn_detection": None}}}
            )
            updated = await next_of(c, "session.updated")
            assert updated.session.audio.input.turn_detection is None
            await c.input_audio_buffer.append(audio=b64(spoken(440)))
            await c.input_audio_buffer.commit()
            await c.response.create()
            committed = await next_of(c, "input_audio_buffer.committed")
            done = await next_of(c, "conversation.item.done")
            assert done.item.id == committed.item_id
            said = await next_of(c, "response.output_audio_transcript.done")
            assert said.transcript == "It is noon."
            await next_of(c, "rate_limits.updated")

    run(main())


def test_a_function_of_the_client(tmp_path: Path) -> None:
    tools = {"weather": {"name": "weather", "arguments": {"place": "Oslo"}}}
    llm = {**OPTIONS["llm"], "tools": tools}

    async def main() -> None:
        async with connected(tmp_path, models__options__llm__scripted=llm) as c:
            await c.session.update(session={"type": "realtime", "tools": [WEATHER]})
            await next_of(c, "session.updated")
            await ask(c, "how is the weather")
            await c.response.create()
            added = await next_of(c, "conversation.item.added")
            assert (added.item.type, added.item.arguments) == ("function_call", "")
            arguments = await next_of(c, "response.function_call_arguments.done")
            assert json.loads(arguments.arguments) == {"place": "Oslo"}
            assert arguments.name == "weather"
            (call,) = (await next_of(c, "response.done")).response.output
            assert call.call_id == arguments.call_id
            output = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
            await c.conversation.item.create(item=output)
            await next_of(c, "conversation.item.done")
            await c.response.create()
            said = await next_of(c, "response.output_audio_transcript.done")
            assert said.transcript == "The answer is sunny."
            await next_of(c, "rate_limits.updated")

    run(main())


def test_cancel(tmp_path: Path) -> None:
    async def main() -> None:
        async with connected(tmp_path, models__options__llm__scripted=STORY_SLOWLY) as c:
            await ask(c, "tell me a story")
            await c.response.create()
            response = (await next_of(c, "response.created")).response
            await next_of(c, "response.output_audio.delta")
            await c.response.cancel(response_id=response.id)
            await next_of(c, "response.output_audio.done")
            await next_of(c, "response.output_item.done")
            done = (await next_of(c, "response.done")).response
            assert (done.id, done.status) == (response.id, "cancelled")
            assert done.status_details.reason == "client_cancelled"
            assert done.output[0].status == "incomplete"
            await c.response.cancel()
            error = (await next_of(c, "error")).error
            assert error.code == "response_cancel_not_active"
            assert error.message.startswith("Cancellation failed")

    run(main())


def test_out_of_band_beside_the_conversation(tmp_path: Path) -> None:
    async def main() -> None:
        async with connected(tmp_path, models__options__llm__scripted=STORY_SLOWLY) as c:
            await ask(c, "tell me a story")
            await c.response.create()
            await next_of(c, "response.output_audio.delta")
            part = {"type": "input_text", "text": "what time is it"}
            message = {"type": "message", "role": "user", "content": [part]}
            await c.response.create(
                response={
                    "conversation": "none",
                    "output_modalities": ["text"],
                    "input": [message],
                    "metadata": {"topic": "time"},
                }
            )
            created = (await next_of(c, "response.created")).response
            assert created.metadata == {"topic": "time"}
            assert created.conversation_id is None
            both = [(await next_of(c, "response.done")).response for _ in range(2)]
            story, aside = sorted(both, key=lambda response: response.id == created.id)
            assert aside.metadata == {"topic": "time"}
            assert aside.output[0].content[0].text == "It is noon."
            assert story.status == "completed"

    run(main())


def test_errors_do_not_end_the_session(tmp_path: Path) -> None:
    async def main() -> None:
        async with connected(tmp_path) as c:
            await c.send({"type": "no.such.event", "event_id": "evt_1"})  # type: ignore[arg-type]
            error = (await next_of(c, "error")).error
            assert (error.event_id, error.code) == ("evt_1", "invalid_event")
            await c.conversation.item.delete(item_id="nothing", event_id="evt_2")
            error = (await next_of(c, "error")).error
            assert (error.event_id, error.code) == ("evt_2", "item_delete_invalid_item_id")
            await ask(c, "what time is it")
            await c.response.create()
            assert (await next_of(c, "response.done")).response.status == "completed"

    run(main())


def test_the_beta_resource(tmp_path: Path) -> None:
    async def main() -> None:
        async with (
            serving(tmp_path) as served,
            sdk(served) as client,
            client.beta.realtime.connect(model="gpt-4o-realtime-preview") as c,
        ):

            async def following(*kinds: str) -> Any:
                return await next_of(c, *kinds, dialect="beta")

            created = await following("session.created")
            assert created.session.modalities == ["text", "audio"]
            assert created.session.input_audio_format == "pcm16"
            await c.session.update(
                session={
                    "voice": "echo",
                    "temperature": 0.7,
                    "input_audio_transcription": {"model": "whisper-1"},
                }
            )
            updated = await following("session.updated")
            assert (updated.session.voice, updated.session.temperature) == ("echo", 0.7)
            await c.input_audio_buffer.append(audio=b64(spoken(440, silence_ms=1000)))
            item = (await following("conversation.item.created")).item
            assert (item.role, item.content[0].type) == ("user", "input_audio")
            said = await following("response.audio_transcript.done")
            assert said.transcript == "It is noon."
            done = (await following("response.done")).response
            assert done.output[0].content[0].type == "audio"
            assert done.modalities == ["text", "audio"]

    run(main())
