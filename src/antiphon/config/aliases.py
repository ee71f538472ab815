"""Variables of the systems that Antiphon replaces, and the settings that they stand for.

`ALIASES` are settings under another name; `IGNORED` have no counterpart, and it says why; `PASSED_ON` are read by the
model libraries. Knows no model: a back end is a name here, and whether there is one is for the registry to say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from antiphon.config.text import parse_value


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
_WHISPER_ON_METAL = f"transformers-whisper:openai/whisper-large-v3-turbo, {_STT_FALLBACK}"

_ASR = {"whisper": ("models.stt", f"faster-whisper, {_STT_FALLBACK}")}
def _websockets(addresses: str) -> str:
    """Kyutai's variables hold either form."""
    return re.sub(r"(?i)\bhttp(s?)://", r"ws\1://", addresses)


def _with_v1(addresses: str) -> str:
    """Kyutai's variable is the address of the server; ours is that of the API."""
    bases = [address.strip().rstrip("/") for address in addresses.split(",") if address.strip()]
    return ",".join(base if base.endswith("/v1") else f"{base}/v1" for base in bases)


_LLM = {
    "gpt4omini": ("models.llm", "openai:gpt-4o-mini"),
    "phi3": ("models.llm", "transformers:phi3"),
    "llama": ("models.llm", "transformers:llama"),
}
_STT_BY_MAKER = {
    "kyutai/": "kyutai-transformers:{}",
    "Systran/": "faster-whisper:{}",
    "": "transformers-whisper:{}",
}
_TTS_BY_MAKER = {
    "kyutai/": "moshi-server",
    "coqui/XTTS": "xtts",
    "tts_models/multilingual/multi-dataset/xtts": "xtts:{}",
    "tts_models/": "coqui:{}",
    "hexgrad/": "kokoro",
    "": "{}",
}


def _stt_chain(name: str) -> str:
    return _chain(name, _STT_BY_MAKER, _STT_FALLBACK)


def _llm_chain(name: str) -> str:
    return f"transformers:{name}, {_LLM_FALLBACK}"


def _tts_chain(name: str) -> str:
    return _chain(name, _TTS_BY_MAKER, _TTS_FALLBACK)


def _chain(name: str, by_maker: Mapping[str, str], fallback: str) -> str:
    """The back end that loads a hub's model of this maker, and the embedded model behind it."""
    first = next(spec for maker, spec in by_maker.items() if name.startswith(maker))
    spec = first.format(name)
    return spec if spec == fallback else f"{spec}, {fallback}"


def _socket_url(url: str) -> str:
    """`https://x` -> `wss://x`: people copy the address that a hosting company prints."""
    for web, socket in (("https://", "wss://"), ("http://", "ws://")):
        if url.startswith(web):
            return socket + url.removeprefix(web)
    return url


def _with_v1(url: str) -> str:
    """The base address of an OpenAI-compatible server, of which only host and port are given."""
    bare = url.rstrip("/")
    return bare if "/" in bare.partition("://")[2] else f"{bare}/v1"


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
    "ASR_DEVICE": _options("device", "faster-whisper", *_TORCH_STT),
    "ASR_DTYPE": Alias(
        "models.options.faster-whisper.compute",
        also=tuple(f"models.options.{name}.dtype" for name in _TORCH_STT),
    ),
    "WHISPER_DEVICE": _options(
        "device",
        "faster-whisper",
        "transformers-whisper",
        special={"mlx": ("models.stt", _WHISPER_ON_METAL)},
        implies={"models.stt": f"faster-whisper, {_STT_FALLBACK}"},
    ),
    "LLM_MODEL": Alias("endpoint.model", _LLM),
    "LLM_MODEL_NAME": Alias(
        "models.llm",
        read=_llm_chain,
        with_endpoint="endpoint.model",
        about="a model of the hub, in this process; with an endpoint, the model's name there",
    ),
    "LLM_MAX_MODEL_LEN": _options("context_tokens", "llamacpp", "transformers", read=parse_value),
    "LLM_MAX_TOKENS": Alias("agent.max_tokens"),
    "LLM_TEMPERATURE": Alias("agent.temperature"),
    "TTS_MODEL": Alias("models.tts"),
    "TTS_MODEL_NAME": Alias(
        "models.tts",
        read=_tts_chain,
        about="a model of the hub, through the back end that speaks it; `piper` stays behind it",
    ),
    "TTS_DEVICE": _options("device", "xtts", "coqui"),
    "VLLM_BASE_URL": Alias("endpoint.base_url"),
    "XTTS_BASE_URL": Alias(
        "models.options.tts.xtts-server.base_url", implies=(("models.tts", "xtts-server"),)
    ),
    "KYUTAI_STT_URL": Alias(
        "models.options.stt.moshi-server.base_url",
        implies=(("models.stt", "moshi-server"),),
        convert=_websockets,
    ),
    "KYUTAI_TTS_URL": Alias(
        "models.options.tts.moshi-server.base_url",
        implies=(("models.tts", "moshi-server"),),
        convert=_websockets,
    ),
    "KYUTAI_LLM_URL": Alias(
        "endpoint.base_url", implies=(("models.llm", "openai"),), convert=_with_v1
    ),
    "KYUTAI_LLM_MODEL": Alias("endpoint.model"),
    "KYUTAI_LLM_API_KEY": Alias("endpoint.api_key"),
    "KYUTAI_API_KEY": Alias("models.options.moshi-server.key"),
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
    "LLM_GPU_MEMORY_UTILIZATION": "models in this process take what they need; give it to vLLM as "
    "`--gpu-memory-utilization`, as `compose.gpu.yaml` does",
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


def from_aliases(variables: Mapping[str, str | None]) -> dict[str, Any]:
    """A tree of settings. Of two variables for one setting, the first of `ALIASES` counts."""
    tree: dict[str, Any] = {}
    for name, alias in ALIASES.items():
        value = variables.get(name)
        if value:
            path, meant = alias.special.get(value, (alias.path, alias.convert(value)))
            _put(tree, path, meant)
    return tree


def implied_by_aliases(variables: Mapping[str, str | None]) -> dict[str, Any]:
    """What goes with the variables that are set, where nothing else is said."""
    tree: dict[str, Any] = {}
    for name, alias in ALIASES.items():
        for path, value in alias.implies if variables.get(name) else ():
            _put(tree, path, value)
    return tree


def _put(tree: dict[str, Any], path: str, value: str) -> None:
    *sections, last = path.split(".")
    for section in sections:
        tree = tree.setdefault(section, {})
    tree.setdefault(last, value)
