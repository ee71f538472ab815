"""An orchestrator without models of its own: its speech to text, language model and voice are on other machines."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.protocols.services_support import Service, service
from tests.server.support import QUESTION, START, Client, client, serving
from tests.support import run, say, until

from antiphon.errors import ModelError
from antiphon.models.addresses import Addresses
from antiphon.models.ports import Kind, SpeechRequest
from antiphon.models.tts.xtts_server import XttsServer

KEY = "between-services"
TOKEN = {"security__api_key": KEY}


def _remote(stt: Service, llm: Service, tts: Service, voice: str) -> dict[str, Any]:
    return {
        "models__stt": "moshi-server",
        "models__llm": "openai",
        "models__tts": voice,
        "endpoint__base_url": f"{llm.url}/v1",
        "endpoint__api_key": KEY,
        "models__options__stt__moshi-server": {"base_url": stt.ws, "key": KEY},
        "models__options__tts__moshi-server": {"base_url": tts.ws, "key": KEY},
        "models__options__tts__xtts-server": {"base_url": tts.url, "token": KEY},
    }


@contextlib.asynccontextmanager
async def three(folder: Path) -> AsyncIterator[dict[Kind, Service]]:
    async with (
        service(folder, Kind.STT, **TOKEN) as stt,
        service(folder, Kind.LLM, **TOKEN) as llm,
        service(folder, Kind.TTS, **TOKEN) as tts,
    ):
        yield {Kind.STT: stt, Kind.LLM: llm, Kind.TTS: tts}


async def _turn(caller: Client, number: int, expected: str = "It is noon.") -> None:
    await caller.speak(QUESTION)
    await caller.wait("turn_complete", number)
    text = "".join(m["text"] for m in caller.of("ai_text")[-len(expected.split()) - 1 :])
    assert text.endswith(expected)
    assert not caller.of("error")


def _heard_bytes(caller: Client) -> int:
    return sum(len(frame) for frame in caller.frames if isinstance(frame, bytes))


@pytest.mark.parametrize("voice", ["xtts-server", "moshi-server"])
def test_a_call(voice: str, tmp_path: Path) -> None:
    async def check() -> None:
        async with three(tmp_path) as at:
            remote = _remote(at[Kind.STT], at[Kind.LLM], at[Kind.TTS], voice)
            async with serving(tmp_path, **remote) as served, client(served, start=START) as caller:
                await _turn(caller, 1)
                assert caller.of("transcript")[-1]["text"] == "what time is it"
                assert _heard_bytes(caller) > 10_000

    run(check())


@pytest.mark.parametrize("kind", [Kind.STT, Kind.LLM, Kind.TTS])
def test_a_service_that_starts_anew_is_a_pause(kind: Kind, tmp_path: Path) -> None:
    """It is gone when the caller asks, and back while the call waits for it: the same turn is answered."""

    async def check() -> None:
        async with contextlib.AsyncExitStack() as stack:
            at = {
                one: await stack.enter_async_context(service(tmp_path, one, **TOKEN))
                for one in (Kind.STT, Kind.LLM, Kind.TTS)
            }
            remote = _remote(at[Kind.STT], at[Kind.LLM], at[Kind.TTS], "xtts-server")
            async with serving(tmp_path, **remote) as served, client(served, start=START) as caller:
                await _turn(caller, 1)
                before = _heard_bytes(caller)
                at[kind].server.should_exit = True
                await at[kind].task
                tried = _Tries(served.models.backend(kind))
                await caller.speak(say(660, 640, silence_ms=1_200))
                await until(lambda: tried.failed, "it was not asked for")
                await stack.enter_async_context(
                    service(tmp_path, kind, port=at[kind].port, **TOKEN)
                )
                await caller.wait("turn_complete", 2)
                assert not caller.of("error")
                assert caller.of("transcript")[-1]["text"] == "stop please"
                assert _heard_bytes(caller) - before >= 4 * 100 * 48  # You said: stop please

    run(check())


class _Tries:
    """Counts the attempts of a client that failed."""

    def __init__(self, backend: Any) -> None:
        self.failed = 0
        holder = next(
            part for part in (backend, *vars(backend).values()) if hasattr(part, "_addresses")
        )
        addresses: Addresses = holder._addresses
        told = addresses.failed

        def failed(at: int, *, gone: bool = True) -> None:
            self.failed += 1
            told(at, gone=gone)

        addresses.failed = failed  # type: ignore[method-assign]


def test_the_second_address_takes_over(tmp_path: Path) -> None:
    async def check() -> None:
        async with service(tmp_path, Kind.TTS) as first, service(tmp_path, Kind.TTS) as second:
            voice = XttsServer(base_url=f"{first.url}, {second.url}")
            await voice.load()
            first.server.should_exit = True
            await first.task
            pieces = [pcm async for pcm in voice.synthesize(SpeechRequest("one two"))]
            assert sum(len(pcm) for pcm in pieces) > 4_000
            assert voice.info.name == "xtts-server"
            assert len(second.backend(Kind.TTS).requests) == 1
            await voice.close()

    run(check())


def test_who_is_gone_for_good_is_waited_for_once(tmp_path: Path) -> None:
    async def check() -> None:
        now_s = [0.0]

        def clock() -> float:
            now_s[0] += 0.5  # each look at the clock is half a second later
            return now_s[0]

        addresses = Addresses("http://a, http://b", clock=clock)
        first = [at async for at in addresses.tries(2.0)]
        assert len(first) > 2
        assert len([at async for at in addresses.tries(2.0)]) == 2
        addresses.served(0)
        assert len([at async for at in addresses.tries(2.0)]) > 2

    run(check())


def test_a_wrong_token_is_told_at_once(tmp_path: Path) -> None:
    async def check() -> None:
        async with service(tmp_path, Kind.TTS, **TOKEN) as served:
            voice = XttsServer(base_url=served.url, token="wrong")
            with pytest.raises(ModelError, match="401"):
                await asyncio.wait_for(voice.load(), 5)

    run(check())
