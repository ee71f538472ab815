"""Values of settings as people write them, and as they may be shown."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from typing import Any

_SECRET_WORDS = ("key", "secret", "password", "token", "header", "auth", "credential")


def parse_value(text: str) -> Any:
    """As in the settings file (`5`, `true`, `[1, 2]`, `{ a = 1 }`) or in JSON; else the text itself."""
    if "\n" not in text:
        try:
            return tomllib.loads(f"value = {text}")["value"]
        except (ValueError, RecursionError):
            pass
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def parse_values(value: Any) -> Any:
    """`parse_value` for every text in a tree."""
    if isinstance(value, Mapping):
        return {name: parse_values(inner) for name, inner in value.items()}
    return parse_value(value) if isinstance(value, str) else value


def names(value: Any) -> Any:
    """`"a, b"`, `'["a", "b"]'` and `["a", "b"]` are the same list. Anything else is left to be refused."""
    if not isinstance(value, str):
        return value
    parsed = parse_value(value)
    if isinstance(parsed, list):
        return tuple(parsed)
    return tuple(part.strip() for part in value.split(",") if part.strip())


def hide_secrets(value: Any) -> Any:
    """The same tree, with the values of keys that sound like secrets replaced."""
    if not isinstance(value, Mapping):
        return value
    return {
        name: "hidden" if inner and _is_secret(str(name)) else hide_secrets(inner)
        for name, inner in value.items()
    }


def _is_secret(name: str) -> bool:
    return any(word in name.lower() for word in _SECRET_WORDS) and not name.endswith("tokens")


def host_name(value: str) -> str:
    """An address or a name to listen on."""
    if not value or len(value) > 253 or not value.isprintable() or " " in value:
        raise ValueError(
            "should be an address or a name: 127.0.0.1 for this machine only, 0.0.0.0 for everybody"
        )
    return value


def web_address(value: object) -> object:
    """`voice.example.org/` -> `https://voice.example.org`: people paste what their tunnel prints."""
    if not isinstance(value, str) or not value.strip():
        return value
    address = value.strip().rstrip("/")
    return address if "://" in address else f"https://{address}"
