"""Text to speech on a moshi-server, Kyutai's or `antiphon service tts`: text goes out, audio comes as it is made.

Source of the protocol: kyutai-labs/moshi (`rust/moshi-server`), written down in protocols/moshi/codec.py. Works on the
event loop and only waits there.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from urllib.parse import urlencode

import numpy as np
from pydantic import SecretStr
from websockets.exceptions import ConnectionClosed, WebSocketException

from antiphon.errors import ModelError
from antiphon.models.addresses import RETRY_S, Addresses
from antiphon.models.moshi_socket import MoshiSocket
from antiphon.models.ports import ModelInfo, Pcm16, SpeechRequest, WeightSource
from antiphon.models.registry import register_model
from antiphon.protocols.moshi import codec as moshi


@register_model("tts", "moshi-server")
class MoshiServerTts:
    """The `TextToSpeech` port on `/api/tts_streaming`. `voice`: a path in the server's repository; empty: its own.

    Some of Kyutai's voices are not for commercial use; see the licence of the voice.
    """

    parallel = 8

    def __init__(
        self,
        weights: WeightSource | None = None,
        *,
        base_url: str = "ws://localhost:8089",
        key: str | SecretStr = "public_token",
        voice: str = "",
        connect_s: float = 2.0,
        timeout_s: float = 10.0,
        retry_s: float = RETRY_S,
    ) -> None:
        del weights  # they are the server's
        self.sample_rate_hz = moshi.RATE_HZ
        self._addresses, self._voice = Addresses(base_url), voice
        self._key = key if isinstance(key, SecretStr) else SecretStr(key)
        self._limits = (connect_s, timeout_s)
        self._retry_s = retry_s
        self.info = ModelInfo(
            "moshi-server",
            detail=self._addresses.where,
            languages=("en", "fr"),
            licence="some voices are not for commercial use",
        )

    async def load(self) -> None:
        """See whether a slot can be had. Raises ModelError."""
        async with self._socket(SpeechRequest("")).open():
            pass

    async def close(self) -> None:
        """Nothing is kept."""

    async def synthesize(self, request: SpeechRequest) -> AsyncIterator[Pcm16]:
        """int16 [n] at 24 kHz. Closing it closes the socket. Raises ModelError."""
        if not any(character.isalnum() for character in request.text):
            return
        client = self._socket(request)
        try:
            async with client.open(self._retry_s) as socket:
                await socket.send(moshi.encode(moshi.Text(request.text)))
                await socket.send(moshi.encode(moshi.Eos()))
                while True:
                    match await client.receive(socket):
                        case moshi.Audio(pcm=pcm) if pcm.size:
                            yield np.rint(pcm * 32767.0).astype(np.int16)
                        case moshi.Error(message=message):
                            raise ModelError(f"moshi-server at {client.where}: {message}")
        except ConnectionClosed as closed:
            if closed.rcvd is None or closed.rcvd.code not in (1000, 1001, 1005):
                raise ModelError(f"moshi-server at {client.where} broke off") from closed
            return  # its way of saying that this was all
        except (OSError, WebSocketException) as error:
            raise ModelError(f"moshi-server at {client.where} broke off: {error}") from error

    def _socket(self, request: SpeechRequest) -> MoshiSocket:
        """Pace and language are additions of ours: Kyutai's server ignores what it does not know."""
        asked = {"format": "PcmMessagePack", "voice": request.voice or self._voice}
        asked["language"] = request.language
        asked["speed"] = f"{request.speed:g}" if request.speed != 1.0 else ""
        query = urlencode({name: value for name, value in asked.items() if value})
        path = f"/api/tts_streaming?{query}"
        return MoshiSocket(self._addresses, path, self._key, *self._limits)
