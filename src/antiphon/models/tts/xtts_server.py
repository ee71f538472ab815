"""Text to speech on another machine by the API of coqui's xtts-streaming-server, as `antiphon service tts` has it.

Source of the protocol: coqui-ai/xtts-streaming-server. A voice is a pair of tensors that the server gives out and gets
back with every request. Works on the event loop and only waits there.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx
from pydantic import SecretStr

from antiphon.audio.framing import ByteJoiner
from antiphon.errors import ModelError, RequestError, suggest
from antiphon.models.addresses import RETRY_S, Addresses
from antiphon.models.ports import ModelInfo, Pcm16, SpeechRequest, WeightSource
from antiphon.models.registry import register_model

_RATE_HZ = 24_000
_CHUNK_BYTES = 4_800
_KEEP_S = 60.0
"""An idle connection is kept for so long: callers think between their questions."""
_SHORT_CODES = {"zh": "zh-cn"}

_NOT_NOW = (429, 502, 503, 504)
log = logging.getLogger(__name__)
_OF_THE_REQUEST = (400, 413, 422)
"""Answers that blame what was asked."""
_OURS = (401, 403, 404)
"""Answers that asking again, or elsewhere, will not change."""


@register_model("tts", "xtts-server")
class XttsServer:
    """The `TextToSpeech` port on `/tts_stream`. Audio is passed on as it comes.

    `base_url`: one address or several, separated by commas. `voice`: a studio speaker; empty: the first.
    """

    parallel = 8

    def __init__(
        self,
        weights: WeightSource | None = None,
        *,
        base_url: str = "http://localhost:8001",
        voice: str = "",
        language: str = "en",
        token: str | SecretStr = "",
        timeout_s: float = 20.0,
        retry_s: float = RETRY_S,
    ) -> None:
        del weights  # they are the server's
        self.sample_rate_hz = _RATE_HZ
        self._addresses = Addresses(base_url)
        self._voice, self._language = voice, language
        self._timeout_s, self._retry_s = timeout_s, retry_s
        self._token = token if isinstance(token, SecretStr) else SecretStr(token)
        self._client: httpx.AsyncClient | None = None
        self._speakers: dict[str, Mapping[str, Any]] = {}
        self.info = ModelInfo("xtts-server", detail=self._addresses.where)

    async def load(self) -> None:
        """Open the connection and fetch the voices. Raises ModelError with what to do."""
        token = self._token.get_secret_value()
        self._client = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {token}"} if token else {},
            timeout=httpx.Timeout(self._timeout_s, connect=5.0),
            limits=httpx.Limits(keepalive_expiry=_KEEP_S),
        )
        try:
            self._speakers = await self._get("/studio_speakers")
            languages = tuple(str(code).partition("-")[0] for code in await self._get("/languages"))
        except ModelError:
            await self.close()
            raise
        if not self._speakers:
            await self.close()
            raise ModelError(f"{self._addresses.where} has no studio speakers: it has no voice")
        self._voice = self._voice or next(iter(self._speakers))
        self.info = ModelInfo(
            "xtts-server",
            f"{self._voice} at {self._addresses.where}",
            languages=languages,
            voices=tuple(self._speakers),
        )

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def synthesize(self, request: SpeechRequest) -> AsyncIterator[Pcm16]:
        """int16 [n] at 24 kHz. Closing it closes the HTTP stream. Raises ModelError."""
        if not any(character.isalnum() for character in request.text):
            return
        voice = request.voice or self._voice
        if voice not in self._speakers:
            raise RequestError(
                f"the XTTS server has no voice {voice!r}{suggest(voice, self._speakers)}"
            )
        language = request.language or self._language
        body = {
            **self._speakers[voice],
            "text": request.text,
            "language": _SHORT_CODES.get(language, language),
            "add_wav_header": False,
            "stream_chunk_size": "20",
            "speed": request.speed,
        }
        async with contextlib.AsyncExitStack() as stack:
            response = await self._open(stack, body)
            joiner = ByteJoiner("s16le")  # the network cuts where it likes, also within a sample
            try:
                async for piece in response.aiter_bytes(_CHUNK_BYTES):
                    if len(pcm := joiner.feed(piece)):
                        yield pcm
            except httpx.HTTPError as error:
                raise ModelError(
                    f"the speech of {self._addresses.where} broke off: {_said(error)}"
                ) from error

    async def _open(
        self, stack: contextlib.AsyncExitStack, body: Mapping[str, Any]
    ) -> httpx.Response:
        """At the first address that serves."""
        if self._client is None:
            raise ModelError("the XTTS server is not loaded; call load() first")
        problem = ""
        async for at in self._addresses.tries(self._retry_s):
            url = f"{self._addresses.urls[at]}/tts_stream"
            try:
                response = await stack.enter_async_context(
                    self._client.stream("POST", url, json=body)
                )
            except httpx.HTTPError as error:
                problem = f"cannot be reached: {_said(error)}"
                gone = not isinstance(error, httpx.ReadTimeout)
            else:
                if response.status_code == httpx.codes.OK:
                    self._addresses.served(at)
                    return response
                said = (await response.aread())[:200].decode(errors="replace")
                problem = f"answered {response.status_code}: {' '.join(said.split())}"
                await response.aclose()
                if response.status_code in _OF_THE_REQUEST:
                    log.warning("the XTTS server %s %s", self._addresses.where, problem)
                    raise RequestError(
                        "the XTTS server refuses this text; the server's log says why"
                    )
                if response.status_code in _OURS:
                    break
                gone = response.status_code in _NOT_NOW
            self._addresses.failed(at, gone=gone)
        raise ModelError(f"the XTTS server {self._addresses.where} {problem}")

    async def _get(self, path: str) -> Any:
        assert self._client is not None
        problem = ""
        for at in self._addresses.in_turn():
            try:
                response = await self._client.get(self._addresses.urls[at] + path)
                response.raise_for_status()
                return response.json()
            except (httpx.HTTPError, ValueError) as error:
                self._addresses.failed(at)
                problem = _said(error)
        raise ModelError(
            f"the XTTS server {self._addresses.where} cannot be used: {problem}; start it there, "
            "or set the option base_url"
        )


def _said(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
