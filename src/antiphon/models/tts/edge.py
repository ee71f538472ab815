"""Microsoft Edge's read-aloud voices through `edge-tts`: free, natural, and not on the owner's machine.

What is said goes to a foreign service; a fallback for owners who accept that. Works on the event loop and only waits
there.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import av
import numpy as np

from antiphon.errors import ModelError
from antiphon.models.ports import ModelInfo, Pcm16, SpeechRequest, WeightSource
from antiphon.models.registry import register_model

_RATE_HZ = 24_000
_FIRST_BYTE_S = 10.0


@register_model("tts", "edge-tts")
class EdgeTts:
    """The `TextToSpeech` port on the service's MP3 stream, decoded as it comes."""

    parallel = 4

    def __init__(
        self,
        weights: WeightSource | None = None,
        *,
        voice: str = "en-US-AriaNeural",
        timeout_s: float = _FIRST_BYTE_S,
    ) -> None:
        del weights  # they are the service's
        self.info = ModelInfo(
            "edge-tts",
            detail=f"{voice}, a service of Microsoft: what is said leaves this machine",
        )
        self.sample_rate_hz = _RATE_HZ
        self._voice, self._timeout_s = voice, timeout_s

    async def load(self) -> None:
        """See whether the library is there and the service answers. Raises ModelError."""
        try:
            import edge_tts
        except ImportError as error:
            raise ModelError(
                f"edge-tts is not installed: pip install 'antiphon[edge-tts]' ({error})"
            ) from error
        try:
            async with asyncio.timeout(self._timeout_s):
                voices = await edge_tts.list_voices()
        except Exception as error:
            raise ModelError(
                f"the service of edge-tts cannot be reached: {error or type(error).__name__}"
            ) from error
        names = tuple(voice["ShortName"] for voice in voices)
        languages = tuple(sorted({voice["Locale"].partition("-")[0] for voice in voices}))
        self.info = ModelInfo("edge-tts", self.info.detail, languages=languages, voices=names)

    async def close(self) -> None:
        """Nothing is kept."""

    async def synthesize(self, request: SpeechRequest) -> AsyncIterator[Pcm16]:
        """int16 [n] at 24 kHz as the service sends it. Raises ModelError."""
        if not any(character.isalnum() for character in request.text):
            return
        import edge_tts

        speaker = edge_tts.Communicate(
            request.text,
            request.voice or self._voice,
            rate=f"{round(request.speed * 100) - 100:+d}%",
        )
        decoder = Mp3Decoder()
        try:
            stream = speaker.stream()
            while True:
                async with asyncio.timeout(self._timeout_s):
                    piece = await anext(stream, None)
                if piece is None:
                    break
                if piece["type"] == "audio" and len(pcm := decoder.feed(piece["data"])):
                    yield pcm
        except Exception as error:
            raise ModelError(f"edge-tts: {error or type(error).__name__}") from error
        if len(pcm := decoder.feed(b"")):
            yield pcm


class Mp3Decoder:
    """Bytes of an MP3 stream, cut anywhere -> int16 [n] at 24 kHz, mono."""

    def __init__(self) -> None:
        self._codec = av.CodecContext.create("mp3", "r")
        self._resampler = av.AudioResampler("s16", "mono", _RATE_HZ)

    def feed(self, data: bytes) -> Pcm16:
        """Empty `data`: there is no more."""
        packets = self._codec.parse(data)
        frames = [frame for packet in packets for frame in self._codec.decode(packet)]
        if not data:
            frames += self._codec.decode(None)
        pieces = [
            out.to_ndarray()[0] for frame in frames for out in self._resampler.resample(frame)
        ]
        return np.concatenate(pieces) if pieces else np.zeros(0, np.int16)
