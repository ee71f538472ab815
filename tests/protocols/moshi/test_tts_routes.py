"""`/api/tts_streaming`, message by message."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest
from tests.protocols.services_support import Service, moshi_client, service
from tests.support import run, until
from websockets.exceptions import ConnectionClosed, InvalidStatus

from antiphon.audio.containers import decode_file
from antiphon.models.ports import Kind
from antiphon.protocols.moshi import codec
from antiphon.server.voice_cloning import tensors

PATH = "/api/tts_streaming"
PACKED = f"{PATH}?format=PcmMessagePack"
VOICES = {"models__options__tts__scripted": {"word_ms": 100, "voices": ["ann", "ben"]}}


def _audio(messages: list[codec.Message]) -> Any:
    return np.concatenate([m.pcm for m in messages if isinstance(m, codec.Audio)])


def test_text_becomes_frames_and_words_with_times(tmp_path: Path) -> None:
    async def check() -> None:
        async with (
            service(tmp_path, Kind.TTS) as served,
            moshi_client(served.ws + PACKED) as client,
        ):
            assert await client.receive() == codec.Ready()
            await client.send(*(codec.Text(word) for word in "one two three four five.".split()))
            await client.socket.send("six")  # a text frame is text as well
            await client.send(codec.Eos())
            found = await client.rest()
            assert client.socket.close_code == 1000
            sizes = {m.pcm.size for m in found if isinstance(m, codec.Audio)}
            assert sizes == {codec.FRAME_SAMPLES}
            assert 0.6 * codec.RATE_HZ <= _audio(found).size < 0.7 * codec.RATE_HZ
            words = [m for m in found if isinstance(m, codec.Text)]
            assert [w.text for w in words] == "one two three four five. six".split()
            edges = [edge for w in words for edge in (w.start_s, w.stop_s)]
            assert edges == sorted(edges)
            assert edges[-1] == pytest.approx(0.6, abs=0.02)
            await until(lambda: len(served.streams) == 0)

    run(check())


def test_speech_begins_before_the_text_ends(tmp_path: Path) -> None:
    async def check() -> None:
        async with (
            service(tmp_path, Kind.TTS) as served,
            moshi_client(served.ws + PACKED) as client,
        ):
            await client.until(codec.Ready)
            await client.send(codec.Text("It is noon. And then"))
            await client.until(codec.Audio)

    run(check())


@pytest.mark.parametrize("name", ["Pcm", "OggOpus", "OggOpusMessagePack"])
def test_other_formats(name: str, tmp_path: Path) -> None:
    async def check() -> None:
        async with (
            service(tmp_path, Kind.TTS) as served,
            moshi_client(f"{served.ws}{PATH}?format={name}&seed=42&cfg_alpha=1.5") as client,
        ):
            if name.endswith("MessagePack"):
                assert await client.receive() == codec.Ready()
            await client.socket.send("one two three")
            await client.socket.send(b"\0")  # the older end of text
            data = b""
            try:
                while True:
                    frame = await client.socket.recv()
                    assert isinstance(frame, bytes)
                    if name.endswith("MessagePack"):
                        message = codec.decode(frame)
                        frame = message.data if isinstance(message, codec.OggOpus) else b""
                    data += frame
            except ConnectionClosed:
                pass
            if name == "Pcm":
                seconds = len(data) / 4 / codec.RATE_HZ
                assert len(data) % (4 * codec.FRAME_SAMPLES) == 0
            else:
                assert data.startswith(b"OggS")
                seconds = decode_file(data).duration_s
            assert seconds == pytest.approx(0.32, abs=0.1)

    run(check())


def test_an_end_without_text_closes_at_once(tmp_path: Path) -> None:
    async def check() -> None:
        async with (
            service(tmp_path, Kind.TTS) as served,
            moshi_client(served.ws + PACKED) as client,
        ):
            await client.send(codec.Eos())
            assert await client.rest() == [codec.Ready()]

    run(check())


def test_voices_by_name_and_by_numbers(tmp_path: Path) -> None:
    numbers = tuple(tensors("ben")["speaker_embedding"])
    ways: list[tuple[str, list[codec.Message], str]] = [
        ("&voice=ann", [], "ann"),
        ("&voice=expresso%2Fex03-ex01_happy_001_channel1_334s.wav", [], ""),
        ("", [codec.Voice(numbers, (1, 512))], "ben"),
        ("", [codec.Voice((0.5,) * 512, (512,))], ""),
    ]

    async def check() -> None:
        async with service(tmp_path, Kind.TTS, **VOICES) as served:
            for number, (query, before, expected) in enumerate(ways):
                async with moshi_client(served.ws + PACKED + query) as client:
                    await client.send(*before, codec.Text(f"hello {number}"), codec.Eos())
                    await client.rest()
                assert served.backend(Kind.TTS).requests[-1].voice == expected

    run(check())


def test_at_capacity(tmp_path: Path) -> None:
    """The packed formats say why, the others just close; the place is free again when its holder goes."""

    async def check() -> None:
        async with service(tmp_path, Kind.TTS, server__max_calls=1) as served:
            async with moshi_client(served.ws + PACKED) as first:
                await first.until(codec.Ready)
                async with moshi_client(served.ws + PACKED) as second:
                    assert await second.rest() == [codec.Error("no free channels")]
                async with moshi_client(served.ws + PATH) as third:
                    assert await third.rest() == []
            await until(lambda: len(served.streams) == 0)
            async with moshi_client(served.ws + PACKED) as fourth:
                await fourth.until(codec.Ready)

    run(check())


def test_what_is_no_message(tmp_path: Path) -> None:
    async def check() -> None:
        async with service(tmp_path, Kind.TTS) as served:
            async with moshi_client(served.ws + PACKED) as client:
                await client.until(codec.Ready)
                await client.socket.send(b"nonsense")
                (error,) = await client.rest()
                assert isinstance(error, codec.Error)
            async with moshi_client(served.ws + PATH + "?format=MessagePack") as client:
                (error,) = await client.rest()
                assert isinstance(error, codec.Error)
                assert "PcmMessagePack" in error.message
            await until(lambda: len(served.streams) == 0)

    run(check())


def test_leaving_in_mid_speech_frees_the_place(tmp_path: Path) -> None:
    async def check() -> None:
        slow = {"word_ms": 100, "piece_delay_ms": 20}
        async with service(tmp_path, Kind.TTS, models__options__tts__scripted=slow) as served:
            async with moshi_client(served.ws + PACKED) as client:
                await client.send(codec.Text("word " * 200), codec.Eos())
                await client.until(codec.Audio)
            await until(lambda: len(served.streams) == 0)

    run(check())


def test_the_post_form(tmp_path: Path) -> None:
    async def check() -> None:
        async with service(tmp_path, Kind.TTS) as served:
            answer = await served.http.post(PATH, json={"text": "one two", "voice": "x"})
            assert answer.headers["content-type"] == "audio/wav"
            assert answer.content[4:8] == b"\xff\xff\xff\xff"
            assert decode_file(answer.content).duration_s == pytest.approx(0.2, abs=0.02)
            assert (await served.http.post(PATH, content=b"{")).status_code == 400

    run(check())


@pytest.mark.parametrize("way", ["header", "query", "bearer"])
def test_the_token(way: str, tmp_path: Path) -> None:
    async def check() -> None:
        async with service(tmp_path, Kind.TTS, security__api_key="secret-token") as served:
            with pytest.raises(InvalidStatus) as refused:
                async with moshi_client(served.ws + PACKED):
                    pass
            assert refused.value.response.status_code == 401
            headers = {"header": "kyutai-api-key", "bearer": "Authorization"}
            token = "secret-token" if way != "bearer" else "Bearer secret-token"
            query = "&auth_id=secret-token" if way == "query" else ""
            more = {} if way == "query" else {headers[way]: token}
            async with moshi_client(served.ws + PACKED + query, additional_headers=more) as client:
                await client.until(codec.Ready)

    run(check())


def test_what_it_says_of_itself(tmp_path: Path) -> None:
    async def check(served: Service, http: httpx.AsyncClient) -> None:
        assert (await http.get("/api/build_info")).json()["name"] == "antiphon"
        (module,) = (await http.get("/api/modules_info")).json()
        assert (module["path"], module["used_slots"], module["total_slots"]) == (PATH, "0", "32")
        assert (await http.post("/api/voice", content=b"x")).status_code == 501

    async def serve() -> None:
        async with service(tmp_path, Kind.TTS) as served:
            await check(served, served.http)

    run(serve())


def test_a_learned_voice_travels_as_numbers(tmp_path: Path) -> None:
    from tests.protocols.xtts.test_server import CLIP

    async def check() -> None:
        async with service(tmp_path, Kind.TTS, models__tts="test-learns") as served:
            answer = await served.http.post("/api/voice", content=CLIP)
            voice = msgspec.msgpack.decode(answer.content)
            assert voice["type"] == "Voice"
            async with moshi_client(served.ws + PACKED) as client:
                await client.socket.send(answer.content)
                await client.send(codec.Text("hello"), codec.Eos())
                await client.rest()
            assert served.backend(Kind.TTS).requests[-1].voice.startswith("clip-")

    run(check())
