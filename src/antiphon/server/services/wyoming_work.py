"""What a Wyoming service does with events: hear a request, or read a text out. Knows no socket.

Source of the flows: rhasspy/wyoming, and what Home Assistant sends.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import aclosing
from importlib.metadata import version
from typing import Any

import numpy as np

from antiphon.audio.framing import Pcm16, mix_to_mono, pcm_from_bytes, pcm_to_bytes
from antiphon.audio.resample import Resampler
from antiphon.core.text_segmenter import TextSegmenter
from antiphon.errors import AudioError, BusyError
from antiphon.models.pool import ModelSet
from antiphon.models.ports import STT_RATE_HZ, Kind
from antiphon.server.services.speaking import (
    RATE_HZ,
    Manner,
    Speaker,
    clauses,
    known_voice,
    voices_of,
)
from antiphon.server.services.streams import Streams
from antiphon.session.stretches import spoken
from antiphon.wire.wyoming import Event

Send = Callable[[Event], Awaitable[None]]

_FORMAT = {"rate": RATE_HZ, "width": 2, "channels": 1}
_MAX_CHARS = 20_000
_BY = {"name": "Antiphon", "url": "https://github.com/antiphon/antiphon"}


class Listener:
    """`transcribe`, `audio-start`, `audio-chunk`s, `audio-stop` -> `transcript`, as its parts are known."""

    def __init__(self, streams: Streams, send: Send) -> None:
        self._streams, self._send = streams, send
        self._language = ""
        self._pieces: list[Pcm16] = []
        self._samples = 0
        self._joiner: tuple[int, int, Resampler] | None = None

    async def take(self, event: Event) -> None:
        """Raises AudioError, BusyError, ModelError."""
        match event.type:
            case "transcribe":
                self._language = event.text("language")
            case "audio-start":
                self.close()
            case "audio-chunk":
                self._hear(event)
            case "audio-stop":
                await self._answer()

    def close(self) -> None:
        self._pieces, self._samples, self._joiner = [], 0, None

    def _hear(self, event: Event) -> None:
        rate_hz, channels = event.number("rate", STT_RATE_HZ), event.number("channels", 1)
        if event.number("width", 2) != 2 or not 1 <= channels <= 8 or rate_hz < 4_000:
            raise AudioError("audio must be 16-bit PCM of 4 kHz or more; set that in the client")
        if len(event.payload) % (2 * channels):
            raise AudioError("an audio-chunk must hold whole samples")
        if self._joiner is None or self._joiner[:2] != (rate_hz, channels):
            self._joiner = (rate_hz, channels, Resampler(rate_hz, STT_RATE_HZ))
        pcm = mix_to_mono(pcm_from_bytes(event.payload).reshape(-1, channels))
        pcm = self._joiner[2].process(pcm)
        self._samples += len(pcm)
        limit_s = self._streams.settings.server.max_file_s
        if self._samples > limit_s * STT_RATE_HZ:
            self.close()
            raise AudioError(f"the request is longer than {limit_s} s; speak shorter")
        self._pieces.append(pcm)

    async def _answer(self) -> None:
        if self._joiner is not None:
            self._pieces.append(self._joiner[2].flush())
        pcm = np.concatenate(self._pieces) if self._pieces else np.empty(0, np.int16)
        self.close()
        with self._streams.one("wyoming") as place:
            settings, said = self._streams.settings, ""
            found = spoken(
                self._streams.models,
                pcm,
                threshold=settings.conversation.speech_threshold,
                language=self._language or settings.agent.language,
                new_work=place.work,
            )
            told = {"language": self._language} if self._language else {}
            await self._send(Event("transcript-start", told))
            async with aclosing(found) as stretches:
                async for one in stretches:
                    piece = f" {one.text}" if said else one.text
                    said += piece
                    await self._send(Event("transcript-chunk", {"text": piece}))
        await self._send(Event("transcript", {"text": said, **told}))
        await self._send(Event("transcript-stop"))


class Reader:
    """`synthesize`, or a text in `synthesize-chunk`s -> `audio-start`, `audio-chunk`s, `audio-stop`."""

    def __init__(self, streams: Streams, send: Send) -> None:
        self._streams, self._send = streams, send
        self._cutter: TextSegmenter | None = None
        self._waiting: list[str] = []
        self._manner = Manner()
        self._chars = 0

    async def take(self, event: Event) -> None:
        """Raises BusyError, ModelError."""
        match event.type:
            case "synthesize" if (
                self._cutter is None
            ):  # else it repeats the chunks, for old servers
                text = event.text("text")
                self._limit(len(text))
                await self._read(self._cut(text), self._manner_of(event))
            case "synthesize-start":
                policy = self._streams.settings.conversation
                self._manner, self._waiting, self._chars = self._manner_of(event), [], 0
                self._cutter = TextSegmenter(first_words=0, max_chars=policy.max_segment_chars)
            case "synthesize-chunk" if self._cutter is not None:
                text = event.text("text")
                self._chars += len(text)
                self._limit(self._chars)
                self._waiting += self._cutter.feed(text)
            case "synthesize-stop" if self._cutter is not None:
                found, self._cutter = [*self._waiting, *self._cutter.flush()], None
                await self._read(found, self._manner)
                await self._send(Event("synthesize-stopped"))

    def close(self) -> None:
        self._cutter, self._waiting = None, []

    def _limit(self, chars: int) -> None:
        if chars > _MAX_CHARS:
            self.close()
            raise BusyError(f"the text is over {_MAX_CHARS} characters; cut it")

    def _cut(self, text: str) -> list[str]:
        return clauses(text, self._streams.settings.conversation.max_segment_chars)

    def _manner_of(self, event: Event) -> Manner:
        voice, agent = event.group("voice"), self._streams.settings.agent
        name, language = voice.get("name"), voice.get("language")
        code = language.partition("-")[0].partition("_")[0] if isinstance(language, str) else ""
        return Manner(
            known_voice(self._streams.models, str(name or ""), agent.voice),
            code.lower() or agent.language,
            agent.speed,
        )

    async def _read(self, found: list[str], manner: Manner) -> None:
        with self._streams.one("wyoming") as place:
            speaker = Speaker(self._streams.models, place.work(), manner)
            await self._send(Event("audio-start", _FORMAT))
            for clause in found:
                async with aclosing(speaker.say(clause)) as made:
                    async for pcm in made:
                        await self._send(Event("audio-chunk", _FORMAT, pcm_to_bytes(pcm)))
            if len(rest := speaker.rest()):
                await self._send(Event("audio-chunk", _FORMAT, pcm_to_bytes(rest)))
            await self._send(Event("audio-stop"))


def info(models: ModelSet, kind: Kind) -> Event:
    """Who we are and what we have. Home Assistant hides what has no languages."""
    model = models.info(kind)
    languages = list(model.languages) or ["en"]
    program: dict[str, Any] = {**_artifact("antiphon"), "description": f"Antiphon, {model.name}"}
    if kind is Kind.STT:
        program["models"] = [{**_artifact(model.name), "languages": languages}]
        program["supports_transcript_streaming"] = True
        return Event("info", {"asr": [program]})
    program["voices"] = [
        {**_artifact(voice), "languages": languages, "speakers": None}
        for voice in voices_of(models)
    ]
    program["supports_synthesize_streaming"] = True
    return Event("info", {"tts": [program]})


def _artifact(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "attribution": _BY,
        "installed": True,
        "description": name,
        "version": version("antiphon"),
    }
