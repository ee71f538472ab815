"""One spoken turn and an interruption with the embedded models, through the official SDK."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
from openai import AsyncOpenAI
from tests.protocols.realtime.support import b64
from tests.protocols.realtime.test_sdk import next_of

from antiphon.audio.resample import resample
from antiphon.config import load
from antiphon.models.ports import Kind, SpeechRequest
from antiphon.models.registry import shared_registry
from antiphon.models.store import WeightStore
from antiphon.server.app import create_app
from antiphon.server.lifecycle import Server, listen

pytestmark = pytest.mark.weights

QUESTION = "What is the capital of France?"


def question(store: WeightStore) -> str:
    """In the default voice, with a second of silence after it, as base64."""
    voice = shared_registry().create(Kind.TTS, "piper", store, {}).backend
    voice.load()
    pcm = np.concatenate(list(voice.synthesize(SpeechRequest(QUESTION))))
    spoken = resample(pcm, voice.sample_rate_hz, 24_000)
    voice.close()
    return b64(np.concatenate([spoken, np.zeros(24_000, np.int16)]))


def test_a_spoken_turn_and_what_was_said_of_it(tmp_path: Path) -> None:
    async def main() -> None:
        store = WeightStore()
        asked = await asyncio.to_thread(question, store)
        settings = load({"agent.max_tokens": "60"}, folder=tmp_path)
        ready = asyncio.Event()
        app = create_app(settings, store, on_ready=lambda error: ready.set())
        server, listener = Server(app, settings, 0), listen("127.0.0.1", 0)
        serving = asyncio.create_task(server.serve([listener]))
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        try:
            await asyncio.wait_for(ready.wait(), 60)
            async with AsyncOpenAI(
                base_url=f"http://{address}/v1",
                websocket_base_url=f"ws://{address}/v1",
                api_key="x",
            ) as client:
                await converse(client, asked)
        finally:
            server.should_exit = True
            await serving

    asyncio.run(asyncio.wait_for(main(), 120))


async def converse(client: AsyncOpenAI, asked: str) -> None:
    async with client.realtime.connect(model="gpt-realtime") as c:
        heard = {
            "transcription": {"model": "whisper-1"},
            "turn_detection": {"type": "semantic_vad"},
        }
        await c.session.update(session={"type": "realtime", "audio": {"input": heard}})  # type: ignore[typeddict-item]
        await next_of(c, "session.updated")
        await c.input_audio_buffer.append(audio=asked)
        done = await next_of(c, "conversation.item.input_audio_transcription.completed")
        assert "capital of france" in done.transcript.lower()
        first = await next_of(c, "response.output_audio.delta")
        said = await next_of(c, "response.output_audio_transcript.done")
        assert "paris" in said.transcript.lower()
        assert (await next_of(c, "response.done")).response.status == "completed"
        await c.conversation.item.truncate(item_id=first.item_id, content_index=0, audio_end_ms=0)
        await next_of(c, "conversation.item.truncated")
        await c.conversation.item.retrieve(item_id=first.item_id)
        shown = (await next_of(c, "conversation.item.retrieved")).item
        assert shown.content[0].transcript == ""
