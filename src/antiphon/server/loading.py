"""From settings to models: which chains, with which options, from which weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from antiphon.audio import denoise
from antiphon.config import Settings
from antiphon.errors import ConfigError
from antiphon.models.pool import ChainConfig, ModelSet
from antiphon.models.ports import Kind, WeightSource
from antiphon.models.registry import parse_spec, shared_registry

_KIND_NAMES = frozenset({*(kind.value for kind in Kind), "asr"})
_ENDPOINT_BACKENDS = ("openai", "ollama", "vllm", "groq", "llama-server")


def model_set(settings: Settings, weights: WeightSource) -> ModelSet:
    """Not loaded yet. Must be made on the event loop that will use it. Raises ConfigError for an unknown model."""
    return ModelSet(
        chains(settings),
        weights,
        preload=settings.models.preload,
        one_at_a_time=settings.models.sequential,
    )


def check_models(settings: Settings) -> None:
    """Raises ConfigError for a model, or a filter, that there is not."""
    if settings.audio.denoise:
        denoise.check_available()
    registry = shared_registry()
    for chain in chains(settings):
        for spec in chain.specs:
            registry.find(chain.kind, parse_spec(spec)[0])


def chains(settings: Settings) -> list[ChainConfig]:
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
        ChainConfig(kind, specs, _options(settings, kind)) for kind, specs in named.items() if specs
    ]


def _options(settings: Settings, kind: Kind) -> dict[str, dict[str, Any]]:
    """Options by back end. What stands under the kind's own name goes before what is for every kind."""
    given = settings.models.options
    options = {name: dict(values) for name, values in given.items() if name not in _KIND_NAMES}
    for name in _ENDPOINT_BACKENDS:
        options[name] = {**_endpoint_options(settings), **options.get(name, {})}
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
