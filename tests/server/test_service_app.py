"""What every service has in common: its probes, its token, its limits and its end."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
from openai import AsyncOpenAI, AuthenticationError
from tests.protocols.services_support import moshi_client, service
from tests.support import PATIENCE_S, NoWeights, run, say, settings, until

from antiphon.audio.encoding import encode_file
from antiphon.errors import ConfigError
from antiphon.models.ports import Kind
from antiphon.models.registry import register_model
from antiphon.models.scripted import ScriptedTts
from antiphon.protocols.moshi import codec as moshi
from antiphon.server.service_app import create_service

SERVED = (Kind.STT, Kind.TTS, Kind.LLM)
PACKED = "/api/tts_streaming?format=PcmMessagePack"


class Held(ScriptedTts):
    """Loads when it is let go."""

    go = threading.Event()

    def load(self) -> None:
        self.go.wait(PATIENCE_S)


register_model("tts", "test-held-tts")(Held)


@pytest.mark.parametrize("kind", SERVED)
def test_probes(kind: Kind, tmp_path: Path) -> None:
    """Only the models of its kind are loaded, so only those can be missing."""

    async def check() -> None:
        others = {f"models__{other}": "nothing" for other in SERVED if other is not kind}
        async with service(tmp_path, kind, **others) as served:
            assert (await served.http.get("/health")).json()["status"] == "healthy"
            ready = (await served.http.get("/ready")).json()
            loaded = [model["kind"] for model in ready["models"]]
            assert loaded == (["vad", "stt"] if kind is Kind.STT else [kind.value])
            assert "antiphon_event_loop_lag" in (await served.http.get("/metrics")).text
            listed = (await served.http.get("/v1/models")).json()["data"]
            assert [model["id"] for model in listed] == ["scripted"]

    run(check())


def test_openai_for_each_kind(tmp_path: Path) -> None:
    async def ask(kind: Kind) -> Any:
        async with (
            service(tmp_path, kind, security__api_key="secret-token") as served,
            AsyncOpenAI(
                base_url=f"{served.url}/v1", api_key="secret-token", max_retries=0
            ) as client,
        ):
            with pytest.raises(AuthenticationError):
                await client.with_options(api_key="wrong").models.list()
            if kind is Kind.STT:
                wav = encode_file(say(440, 640, silence_ms=300), 16_000, "wav")
                file = ("a.wav", wav)
                return (await client.audio.transcriptions.create(model="x", file=file)).text
            if kind is Kind.TTS:
                said = await client.audio.speech.create(
                    model="x", voice="alloy", input="one two", response_format="pcm"
                )
                return len(said.content)
            turn: Any = {"role": "user", "content": "what time is it"}
            reply = await client.chat.completions.create(model="x", messages=[turn])
            return reply.choices[0].message.content

    async def check() -> None:
        assert await ask(Kind.STT) == "what time is it"
        assert await ask(Kind.TTS) == 9_600
        assert await ask(Kind.LLM) == "It is noon."

    run(check())


@pytest.mark.parametrize("path", ["/studio_speakers", "/languages", "/api/modules_info"])
def test_the_token_over_http(path: str, tmp_path: Path) -> None:
    async def check() -> None:
        async with service(tmp_path, Kind.TTS, security__api_key="secret-token") as served:
            assert (await served.http.get(path)).status_code == 401
            bearer = {"Authorization": "Bearer secret-token"}
            assert (await served.http.get(path, headers=bearer)).status_code == 200
            assert (await served.http.get("/api/build_info")).status_code == 200

    run(check())


def test_before_it_is_loaded(tmp_path: Path) -> None:
    async def check() -> None:
        Held.go.clear()
        async with service(tmp_path, Kind.TTS, wait=False, models__tts="test-held-tts") as served:
            assert (await served.http.get("/ready")).status_code == 503
            assert (await served.http.get("/studio_speakers")).status_code == 503
            async with moshi_client(served.ws + PACKED) as client:
                (error,) = await client.rest()
                assert isinstance(error, moshi.Error)
                assert "loads" in error.message
            Held.go.set()
            await until(lambda: served.streams.models.ready)
            assert (await served.http.get("/ready")).status_code == 200

    run(check())


def test_an_orderly_end(tmp_path: Path) -> None:
    """What is being said is said to its end; no more is taken meanwhile."""

    async def check() -> None:
        async with service(tmp_path, Kind.TTS, drain_s=20) as served:
            async with moshi_client(served.ws + PACKED) as client:
                await client.until(moshi.Ready)
                served.server.should_exit = True
                await until(lambda: served.streams.draining)
                assert not served.task.done()
                await client.send(moshi.Text("one two three"), moshi.Eos())
                assert any(isinstance(m, moshi.Text) for m in await client.rest())
            async with asyncio.timeout(10):
                await served.task

    run(check())


def test_one_that_does_not_end_is_ended(tmp_path: Path) -> None:
    async def check() -> None:
        async with (
            service(tmp_path, Kind.TTS) as served,
            moshi_client(served.ws + PACKED) as client,
        ):
            await client.until(moshi.Ready)
            served.server.should_exit = True
            assert await client.rest() == []
            async with asyncio.timeout(10):
                await served.task

    run(check())


def test_what_cannot_be_served(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="stt, tts or llm"):
        create_service(settings(tmp_path), Kind.VAD, NoWeights())
    with pytest.raises(ConfigError, match="unknown tts"):
        create_service(settings(tmp_path, models__tts="nothing"), Kind.TTS, NoWeights())


@pytest.mark.parametrize("kind", [Kind.STT, Kind.TTS, Kind.LLM])
def test_lists_of_what_a_service_has_and_has_not(kind: Kind, tmp_path: Path) -> None:
    async def main() -> None:
        async with service(tmp_path, kind) as served:
            for path in ("/v1/models", "/v1/audio/voices"):
                answer = await served.http.get(path)
                assert answer.status_code == 200
                assert answer.json()["object"] == "list"
            assert (await served.http.get(f"/v1/models/{'x' * 300}")).status_code == 404

    run(main())
