"""The real server and the official SDK, on a real socket."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
from openai import AsyncOpenAI
from tests.server.support import Served, serving
from tests.support import PATIENCE_S, say

from antiphon.audio.encoding import encode_file
from antiphon.models.ports import Pcm16, Transcript
from antiphon.models.registry import register_model
from antiphon.models.scripted import ScriptedStt
from antiphon.server.keys import add_key
from antiphon.server.usage import UsageLimits

QUESTION = encode_file(say(440, 640, silence_ms=300), 16_000, "wav")
TWO_PARTS = np.concatenate([say(440, 640, silence_ms=1000), say(550, 640, silence_ms=1000)])


class HeldStt(ScriptedStt):
    """Works until it is let go."""

    def __init__(self, weights: Any = None, **options: Any) -> None:
        super().__init__(weights, **options)
        self.go = threading.Event()

    def transcribe(self, audio: Pcm16, **options: Any) -> Transcript:
        self.go.wait(PATIENCE_S)
        return super().transcribe(audio, **options)


register_model("stt", "test-held")(HeldStt)


def wav(pcm: Pcm16) -> bytes:
    return encode_file(pcm, 16_000, "wav")


def sdk(served: Served, key: str = "unused") -> AsyncOpenAI:
    return AsyncOpenAI(
        api_key=key, base_url=f"http://{served.address}/v1", max_retries=0, timeout=20
    )


@contextlib.asynccontextmanager
async def asked(
    folder: Path, key: str = "unused", **overrides: Any
) -> AsyncIterator[tuple[Served, AsyncOpenAI]]:
    async with serving(folder, **overrides) as served, sdk(served, key) as client:
        yield served, client


class Clock:
    """Stands still until it is moved."""

    def __init__(self, now_s: float = 1_800_000_000.0) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s


def with_key(folder: Path, limits: UsageLimits | None = None) -> tuple[str, dict[str, Any]]:
    """-> a key, and the settings of a server that knows it."""
    path = folder / "keys.json"
    clear, _ = add_key(path, "tester", limits)
    return clear, {"security__keys_file": str(path)}


def use_clock(served: Served, clock: Clock) -> None:
    gate = served.app.state.gate
    gate.ledger.now_s = gate.secrets.now_s = clock
