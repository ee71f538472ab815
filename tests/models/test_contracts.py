"""The scripted models keep the contracts, and the contracts catch a model that does not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from antiphon.models.duck_typing import AdaptedLlm
from antiphon.models.ports import (
    Kind,
    LlmDelta,
    LlmRequest,
    ModelInfo,
    Pcm16,
    SpeechRequest,
    Transcript,
)
from antiphon.models.scripted import (
    ScriptedLlm,
    ScriptedStt,
    ScriptedTts,
    ScriptedTurnDetector,
    ScriptedVad,
    tone,
)
from antiphon.testing import contracts


def test_scripted_models_keep_their_contracts() -> None:
    contracts.check_vad(ScriptedVad(), speech=tone(440, 1_000, 16_000))
    contracts.check_vad(ScriptedVad(), speech=tone(440, 1_000, 8_000), speech_rate_hz=8_000)
    contracts.check_turn(ScriptedTurnDetector(probabilities=[0.2, 0.8]))
    contracts.check_stt(ScriptedStt(), speech=tone(440, 500, 16_000), words=["Hello"])
    contracts.check_llm(ScriptedLlm())
    contracts.check_tts(ScriptedTts())
    contracts.check_tts(ScriptedTts(rate_hz=24_000, word_ms=150))


class AsyncLlm:
    """On a loop, as back ends for a network are."""

    info = ModelInfo("async")

    def __init__(self) -> None:
        self.closed = 0

    async def load(self) -> None: ...

    async def close(self) -> None: ...

    async def warm(self, request: LlmRequest) -> None:
        await asyncio.sleep(0)

    async def release(self, call_id: str) -> None: ...

    async def generate(self, request: LlmRequest) -> AsyncIterator[LlmDelta]:
        try:
            for word in ("hello ", "there")[: request.max_tokens]:
                await asyncio.sleep(0)
                yield LlmDelta(word)
            yield LlmDelta(finish="stop")
        finally:
            self.closed += 1


def test_an_asynchronous_model_is_checked_on_its_own_runner() -> None:
    model = AsyncLlm()
    with asyncio.Runner() as runner:
        runner.run(model.load())
        contracts.check_llm(model, runner=runner)
    assert model.closed == 7


def test_a_simple_model_behind_its_adapter_keeps_the_contract() -> None:
    class Simple:
        def generate(self, prompt: str) -> str:
            return "hello"

    adapted: Any = AdaptedLlm(Kind.LLM, "simple", Simple())
    contracts.check_llm(adapted)


class LoudVad(ScriptedVad):
    def score(self, windows: Sequence[Pcm16], states: Sequence[Any]) -> Sequence[float]:
        return [0.9] * len(windows)


class MixingVad(ScriptedVad):
    def score(self, windows: Sequence[Pcm16], states: Sequence[Any]) -> Sequence[float]:
        mean = float(np.mean([np.mean(np.abs(window)) for window in windows])) / 1000
        return [mean] * len(windows)


class WritingStt(ScriptedStt):
    def transcribe(
        self, audio: Pcm16, *, language: str | None = None, partial: bool = False
    ) -> Transcript:
        audio[:] = 0
        return Transcript("")


class TalkativeStt(ScriptedStt):
    def transcribe(
        self, audio: Pcm16, *, language: str | None = None, partial: bool = False
    ) -> Transcript:
        return Transcript("Thank you for watching!")


class EndlessLlm(ScriptedLlm):
    def generate(self, request: LlmRequest) -> Iterator[LlmDelta]:
        yield LlmDelta("hello")


class FloatTts(ScriptedTts):
    def synthesize(self, request: SpeechRequest) -> Iterator[Pcm16]:
        for piece in super().synthesize(request):
            yield piece.astype(np.float32)


class ChattyTts(ScriptedTts):
    def synthesize(self, request: SpeechRequest) -> Iterator[Pcm16]:
        return super().synthesize(SpeechRequest(request.text + " indeed one two three four"))


def test_broken_promises_are_named() -> None:
    with pytest.raises(AssertionError, match="silence at 8000 Hz"):
        contracts.check_vad(LoudVad())
    with pytest.raises(AssertionError, match="states must not mix"):
        contracts.check_vad(MixingVad())
    with pytest.raises(AssertionError, match="only 0% of its windows"):
        contracts.check_vad(ScriptedVad(), speech=np.zeros(16_000, np.int16))
    with pytest.raises(ValueError, match="read-only"):
        contracts.check_stt(WritingStt())
    with pytest.raises(AssertionError, match="no words at all"):
        contracts.check_stt(TalkativeStt())
    with pytest.raises(AssertionError, match="must contain 'bonjour'"):
        contracts.check_stt(ScriptedStt(), speech=tone(440, 500, 16_000), words=["bonjour"])
    with pytest.raises(AssertionError, match="how the reply finished"):
        contracts.check_llm(EndlessLlm())
    with pytest.raises(AssertionError, match="int16"):
        contracts.check_tts(FloatTts())
    with pytest.raises(AssertionError, match="nothing to say"):
        contracts.check_tts(ChattyTts())
    with pytest.raises(AssertionError, match="probability"):
        contracts.check_turn(ScriptedTurnDetector(probabilities=[1.5]))
