"""Every setting in one object: defaults < antiphon.toml < .env < environment < command line.

Nested names join with two underscores (`ANTIPHON_SERVER__PORT=9000`); the file has a table per section. Variables of
the systems that Antiphon replaces are accepted under their own names (`ALIASES`). An unknown setting is an error that
names the nearest known one. This module knows no model, no protocol and no socket.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping
from io import StringIO
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from dotenv import dotenv_values
from pydantic import (
    AfterValidator,
    BaseModel,
    Field,
    ValidationError,
)
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    EnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from pydantic_settings import SettingsError as SourceError

from antiphon.config.aliases import ALIASES as ALIASES
from antiphon.config.aliases import IGNORED as IGNORED
from antiphon.config.aliases import PASSED_ON as PASSED_ON
from antiphon.config.aliases import RENAMED as RENAMED
from antiphon.config.aliases import (
    current_name,
    from_aliases,
    implied_by_aliases,
    passed_on,
    with_current_names,
)
from antiphon.config.sections import (
    NEGOTIATED as NEGOTIATED,
)
from antiphon.config.sections import (
    AgentSettings,
    AudioSettings,
    LlmEndpoint,
    ModelsSettings,
    PhoneSettings,
    RealtimeSettings,
    SecuritySettings,
    ServerSettings,
    check_policy,
)
from antiphon.config.tool_settings import ToolsSettings
from antiphon.config.values import parse_value, parse_values
from antiphon.core.policy import Policy
from antiphon.errors import ConfigError, SettingsError, suggest
from antiphon.files import MAX_SETTINGS_BYTES, read_text, read_toml

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


class Settings(BaseSettings):
    model_config = SettingsConfigDict(
        extra="forbid", env_prefix=PREFIX, env_nested_delimiter="__", frozen=True
    )

    server: ServerSettings = ServerSettings()
    agent: AgentSettings = AgentSettings()
    models: ModelsSettings = ModelsSettings()
    endpoint: LlmEndpoint = LlmEndpoint()
    conversation: Annotated[Policy, AfterValidator(check_policy)] = Policy()
    audio: AudioSettings = AudioSettings()
    phone: PhoneSettings = PhoneSettings()
    realtime: RealtimeSettings = RealtimeSettings()
    security: SecuritySettings = SecuritySettings()
    tools: ToolsSettings = ToolsSettings()
    trace_text: bool = Field(
        False, description="Keep words in traces; otherwise they are replaced."
    )
    trace_dir: Path | None = Field(None, description="Record every call's events here.")
    recording_dir: Path | None = Field(
        None, description="Record every call here, caller left, agent right. Ask callers first."
    )
    recording_format: Literal["opus", "flac", "wav"] = Field(
        "opus", description="Of recordings: opus takes about 30 MB an hour, wav 230."
    )
    debug_audio_dir: Path | None = Field(
        None, description="Keep the caller's audio here as it came in, for finding faults."
    )

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
            InitSettingsSource(
                settings_cls, _typed(EnvSettingsSource(settings_cls)(), "the environment")
            ),
            InitSettingsSource(settings_cls, from_aliases(os.environ)),
        ]
        if cls.env_file is not None:
            dotenv = DotEnvSettingsSource(settings_cls, env_file=cls.env_file)
            sources += [
                _OnlyOurs(settings_cls, dotenv),
                InitSettingsSource(settings_cls, from_aliases(_upper(dotenv.env_vars))),
            ]
        if cls.config_file is not None:
            sources.append(InitSettingsSource(settings_cls, _read_toml(cls.config_file)))
        implied = [implied_by_aliases(os.environ)]
        if cls.env_file is not None:
            implied.append(implied_by_aliases(_upper(dotenv.env_vars)))
        sources += [InitSettingsSource(settings_cls, tree) for tree in implied]
        return tuple(sources)


class _OnlyOurs(InitSettingsSource):
    """A `.env` file holds other programs' variables too: only ours are taken."""

    def __init__(self, settings_cls: type[BaseSettings], dotenv: DotEnvSettingsSource) -> None:
        known = set(settings_cls.model_fields)
        ours = {k: v for k, v in dotenv().items() if k in known}
        super().__init__(settings_cls, _typed(ours, ".env"))


def _typed(tree: dict[str, Any], where: str) -> dict[str, Any]:
    """Variables are text. pydantic knows the types of settings, but not those of a back end's options."""
    models = tree.get("models")
    if isinstance(models, dict) and isinstance(models.get("options"), dict):
        models["options"] = parse_values(models["options"])
    return with_current_names(tree, where)


def _upper(variables: Mapping[str, str | None]) -> dict[str, str | None]:
    return {name.upper(): value for name, value in variables.items()}


def _read_toml(path: Path) -> dict[str, Any]:
    tree = read_toml(path, error=SettingsError)
    for name, value in tree.items():
        if name in _SECTIONS and not isinstance(value, dict):
            shown = "" if name in _NEVER_SHOWN else f", got {value!r:.{_SHOWN_CHARS}}"
            raise SettingsError(
                f"setting {name}: should be a table{shown} (in {path.name}); write [{name}] on a line of its own, and "
                "its settings below"
            )
    return with_current_names(tree, path.name)


_SECTIONS = frozenset(
    name
    for name, field in Settings.model_fields.items()
    if isinstance(field.default, BaseModel) or dataclasses.is_dataclass(field.default)
)
"""Settings that are tables in the file."""


# --- loading ------------------------------------------------------------------------------------


def load(overrides: Mapping[str, Any] | None = None, *, folder: Path | None = None) -> Settings:
    """Settings from every source. `overrides` (dotted names) is the command line's word.

    `folder`: where `antiphon.toml` and `.env` are looked for (default: the working directory); the variable
    ANTIPHON_CONFIG names another file. Raises ConfigError with one line that says what to change, SettingsError
    where that stands in a file.
    """
    folder = folder or Path.cwd()
    named = os.environ.get("ANTIPHON_CONFIG")
    config_file = Path(named) if named else folder / CONFIG_FILE
    _check_environment(os.environ, "the environment")

    class Located(Settings):
        pass

    Located.config_file = config_file if named or os.path.lexists(config_file) else None
    Located.env_file = folder / ".env" if _has_dotenv(folder) else None
    if Located.env_file is not None:
        dotenv = _read_dotenv(Located.env_file)
        _check_environment(dotenv, ".env")
        _pass_on(dotenv)
    _pass_on(os.environ)
    tree: dict[str, Any] = {}
    for name, value in (overrides or {}).items():
        _set(tree, current_name(name, "the command line"), value)
    try:
        return Located(**tree)
    except ValidationError as error:
        said, where = _explain(error), _from_file(error, Located.config_file)
        raise (SettingsError if where else ConfigError)(said + where) from None
    except SourceError as error:
        raise ConfigError(f"{error}: {error.__cause__}") from None
    except RecursionError:
        raise ConfigError("a setting is nested too deeply; look at the longest one") from None


def _pass_on(variables: Mapping[str, str | None]) -> None:
    """The weight store and the model libraries know only the environment: what they read is put there."""
    ours = {name: value for name in OUTSIDE_SETTINGS if (value := variables.get(name))}
    for name, value in (ours | passed_on(variables)).items():
        if "\0" in value:
            raise SettingsError(f"{name} has a NUL character in its value; take it out of .env")
        os.environ.setdefault(name, value)


def _has_dotenv(folder: Path) -> bool:
    """Something is there. A folder of that name that holds a virtual environment is somebody's habit."""
    path = folder / ".env"
    return os.path.lexists(path) and not (path / "pyvenv.cfg").is_file()


def _read_dotenv(path: Path) -> Mapping[str, str | None]:
    return dotenv_values(stream=StringIO(read_text(path, MAX_SETTINGS_BYTES, SettingsError)))


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
    known = (
        {PREFIX + name.upper().replace(".", "__") for name in settings}
        | OUTSIDE_SETTINGS
        | set(ALIASES)
        | {PREFIX + name.upper().replace(".", "__") for name in RENAMED}
    )
    sections = {PREFIX + name.partition(".")[0].upper() for name in settings}
    for name in variables:
        upper = name.upper()
        if not upper.startswith(PREFIX) or upper in known or upper in sections:
            continue
        if upper.startswith(PREFIX + "MODELS__OPTIONS__"):
            continue
        kind = SettingsError if where == ".env" else ConfigError
        raise kind(f"unknown setting {name} in {where}{_near(upper, known)}")


_NEVER_SHOWN = ("endpoint", "models.options", "phone", "security")
"""Sections in which a value may be a key that was put in the wrong place."""
_SHOWN_CHARS = 80


def _explain(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"unknown setting {where!r}{_near(where, setting_names())}"
    reason = first["msg"].removeprefix("Value error, ")
    if first["type"] == "value_error":
        return f"setting {where}{': ' if where in setting_names() else '.'}{reason}"
    shown = "" if where.startswith(_NEVER_SHOWN) else f", got {first['input']!r:.{_SHOWN_CHARS}}"
    return f"setting {where}: {reason[:1].lower()}{reason[1:]}{shown}{_from_alias(where)}"


def _from_file(error: ValidationError, path: Path | None) -> str:
    """Which file to open, where the first thing that is wrong stands in one."""
    if path is None:
        return ""
    found: Any = _read_toml(path)
    for part in error.errors()[0]["loc"]:
        if not isinstance(found, dict):
            break  # an entry of a list
        if part not in found:
            return ""
        found = found[part]
    return f" (in {path.name})"


def _near(name: str, known: Iterable[str]) -> str:
    """The nearest name. Never all of them: there are a hundred."""
    hint = suggest(name, known)
    return hint if "did you mean" in hint else "; the names are in docs/reference/configuration.md"


def _from_alias(where: str) -> str:
    """Which foreign variable may have brought a value that nobody remembers having set."""
    found = [
        name
        for name, alias in ALIASES.items()
        if where in (alias.path, *alias.also, *alias.implies) and name in os.environ
    ]
    return f" (the variable {found[0]} is read as well)" if found else ""
