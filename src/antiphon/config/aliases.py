"""Variables of the systems that Antiphon replaces, and the settings that they stand for.

`ALIASES` are settings under another name; `IGNORED` have no counterpart, and it says why; `PASSED_ON` are read by the
model libraries; `RENAMED` are our own settings that had another name once. A back end is a name here, and whether there
is one is for the registry to say.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from antiphon.config.values import parse_value

log = logging.getLogger(__name__)

RENAMED: dict[str, str] = {
    "server.max_lane_wait_ms": "server.max_model_wait_ms",
    "conversation.speculate_after_ms": "conversation.preemptive_generation_after_ms",
    "conversation.words_threshold": "conversation.text_end_threshold",
    "conversation.segment_ms": "conversation.keep_transcript_after_ms",
    "conversation.first_clause_words": "conversation.first_segment_words",
    "conversation.max_clause_chars": "conversation.max_segment_chars",
    "conversation.playback_grace_ms": "conversation.playout_grace_ms",
}
"""Settings under the name they had before version 0.2 -> their name now. The old ones work, with a warning."""


@dataclass(frozen=True, slots=True)
class Alias:
    path: str = ""
    """Dotted name of the setting that holds the value; empty: only the special values mean anything."""
    special: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Values with a meaning of their own -> the setting and value they stand for."""
    also: tuple[str, ...] = ()
    """Further settings that hold the same value."""
    implies: Mapping[str, str] = field(default_factory=dict)
    """Settings that follow from it: whoever names an XTTS server wants it to be used."""
    with_endpoint: str = ""
    """The setting instead of `path` where an address of an endpoint is given as well."""
    read: Callable[[str], Any] = str
    """How the value is to be understood."""
    about: str = ""
    """What the reference page says beside it."""


_STT_FALLBACK, _LLM_FALLBACK, _TTS_FALLBACK = "moonshine", "llamacpp", "piper"

_ASR = {"whisper": ("models.stt", f"faster-whisper, {_STT_FALLBACK}")}
_MLX = {"mlx": ("models.stt", f"mlx-whisper, {_STT_FALLBACK}")}
_LLM = {
    "gpt4omini": ("models.llm", "openai:gpt-4o-mini"),
    "phi3": ("models.llm", "transformers:phi3"),
    "llama": ("models.llm", "transformers:llama"),
}
_STT_BY_MAKER = {
    "kyutai/": "kyutai-transformers:{}",
    "nvidia/": "nemo:{}",
    "Systran/": "faster-whisper:{}",
    "mlx-community/": "mlx-whisper:{}",
    "": "transformers-whisper:{}",
}
_TTS_BY_MAKER = {
    "kyutai/": "moshi:{}",
    "coqui/XTTS": "xtts",
    "tts_models/multilingual/multi-dataset/xtts": "xtts:{}",
    "tts_models/": "coqui:{}",
    "hexgrad/": "kokoro",
    "ResembleAI/": "chatterbox",
    "": "{}",
}


def _stt_chain(name: str) -> str:
    return _chain(name, _STT_BY_MAKER, _STT_FALLBACK)


def _llm_chain(name: str) -> str:
    return f"vllm-engine:{name}, {_LLM_FALLBACK}"


def _tts_chain(name: str) -> str:
    return _chain(name, _TTS_BY_MAKER, _TTS_FALLBACK)


def _chain(name: str, by_maker: Mapping[str, str], fallback: str) -> str:
    """The back end that loads a hub's model of this maker, and the embedded model behind it."""
    first = next(spec for maker, spec in by_maker.items() if name.startswith(maker))
    spec = first.format(name)
    return spec if spec == fallback else f"{spec}, {fallback}"


def _socket_url(addresses: str) -> str:
    """`https://x` -> `wss://x`, of each: people copy the address that a hosting company prints."""
    return re.sub(r"(?i)\bhttp(s?)://", r"ws\1://", addresses)


def _with_v1(addresses: str) -> str:
    """Theirs is the address of a server, ours that of its interface."""
    bases = (address.strip().rstrip("/") for address in addresses.split(","))
    return ",".join(base if base.endswith("/v1") else f"{base}/v1" for base in bases if base)


def _options(option: str, *back_ends: str, **more: Any) -> Alias:
    first, *others = (f"models.options.{name}.{option}" for name in back_ends)
    return Alias(first, also=tuple(others), **more)


_TORCH_STT = ("transformers-whisper", "kyutai-transformers")
_CLEAR_LOGS = "other values change nothing"

ALIASES: dict[str, Alias] = {
    "HOST": Alias("server.host"),
    "PORT": Alias("server.port"),
    "DEBUG": Alias("server.debug"),
    "ENVIRONMENT": Alias(special={"production": ("server.log_format", "json")}, about=_CLEAR_LOGS),
    "LOG_LEVEL": Alias(
        special={"DEBUG": ("server.debug", "true"), "debug": ("server.debug", "true")},
        about=_CLEAR_LOGS,
    ),
    "CORS_ORIGINS": Alias("server.cors_origins"),
    "ASR_MODEL": Alias("models.stt", _ASR),
    "ASR_MODEL_NAME": Alias(
        "models.stt",
        read=_stt_chain,
        about="a model of the hub, through the back end that loads it; `moonshine` stays behind it",
    ),
    "ASR_DEVICE": _options("device", "faster-whisper", *_TORCH_STT, "nemo"),
    "ASR_DTYPE": Alias(
        "models.options.faster-whisper.compute",
        also=tuple(f"models.options.{name}.dtype" for name in _TORCH_STT),
    ),
    "WHISPER_DEVICE": _options(
        "device",
        "faster-whisper",
        "transformers-whisper",
        special=_MLX,
        implies={"models.stt": f"faster-whisper, {_STT_FALLBACK}"},
    ),
    "LLM_MODEL": Alias("endpoint.model", _LLM),
    "LLM_MODEL_NAME": Alias(
        "models.llm",
        read=_llm_chain,
        with_endpoint="endpoint.model",
        about="a model of the hub, in this process; with an endpoint, the model's name there",
    ),
    "LLM_MAX_MODEL_LEN": Alias(
        "models.options.vllm-engine.max_model_len",
        also=tuple(
            f"models.options.{name}.context_tokens" for name in ("llamacpp", "transformers")
        ),
        read=parse_value,
    ),
    "LLM_GPU_MEMORY_UTILIZATION": Alias(
        "models.options.vllm-engine.gpu_memory_utilization", read=parse_value
    ),
    "LLM_MAX_TOKENS": Alias("agent.max_tokens"),
    "LLM_TEMPERATURE": Alias("agent.temperature"),
    "TTS_MODEL": Alias("models.tts"),
    "TTS_MODEL_NAME": Alias(
        "models.tts",
        read=_tts_chain,
        about="a model of the hub, through the back end that speaks it; `piper` stays behind it",
    ),
    "TTS_DEVICE": _options("device", "xtts", "coqui", "chatterbox", "moshi"),
    "VLLM_BASE_URL": Alias("endpoint.base_url"),
    "OPENAI_BASE_URL": Alias("endpoint.base_url"),
    "OPENAI_API_KEY": Alias("endpoint.api_key"),
    "XTTS_BASE_URL": Alias(
        "models.options.xtts-server.base_url",
        implies={"models.tts": f"xtts-server, {_TTS_FALLBACK}"},
    ),
    "KYUTAI_STT_URL": Alias(
        "models.options.stt.moshi-server.base_url",
        implies={"models.stt": f"moshi-server, {_STT_FALLBACK}"},
        read=_socket_url,
    ),
    "KYUTAI_TTS_URL": Alias(
        "models.options.tts.moshi-server.base_url",
        implies={"models.tts": f"moshi-server, {_TTS_FALLBACK}"},
        read=_socket_url,
    ),
    "KYUTAI_LLM_URL": Alias("endpoint.base_url", read=_with_v1, about="`/v1` is added"),
    "KYUTAI_LLM_MODEL": Alias("endpoint.model"),
    "KYUTAI_LLM_API_KEY": Alias("endpoint.api_key"),
    "KYUTAI_API_KEY": Alias("models.options.moshi-server.key"),
    "PRELOAD_MODELS": Alias("models.preload"),
    "ENABLE_MEMORY_EFFICIENT_LOADING": Alias("models.sequential"),
    "TRUST_REMOTE_CODE": Alias("models.trust_remote_code"),
    "ANTIPHON_API_KEY": Alias("security.api_key"),
    "TWILIO_ACCOUNT_SID": Alias("phone.account_sid"),
    "TWILIO_AUTH_TOKEN": Alias("phone.auth_token"),
    "TWILIO_PHONE_NUMBER": Alias("phone.from_number"),
    "PUBLIC_URL": Alias("phone.public_url"),
    "PROXY_HOST": Alias("phone.public_url"),
}
"""Variables of the replaced systems. Our own names win where both are set, and the first here among these."""

IGNORED: dict[str, str] = {
    "ASR_SAMPLE_RATE": "each model is given the rate it was made for; clients name the rate of what they send",
    "TTS_SAMPLE_RATE": "each voice has its own rate; clients choose the rate that they get",
}
"""Accepted without effect -> what stands in their place."""

PASSED_ON: dict[str, str] = {
    "HF_TOKEN": "HF_TOKEN",
    "HF_HOME": "HF_HOME",
    "HF_ENDPOINT": "HF_ENDPOINT",
    "HF_HUB_OFFLINE": "HF_HUB_OFFLINE",
    "TRANSFORMERS_CACHE": "HF_HUB_CACHE",
    "MODELS_CACHE_DIR": "MODELS_CACHE_DIR",
    "GROQ_API_KEY": "GROQ_API_KEY",
}
"""Read by the weight store and the model libraries from the environment, also where they stand in `.env` -> their name
there."""

_ENDPOINTS = ("ANTIPHON_ENDPOINT__BASE_URL", "VLLM_BASE_URL", "OPENAI_BASE_URL", "KYUTAI_LLM_URL")


def current_name(name: str, where: str) -> str:
    """The name now of a setting that may be given by an old one, `where` it is given, for the warning."""
    current = RENAMED.get(name)
    if current is None:
        return name
    log.warning("setting %s in %s is called %s now: rename it", name, where, current)
    return current


def with_current_names(tree: dict[str, Any], where: str) -> dict[str, Any]:
    """A tree of settings with every renamed one under its name now. Where both are given, the new one counts."""
    for old in RENAMED:
        section, _, name = old.partition(".")
        values = tree.get(section)
        if isinstance(values, dict) and name in values:
            value = values.pop(name)
            values.setdefault(current_name(old, where).partition(".")[2], value)
    return tree


def from_aliases(variables: Mapping[str, str | None]) -> dict[str, Any]:
    """The tree of settings that these variables stand for."""
    tree: dict[str, Any] = {}
    endpoint = any(variables.get(name) for name in _ENDPOINTS)
    for name, alias in ALIASES.items():
        value = variables.get(name)
        if not value:
            continue
        if value in alias.special:
            path, meant = alias.special[value]
            _set(tree, path, meant)
        elif endpoint and alias.with_endpoint:
            _set(tree, alias.with_endpoint, value)
        elif alias.path:
            for path in (alias.path, *alias.also):
                _set(tree, path, alias.read(value))
    return tree


def implied_by_aliases(variables: Mapping[str, str | None]) -> dict[str, Any]:
    """What follows from the variables that are set, where nothing else is said anywhere."""
    tree: dict[str, Any] = {}
    for name, alias in ALIASES.items():
        if variables.get(name):
            for path, meant in alias.implies.items():
                _set(tree, path, meant)
    return tree


def passed_on(variables: Mapping[str, str | None]) -> dict[str, str]:
    """What of these variables the libraries are to find in the environment, under their names."""
    return {ours: value for name, ours in PASSED_ON.items() if (value := variables.get(name))}


def _set(tree: dict[str, Any], path: str, value: Any) -> None:
    *sections, last = path.split(".")
    for part in sections:
        tree = tree.setdefault(part, {})
    tree.setdefault(last, value)
