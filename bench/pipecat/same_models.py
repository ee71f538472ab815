"""Antiphon's default back ends as Pipecat services: the same classes, the same weights, the same threads, loaded once.

Each service hands one request on and gives back what comes; what to ask, and when, is Pipecat's.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import numpy as np
from fakes import FakeLlm, plain_llm_settings
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
from pipecat.services.settings import STTSettings, TTSSettings
from pipecat.services.stt_service import SegmentedSTTService
from pipecat.services.tts_service import TTSService
from pipecat.utils.time import time_now_iso8601

from antiphon.audio.resample import resample
from antiphon.models.model_set import FallbackConfig, ModelSet, Work
from antiphon.models.ports import STT_RATE_HZ, Kind, LlmRequest, Message, SpeechRequest
from antiphon.models.store import WeightStore

LINE_HZ = 8_000
MODELS = {Kind.STT: "moonshine", Kind.LLM: "llamacpp", Kind.TTS: "piper"}
MAX_TOKENS, TEMPERATURE = 200, 0.6
"""Antiphon's own defaults."""


class Shared:
    """The models of the process."""

    def __init__(self, reply: str = "") -> None:
        """`reply`: what the language model always says; empty: the real one is asked."""
        self._reply = reply
        kinds = {kind: name for kind, name in MODELS.items() if not (reply and kind is Kind.LLM)}
        self._chains = [FallbackConfig(kind, (name,)) for kind, name in kinds.items()]
        self._models: ModelSet | None = None
        self._numbers = itertools.count(1)

    async def load(self) -> None:
        self._models = ModelSet(self._chains, WeightStore())
        await self._models.load()

    def services(self) -> tuple[Any, Any, Any]:
        """Of one call."""
        assert self._models is not None
        call_id = f"pipecat-{next(self._numbers)}"
        llm: Any = SameLlm(self._models, call_id)
        if self._reply:
            llm = FakeLlm(0, 0, self._reply)
        return SameStt(self._models, call_id), llm, SameTts(self._models, call_id)


class SameStt(SegmentedSTTService):
    def __init__(self, models: ModelSet, call_id: str) -> None:
        # The half second that Pipecat adds by default costs Moonshine time and gains nothing: to Pipecat's advantage.
        super().__init__(
            settings=STTSettings(model="moonshine", language=None),
            ttfs_p99_latency=0.3,
            sample_rate=LINE_HZ,
            trailing_silence_secs=0.0,
        )
        self._models, self._call_id = models, call_id

    @property
    def wants_wav_segments(self) -> bool:
        return False

    async def run_stt(self, audio: bytes) -> AsyncGenerator[Frame, None]:
        pcm = resample(np.frombuffer(audio, np.int16), LINE_HZ, STT_RATE_HZ)
        heard = await self._models.transcribe(pcm, language="en", work=Work(self._call_id))
        if heard.text:
            yield TranscriptionFrame(heard.text, self._user_id, time_now_iso8601())


class SameLlm(LLMService):
    def __init__(self, models: ModelSet, call_id: str) -> None:
        super().__init__(settings=plain_llm_settings("llamacpp"))
        self._models, self._call_id = models, call_id

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if not isinstance(frame, LLMContextFrame):
            await self.push_frame(frame, direction)
            return
        messages = tuple(
            Message(message["role"], str(message["content"])) for message in frame.context.messages
        )
        request = LlmRequest(messages, self._call_id, MAX_TOKENS, TEMPERATURE)
        await self.push_frame(LLMFullResponseStartFrame())
        try:
            work = Work(self._call_id)
            async with aclosing(self._models.generate(request, work=work)) as deltas:
                async for delta in deltas:
                    if delta.text:
                        await self._push_llm_text(delta.text)
        finally:
            await self.push_frame(LLMFullResponseEndFrame())

    async def cleanup(self) -> None:
        await super().cleanup()
        await self._models.release(self._call_id)


class SameTts(TTSService):
    def __init__(self, models: ModelSet, call_id: str) -> None:
        super().__init__(
            push_start_frame=True,
            push_stop_frames=True,
            sample_rate=LINE_HZ,
            settings=TTSSettings(model="piper", voice=None, language=None),
        )
        self._models, self._call_id = models, call_id

    async def run_tts(self, text: str, context_id: str) -> AsyncGenerator[Frame | None, None]:
        if not re.search(r"\w", text):
            return
        request = SpeechRequest(text, language="en")
        spoken = self._models.synthesize(request, work=Work(self._call_id))
        async with aclosing(spoken) as chunks:
            async for chunk in chunks:
                pcm = resample(chunk.pcm, chunk.rate_hz, LINE_HZ)
                yield TTSAudioRawFrame(pcm.tobytes(), LINE_HZ, 1, context_id=context_id)
