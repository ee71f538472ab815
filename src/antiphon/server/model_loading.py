"""From settings to models: which chains, with which options, from which weights."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping
from contextlib import aclosing
from typing import Any

from antiphon.audio import denoise
from antiphon.config import Settings
from antiphon.core.text_segmenter import TextSegmenter
from antiphon.errors import AntiphonError, ConfigError
from antiphon.models.cache_stores import CacheStore, FolderStore, RedisStore
from antiphon.models.model_set import FallbackConfig, ModelSet, Work
from antiphon.models.ports import Kind, SpeechRequest, WeightSource
from antiphon.models.registry import parse_spec, shared_registry
from antiphon.models.speech_cache import SpeechCache

log = logging.getLogger(__name__)

_KIND_NAMES = frozenset({*(kind.value for kind in Kind), "asr"})
_ENDPOINT_BACKENDS = ("openai", "ollama", "vllm", "groq", "llama-server")
_HUB_BACKENDS = ("transformers", "transformers-whisper", "kyutai-transformers", "vllm-engine")
"""They load what a hub's repository holds, and may run the code in it."""


def model_set(
    settings: Settings, weights: WeightSource, kinds: Collection[Kind] = tuple(Kind)
) -> ModelSet:
    """Not loaded yet. Must be made on the event loop that will use it. Raises ConfigError for an unknown model."""
    found = ModelSet(
        [chain for chain in chains(settings) if chain.kind in kinds],
        weights,
        preload=settings.models.preload,
        one_at_a_time=settings.models.sequential,
    )
    models = settings.models
    if models.speech_cache_bytes:
        found.speech_cache = SpeechCache(models.speech_cache_bytes, _shelves(settings))
    return found


def _shelves(settings: Settings) -> list[CacheStore]:
    models, shelves = settings.models, list[CacheStore]()
    if models.speech_cache_dir is not None:
        shelves.append(FolderStore(models.speech_cache_dir, models.speech_cache_dir_bytes))
    if redis := models.speech_cache_redis.get_secret_value():
        shelves.append(RedisStore(redis))
    return shelves


def check_models(settings: Settings, kinds: Collection[Kind] = tuple(Kind)) -> None:
    """Raises ConfigError for a model, or a filter, that there is not."""
    if settings.audio.denoise:
        denoise.check_available()
    registry = shared_registry()
    for chain in chains(settings):
        for spec in chain.specs if chain.kind in kinds else ():
            registry.find(chain.kind, parse_spec(spec)[0])


def chains(settings: Settings) -> list[FallbackConfig]:
    """One chain per kind that has any models."""
    models = settings.models
    named = {
        Kind.VAD: models.vad,
        Kind.TURN: models.turn,
        Kind.STT: models.stt,
        Kind.LLM: _llm_chain(settings),
        Kind.TTS: models.tts,
    }
    return [
        FallbackConfig(kind, specs, _options(settings, kind))
        for kind, specs in named.items()
        if specs
    ]


def _options(settings: Settings, kind: Kind) -> dict[str, dict[str, Any]]:
    """Options by back end. What stands under the kind's own name goes before what is for every kind."""
    given = settings.models.options
    options = {name: dict(values) for name, values in given.items() if name not in _KIND_NAMES}
    for name in _ENDPOINT_BACKENDS if kind is Kind.LLM else ():
        options[name] = {**_endpoint_options(settings), **options.get(name, {})}
    if settings.models.trust_remote_code:
        for name in _HUB_BACKENDS:
            options[name] = {"trust_remote_code": True, **options.get(name, {})}
    for section in (kind.value, *(["asr"] if kind is Kind.STT else [])):
        for name, values in given.get(section, {}).items():
            if not isinstance(values, Mapping):
                raise ConfigError(
                    f"models.options.{section} takes options by back end, "
                    f"for instance models.options.{section}.scripted; got {name} = {values!r}"
                )
            options[name] = {**options.get(name, {}), **values}
    return options


def _llm_chain(settings: Settings) -> tuple[str, ...]:
    """A configured endpoint is meant to be used: it goes before the embedded default."""
    chain = settings.models.llm
    if settings.endpoint.base_url and chain == ("llamacpp",):
        return ("openai", *chain)
    return chain


def _endpoint_options(settings: Settings) -> dict[str, Any]:
    endpoint = settings.endpoint
    found = {
        "base_url": endpoint.base_url,
        "model": endpoint.model,
        "api_key": endpoint.api_key.get_secret_value(),
    }
    return {name: value for name, value in found.items() if value}


_REHEARSAL = "rehearsal"
_REHEARSAL_SLACK_MS = 60_000
"""Nobody waits for it: every call goes first."""


async def rehearse(models: ModelSet, settings: Settings) -> None:
    """Say the agent's own phrases once, unheard, so that they are kept: the first caller is greeted at once."""
    if models.speech_cache is None:
        return
    policy, agent = settings.conversation, settings.agent
    said = (
        policy.greeting,
        policy.tool_filler,
        policy.idle_prompt,
        policy.apology,
        policy.goodbye,
    )
    try:
        for phrase in said:
            cutter = TextSegmenter(first_words=0, max_chars=policy.max_segment_chars)
            for clause in (*cutter.feed(phrase), *cutter.flush()):
                await _rehearse(
                    models, SpeechRequest(clause, agent.voice, agent.language, agent.speed)
                )
    except AntiphonError as error:  # one is enough: a model is given up after a few
        log.warning("nothing more is rehearsed: %s", error)
    finally:
        await models.release(_REHEARSAL)


async def _rehearse(models: ModelSet, request: SpeechRequest) -> None:
    work = Work(_REHEARSAL, int(asyncio.get_running_loop().time() * 1000) + _REHEARSAL_SLACK_MS)
    async with aclosing(models.synthesize(request, work=work)) as chunks:
        async for _ in chunks:
            pass
