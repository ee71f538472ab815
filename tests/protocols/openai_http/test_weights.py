"""Each endpoint once with the default models, by the official SDK: what was spoken is understood, and answered."""

from __future__ import annotations

import asyncio
import re
from difflib import SequenceMatcher
from pathlib import Path

import pytest
from openai import AsyncOpenAI

from antiphon.audio.containers import decode_file
from antiphon.config import load
from antiphon.models.store import WeightStore
from antiphon.server.app import create_app
from antiphon.server.lifecycle import Server, listen

pytestmark = pytest.mark.weights

TEXT = (
    "The ferry leaves at nine in the morning. Bring a warm coat and something to eat. "
    "If the sea is rough, we will take the train instead."
)


def words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9']+", text.lower())


async def converse(client: AsyncOpenAI) -> None:
    spoken = await client.audio.speech.create(input=TEXT, model="tts-1", voice="alloy")
    sound = decode_file(spoken.content)
    assert sound.source_format == "mp3"
    assert 5 < sound.duration_s < 20

    heard = await client.audio.transcriptions.create(
        file=("speech.mp3", spoken.content), model="whisper-1", response_format="verbose_json"
    )
    assert SequenceMatcher(None, words(heard.text), words(TEXT)).ratio() > 0.85, heard.text
    assert heard.segments
    assert heard.duration == pytest.approx(sound.duration_s, abs=0.1)
    assert heard.language == "en"
    stream = await client.audio.transcriptions.create(
        file=("speech.mp3", spoken.content), model="whisper-1", stream=True
    )
    events = [event async for event in stream]
    assert events[-1].type == "transcript.text.done"
    assert events[-1].text == heard.text

    asked = [{"role": "user", "content": "What is the capital of France? Answer in one word."}]
    answer = await client.chat.completions.create(
        model="any",
        messages=asked,
        temperature=0,
        max_tokens=20,  # type: ignore[arg-type]
    )
    assert "paris" in (answer.choices[0].message.content or "").lower()
    assert answer.usage is not None
    assert answer.usage.prompt_tokens > 5
    chunks = await client.chat.completions.create(
        model="any",
        messages=asked,
        temperature=0,
        max_tokens=20,
        stream=True,  # type: ignore[arg-type]
    )
    text = [c.choices[0].delta.content or "" async for c in chunks]
    assert "paris" in "".join(text).lower()
    assert {m.id async for m in client.models.list()} == {"llamacpp", "moonshine", "piper"}


def test_speak_hear_and_answer(tmp_path: Path) -> None:
    async def main() -> None:
        settings, ready = load(folder=tmp_path), asyncio.Event()
        app = create_app(settings, WeightStore(), on_ready=lambda error: ready.set())
        server, listener = Server(app, settings, 0), listen("127.0.0.1", 0)
        serving = asyncio.create_task(server.serve([listener]))
        try:
            await asyncio.wait_for(ready.wait(), 60)
            base = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
            async with AsyncOpenAI(api_key="x", base_url=base, max_retries=0) as client:
                await converse(client)
        finally:
            server.should_exit = True
            await serving
            listener.close()

    asyncio.run(asyncio.wait_for(main(), 150))
