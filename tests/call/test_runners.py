"""The model tasks of one call: how many of them may stand in line."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.call.support import RecordingDoor
from tests.support import run, until

from antiphon.call.audio_buffer import AudioBuffer
from antiphon.call.audio_output import AudioOutput
from antiphon.call.model_tasks import Agent, ModelTasks
from antiphon.core import actions as act
from antiphon.core import events as ev
from antiphon.models.ports import Transcript


class SlowModels:
    """Transcribes when it is let."""

    def __init__(self) -> None:
        self.waiting = self.asked = 0
        self.gate = asyncio.Event()

    async def transcribe(self, pcm: Any, **options: Any) -> Transcript:
        self.waiting += 1
        self.asked += 1
        try:
            await self.gate.wait()
        finally:
            self.waiting -= 1
        return Transcript("hello")


def test_attempts_at_a_turn_do_not_pile_up() -> None:
    """A caller who stops and goes on all the time has one attempt in line, and one partial transcript."""

    async def main() -> None:
        models, posted = SlowModels(), list[ev.Event | None]()
        model_tasks = ModelTasks(
            "call",
            models,  # type: ignore[arg-type]
            Agent(),
            AudioBuffer(16_000, 1_000),
            AudioOutput(RecordingDoor(), lambda reply, ms: None),
            posted.append,
        )
        model_tasks.transcribe(act.Transcribe(1, 0, 100, partial=True))
        for job in range(2, 102):
            stale = job - 1 if job > 2 else 0
            model_tasks.transcribe(act.Transcribe(job, 0, 100 * job, replaces=stale))
            await until(lambda due=job: models.asked == due)  # type: ignore[misc]
            assert models.waiting <= 3  # the stale one is leaving
        model_tasks.transcribe(act.Transcribe(102, 0, 100))  # another turn's stands beside it
        await until(lambda: models.waiting == 3)
        models.gate.set()
        await until(lambda: len(posted) == 3)
        assert {e.job for e in posted if isinstance(e, ev.Transcribed)} == {1, 101, 102}
        await model_tasks.close()

    run(main())
