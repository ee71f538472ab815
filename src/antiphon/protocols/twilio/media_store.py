"""Sound files that are fetched once or twice and then forgotten, and the TwiML that plays them.

An address holds a name, the time at which it ends, and an HMAC-SHA256 over both, so that it opens one file for a short
while. The secret is made at start: addresses do not outlive the process, and neither do the files.

Fixed phrases are made once. Without text to speech the phrase is said in a voice of the carrier's: the call goes on.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass

import numpy as np

from antiphon.audio.encoding import CONTENT_TYPES, encode_file
from antiphon.audio.resample import resample
from antiphon.call.model_tasks import Agent
from antiphon.errors import AntiphonError
from antiphon.models.model_set import ModelSet, Work
from antiphon.models.ports import Pcm16, SpeechRequest
from antiphon.protocols.twilio import twiml

KEEP_S = 600.0
MAX_BYTES = 64 << 20
"""Of all files together; the oldest give way."""


@dataclass(frozen=True, slots=True)
class Sound:
    data: bytes
    content_type: str
    ends_s: float


class MediaStore:
    def __init__(
        self,
        *,
        max_bytes: int = MAX_BYTES,
        keep_s: float = KEEP_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._secret = secrets.token_bytes(32)
        self._max_bytes = max_bytes
        self._keep_s = keep_s
        self._clock = clock
        self._sounds: OrderedDict[str, Sound] = OrderedDict()
        self._size_bytes = 0

    def put(self, data: bytes, content_type: str, extension: str) -> str:
        """-> `name.wav?expires=...&signature=...`"""
        name = f"{secrets.token_urlsafe(16)}.{extension}"
        ends_s = self._clock() + self._keep_s
        self._sounds[name] = Sound(data, content_type, ends_s)
        self._size_bytes += len(data)
        self._make_room()
        expires = int(ends_s)
        return f"{name}?expires={expires}&signature={self._sign(name, str(expires))}"

    def get(self, name: str, expires: str, signature: str) -> Sound | None:
        """None: it is gone, or its time is over. Raises PermissionError for an address that was not given out."""
        right = self._sign(name, expires)
        if not hmac.compare_digest(right.encode(), signature.encode("utf-8", "replace")):
            raise PermissionError(name)
        sound = self._sounds.get(name)
        return sound if sound is not None and self._clock() < int(expires) else None

    def _sign(self, name: str, expires: str) -> str:
        text = f"{name}\n{expires}".encode("utf-8", "replace")
        return hmac.new(self._secret, text, hashlib.sha256).hexdigest()

    def _make_room(self) -> None:
        """The file that has just come stays, whatever its size."""
        now_s = self._clock()
        while len(self._sounds) > 1:
            name, oldest = next(iter(self._sounds.items()))
            if self._size_bytes <= self._max_bytes and oldest.ends_s > now_s:
                break
            del self._sounds[name]
            self._size_bytes -= len(oldest.data)


log = logging.getLogger(__name__)

LINE_HZ = 8_000
"""There is nothing to hear above 4 kHz on a telephone line."""
FORMAT = "wav"
"""Ready without an encoder's delay, and 16 kB a second are nothing to a carrier."""
_PHRASE_S = 6.0
_MAX_PHRASES = 32


class PlayVerbs:
    """`folder` of each method: of the address, as seen from the document that the verb is in (`voice/`, or empty)."""

    def __init__(self, models: ModelSet, media_store: MediaStore) -> None:
        self._models = models
        self._shelf = media_store
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
                return twiml.say_in(text, agent.language)
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
        return twiml.play(f"{folder}audio/{self._shelf.put(sound, CONTENT_TYPES[FORMAT], FORMAT)}")


def _encode(pcm: Pcm16, rate_hz: int) -> bytes:
    return encode_file(resample(pcm, rate_hz, LINE_HZ), LINE_HZ, FORMAT)
