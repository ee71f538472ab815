"""`/v1/audio/speech` with the official SDK, on scripted models."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from openai import OpenAI
from tests.protocols.openai_http.support import asked
from tests.support import PATIENCE_S, nothing_left, run, until

from antiphon.audio.containers import decode_file
from antiphon.models.ports import Kind
from antiphon.models.registry import register_model
from antiphon.models.scripted import ScriptedTts

TEXT = "One two three four. Five six seven eight nine ten eleven twelve."
SPOKEN_S = 1.2
"""Of TEXT, at 100 ms a word."""
VOICES = {"models__options__tts__scripted": {"word_ms": 100, "voices": ["anna"]}}


class HeldTts(ScriptedTts):
    """Gives out a word, and the rest when it is let go."""

    def __init__(self, weights: Any = None, **options: Any) -> None:
        super().__init__(weights, **options)
        self.go = threading.Event()

    def synthesize(self, request: Any) -> Any:
        for number, word in enumerate(super().synthesize(request)):
            if number:
                self.go.wait(PATIENCE_S)
            yield word


register_model("tts", "test-held")(HeldTts)


def loudness(pcm: Any) -> float:
    return float(np.abs(pcm.astype(int)).max())


def test_every_format(tmp_path: Path) -> None:
    expected = {
        "mp3": ("audio/mpeg", "mp3"),
        "opus": ("audio/ogg", "ogg"),
        "aac": ("audio/aac", "aac"),
        "flac": ("audio/flac", "flac"),
        "wav": ("audio/wav", "wav"),
    }

    async def main() -> None:
        async with nothing_left(), asked(tmp_path) as (_, client):
            create = client.audio.speech.create
            for fmt, (content_type, container) in expected.items():
                found = await create(
                    input=TEXT,
                    model="tts-1",
                    voice="alloy",
                    response_format=fmt,  # type: ignore[arg-type]
                )
                assert found.response.headers["content-type"] == content_type
                decoded = decode_file(found.content, rate_hz=None)
                assert decoded.source_format == container
                assert decoded.duration_s == pytest.approx(SPOKEN_S, abs=0.15), fmt
                assert loudness(decoded.pcm) > 500
            found = await create(input=TEXT, model="tts-1", voice="alloy", response_format="pcm")
            assert found.response.headers["content-type"] == "audio/pcm"
            pcm = np.frombuffer(found.content, "<i2")
            assert len(pcm) / 24_000 == pytest.approx(SPOKEN_S, abs=0.01)
            default = await create(input=TEXT, model="tts-1", voice="alloy")
            assert decode_file(default.content).source_format == "mp3"

    run(main())


def test_voice_and_speed(tmp_path: Path) -> None:
    async def main() -> None:
        async with asked(tmp_path, agent__voice="anna", **VOICES) as (served, client):
            create = client.audio.speech.create
            for voice in ("anna", "alloy", {"id": "anna"}, {"id": "voice_1"}):
                await create(input="Hi.", model="x", voice=voice)  # type: ignore[arg-type]
            fast = await create(
                input=TEXT, model="x", voice="anna", speed=2.0, response_format="pcm"
            )
            await create(input="Hi.", model="x", voice="anna", speed=4.0, response_format="pcm")
            requests = served.models.backend(Kind.TTS).requests
            assert {r.voice for r in requests} == {"anna"}
            assert [r.speed for r in requests[-2:]] == [2.0, 2.0]
            assert len(fast.content) / 48_000 == pytest.approx(SPOKEN_S / 2, abs=0.01)
            listed = await served.http.get("/v1/audio/voices")
            assert [v["id"] for v in listed.json()["data"]] == ["anna"]

    run(main())


def test_sound_comes_as_it_is_made(tmp_path: Path) -> None:
    async def main() -> None:
        async with nothing_left(), asked(tmp_path, models__tts="test-held") as (served, client):
            async with client.audio.speech.with_streaming_response.create(
                input=TEXT, model="x", voice="alloy", response_format="pcm"
            ) as answer:
                pieces = answer.iter_bytes()
                first = await anext(pieces)  # the rest is not even made yet
                assert first
                served.models.backend(Kind.TTS).go.set()
                rest = b"".join([piece async for piece in pieces])
            assert len(first + rest) / 48_000 == pytest.approx(SPOKEN_S * 2, abs=0.3)

    run(main())


def test_a_listener_that_leaves_stops_the_voice(tmp_path: Path) -> None:
    async def main() -> None:
        async with nothing_left(), asked(tmp_path, models__tts="test-held") as (served, client):
            async with client.audio.speech.with_streaming_response.create(
                input=TEXT, model="x", voice="alloy", response_format="wav"
            ) as answer:
                await anext(answer.iter_bytes())
                assert served.app.state.places.taken == 1
            await until(lambda: served.app.state.places.taken == 0, "the place is still taken")
            served.models.backend(Kind.TTS).go.set()

    run(main())


def test_events(tmp_path: Path) -> None:
    async def main() -> None:
        async with nothing_left(), asked(tmp_path) as (served, _):
            body = {"input": TEXT, "voice": "alloy", "response_format": "pcm"}
            found = await served.http.post(
                "/v1/audio/speech", json={**body, "stream_format": "sse"}
            )
            assert found.headers["content-type"].startswith("text/event-stream")
            assert found.headers["x-accel-buffering"] == "no"
            *lines, last = [line for line in found.text.split("\n\n") if line]
            assert last == "data: [DONE]"
            events = [json.loads(line.removeprefix("data: ")) for line in lines]
            assert {e["type"] for e in events[:-1]} == {"speech.audio.delta"}
            assert len(events) > 3
            audio = b"".join(base64.b64decode(e["audio"]) for e in events[:-1])
            assert len(audio) / 48_000 == pytest.approx(SPOKEN_S, abs=0.01)
            assert events[-1]["type"] == "speech.audio.done"
            usage = events[-1]["usage"]
            assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]

    run(main())


def test_the_synchronous_sdk_writes_a_file(tmp_path: Path) -> None:
    async def main() -> None:
        async with asked(tmp_path) as (served, _):

            def speak() -> None:
                with OpenAI(
                    api_key="x", base_url=f"http://{served.address}/v1", max_retries=0
                ) as client:
                    speech = client.audio.speech.with_streaming_response
                    with speech.create(input=TEXT, model="tts-1", voice="nova") as answer:
                        answer.stream_to_file(tmp_path / "a.mp3")

            await asyncio.to_thread(speak)
            assert decode_file(tmp_path / "a.mp3").duration_s == pytest.approx(SPOKEN_S, abs=0.15)

    run(main())


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    async def main() -> None:
        async with asked(tmp_path) as (served, client):
            create = client.audio.speech.create
            cases: list[tuple[dict[str, Any], str, str | None]] = [
                ({"input": ""}, "empty", "input"),
                ({"input": "a" * 4_097}, "the limit is 4096", "input"),
                ({"input": "a", "speed": 9}, "<= 4.0", "speed"),
                ({"input": "a", "response_format": "aiff"}, "aiff", "response_format"),
                ({"input": 5}, "expected `str`", "input"),
            ]
            for body, reason, param in cases:
                with pytest.raises(openai.BadRequestError, match=reason) as found:
                    await create(model="x", voice="alloy", **body)
                assert found.value.param == param
            for content in (b"{", b"[]", b'"a"', b"\xff", b"[" * 100_000):
                bad = await served.http.post("/v1/audio/speech", content=content)
                assert bad.status_code == 400, content[:9]
                assert bad.json()["error"]["message"]
            missing = await served.http.post("/v1/audio/speech", json={"voice": "alloy"})
            assert missing.json()["error"]["param"] == "input"
            assert missing.json()["error"]["code"] == "missing_required_parameter"

    run(main())


def test_nothing_to_say_is_an_empty_answer(tmp_path: Path) -> None:
    async def main() -> None:
        async with asked(tmp_path) as (_, client):
            for fmt in ("mp3", "opus", "pcm"):
                found = await client.audio.speech.create(
                    input="...",
                    model="x",
                    voice="alloy",
                    response_format=fmt,  # type: ignore[arg-type]
                )
                assert len(found.content) < 1_000

    run(main())


def test_a_voice_that_fails(tmp_path: Path) -> None:
    """Before the first sound: a status. In the middle: the connection breaks, for a proper end would be a lie."""

    async def main() -> None:
        options = {"models__options__tts__scripted": {"fail_always": True}}
        async with nothing_left(), asked(tmp_path, **options) as (_, client):
            with pytest.raises(
                openai.InternalServerError, match="the server's log says why"
            ) as found:
                await client.audio.speech.create(input=TEXT, model="x", voice="alloy")
            assert found.value.status_code == 503
        options = {"models__options__tts__scripted": {"fail_always": True, "fail_after": 2}}
        async with nothing_left(), asked(tmp_path, **options) as (served, _):
            body = {"input": TEXT, "voice": "alloy", "response_format": "pcm"}
            with pytest.raises(httpx.RemoteProtocolError):
                await served.http.post("/v1/audio/speech", json=body)
            assert served.app.state.places.taken == 0

    run(main())
