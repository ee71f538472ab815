"""`env.example` and `antiphon.example.toml`: every setting with its default, commented out.

Made by `python -m antiphon.cli.reference docs/reference/configuration.md`.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from antiphon.cli.reference import ReferenceSection, sections
from antiphon.config import PREFIX

TOML, ENV = "antiphon.example.toml", "env.example"
NO_DEFAULT = "# (no default) "
"""Begins the line of a setting that is off unless it is given."""
_COLUMNS = 100

_TOML_HEAD = """\
## Every setting of Antiphon with its default. Copy this file to antiphon.toml, and remove the "# " of what you change.
## Made from the settings; meanings and other ways to give them: docs/reference/configuration.md
"""
_ENV_HEAD = """\
## Copy this file to .env, and remove the "# " of what you change. Made from the settings; the same names work in the
## environment. Meanings: docs/reference/configuration.md

## --- what most people set; names of other systems work too -------------------------------------

## A key that every client must send: openssl rand -hex 32
# ANTIPHON_API_KEY=
## The telephone: account and token of the console's first page, and the address of your tunnel or proxy
# TWILIO_ACCOUNT_SID=
# TWILIO_AUTH_TOKEN=
# TWILIO_PHONE_NUMBER=
# PUBLIC_URL=
## A language model behind an OpenAI-compatible address: Ollama, vLLM, a service
# VLLM_BASE_URL=
# LLM_MODEL=
## For gated models of the hub
# HF_TOKEN=
## Other web sites whose pages may call
# CORS_ORIGINS=
"""


def files() -> dict[str, str]:
    """Name -> text."""
    return {TOML: toml(), ENV: env()}


def toml() -> str:
    *named, single = sections()
    parts = [_TOML_HEAD, *_toml_lines(single)]
    for section in named:
        parts += ["", f"[{section.name}]", *_toml_lines(section)]
    return "\n".join(parts) + "\n"


def env() -> str:
    parts = [_ENV_HEAD.rstrip("\n")]
    for section in sections():
        parts += ["", f"## --- {section.name or 'others'} ".ljust(_COLUMNS - 4, "-"), ""]
        prefix = PREFIX + (f"{section.name.upper()}__" if section.name else "")
        for key, value, text in section.rows:
            parts += [*_comment(text), _entry(f"{prefix}{key.upper()}=", _env_value(value))]
    return "\n".join(parts) + "\n"


def _toml_lines(section: ReferenceSection) -> Iterator[str]:
    for key, value, text in section.rows:
        yield from _comment(text)
        yield _entry(f"{key} = ", _toml_value(value))


def _entry(name: str, value: str | None) -> str:
    return f"{NO_DEFAULT}{name.rstrip()}" if value is None else f"# {name}{value}"


def _comment(text: str) -> list[str]:
    return textwrap.wrap(
        " ".join(text.split()), _COLUMNS, initial_indent="## ", subsequent_indent="## "
    )


def _plain(value: Any) -> Any:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return str(value) if isinstance(value, Path) else value


def _toml_value(value: Any) -> str | None:
    """JSON's texts, numbers, lists and `{}` are TOML's as well."""
    plain = _plain(value)
    return None if plain is None else json.dumps(plain, ensure_ascii=False)


def _env_value(value: Any) -> str | None:
    plain = _plain(value)
    if isinstance(plain, tuple):
        return ",".join(plain)
    if isinstance(plain, str):
        return json.dumps(plain, ensure_ascii=False) if " " in plain else plain
    return None if plain is None else json.dumps(plain, ensure_ascii=False)
