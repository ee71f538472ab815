"""A stream of audio becomes words; and it does not wait for others."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import numpy as np
from tests.support import model_set, say

from antiphon.models.model_set import Work
from antiphon.protocols.moshi.stt_routes import StreamingTranscriber

FRAME = 1_280
"""80 ms at 16 kHz, as moshi's clients send them."""


def test_no_window_waits_for_those_of_other_streams() -> None:
    """Each would, for some ms, and a question has some eighty of them."""

    async def scenario() -> None:
        models = model_set()
        await models.load()
        models.vad._limits = replace(models.vad._limits, gather_s=60.0)
        hearing = StreamingTranscriber(models, Work("s", 0), threshold=0.5, language=None)
        speech = say(440, 1_280, silence_ms=1_280)
        words = []
        for at in range(0, len(speech), FRAME):
            words += await hearing.feed(speech[at : at + FRAME])
        words += await hearing.flush()
        assert " ".join(word.text for word in words) == "what time is it"
        windows = len(speech) // models.vad.window_samples(16_000)
        assert models.vad.stats().served == windows
        assert hearing.pauses[0] > 0.5
        assert np.all(np.diff([word.start_s for word in words]) >= 0)
        await models.close()

    asyncio.run(scenario())
