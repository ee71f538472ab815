"""Every setting in one object: defaults < antiphon.toml < .env < environment < command line.

Nested names join with two underscores (`ANTIPHON_SERVER__PORT=9000`); the file has a table per section. Variables of
the systems that Antiphon replaces are accepted under their own names (`ALIASES`). An unknown setting is an error that
names the nearest known one. This module knows no model, no protocol and no socket.
"""

from __future__ import annotations

import dataclasses
import os
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from dotenv import dotenv_values
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
)
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    EnvSettingsSource,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from antiphon.config_text import hide_secrets, names, parse_value, parse_values
from antiphon.core.policy import Policy
from antiphon.errors import ConfigError, suggest

CONFIG_FILE = "antiphon.toml"
PREFIX = "ANTIPHON_"
OPTIONS = "models.options."
OUTSIDE_SETTINGS = frozenset(
    {
        "ANTIPHON_HOME",
        "ANTIPHON_OFFLINE",
        "ANTIPHON_CONFIG",
        "ANTIPHON_CATALOGUE",
        "ANTIPHON_MODELS_DIR",
    }
)
"""Variables with our prefix that other parts read: where things lie, before there are settings."""


Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(names)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ServerSettings(Section):
    host: str = Field(
        "127.0.0.1", description="Address to listen on. Anything but loopback is open to others."
    )
    port: int = Field(8000, ge=0, le=65535, description="TCP port; 0: any free one.")
    cors_origins: Names = Field((), description="Web origins that may call from another site.")
    max_calls: int = Field(32, ge=1, description="Calls at the same time; more get a busy answer.")
    max_call_s: int = Field(3600, ge=1, description="A call is ended after this many seconds.")
    max_message_bytes: int = Field(4 << 20, ge=1024, description="Largest websocket message.")
    max_upload_bytes: int = Field(64 << 20, ge=1024, description="Largest file of an HTTP request.")
    max_file_s: int = Field(600, ge=1, description="Longest audio file to be answered, in seconds.")
    max_outbox_bytes: int = Field(
        8 << 20, ge=1024, description="Unsent output per client; more means it stopped reading."
    )
    debug: bool = Field(False, description="Verbose logs.")
    log_format: Literal["pretty", "json"] = Field(
        "pretty",
        description="Logs for people, with a table after each call, or one JSON object a line.",
    )


class AgentSettings(Section):
    prompt: str = Field(
        "You are a friendly voice assistant. You are heard, not read: answer in one or two short "
        "spoken sentences, in plain words, without lists, markup, code or emoji.",
        description="System prompt.",
    )
    voice: str = Field("", description="Voice of the text-to-speech model; empty: its own.")
    language: str = Field("en", description="ISO 639-1; empty: let the models detect it.")
    temperature: float = Field(0.6, ge=0, le=2, description="How freely the model chooses words.")
    max_tokens: int = Field(200, ge=1, description="Longest reply, in tokens.")
    speed: float = Field(1.0, ge=0.5, le=2.0, description="Pace of the voice.")


class ModelsSettings(Section):
    vad: Names = Field(("silero",), description="Voice activity detection: a chain, best first.")
    turn: Names = Field(("smart-turn",), description="End-of-turn detection; empty: silence only.")
    stt: Names = Field(("moonshine",), description="Speech to text: a chain, best first.")
    llm: Names = Field(("llamacpp",), description="Language model: a chain, best first.")
    tts: Names = Field(("piper",), description="Text to speech: a chain, best first.")
    options: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="Options of a back end, by its name: `[models.options.piper]`; under a kind's name they are "
        "for that kind only: `[models.options.stt.scripted]`.",
    )
    preload: bool = Field(True, description="Load at start, not on first use.")
    sequential: bool = Field(True, description="Load one after the other, to limit peak memory.")
    trust_remote_code: bool = Field(False, description="Let hub models run code of their own.")

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        """Options may hold keys, and settings are printed in logs and error reports."""
        for name, value in super().__repr_args__():
            yield name, hide_secrets(value) if name == "options" else value


class AudioSettings(Section):
    denoise: int = Field(
        0,
        ge=0,
        le=4,
        description="Noise suppression before listening: 0 off, 2 is best for speech to text. Extra `denoise`.",
    )


class LlmEndpoint(Section):
    """The OpenAI-compatible endpoint, for the chain entries `openai`, `ollama`, `vllm`, `groq`."""

    base_url: str = Field("", description="For instance `http://localhost:11434/v1`.")
    api_key: SecretStr = Field(SecretStr(""), description="Sent as a bearer token; never shown.")
    model: str = Field("", description="The model's name there.")


NEGOTIATED = frozenset({"client_can_clear", "client_reports_played"})
"""Part of a policy, but said by each client and not by the owner."""
_BARGE_IN = ("confirm", "immediate")


def _check_policy(policy: Policy) -> Policy:
    """The core takes any policy; an owner's slip of the pen should not become a strange conversation."""
    for field in dataclasses.fields(policy):
        name, value = field.name, getattr(policy, field.name)
        if name in NEGOTIATED and value:
            raise ValueError(f"{name}: each client says that itself; it cannot be set")
        if name.endswith("_threshold") and not 0 <= value <= 1:
            raise ValueError(f"{name}: must be between 0 and 1, got {value}")
        if type(value) is int and value < 0:
            raise ValueError(f"{name}: must not be negative, got {value}")
    if policy.barge_in not in _BARGE_IN:
        raise ValueError(
            f"barge_in: unknown way {policy.barge_in!r}{suggest(policy.barge_in, _BARGE_IN)}"
        )
    return policy


class Settings(BaseSettings):
    model_config = SettingsConfigDict(
        extra="forbid", env_prefix=PREFIX, env_nested_delimiter="__", frozen=True
    )

    server: ServerSettings = ServerSettings()
    agent: AgentSettings = AgentSettings()
    models: ModelsSettings = ModelsSettings()
    endpoint: LlmEndpoint = LlmEndpoint()
    conversation: Annotated[Policy, AfterValidator(_check_policy)] = Policy()
    audio: AudioSettings = AudioSettings()
    trace_text: bool = Field(
        False, description="Keep words in traces; otherwise they are replaced."
    )
    trace_dir: Path | None = Field(None, description="Record every call's events here.")

    config_file: ClassVar[Path | None] = None
    env_file: ClassVar[Path | None] = None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        sources: list[PydanticBaseSettingsSource] = [
            init_settings,
            InitSettingsSource(settings_cls, _typed(EnvSettingsSource(settings_cls)())),
            InitSettingsSource(settings_cls, _aliases(os.environ)),
        ]
        if cls.env_file is not None:
            dotenv = DotEnvSettingsSource(settings_cls, env_file=cls.env_file)
            sources += [
                _OnlyOurs(settings_cls, dotenv),
                InitSettingsSource(settings_cls, _aliases(_upper(dotenv.env_vars))),
            ]
        if cls.config_file is not None:
            sources.append(InitSettingsSource(settings_cls, _read_toml(cls.config_file)))
        return tuple(sources)


class _OnlyOurs(InitSettingsSource):
    """A `.env` file holds other programs' variables too: only ours are taken."""

    def __init__(self, settings_cls: type[BaseSettings], dotenv: DotEnvSettingsSource) -> None:
        known = set(settings_cls.model_fields)
        super().__init__(settings_cls, _typed({k: v for k, v in dotenv().items() if k in known}))


def _typed(tree: dict[str, Any]) -> dict[str, Any]:
    """Variables are text. pydantic knows the types of settings, but not those of a back end's options."""
    models = tree.get("models")
    if isinstance(models, dict) and isinstance(models.get("options"), dict):
        models["options"] = parse_values(models["options"])
    return tree


# --- names of other systems ---------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class Alias:
    path: str
    """Dotted name of the setting."""
    special: Mapping[str, tuple[str, str]] = dataclasses.field(default_factory=dict)
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
}
"""Variables of the replaced systems. Our own names win where both are set."""


def _aliases(variables: Mapping[str, str | None]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, alias in ALIASES.items():
        value = variables.get(name)
        if value:
            path, meant = alias.special.get(value, (alias.path, value))
            section, _, key = path.partition(".")
            tree.setdefault(section, {}).setdefault(key, meant)
    return tree


def _upper(variables: Mapping[str, str | None]) -> dict[str, str | None]:
    return {name.upper(): value for name, value in variables.items()}


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from None


# --- loading ------------------------------------------------------------------------------------


def load(overrides: Mapping[str, Any] | None = None, *, folder: Path | None = None) -> Settings:
    """Settings from every source. `overrides` (dotted names) is the command line's word.

    `folder`: where `antiphon.toml` and `.env` are looked for (default: the working directory); the variable
    ANTIPHON_CONFIG names another file. Raises ConfigError with one line that says what to change.
    """
    folder = folder or Path.cwd()
    named = os.environ.get("ANTIPHON_CONFIG")
    config_file = Path(named) if named else folder / CONFIG_FILE
    _check_environment(os.environ, "the environment")

    class Located(Settings):
        pass

    Located.config_file = config_file if named or config_file.is_file() else None
    Located.env_file = folder / ".env" if (folder / ".env").is_file() else None
    if Located.env_file is not None:
        _check_environment(_read_dotenv(Located.env_file), ".env")
    tree: dict[str, Any] = {}
    for name, value in (overrides or {}).items():
        _set(tree, name, value)
    try:
        return Located(**tree)
    except ValidationError as error:
        raise ConfigError(_explain(error)) from None
    except SettingsError as error:
        raise ConfigError(f"{error}: {error.__cause__}") from None


def _read_dotenv(path: Path) -> Mapping[str, str | None]:
    try:
        return dotenv_values(path)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from None


def setting_names() -> list[str]:
    """Every setting's dotted name."""
    return sorted(_walk("", Settings))


def _walk(prefix: str, model: type[BaseModel]) -> Iterable[str]:
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _walk(f"{prefix}{name}.", kind)
        elif dataclasses.is_dataclass(kind):
            fields = (f.name for f in dataclasses.fields(kind) if f.name not in NEGOTIATED)
            yield from (f"{prefix}{name}.{inner}" for inner in fields)
        else:
            yield f"{prefix}{name}"


def _set(tree: dict[str, Any], name: str, value: Any) -> None:
    *sections, last = name.split(".")
    if name.startswith(OPTIONS) and isinstance(value, str):
        value = parse_value(value)  # of any type, and nothing else says which
    for part in sections:
        inner = tree.setdefault(part, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"setting {name}: {part} has a value already")
        tree = inner
    tree[last] = value


def _check_environment(variables: Mapping[str, Any], where: str) -> None:
    """A misspelt ANTIPHON_ variable would be ignored in silence otherwise."""
    settings = setting_names()
    known = {PREFIX + name.upper().replace(".", "__") for name in settings} | OUTSIDE_SETTINGS
    sections = {PREFIX + name.partition(".")[0].upper() for name in settings}
    for name in variables:
        upper = name.upper()
        if not upper.startswith(PREFIX) or upper in known or upper in sections:
            continue
        if upper.startswith(PREFIX + "MODELS__OPTIONS__"):
            continue
        raise ConfigError(f"unknown setting {name} in {where}{_near(upper, known)}")


_NEVER_SHOWN = ("endpoint", "models.options")
"""Sections in which a value may be a key that was put in the wrong place."""
_SHOWN_CHARS = 80


def _explain(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"unknown setting {where!r}{_near(where, setting_names())}"
    reason = first["msg"].removeprefix("Value error, ")
    if first["type"] == "value_error":
        return f"setting {where}.{reason}"
    shown = "" if where.startswith(_NEVER_SHOWN) else f", got {first['input']!r:.{_SHOWN_CHARS}}"
    return f"setting {where}: {reason[:1].lower()}{reason[1:]}{shown}{_from_alias(where)}"


def _near(name: str, known: Iterable[str]) -> str:
    """The nearest name. Never all of them: there are a hundred."""
    hint = suggest(name, known)
    return hint if "did you mean" in hint else "; the names are in docs/reference/configuration.md"


def _from_alias(where: str) -> str:
    """Which foreign variable may have brought a value that nobody remembers having set."""
    found = [name for name, alias in ALIASES.items() if alias.path == where and name in os.environ]
    return f" (the variable {found[0]} is read as well)" if found else ""
