"""The default models, each in a service of its own, and a call that has nothing but their addresses."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.protocols.services_support import service
from tests.server.support import START, client, serving

from antiphon.audio.resample import resample
from antiphon.models.ports import STT_RATE_HZ, Kind, SpeechRequest
from antiphon.models.registry import shared_registry
from antiphon.models.store import WeightStore

pytestmark = pytest.mark.weights

MODELS = {
    Kind.STT: {"models__stt": "moonshine", "models__vad": "silero"},
    Kind.LLM: {"models__llm": "llamacpp"},
    Kind.TTS: {"models__tts": "piper"},
}
LIMIT_S = 120.0


def _question(store: WeightStore) -> bytes:
    voice = shared_registry().create(Kind.TTS, "piper", store, {}).backend
    voice.load()
    pcm = np.concatenate(
        list(voice.synthesize(SpeechRequest("What is the capital city of France?")))
    )
    speech = resample(pcm, voice.sample_rate_hz, STT_RATE_HZ)
    voice.close()
    return np.concatenate([speech, np.zeros(STT_RATE_HZ * 3 // 2, np.int16)]).tobytes()


async def _until(condition: Callable[[], object]) -> None:
    loop = asyncio.get_running_loop()
    end_s = loop.time() + LIMIT_S
    while not condition():
        assert loop.time() < end_s
        await asyncio.sleep(0.05)


def test_a_call_with_three_services(tmp_path: Path) -> None:
    store = WeightStore()
    question = _question(store)

    async def main() -> None:
        async with contextlib.AsyncExitStack() as stack:
            at = {}
            for kind, models in MODELS.items():
                at[kind] = await stack.enter_async_context(
                    service(tmp_path, kind, weights=store, wait=False, **models)
                )
            await _until(lambda: all(one.streams.models.ready for one in at.values()))
            remote = {
                "models__stt": "moshi-server",
                "models__llm": "openai",
                "models__tts": "moshi-server",
                "endpoint__base_url": f"{at[Kind.LLM].url}/v1",
                "models__options__stt__moshi-server": {"base_url": at[Kind.STT].ws},
                "models__options__tts__moshi-server": {"base_url": at[Kind.TTS].ws},
            }
            served = await stack.enter_async_context(serving(tmp_path, **remote))
            caller = await stack.enter_async_context(client(served, start=START))
            await caller.send_pieces(question, 640)
            await _until(lambda: caller.of("turn_complete") or caller.closed)
            assert "capital" in caller.of("transcript")[-1]["text"]
            assert "Paris" in "".join(m["text"] for m in caller.of("ai_text"))
            assert sum(len(f) for f in caller.frames if isinstance(f, bytes)) > 24_000

    asyncio.run(main())
