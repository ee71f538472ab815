"""Transcription and speech endpoints of OpenAI's form: two real servers of which the first breaks in every way."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from tests.support import say

from antiphon.errors import ModelError
from antiphon.models.ports import SpeechRequest
from antiphon.models.stt.openai_transcription import OpenAITranscription
from antiphon.models.tts.openai_speech import OpenAISpeech
from antiphon.testing.contracts import check_stt, check_tts

KEY = "sk-very-secret-key"
QUESTION = say(440, 640)


@dataclass(slots=True)
class Fake:
    """`status`: of every answer but the list of models. `cut`: the speech ends in its middle."""

    name: str
    status: int = 200
    cut: bool = False
    asked: list[dict[str, Any]] = field(default_factory=list)
    url: str = ""

    async def models(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": []})

    async def transcribe(self, request: Request) -> Response:
        form = await request.form()
        audio = form["file"]
        assert not isinstance(audio, str)
        size = len(await audio.read())
        self.asked.append({**{k: v for k, v in form.items() if k != "file"}, "bytes": size})
        if self.status != 200:
            return JSONResponse({"error": {"message": f"{self.name} broke"}}, self.status)
        return JSONResponse({"text": f" heard by {self.name} "})

    async def speak(self, request: Request) -> Response:
        body = await request.json()
        self.asked.append(body)
        if self.status != 200:
            return JSONResponse({"error": {"message": f"{self.name} broke"}}, self.status)
        samples = int(24_000 * 0.2 * len(body["input"].split()) / body["speed"])
        audio = np.full(samples, 1_000, "<i2").tobytes()

        async def pieces() -> AsyncIterator[bytes]:
            for at in range(0, len(audio), 1_001):  # within a sample
                if self.cut and at > 10_000:
                    raise ConnectionError("cut")
                yield audio[at : at + 1_001]

        return StreamingResponse(pieces(), media_type="audio/pcm")


@asynccontextmanager
async def served(fake: Fake) -> AsyncIterator[Fake]:
    routes = [
        Route("/v1/models", fake.models),
        Route("/v1/audio/transcriptions", fake.transcribe, methods=["POST"]),
        Route("/v1/audio/speech", fake.speak, methods=["POST"]),
    ]
    config = uvicorn.Config(Starlette(routes=routes), log_config=None, lifespan="off")
    server = uvicorn.Server(config)
    listener = socket.create_server(("127.0.0.1", 0))
    fake.url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield fake
    finally:
        server.should_exit = True
        await task
        listener.close()


def run(test: Callable[[Fake, Fake], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(30), AsyncExitStack() as stack:
            first = await stack.enter_async_context(served(Fake("first")))
            await test(first, await stack.enter_async_context(served(Fake("second"))))

    asyncio.run(main())


def both(first: Fake, second: Fake) -> dict[str, Any]:
    return {"base_url": f"{first.url}, {second.url}", "api_key": KEY}


async def spoken(model: OpenAISpeech, text: str = "Good morning to you.") -> int:
    return sum([piece.size async for piece in model.synthesize(SpeechRequest(text))])


async def rest_of(stream: AsyncIterator[Any]) -> None:
    async for _ in stream:
        pass


def test_contracts() -> None:
    with asyncio.Runner() as runner:
        context = served(Fake("only"))
        fake = runner.run(context.__aenter__())
        ear = OpenAITranscription(base_url=fake.url, api_key=KEY)
        voice = OpenAISpeech(base_url=fake.url, api_key=KEY)
        for model in (ear, voice):
            runner.run(model.load())
        check_stt(ear, runner=runner)
        check_tts(voice, runner=runner)
        for model in (ear, voice):
            runner.run(model.close())
        runner.run(context.__aexit__(None, None, None))


def test_a_recording_goes_out_as_wav_with_its_language() -> None:
    async def test(first: Fake, second: Fake) -> None:
        model = OpenAITranscription(**both(first, second), model="large")
        await model.load()
        heard = await model.transcribe(QUESTION, language="fr")
        assert (heard.text, heard.language) == ("heard by first", "fr")
        asked = first.asked[-1]
        assert (asked["model"], asked["language"]) == ("large", "fr")
        assert asked["bytes"] == QUESTION.size * 2 + 44
        await model.close()

    run(test)


def test_a_server_that_breaks_is_passed_over_and_taken_again() -> None:
    async def test(first: Fake, second: Fake) -> None:
        ear, voice = OpenAITranscription(**both(first, second)), OpenAISpeech(**both(first, second))
        for model in (ear, voice):
            await model.load()
        first.status = 500
        assert (await ear.transcribe(QUESTION)).text == "heard by second"
        assert await spoken(voice) == 4 * 4_800
        before = len(first.asked)
        assert (await ear.transcribe(QUESTION)).text == "heard by second"
        assert len(first.asked) == before, "it rests"
        first.status, second.status = 200, 500
        assert (await ear.transcribe(QUESTION)).text == "heard by first"
        for model in (ear, voice):
            await model.close()

    run(test)


def test_a_server_that_is_gone() -> None:
    async def test(first: Fake, second: Fake) -> None:
        gone = "http://127.0.0.1:1/v1"
        model = OpenAITranscription(base_url=f"{gone},{second.url}", api_key=KEY)
        await model.load()
        assert (await model.transcribe(QUESTION)).text == "heard by second"
        await model.close()
        with pytest.raises(ModelError, match="cannot reach"):
            await OpenAISpeech(base_url=gone, api_key=KEY).load()

    run(test)


def test_speech_that_breaks_off_is_an_error_after_what_came() -> None:
    async def test(first: Fake, second: Fake) -> None:
        model = OpenAISpeech(**both(first, second))
        await model.load()
        first.cut = True
        stream = model.synthesize(SpeechRequest("Good morning to you."))
        assert (await anext(stream)).size
        with pytest.raises(ModelError) as raised:
            await rest_of(stream)
        assert not second.asked, "half a sentence is never said twice"
        assert KEY not in str(raised.value)
        await model.close()

    run(test)


@pytest.mark.parametrize("status", [401, 404, 429])
def test_a_refusal_is_told_and_not_taken_elsewhere(status: int) -> None:
    async def test(first: Fake, second: Fake) -> None:
        model = OpenAITranscription(**both(first, second))
        await model.load()
        first.status = status
        with pytest.raises(ModelError) as raised:
            await model.transcribe(QUESTION)
        assert KEY not in str(raised.value)
        assert not second.asked
        await model.close()

    run(test)
