"""The main job with the default models: a question spoken by one of them is understood and answered aloud."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from difflib import SequenceMatcher
from pathlib import Path

import numpy as np
import pytest
from tests.support import until

from antiphon import local
from antiphon.audio.containers import decode_file
from antiphon.audio.encoding import encode_file
from antiphon.audio.resample import resample
from antiphon.client.talker import Talker
from antiphon.config import load
from antiphon.local import Engine
from antiphon.models.ports import STT_RATE_HZ, Kind, Pcm16, SpeechRequest
from antiphon.models.registry import shared_registry
from antiphon.models.store import WeightStore
from antiphon.server.app import create_app
from antiphon.server.lifecycle import Server, listen

pytestmark = pytest.mark.weights

QUESTION = "What is the capital of France?"
STORY = "Please tell me a long story about a dog and a cat."


@pytest.fixture(scope="module")
def store() -> WeightStore:
    return WeightStore()


Speak = Callable[[str], Pcm16]


@pytest.fixture(scope="module")
def speak(store: WeightStore) -> Iterator[Speak]:
    """A text in the default voice, at 16 kHz."""
    voice = shared_registry().create(Kind.TTS, "piper", store, {}).backend
    voice.load()

    def speak(text: str) -> Pcm16:
        pieces = list(voice.synthesize(SpeechRequest(text)))
        return resample(np.concatenate(pieces), voice.sample_rate_hz, STT_RATE_HZ)

    yield speak
    voice.close()


@pytest.fixture(scope="module")
def question(speak: Speak) -> Pcm16:
    return speak(QUESTION)


@pytest.fixture(scope="module")
def engine(store: WeightStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with Engine(load(folder=tmp_path_factory.mktemp("empty")), store) as engine:
        yield engine


def words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9']+", text.lower())


def similarity(one: str, other: str) -> float:
    return SequenceMatcher(None, words(one), words(other)).ratio()


def test_a_spoken_question_has_a_spoken_answer(engine: Engine, question: Pcm16) -> None:
    asked = encode_file(question, STT_RATE_HZ, "mp3")
    found = engine.answer(asked)
    assert similarity(found.transcript, QUESTION) > 0.8
    assert words(found.reply)
    again = engine.answer(encode_file(found.pcm, found.rate_hz, "opus"))
    assert words(again.transcript)  # what we say can be understood
    assert similarity(again.transcript, found.reply) > 0.5


def test_process_audio(engine: Engine, question: Pcm16, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "_shared", engine)  # as it is from its second call on
    answer = decode_file(
        local.process_audio(encode_file(question, STT_RATE_HZ, "wav"), response_format="mp3")
    )
    assert answer.source_format == "mp3"
    assert answer.duration_s > 0.3
    assert np.abs(answer.pcm.astype(int)).max() > 1_000


def test_a_conversation_and_an_interruption(
    store: WeightStore, speak: Speak, tmp_path: Path
) -> None:
    async def main() -> None:
        settings = load({"conversation.greeting": "", "agent.max_tokens": "120"}, folder=tmp_path)
        ready = asyncio.Event()
        server = Server(
            create_app(settings, store, on_ready=lambda error: ready.set()), settings, 0
        )
        listener = listen("127.0.0.1", 0)
        serving = asyncio.create_task(server.serve([listener]))
        try:
            await asyncio.wait_for(ready.wait(), 60)
            url = f"ws://127.0.0.1:{listener.getsockname()[1]}/ws/conversation"
            async with Talker(url) as caller:
                await converse(caller, speak)
        finally:
            server.should_exit = True
            await serving

    asyncio.run(asyncio.wait_for(main(), 120))


async def converse(caller: Talker, speak: Speak) -> None:
    asked = await caller.say(speak(STORY))
    await caller.wait_for("ai_audio_start", after_s=asked.end_s, timeout_s=30)
    said = [m["text"] for m in caller.messages("transcript") if m["is_final"]]
    assert similarity(said[-1], STORY) > 0.8
    await until(
        lambda: caller.playout.played_ms(caller.playout.pieces[-1].reply, caller.now_s) > 800
    )

    interrupting = await caller.say(speak("Stop, please stop. I want something else."))
    await caller.wait_for("clear", after_s=asked.end_s)
    ended = await caller.wait_for("turn", after_s=interrupting.start_s, timeout_s=30)
    assert ended.message["record"]["interrupted"]
    await caller.wait_for("ai_audio_start", after_s=ended.at_s, timeout_s=30)
    said = [m["text"] for m in caller.messages("transcript") if m["is_final"]]
    assert "stop" in words(said[-1])
    assert not caller.messages("error")
