"""Text to speech behind an endpoint of OpenAI's form, `/v1/audio/speech`: OpenAI, Kokoro-FastAPI, LocalAI, Antiphon.

Works on the event loop and only waits there.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping

from pydantic import SecretStr

from antiphon.audio.framing import ByteJoiner
from antiphon.models.endpoint import OPENAI_URL, Endpoint
from antiphon.models.ports import ModelInfo, Pcm16, SpeechRequest, WeightSource
from antiphon.models.registry import register_model

_RATE_HZ = 24_000
"""Of the format `pcm`, by the protocol."""
_CHUNK_BYTES = 4_800
_SPEED_LIMITS = (0.25, 4.0)


@register_model("tts", "openai")
class OpenAISpeech:
    """The `TextToSpeech` port on a speech endpoint. Audio is passed on as it comes.

    `base_url`: one address or several, separated by commas. `voices`: those that may be asked for, if known.
    `extra_headers`: of each request, for instance for a gateway before the server.
    """

    parallel = 16

    def __init__(
        self,
        weights: WeightSource | None = None,
        *,
        base_url: str = OPENAI_URL,
        model: str = "tts-1",
        voice: str = "alloy",
        voices: tuple[str, ...] = (),
        api_key: str | SecretStr = "",
        timeout_s: float = 20.0,
        extra_headers: Mapping[str, str] | None = None,
    ) -> None:
        del weights  # they are the server's
        self.sample_rate_hz = _RATE_HZ
        self._endpoint = Endpoint(base_url, api_key, timeout_s=timeout_s, headers=extra_headers)
        self._model, self._voice = model, voice
        self.info = ModelInfo("openai", f"{model} at {self._endpoint.where}", voices=tuple(voices))

    async def load(self) -> None:
        """Open the connection. Raises ModelError when nobody answers."""
        await self._endpoint.open()

    async def close(self) -> None:
        await self._endpoint.close()

    async def synthesize(self, request: SpeechRequest) -> AsyncIterator[Pcm16]:
        """int16 [n] at 24 kHz. Closing it closes the HTTP stream. Raises ModelError."""
        if not any(character.isalnum() for character in request.text):
            return
        slowest, fastest = _SPEED_LIMITS
        try:
            async with contextlib.AsyncExitStack() as stack:
                response = await self._endpoint.ask(
                    lambda client: stack.enter_async_context(
                        client.audio.speech.with_streaming_response.create(
                            model=self._model,
                            voice=request.voice or self._voice,
                            input=request.text,
                            response_format="pcm",
                            speed=min(max(request.speed, slowest), fastest),
                        )
                    )
                )
                joiner = ByteJoiner(
                    "s16le"
                )  # the network cuts where it likes, also within a sample
                async for piece in response.iter_bytes(_CHUNK_BYTES):
                    if len(pcm := joiner.feed(piece)):
                        yield pcm
        except Exception as error:
            raise self._endpoint.explained(error, self._model) from error
