"""What tests of a call share: scripted models, tones for words, and waiting for a condition instead of a while."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from antiphon.config import Settings, load
from antiphon.models.model_set import FallbackConfig, ModelSet
from antiphon.models.ports import Kind, Pcm16
from antiphon.models.registry import Registry
from antiphon.models.scripted import ScriptedLlm, ScriptedStt, ScriptedTts, ScriptedVad, tone

PATIENCE_S = 6.0
RATE_HZ = 16_000
WORDS = {440: "what time is it", 660: "stop please", 880: "mm-hm", 550: "tell me a story"}
"""Frequency -> what the scripted speech to text hears in it."""
STORY = " ".join(f"word{number}" for number in range(1, 27))
OPTIONS: dict[str, dict[str, Any]] = {
    "stt": {"tones": {str(hz): words for hz, words in WORDS.items()}},
    "llm": {"rules": {"story": STORY, "time": "It is noon."}},
    "tts": {"word_ms": 100},
}
"""Of the scripted models, by kind."""


class NoWeights:
    def files(self, name: str) -> Mapping[str, Path]:
        raise AssertionError("scripted models need no weights")


def say(hz: int, ms: int = 480, *, silence_ms: int = 0, rate_hz: int = RATE_HZ) -> Pcm16:
    """What somebody says who speaks in tones."""
    quiet = np.zeros(rate_hz * silence_ms // 1000, np.int16)
    return np.concatenate([tone(hz, ms, rate_hz), quiet])


def settings(folder: Path, **overrides: Any) -> Settings:
    """Scripted models, no greeting; `section__name=value` on top."""
    values: dict[str, Any] = {f"models.{kind}": "scripted" for kind in Kind}
    values |= {f"models.options.{kind}.scripted": found for kind, found in OPTIONS.items()}
    values |= {"conversation.greeting": "", "conversation.idle_prompt_after_ms": 0}
    values |= {"server.max_loop_lag_ms": 0, "server.max_model_wait_ms": 0}  # tests share a machine
    values |= {"models.speech_cache_bytes": 0}  # nothing is said but what a test asks for
    values |= {name.replace("__", "."): value for name, value in overrides.items()}
    return load(values, folder=folder)


def model_set(
    *chains: FallbackConfig, registry: Registry | None = None, **options: dict[str, Any]
) -> ModelSet:
    """`options`: of a kind's scripted model, over `OPTIONS`."""
    missing = [kind for kind in Kind if kind not in [chain.kind for chain in chains]]
    scripted = [
        FallbackConfig(
            kind,
            ("scripted",),
            {"scripted": options.get(kind.value, OPTIONS.get(kind.value, {}))},
        )
        for kind in missing
    ]
    return ModelSet([*chains, *scripted], NoWeights(), registry=registry)


def broken_registry() -> Registry:
    """With models that load and then fail, by the name `broken`."""
    registry = Registry()
    registry.register("vad", "broken", fail_always=True)(ScriptedVad)
    registry.register("stt", "broken", fail_always=True)(ScriptedStt)
    registry.register("llm", "broken", fail_always=True)(ScriptedLlm)
    registry.register("tts", "broken", fail_always=True)(ScriptedTts)
    return registry


@contextlib.asynccontextmanager
async def loaded(models: ModelSet | None = None) -> AsyncIterator[ModelSet]:
    """Models that are ready, and freed at the end."""
    models = models or model_set()
    await models.load()
    try:
        yield models
    finally:
        await models.close()


async def until(condition: Callable[[], Any], what: str = "") -> None:
    """Let the loop run until it holds. Raises AssertionError after `PATIENCE_S`."""
    loop = asyncio.get_running_loop()
    end_s = loop.time() + PATIENCE_S
    while not condition():
        assert loop.time() < end_s, what or "it did not come to pass in time"
        await asyncio.sleep(0.002)


@contextlib.asynccontextmanager
async def nothing_left() -> AsyncIterator[None]:
    """What runs inside leaves no task, no timer and no thread behind."""
    loop = asyncio.get_running_loop()
    tasks, threads = asyncio.all_tasks(), set(threading.enumerate())
    yield
    await until(lambda: asyncio.all_tasks() <= tasks, f"tasks are left: {asyncio.all_tasks()}")

    def left() -> list[threading.Thread]:
        found = [t for t in threading.enumerate() if t not in threads]
        return [t for t in found if not t.name.startswith(("asyncio", "AnyIO"))]  # idle, and kept

    await until(lambda: not left(), f"threads are left: {left()}")
    gc.collect()
    timers = [t for t in getattr(loop, "_scheduled", []) if not t.cancelled()]
    mine = [t for t in timers if "antiphon" in repr(t)]
    assert not mine, f"timers are left: {mine}"


def run(coroutine: Any) -> Any:
    """On a loop of its own, within a time limit."""

    async def limited() -> Any:
        async with asyncio.timeout(60):
            return await coroutine

    return asyncio.run(limited())
