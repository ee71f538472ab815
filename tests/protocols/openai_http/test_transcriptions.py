"""`/v1/audio/transcriptions` with the official SDK, on scripted models."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import numpy as np
import openai
import pytest
from openai import OpenAI
from openai.types.audio import TranscriptionDiarized, TranscriptionVerbose
from tests.protocols.openai_http.support import QUESTION, TWO_PARTS, asked, wav
from tests.support import nothing_left, run, say, until

from antiphon.audio.encoding import encode_file, wav_header
from antiphon.models.ports import Kind

BOTH = "what time is it tell me a story"


def test_every_format(tmp_path: Path) -> None:
    async def main() -> None:
        async with nothing_left(), asked(tmp_path) as (_, client):
            create, file = client.audio.transcriptions.create, ("a.wav", wav(TWO_PARTS))
            plain = await create(file=file, model="whisper-1")
            assert plain.text == BOTH
            assert plain.usage is not None
            assert plain.usage.type == "duration"
            assert plain.usage.seconds == pytest.approx(3.28, abs=0.01)

            text = await create(file=file, model="whisper-1", response_format="text")
            assert text == BOTH + "\n"
            srt = await create(file=file, model="whisper-1", response_format="srt")
            assert srt.startswith("1\n00:00:00,000 --> 00:00:00,6")
            assert "\n2\n00:00:01,6" in srt
            vtt = await create(file=file, model="whisper-1", response_format="vtt")
            assert vtt.startswith("WEBVTT\n\n00:00:00.000 --> 00:00:00.6")

            found = await create(
                file=file,
                model="whisper-1",
                response_format="verbose_json",
                timestamp_granularities=["segment", "word"],
                language="en",
            )
            assert isinstance(found, TranscriptionVerbose)
            assert (found.text, found.language) == (BOTH, "en")
            assert found.duration == pytest.approx(3.28, abs=0.01)
            assert found.segments is not None
            assert found.words is not None
            assert [s.text for s in found.segments] == ["what time is it", "tell me a story"]
            assert found.segments[1].start == pytest.approx(1.64, abs=0.07)
            assert [w.word for w in found.words] == BOTH.split()
            assert found.words[3].end == pytest.approx(found.segments[0].end, abs=0.01)

            speakers = await create(file=file, model="x", response_format="diarized_json")
            assert isinstance(speakers, TranscriptionDiarized)
            assert [s.speaker for s in speakers.segments] == ["A", "A"]

    run(main())


def test_streaming(tmp_path: Path) -> None:
    async def main() -> None:
        async with nothing_left(), asked(tmp_path) as (_, client):
            stream = await client.audio.transcriptions.create(
                file=("a.wav", wav(TWO_PARTS)), model="gpt-4o-transcribe", stream=True
            )
            events = [event async for event in stream]
            assert [e.type for e in events] == [
                "transcript.text.delta",
                "transcript.text.delta",
                "transcript.text.done",
            ]
            assert events[-1].type == "transcript.text.done"
            assert events[-1].text == BOTH
            assert "".join(e.delta for e in events if e.type == "transcript.text.delta") == BOTH

    run(main())


def test_the_synchronous_sdk_and_every_container(tmp_path: Path) -> None:
    pcm = say(440, 640, silence_ms=300)
    streamed = wav_header(16_000, None) + pcm.tobytes()

    async def main() -> None:
        async with asked(tmp_path) as (served, _):
            client = OpenAI(api_key="x", base_url=f"http://{served.address}/v1", max_retries=0)

            def hear(data: bytes) -> str:
                return client.audio.transcriptions.create(file=("f", data), model="any").text

            for fmt in ("wav", "mp3", "opus", "flac", "aac", "webm"):
                data = encode_file(pcm, 16_000, fmt)
                assert await asyncio.to_thread(hear, data) == "what time is it", fmt
            assert await asyncio.to_thread(hear, streamed) == "what time is it"
            client.close()

    run(main())


def test_silence_has_no_words(tmp_path: Path) -> None:
    async def main() -> None:
        async with asked(tmp_path) as (_, client):
            silence = ("a.wav", wav(np.zeros(16_000, np.int16)))
            assert (await client.audio.transcriptions.create(file=silence, model="x")).text == ""
            stream = await client.audio.transcriptions.create(file=silence, model="x", stream=True)
            assert [e.type async for e in stream] == ["transcript.text.done"]

    run(main())


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    async def main() -> None:
        limits = {"server__max_file_s": 2, "server__max_upload_bytes": 100_000}
        async with asked(tmp_path, **limits) as (served, client):
            create = client.audio.transcriptions.create
            for data, reason in (
                (b"this is not audio" * 10, "not audio that can be read"),
                (b"", "empty"),
                (encode_file(say(440, 3_000), 16_000, "mp3"), "longer than 2 s"),
            ):
                with pytest.raises(openai.BadRequestError, match=reason) as found:
                    await create(file=("a.wav", data), model="x")
                assert found.value.code == "invalid_audio"
                assert found.value.param == "file"
            with pytest.raises(openai.APIStatusError, match="larger than") as large:
                await create(file=("a.wav", bytes(300_000)), model="x")
            assert large.value.status_code == 413
            with pytest.raises(openai.BadRequestError, match="did you mean 'json'"):
                await create(file=("a.wav", QUESTION), model="x", response_format="jsonn")  # type: ignore[call-overload]
            with pytest.raises(openai.BadRequestError, match="ISO 639-1"):
                await create(file=("a.wav", QUESTION), model="x", language="12")
            with pytest.raises(openai.BadRequestError, match="cannot translate"):
                await client.audio.translations.create(file=("a.wav", QUESTION), model="x")
            missing = await served.http.post("/v1/audio/transcriptions", data={"model": "x"})
            assert missing.status_code == 400
            assert missing.json()["error"]["param"] == "file"
            broken = await served.http.post(
                "/v1/audio/transcriptions",
                content=b"--x\r\nbad",
                headers={"Content-Type": "multipart/form-data; boundary=x"},
            )
            assert broken.status_code == 400
            assert set(broken.json()["error"]) == {"message", "type", "param", "code"}

    run(main())


def test_brackets_are_optional(tmp_path: Path) -> None:
    async def main() -> None:
        async with asked(tmp_path) as (served, _):
            for name in ("timestamp_granularities", "timestamp_granularities[]"):
                found = await served.http.post(
                    "/v1/audio/transcriptions",
                    data={"response_format": "verbose_json", name: "word"},
                    files={"file": QUESTION},
                )
                body = json.loads(found.text)
                assert [w["word"] for w in body["words"]] == "what time is it".split()
                assert "segments" not in body

    run(main())


def test_a_client_that_leaves_frees_its_place(tmp_path: Path) -> None:
    async def main() -> None:
        slow = {"server__max_requests": 1, "models__stt": "test-held"}
        async with nothing_left(), asked(tmp_path, **slow) as (served, client):
            file = ("a.wav", QUESTION)
            first = asyncio.create_task(client.audio.transcriptions.create(file=file, model="x"))
            places = served.app.state.places
            await until(lambda: places.taken == 1)
            with pytest.raises(openai.RateLimitError) as busy:
                await client.audio.transcriptions.create(file=file, model="x")
            assert busy.value.response.headers["retry-after"] == "5"
            first.cancel()
            await until(lambda: places.taken == 0)
            served.models.backend(Kind.STT).go.set()

    run(main())
