"""Our own clients against our own services: every back end of another machine keeps the contract of its port."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.protocols.services_support import Service, service
from tests.support import say

from antiphon.models.llm.openai_compatible import OpenAICompatible
from antiphon.models.ports import Kind
from antiphon.models.stt.moshi_server_stt import MoshiServerStt
from antiphon.models.stt.openai_transcription import OpenAITranscription
from antiphon.models.tts.moshi_server_tts import MoshiServerTts
from antiphon.models.tts.openai_speech import OpenAISpeech
from antiphon.models.tts.xtts_server import XttsServer
from antiphon.testing.contracts import check_llm, check_stt, check_tts

CLIENTS: list[tuple[Kind, str, Callable[[Service], Any]]] = [
    (Kind.TTS, "xtts", lambda s: XttsServer(base_url=s.url)),
    (Kind.TTS, "moshi", lambda s: MoshiServerTts(base_url=s.ws)),
    (Kind.TTS, "openai", lambda s: OpenAISpeech(base_url=f"{s.url}/v1", api_key="none")),
    (Kind.STT, "moshi", lambda s: MoshiServerStt(base_url=s.ws)),
    (
        Kind.STT,
        "openai",
        lambda s: OpenAITranscription(base_url=f"{s.url}/v1", api_key="none"),
    ),
    (Kind.LLM, "openai", lambda s: OpenAICompatible(None, base_url=f"{s.url}/v1", api_key="none")),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(
    ("kind", "name", "client"), CLIENTS, ids=[f"{k}-{n}" for k, n, _ in CLIENTS]
)
def test_contract(kind: Kind, name: str, client: Callable[[Service], Any], tmp_path: Path) -> None:
    """The checks run a loop of their own, so the service gets another, in a thread."""
    with _in_a_thread(tmp_path, kind) as served, asyncio.Runner() as runner:
        model = client(served)
        runner.run(model.load())
        if kind is Kind.TTS:
            check_tts(model, runner=runner)
        elif kind is Kind.STT:
            check_stt(
                model, speech=say(440, 640, silence_ms=300), words=("time", "is"), runner=runner
            )
        else:
            check_llm(model, runner=runner)
        runner.run(model.close())


class _in_a_thread:
    def __init__(self, folder: Path, kind: Kind) -> None:
        self._folder, self._kind = folder, kind

    def __enter__(self) -> Service:
        import threading

        started: Any = threading.Event()
        self._loop = asyncio.new_event_loop()
        found: list[Service] = []

        async def serve() -> None:
            self._stop = asyncio.Event()
            async with service(self._folder, self._kind) as served:
                found.append(served)
                started.set()
                await self._stop.wait()

        self._thread = threading.Thread(target=lambda: self._loop.run_until_complete(serve()))
        self._thread.start()
        assert started.wait(10)
        return found[0]

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        self._loop.close()
