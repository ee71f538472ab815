"""Speech to text behind an endpoint of OpenAI's form, `/v1/audio/transcriptions`.

Works on the event loop and only waits there.
"""

from __future__ import annotations

import io
import wave
from collections.abc import Mapping

from pydantic import SecretStr

from antiphon.models.endpoint import OPENAI_URL, Endpoint
from antiphon.models.ports import STT_RATE_HZ, ModelInfo, Pcm16, Transcript, WeightSource
from antiphon.models.registry import register_model
from antiphon.models.stt.silence import is_silent


@register_model("stt", "openai")
@register_model(
    "stt", "groq", base_url="https://api.groq.com/openai/v1", model="whisper-large-v3-turbo"
)
class OpenAITranscription:
    """The `SpeechToText` port on a transcription endpoint.

    `base_url`: one address or several, separated by commas. `partials`: transcribe while the caller speaks; every one
    is a request. `extra_headers`: of each request, for instance for a gateway before the server.
    """

    parallel = 16

    def __init__(
        self,
        weights: WeightSource | None = None,
        *,
        base_url: str = OPENAI_URL,
        model: str = "whisper-1",
        api_key: str | SecretStr = "",
        timeout_s: float = 15.0,
        partials: bool = False,
        extra_headers: Mapping[str, str] | None = None,
    ) -> None:
        del weights  # they are the server's
        self._endpoint = Endpoint(base_url, api_key, timeout_s=timeout_s, headers=extra_headers)
        self._model = model
        self.info = ModelInfo("openai", f"{model} at {self._endpoint.where}", partials=partials)

    async def load(self) -> None:
        """Open the connection. Raises ModelError when nobody answers."""
        await self._endpoint.open()

    async def close(self) -> None:
        await self._endpoint.close()

    async def transcribe(
        self, audio: Pcm16, *, language: str | None = None, partial: bool = False
    ) -> Transcript:
        """int16 samples [n] at 16 kHz, any n -> text; silence is not sent. Raises ModelError."""
        if is_silent(audio):
            return Transcript("", language)
        file = ("speech.wav", _wav(audio), "audio/wav")
        import openai

        try:
            heard = await self._endpoint.ask(
                lambda client: client.audio.transcriptions.create(
                    model=self._model,
                    file=file,
                    response_format="json",
                    language=language or openai.omit,
                )
            )
        except Exception as error:
            raise self._endpoint.explained(error, self._model) from error
        return Transcript(heard.text.strip(), language)


def _wav(audio: Pcm16) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(STT_RATE_HZ)
        file.writeframes(audio.astype("<i2").tobytes())
    return buffer.getvalue()
