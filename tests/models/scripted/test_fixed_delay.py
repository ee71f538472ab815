"""Scripted models as services on other machines: many at once, the same words every time."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from tests.support import NoWeights, run, say, until

from antiphon.errors import ConfigError
from antiphon.models.model_set import FallbackConfig, ModelSet, Work
from antiphon.models.ports import Kind, LlmRequest, Message, SpeechRequest
from antiphon.models.registry import shared_registry
from antiphon.models.scripted import RemoteLlm, RemoteStt, RemoteTts

ASKED = LlmRequest((Message("user", "hello"),))


def test_many_requests_are_at_work_at_once() -> None:
    async def scenario() -> None:
        chain = FallbackConfig(
            Kind.STT, ("scripted-remote",), {"scripted-remote": {"delay_ms": 200}}
        )
        models = ModelSet([chain], NoWeights())
        await models.load()
        try:
            heard = asyncio.gather(
                *(models.transcribe(say(440), work=Work(f"c{n}")) for n in range(50))
            )
            await until(lambda: models.scheduler_stats()["stt:scripted-remote"].running == 50)
            assert {one.text for one in await heard} == {"What will the weather be like today?"}
        finally:
            await models.close()

    run(scenario())


def test_what_they_say() -> None:
    async def scenario() -> None:
        stt = RemoteStt(transcript="yes")
        assert (await stt.transcribe(np.zeros(1_600, np.int16))).text == ""
        assert (await stt.transcribe(say(440), partial=True)).text == "yes"
        llm = RemoteLlm(reply="It is noon.")
        deltas = [delta async for delta in llm.generate(ASKED)]
        assert "".join(delta.text for delta in deltas).split() == ["It", "is", "noon."]
        assert deltas[-1].finish == "stop"
        tts = RemoteTts(word_ms=100)
        pieces = [piece async for piece in tts.synthesize(SpeechRequest("It is - noon."))]
        assert sum(len(piece) for piece in pieces) == 3 * 1_600
        assert [piece async for piece in tts.synthesize(SpeechRequest("..."))] == []

    run(scenario())


def test_wrong_options() -> None:
    with pytest.raises(ConfigError, match="negative"):
        RemoteStt(delay_ms=-1)
    with pytest.raises(ConfigError, match="empty"):
        RemoteLlm(reply=" ")
    with pytest.raises(ConfigError, match="delay_ms"):
        shared_registry().create(Kind.TTS, "scripted-remote", NoWeights(), {"delay": 1})
