"""Pipecat's own `XTTSService` against our XTTS service, on a real socket.

Run it in an environment of its own, for its dependencies are many: `pip install pipecat-ai==1.14.0 -e . pytest`.
"""

from __future__ import annotations

import asyncio
import warnings
from pathlib import Path

import pytest

pytest.importorskip("pipecat")

import aiohttp
from pipecat.frames.frames import (
    ErrorFrame,
    Frame,
    TTSAudioRawFrame,
    TTSSpeakFrame,
    TTSStoppedFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.runner import PipelineRunner
from pipecat.pipeline.task import PipelineParams, PipelineTask
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.services.xtts.tts import XTTSService
from tests.protocols.services_support import service

from antiphon.models.ports import Kind


class Ear(FrameProcessor):
    """Keeps the sound, and ends the pipeline after it."""

    def __init__(self) -> None:
        super().__init__()
        self.audio: list[TTSAudioRawFrame] = []
        self.errors: list[str] = []
        self.done = asyncio.Event()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, TTSAudioRawFrame):
            self.audio.append(frame)
        elif isinstance(frame, ErrorFrame):
            self.errors.append(frame.error)
        elif isinstance(frame, TTSStoppedFrame):
            self.done.set()
        await self.push_frame(frame, direction)


@pytest.mark.parametrize("rate_hz", [24_000, 8_000])
def test_pipecat_speaks_through_us(rate_hz: int, tmp_path: Path) -> None:
    voices = {"models__options__tts__scripted": {"word_ms": 100, "voices": ["ann", "ben"]}}

    async def main() -> None:
        async with (
            service(tmp_path, Kind.TTS, **voices) as served,
            aiohttp.ClientSession() as session,
        ):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # it is going away in 2.0
                voice = XTTSService(
                    base_url=served.url,
                    aiohttp_session=session,
                    settings=XTTSService.Settings(voice="ben"),
                )
            ear = Ear()
            task = PipelineTask(
                Pipeline([voice, ear]), params=PipelineParams(audio_out_sample_rate=rate_hz)
            )
            running = asyncio.create_task(PipelineRunner(handle_sigint=False).run(task))
            await task.queue_frame(TTSSpeakFrame("One two three four. Five six seven eight."))
            async with asyncio.timeout(30):
                await ear.done.wait()
            await task.cancel()
            await running
            assert not ear.errors
            seconds = sum(len(frame.audio) for frame in ear.audio) / 2 / rate_hz
            assert seconds == pytest.approx(0.8, abs=0.15)  # Pipecat's resampler keeps its end
            assert {frame.sample_rate for frame in ear.audio} == {rate_hz}
            requests = served.backend(Kind.TTS).requests
            assert {request.voice for request in requests} == {"ben"}
            assert requests[0].language == "en"

    asyncio.run(main())
