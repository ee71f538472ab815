"""A stream of audio becomes words; how its windows reach the voice activity model."""

from __future__ import annotations

import asyncio

import numpy as np
from tests.support import model_set, say

from antiphon.models.pool import Work
from antiphon.server.services.hearing import Hearing

FRAME = 1_280
"""80 ms at 16 kHz, as moshi's clients send them."""


def test_the_windows_of_a_frame_are_handed_in_together() -> None:
    """One by one each would wait, a few ms, for those of other streams: as long as the speech had windows."""

    async def scenario() -> None:
        models = model_set()
        await models.load()
        hearing = Hearing(models, Work("s", 0), threshold=0.5, language=None)
        speech = say(440, 1_280, silence_ms=1_280)
        words = []
        for at in range(0, len(speech), FRAME):
            words += await hearing.feed(speech[at : at + FRAME])
        words += await hearing.flush()
        assert " ".join(word.text for word in words) == "what time is it"
        stats = models.vad.stats()
        assert stats.batches < stats.served
        assert stats.served == len(speech) // models.vad.window_samples(16_000)
        assert hearing.pauses[0] > 0.5
        assert np.all(np.diff([word.start_s for word in words]) >= 0)
        await models.close()

    asyncio.run(scenario())


def test_windows_go_in_their_order() -> None:
    async def scenario() -> None:
        models = model_set()
        await models.load()
        vad, seen = models.vad, []
        submit = vad.submit
        vad.submit = lambda window, state, told: (
            seen.append(int(window[0])),
            submit(window, state, told),
        )[1]  # type: ignore[method-assign]
        hearing = Hearing(models, Work("s", 0), threshold=0.5, language=None)
        size = vad.window_samples(16_000)
        await hearing.feed(np.repeat(np.arange(1, 6, dtype=np.int16), size))
        assert seen == [1, 2, 3, 4, 5]
        await models.close()

    asyncio.run(scenario())
