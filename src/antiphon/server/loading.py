"""From settings to models: which chains, with which options, from which weights."""

from __future__ import annotations

from typing import Any

from antiphon.config import Settings
from antiphon.models.pool import ChainConfig, ModelSet
from antiphon.models.ports import Kind, WeightSource

_ENDPOINT_BACKENDS = ("openai", "ollama", "vllm", "groq", "llama-server")


def model_set(settings: Settings, weights: WeightSource) -> ModelSet:
    """Not loaded yet. Must be made on the event loop that will use it. Raises ConfigError for an unknown model."""
    return ModelSet(
        chains(settings),
        weights,
        preload=settings.models.preload,
        one_at_a_time=settings.models.sequential,
    )


def chains(settings: Settings) -> list[ChainConfig]:
    """One chain per kind that has any models."""
    models = settings.models
    options = {name: dict(values) for name, values in models.options.items()}
    for name in _ENDPOINT_BACKENDS:
        options[name] = {**_endpoint_options(settings), **options.get(name, {})}
    named = {
        Kind.VAD: models.vad,
        Kind.TURN: models.turn,
        Kind.STT: models.stt,
        Kind.LLM: _llm_chain(settings),
        Kind.TTS: models.tts,
    }
    return [ChainConfig(kind, specs, options) for kind, specs in named.items() if specs]


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
