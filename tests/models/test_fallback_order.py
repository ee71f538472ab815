"""The chain of voices in docs/reference/models.md: each takes over when the one before cannot, and gives way again."""

from __future__ import annotations

import asyncio
import re
import tomllib
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import numpy as np
from tests.support import model_set

from antiphon.errors import ModelError
from antiphon.models.fallback import CALL_FAILURES
from antiphon.models.model_set import FallbackConfig, ModelSet, Work
from antiphon.models.ports import Kind, ModelInfo, Pcm16, SpeechRequest
from antiphon.models.registry import Registry

PAGE = Path(__file__).parents[2] / "docs/reference/models.md"
SAID = SpeechRequest("Good morning.")


def order() -> tuple[str, ...]:
    """As the page gives it."""
    section = PAGE.read_text().split("## A chain with fallbacks")[1]
    block = re.findall(r"```toml\n(.*?)```", section, re.S)[0]
    return tuple(tomllib.loads(block)["models"]["tts"])


class Voices:
    """All of the chain, in the place of the real ones: a voice is told by the value of its samples."""

    def __init__(self) -> None:
        self.names = order()
        self.missing: set[str] = set()
        self.broken: set[str] = set()
        self.registry = Registry()
        for number, name in enumerate(self.names, start=1):
            self.registry.register("tts", name)(self._voice(name, number))

    def _voice(self, name: str, number: int) -> type:
        voices = self

        class Voice:
            sample_rate_hz = 24_000
            info = ModelInfo(name)

            def load(self) -> None:
                if name in voices.missing:
                    raise ModelError(f"{name} is not installed")

            def synthesize(self, request: SpeechRequest) -> Iterator[Pcm16]:
                if name in voices.broken:
                    raise ModelError(f"{name} broke")
                yield np.full(240, number, np.int16)

        return Voice

    def run(self, test: Callable[[ModelSet], Awaitable[None]]) -> None:
        async def main() -> None:
            chain = FallbackConfig(Kind.TTS, self.names)
            models = model_set(chain, registry=self.registry)
            await models.load()
            try:
                async with asyncio.timeout(20):
                    await test(models)
            finally:
                await models.close()

        asyncio.run(main())

    async def speaks(self, models: ModelSet, call: str = "call") -> str:
        """Who says a sentence."""
        chunks = [chunk async for chunk in models.synthesize(SAID, work=Work(call))]
        assert len(chunks) == 1
        return self.names[int(chunks[0].pcm[0]) - 1]


def states(models: ModelSet) -> dict[str, str]:
    found: dict[str, str] = {s.name: s.state for s in models.status() if s.kind is Kind.TTS}
    return found


def test_the_page_has_the_order_of_the_talk_backend_and_a_last_resort() -> None:
    assert order() == ("moshi", "coqui", "edge-tts", "espeak")


def test_what_cannot_be_loaded_is_passed_over() -> None:
    voices = Voices()
    voices.missing = {"moshi", "coqui"}

    async def test(models: ModelSet) -> None:
        assert await voices.speaks(models) == "edge-tts"
        found = states(models)
        assert (found["moshi"], found["coqui"], found["edge-tts"]) == ("failed", "failed", "ready")

    voices.run(test)


def test_a_sentence_that_fails_is_said_by_the_next_one_and_the_first_comes_back() -> None:
    voices = Voices()

    async def test(models: ModelSet) -> None:
        assert await voices.speaks(models) == "moshi"
        voices.broken = {"moshi"}
        for _ in range(CALL_FAILURES):
            assert await voices.speaks(models, "first") == "coqui"
        voices.broken = {"coqui"}
        assert await voices.speaks(models, "first") == "edge-tts", "moshi failed this call before"
        voices.broken = set()
        assert await voices.speaks(models, "second") == "moshi", "another call begins anew"

    voices.run(test)


def test_down_to_the_last_one() -> None:
    voices = Voices()
    voices.broken = {"moshi", "coqui", "edge-tts"}

    async def test(models: ModelSet) -> None:
        assert await voices.speaks(models) == "espeak"

    voices.run(test)


def test_every_link_is_a_back_end_that_there_is() -> None:
    registry = Registry()
    for name in order():
        registry.find(Kind.TTS, name)
