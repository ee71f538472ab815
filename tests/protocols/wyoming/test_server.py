"""Wyoming, with the `wyoming` package as the client, as Home Assistant uses it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.protocols.services_support import Service, service
from tests.support import run, say
from wyoming.asr import Transcribe, Transcript, TranscriptChunk
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncTcpClient
from wyoming.event import Event
from wyoming.info import Describe, Info
from wyoming.ping import Ping, Pong
from wyoming.tts import (
    Synthesize,
    SynthesizeChunk,
    SynthesizeStart,
    SynthesizeStop,
    SynthesizeStopped,
    SynthesizeVoice,
)

from antiphon.config import load
from antiphon.errors import ConfigError
from antiphon.models.ports import Kind
from antiphon.protocols.wyoming.server import check_peers


@contextlib.asynccontextmanager
async def connected(
    folder: Path, kind: Kind, **overrides: Any
) -> AsyncIterator[tuple[Service, AsyncTcpClient]]:
    # Whichever port is free: 0 in the settings means that there is none.
    async with service(folder, kind, server__wyoming_port=_free_port(), **overrides) as served:
        port = served.app.state.wyoming_port
        client = AsyncTcpClient("127.0.0.1", port)
        await client.connect()
        try:
            yield served, client
        finally:
            await client.disconnect()


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def _next(client: AsyncTcpClient) -> Event:
    async with asyncio.timeout(10):
        event = await client.read_event()
    assert event is not None
    return event


async def _until(client: AsyncTcpClient, kind: Any) -> list[Event]:
    found = [await _next(client)]
    while not kind.is_type(found[-1].type):
        found.append(await _next(client))
    return found


async def _hear(client: AsyncTcpClient, rate_hz: int = 16_000, channels: int = 1) -> list[Event]:
    pcm = say(440, 640, silence_ms=400, rate_hz=rate_hz).repeat(channels).tobytes()
    await client.write_event(Transcribe(language="en").event())
    await client.write_event(AudioStart(rate_hz, 2, channels).event())
    for start in range(0, len(pcm), 2_048):
        chunk = pcm[start : start + 2_048]
        await client.write_event(AudioChunk(rate_hz, 2, channels, chunk).event())
    await client.write_event(AudioStop().event())
    return await _until(client, Transcript)


def _audio(events: list[Event]) -> bytes:
    return b"".join(AudioChunk.from_event(e).audio for e in events if AudioChunk.is_type(e.type))


def test_speech_to_text(tmp_path: Path) -> None:
    async def check() -> None:
        async with connected(tmp_path, Kind.STT) as (_, client):
            await client.write_event(Describe().event())
            info = Info.from_event(await _next(client))
            (program,) = info.asr
            assert program.installed
            assert program.models[0].languages
            for rate_hz, channels in ((16_000, 1), (48_000, 2)):
                events = await _hear(client, rate_hz, channels)
                chunks = [e for e in events if TranscriptChunk.is_type(e.type)]
                assert Transcript.from_event(events[-1]).text == "what time is it"
                assert TranscriptChunk.from_event(chunks[0]).text == "what time is it"
                assert (await _next(client)).type == "transcript-stop"

    run(check())


def test_what_nobody_knows_is_ignored(tmp_path: Path) -> None:
    async def check() -> None:
        async with connected(tmp_path, Kind.STT) as (_, client):
            await client.write_event(Event("select-program", {"name": "x"}))
            await client.write_event(Ping("hello").event())
            assert Pong.from_event(await _next(client)).text == "hello"
            await client.write_event(AudioChunk(16_000, 4, 1, b"1234").event())
            assert (await _next(client)).type == "error"
            assert Transcript.from_event((await _hear(client))[-1]).text == "what time is it"

    run(check())


def test_text_to_speech(tmp_path: Path) -> None:
    voices = {"models__options__tts__scripted": {"word_ms": 100, "voices": ["ann", "ben"]}}

    async def check() -> None:
        async with connected(tmp_path, Kind.TTS, **voices) as (served, client):
            await client.write_event(Describe().event())
            (program,) = Info.from_event(await _next(client)).tts
            assert [voice.name for voice in program.voices] == ["ann", "ben"]
            assert program.supports_synthesize_streaming
            ask = Synthesize("one two three", voice=SynthesizeVoice(name="ben"))
            await client.write_event(ask.event())
            events = await _until(client, AudioStop)
            assert AudioStart.from_event(events[0]).rate == 24_000
            assert len(_audio(events)) / 48_000 == pytest.approx(0.3, abs=0.01)
            assert served.backend(Kind.TTS).requests[-1].voice == "ben"

    run(check())


def test_text_in_pieces_is_said_once(tmp_path: Path) -> None:
    async def check() -> None:
        async with connected(tmp_path, Kind.TTS) as (_, client):
            await client.write_event(SynthesizeStart().event())
            for piece in ("one t", "wo. Three", " four"):
                await client.write_event(SynthesizeChunk(piece).event())
            # Home Assistant repeats the whole text for servers that know no pieces.
            await client.write_event(Synthesize("one two. Three four").event())
            await client.write_event(SynthesizeStop().event())
            events = await _until(client, SynthesizeStopped)
            assert sum(AudioStart.is_type(e.type) for e in events) == 1
            assert len(_audio(events)) / 48_000 == pytest.approx(0.4, abs=0.01)

    run(check())


def test_a_model_that_fails_is_an_error(tmp_path: Path) -> None:
    async def check() -> None:
        broken = {"models__options__tts__scripted": {"fail_always": True}}
        async with connected(tmp_path, Kind.TTS, **broken) as (_, client):
            await client.write_event(Synthesize("hello").event())
            events = [await _next(client) for _ in range(2)]
            assert events[-1].type == "error"
            await client.write_event(Ping().event())
            assert (await _next(client)).type == "pong"

    run(check())


@pytest.mark.parametrize("data", [b"nonsense\n", b'{"type": 1}\n', b"x" * 100_000])
def test_other_protocols(data: bytes, tmp_path: Path) -> None:
    async def check() -> None:
        async with connected(tmp_path, Kind.STT) as (served, _):
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", served.app.state.wyoming_port
            )
            writer.write(data)
            async with asyncio.timeout(10):
                assert b'"error"' in await reader.read()
            writer.close()

    run(check())


def test_who_may_come(tmp_path: Path) -> None:
    for wrong, text in (
        ({"server.wyoming_host": "0.0.0.0", "server.wyoming_port": 1}, "list your Home Assistant"),
        ({"server.wyoming_peers": "home"}, "no address"),
    ):
        with pytest.raises(ConfigError, match=text):
            check_peers(load(wrong, folder=tmp_path).server)
