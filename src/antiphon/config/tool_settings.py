"""The section `tools`: functions that the agent may call and that this server runs.

`docs/howto/tools.md` shows one of each kind.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, model_validator

from antiphon.config.sections import Names

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_FROM_ENVIRONMENT = re.compile(r"\$([A-Za-z_][A-Za-z0-9_]*)")
_WEB = ("http://", "https://")


def _check_names(found: dict[str, Any]) -> dict[str, Any]:
    for name in found:
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name}: a name has 1 to 64 letters, digits, _ and -")
    return found


def _check_secrets(found: dict[str, SecretStr]) -> dict[str, SecretStr]:
    for value in found.values():
        name = _FROM_ENVIRONMENT.fullmatch(value.get_secret_value())
        if name and name[1] not in os.environ:
            raise ValueError(f"the variable {name[1]} is not set in the environment")
    return found


def _check_address(url: str) -> str:
    if url and not url.startswith(_WEB):
        raise ValueError("must begin with http:// or https://")
    return url


Secrets = Annotated[dict[str, SecretStr], AfterValidator(_check_secrets)]
"""Values that are never shown. `$NAME` stands for the variable of that name in the environment."""
WebAddress = Annotated[str, AfterValidator(_check_address)]


def revealed(secrets: Mapping[str, SecretStr]) -> dict[str, str]:
    """The values themselves, for whoever sends them."""
    return {name: _value(secret.get_secret_value()) for name, secret in secrets.items()}


def _value(text: str) -> str:
    named = _FROM_ENVIRONMENT.fullmatch(text)
    return os.environ.get(named[1], "") if named else text


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class HttpToolSettings(_Part):
    """A function behind a web address: its arguments are sent as JSON, its answer is told to the language model."""

    url: WebAddress
    description: str = Field(min_length=1)
    parameters: dict[str, Any] = Field(
        default_factory=lambda: {"type": "object", "properties": {}},
    )
    method: Literal["POST", "GET"] = "POST"
    headers: Secrets = Field(default_factory=dict)
    time_limit_s: float = Field(20.0, gt=0, le=600)
    filler: str = ""


class McpServerSettings(_Part):
    """A server of the Model Context Protocol: a program that we start, or a web address."""

    command: str = ""
    args: tuple[str, ...] = ()
    env: Secrets = Field(default_factory=dict)
    cwd: str | None = None
    url: WebAddress = ""
    headers: Secrets = Field(default_factory=dict)
    tools: Names = ()
    """Only these; empty: all that it has."""
    time_limit_s: float = Field(20.0, gt=0, le=600)
    filler: str = ""

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if bool(self.command) == bool(self.url):
            raise ValueError("give either command (a program to start) or url (a web address)")
        return self


class ToolsSettings(_Part):
    """Functions that the agent may call in every call, run by this server: see [tools](../howto/tools.md)."""

    functions: Names = Field(
        (), description="Python functions, `module:function`: importing them runs their code."
    )
    http: Annotated[dict[str, HttpToolSettings], AfterValidator(_check_names)] = Field(
        default_factory=dict, description="Functions behind web addresses: `[tools.http.NAME]`."
    )
    mcp: Annotated[dict[str, McpServerSettings], AfterValidator(_check_names)] = Field(
        default_factory=dict,
        description="Servers of the Model Context Protocol: `[tools.mcp.NAME]`. Extra `mcp`.",
    )
    time_limit_s: float = Field(
        20.0, gt=0, le=600, description="A Python function that takes longer has failed."
    )
