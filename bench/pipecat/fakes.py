"""Models with fixed delays, as Pipecat services, with the words and the sound of Antiphon's `scripted-remote`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import numpy as np
from pipecat.frames.frames import (
    Frame,
    LLMContextFrame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    TranscriptionFrame,
    TTSAudioRawFrame,
)
from pipecat.processors.frame_processor import FrameDirection
from pipecat.services.llm_service import LLMService
from pipecat.services.settings import LLMSettings, STTSettings, TTSSettings
from pipecat.services.stt_service import SegmentedSTTService
from pipecat.services.tts_service import TTSService
from pipecat.utils.time import time_now_iso8601

REPLY = "It is a fine day today, and the sun will be out until the evening."
TRANSCRIPT = "What will the weather be like today?"
RATE_HZ = 8_000
"""Of the line: nothing has to be resampled, which is to Pipecat's advantage."""
WORD_MS = 240


def _word() -> bytes:
    times_s = np.arange(RATE_HZ * WORD_MS * 4 // 5 // 1000) / RATE_HZ
    sound = np.sin(2 * np.pi * 220 * times_s) * 1000 * np.sqrt(2)
    word = np.zeros(RATE_HZ * WORD_MS // 1000, np.int16)
    word[: len(sound)] = sound.astype(np.int16)
    return word.tobytes()


WORD = _word()


class FakeStt(SegmentedSTTService):
    def __init__(self, delay_ms: float) -> None:
        settings = STTSettings(model="fake", language=None)
        super().__init__(settings=settings, ttfs_p99_latency=0.3, sample_rate=RATE_HZ)
        self._delay_s = delay_ms / 1000

    @property
    def wants_wav_segments(self) -> bool:
        return False

    async def run_stt(self, audio: bytes) -> AsyncGenerator[Frame, None]:
        await asyncio.sleep(self._delay_s)
        yield TranscriptionFrame(TRANSCRIPT, self._user_id, time_now_iso8601())


class FakeLlm(LLMService):
    def __init__(self, delay_ms: float, word_delay_ms: float, reply: str = REPLY) -> None:
        super().__init__(settings=plain_llm_settings("fake"))
        self._words = reply.split()
        self._delays_s = (delay_ms / 1000, word_delay_ms / 1000)

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if not isinstance(frame, LLMContextFrame):
            await self.push_frame(frame, direction)
            return
        await self.push_frame(LLMFullResponseStartFrame())
        try:
            for index, word in enumerate(self._words):
                await asyncio.sleep(self._delays_s[min(index, 1)])
                await self._push_llm_text(f"{word} ")
        finally:
            await self.push_frame(LLMFullResponseEndFrame())


class FakeTts(TTSService):
    def __init__(self, delay_ms: float) -> None:
        super().__init__(
            push_start_frame=True,
            push_stop_frames=True,
            sample_rate=RATE_HZ,
            settings=TTSSettings(model="fake", voice="fake", language=None),
        )
        self._delay_s = delay_ms / 1000

    async def run_tts(self, text: str, context_id: str) -> AsyncGenerator[Frame | None, None]:
        await asyncio.sleep(self._delay_s)
        for _ in text.split():
            yield TTSAudioRawFrame(WORD, RATE_HZ, 1, context_id=context_id)


def plain_llm_settings(model: str) -> LLMSettings:
    """All fields said, as Pipecat wants them; none of them does anything here."""
    unused: dict[str, Any] = dict.fromkeys(
        (
            "system_instruction",
            "temperature",
            "max_tokens",
            "top_p",
            "top_k",
            "frequency_penalty",
            "presence_penalty",
            "seed",
            "user_turn_completion_config",
        )
    )
    return LLMSettings(model=model, filter_incomplete_user_turns=False, **unused)
