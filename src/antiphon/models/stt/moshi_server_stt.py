"""Speech to text on a moshi-server, Kyutai's or `antiphon service stt`: a turn goes in one burst, words come back.

Source of the protocol: kyutai-labs/moshi (`rust/moshi-server`), written down in protocols/moshi/codec.py. Works on the
event loop and only waits there.
"""

from __future__ import annotations

import asyncio
import math

import numpy as np
from pydantic import SecretStr
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import WebSocketException

from antiphon.audio.resample import resample
from antiphon.errors import ModelError
from antiphon.models.addresses import RETRY_S, Addresses
from antiphon.models.moshi_socket import MoshiSocket
from antiphon.models.ports import STT_RATE_HZ, ModelInfo, Pcm16, Transcript, WeightSource
from antiphon.models.registry import register_model
from antiphon.models.stt.silence import is_silent
from antiphon.protocols.moshi import codec as moshi

_MARKER = 1


@register_model("stt", "moshi-server")
class MoshiServerStt:
    """The `SpeechToText` port on `/api/asr-streaming`.

    `delay_s`: by how much the server's model lags; so much silence is sent after the speech (0.5 for the 1B model, 2.5
    for the 2.6B one).
    """

    parallel = 8

    def __init__(
        self,
        weights: WeightSource | None = None,
        *,
        base_url: str = "ws://localhost:8090",
        key: str | SecretStr = "public_token",
        languages: tuple[str, ...] = ("en", "fr"),
        delay_s: float = 2.5,
        connect_s: float = 2.0,
        timeout_s: float = 10.0,
        retry_s: float = RETRY_S,
    ) -> None:
        del weights  # they are the server's
        secret = key if isinstance(key, SecretStr) else SecretStr(key)
        self._socket = MoshiSocket(
            Addresses(base_url), "/api/asr-streaming", secret, connect_s, timeout_s
        )
        self._frames_after = math.ceil(delay_s / moshi.FRAME_S) + 1
        self._languages = tuple(languages)
        self._retry_s = retry_s
        self.info = ModelInfo("moshi-server", detail=self._socket.where, languages=self._languages)

    async def load(self) -> None:
        """See whether a slot can be had. Raises ModelError."""
        async with self._socket.open():
            pass

    async def close(self) -> None:
        """Nothing is kept."""

    async def transcribe(
        self, audio: Pcm16, *, language: str | None = None, partial: bool = False
    ) -> Transcript:
        """int16 samples [n] at 16 kHz, any n -> text; silence is not sent. Raises ModelError."""
        if is_silent(audio):
            return Transcript("", language)
        samples = resample(audio, STT_RATE_HZ, moshi.RATE_HZ).astype(np.float32) / 32768.0
        try:
            async with self._socket.open(self._retry_s) as socket:
                sender = asyncio.ensure_future(self._send(socket, samples))
                try:
                    words = await self._words(socket)
                finally:
                    sender.cancel()
                    await asyncio.gather(sender, return_exceptions=True)
        except (OSError, WebSocketException) as error:
            raise ModelError(f"moshi-server at {self._socket.where} broke off: {error}") from error
        return Transcript(" ".join(words), language)

    async def _send(self, socket: ClientConnection, samples: moshi.Float32) -> None:
        for start in range(0, samples.size, moshi.FRAME_SAMPLES):
            frame = samples[start : start + moshi.FRAME_SAMPLES]
            padded = np.pad(frame, (0, moshi.FRAME_SAMPLES - frame.size))
            await socket.send(moshi.encode(moshi.Audio(padded)))
        await socket.send(moshi.encode(moshi.Marker(_MARKER)))
        silence = moshi.encode(moshi.Audio(np.zeros(moshi.FRAME_SAMPLES, np.float32)))
        for _ in range(self._frames_after):
            await socket.send(silence)

    async def _words(self, socket: ClientConnection) -> list[str]:
        words: list[str] = []
        while True:
            match await self._socket.receive(socket):
                case moshi.Word(text=text) if text.strip():
                    words.append(text.strip())
                case moshi.Marker(id=found) if found == _MARKER:
                    return words
                case moshi.Error(message=message):
                    raise ModelError(f"moshi-server at {self._socket.where}: {message}")
