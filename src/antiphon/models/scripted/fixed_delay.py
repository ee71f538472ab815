"""Scripted models as services on other machines: asynchronous, any number of requests at once, with fixed delays.

For measuring a server without its models: what is left of a turn's time beside the delays is the server's own. They
know nothing of calls.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from antiphon.errors import ConfigError
from antiphon.models.ports import (
    LlmDelta,
    LlmRequest,
    ModelInfo,
    Pcm16,
    SpeechRequest,
    Transcript,
    Usage,
    WeightSource,
)
from antiphon.models.scripted.generation import spoken_word, words_to_say

REPLY = "It is a fine day today, and the sun will be out until the evening."
TRANSCRIPT = "What will the weather be like today?"
_PLACES = 4_096
_HEARD_PEAK = 300


def _delays_s(**delays_ms: float) -> tuple[float, ...]:
    for name, value in delays_ms.items():
        if value < 0:
            raise ConfigError(f"scripted-remote: {name} must not be negative, got {value}")
    return tuple(value / 1000 for value in delays_ms.values())


class RemoteStt:
    """Hears `transcript` in whatever is not silent, `delay_ms` after it was asked.

    `partials`: whether it is asked while the caller speaks; those requests take as long.
    """

    parallel = _PLACES

    def __init__(
        self,
        weights: WeightSource | None = None,
        *,
        transcript: str = TRANSCRIPT,
        delay_ms: float = 0.0,
        partials: bool = True,
    ) -> None:
        self.info = ModelInfo("scripted-remote", detail=f"{delay_ms:g} ms", partials=partials)
        self._transcript = transcript
        (self._delay_s,) = _delays_s(delay_ms=delay_ms)

    async def load(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def transcribe(
        self, audio: Pcm16, *, language: str | None = None, partial: bool = False
    ) -> Transcript:
        await asyncio.sleep(self._delay_s)
        return Transcript(self._transcript if _is_heard(audio) else "", language)


def _is_heard(audio: Pcm16) -> bool:
    """A look at every fourth sample: a machine that is not there should take no time here."""
    return int(audio[::4].max(initial=0)) >= _HEARD_PEAK


class RemoteLlm:
    """Says `reply` word by word: the first after `delay_ms`, each further one `word_delay_ms` later."""

    parallel = _PLACES

    def __init__(
        self,
        weights: WeightSource | None = None,
        *,
        reply: str = REPLY,
        delay_ms: float = 0.0,
        word_delay_ms: float = 0.0,
    ) -> None:
        if not reply.strip():
            raise ConfigError("scripted-remote llm: reply must not be empty")
        self.info = ModelInfo("scripted-remote", detail=f"{delay_ms:g} + {word_delay_ms:g} ms")
        self._words = [f"{word} " for word in reply.split()]
        self._delay_s, self._word_delay_s = _delays_s(
            delay_ms=delay_ms, word_delay_ms=word_delay_ms
        )

    async def load(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def warm(self, request: LlmRequest) -> None:
        pass

    async def release(self, call_id: str) -> None:
        pass

    async def generate(self, request: LlmRequest) -> AsyncIterator[LlmDelta]:
        words = self._words[: request.max_tokens]
        for index, word in enumerate(words):
            await asyncio.sleep(self._word_delay_s if index else self._delay_s)
            yield LlmDelta(word)
        yield LlmDelta(finish="stop", usage=Usage(0, len(words)))


class RemoteTts:
    """Speaks a tone per word; all of a clause is there `delay_ms` after it was asked for. `word_ms`: of each word."""

    parallel = _PLACES

    def __init__(
        self,
        weights: WeightSource | None = None,
        *,
        delay_ms: float = 0.0,
        word_ms: int = 240,
        rate_hz: int = 16_000,
        voices: Sequence[str] = (),
    ) -> None:
        self.info = ModelInfo("scripted-remote", detail=f"{delay_ms:g} ms", voices=tuple(voices))
        self.sample_rate_hz = rate_hz
        (self._delay_s,) = _delays_s(delay_ms=delay_ms)
        self._word: Pcm16 = spoken_word(word_ms, rate_hz)

    async def load(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def synthesize(self, request: SpeechRequest) -> AsyncIterator[Pcm16]:
        count = len(words_to_say(request.text))
        if not count:
            return
        await asyncio.sleep(self._delay_s)
        for _ in range(count):
            yield self._word
