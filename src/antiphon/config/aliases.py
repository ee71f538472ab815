"""Variables of the systems that Antiphon replaces, and the settings that they stand for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Alias:
    path: str
    """Dotted name of the setting."""
    special: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Values with a meaning of their own -> the setting and value they stand for. Others are taken as they are."""


_LLM = {
    "gpt4omini": ("models.llm", "openai:gpt-4o-mini"),
    "phi3": ("models.llm", "transformers:phi3"),
    "llama": ("models.llm", "transformers:llama"),
}

ALIASES: dict[str, Alias] = {
    "HOST": Alias("server.host"),
    "PORT": Alias("server.port"),
    "DEBUG": Alias("server.debug"),
    "CORS_ORIGINS": Alias("server.cors_origins"),
    "ASR_MODEL": Alias("models.stt"),
    "LLM_MODEL": Alias("endpoint.model", _LLM),
    "TTS_MODEL": Alias("models.tts"),
    "LLM_MAX_TOKENS": Alias("agent.max_tokens"),
    "LLM_TEMPERATURE": Alias("agent.temperature"),
    "VLLM_BASE_URL": Alias("endpoint.base_url"),
    "OPENAI_BASE_URL": Alias("endpoint.base_url"),
    "OPENAI_API_KEY": Alias("endpoint.api_key"),
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
"""Variables of the replaced systems. Our own names win where both are set."""


def from_aliases(variables: Mapping[str, str | None]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, alias in ALIASES.items():
        value = variables.get(name)
        if value:
            path, meant = alias.special.get(value, (alias.path, value))
            section, _, key = path.partition(".")
            tree.setdefault(section, {}).setdefault(key, meant)
    return tree
