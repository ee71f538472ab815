"""The agent's own voice in TwiML: text or samples -> a `<Play>` of a file that is on the shelf for a while.

Fixed phrases are made once. Without text to speech the phrase is said in a voice of the carrier's: the call goes on.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import OrderedDict
from contextlib import aclosing

import numpy as np

from antiphon.audio.encoding import CONTENT_TYPES, encode_file
from antiphon.audio.resample import resample
from antiphon.errors import AntiphonError
from antiphon.models.pool import ModelSet, Work
from antiphon.models.ports import Pcm16, SpeechRequest
from antiphon.server.phone import verbs
from antiphon.server.phone.shelf import Shelf
from antiphon.session.runners import Agent

log = logging.getLogger(__name__)

LINE_HZ = 8_000
"""There is nothing to hear above 4 kHz on a telephone line."""
FORMAT = "wav"
"""Ready without an encoder's delay, and 16 kB a second are nothing to a carrier."""
_PHRASE_S = 6.0
_MAX_PHRASES = 32


class Spoken:
    """`folder` of each method: of the address, as seen from the document that the verb is in (`voice/`, or empty)."""

    def __init__(self, models: ModelSet, shelf: Shelf) -> None:
        self._models = models
        self._shelf = shelf
        self._phrases: OrderedDict[tuple[str, str, str, float], bytes] = OrderedDict()

    async def play(self, pcm: Pcm16, rate_hz: int, folder: str) -> str:
        return self._on_shelf(await asyncio.to_thread(_encode, pcm, rate_hz), folder)

    async def say(self, text: str, agent: Agent, folder: str) -> str:
        """A fixed phrase. Never raises what a model raises."""
        key = (text, agent.voice, agent.language, agent.speed)
        sound = self._phrases.get(key)
        if sound is None:
            try:
                async with asyncio.timeout(_PHRASE_S):
                    sound = await self._make(text, agent)
            except (AntiphonError, TimeoutError) as error:
                log.warning("a phrase is said in the carrier's voice: %s", error or "too slow")
                return verbs.say_in(text, agent.language)
            self._phrases[key] = sound
            if len(self._phrases) > _MAX_PHRASES:
                self._phrases.popitem(last=False)
        return self._on_shelf(sound, folder)

    async def _make(self, text: str, agent: Agent) -> bytes:
        call_id = f"phrase-{secrets.token_hex(4)}"
        work = Work(call_id, int(asyncio.get_running_loop().time() * 1000))
        request = SpeechRequest(text, agent.voice, agent.language, agent.speed)
        pieces, rate_hz = [np.empty(0, np.int16)], LINE_HZ
        try:
            async with aclosing(self._models.synthesize(request, work=work)) as chunks:
                async for chunk in chunks:
                    pieces.append(chunk.pcm)
                    rate_hz = chunk.rate_hz
        finally:
            await self._models.release(call_id)
        return await asyncio.to_thread(_encode, np.concatenate(pieces), rate_hz)

    def _on_shelf(self, sound: bytes, folder: str) -> str:
        return verbs.play(f"{folder}audio/{self._shelf.put(sound, CONTENT_TYPES[FORMAT], FORMAT)}")


def _encode(pcm: Pcm16, rate_hz: int) -> bytes:
    return encode_file(resample(pcm, rate_hz, LINE_HZ), LINE_HZ, FORMAT)
