"""The reference of all settings, made from the settings themselves: `python -m antiphon.cli.reference PAGE`.

Knows no setting: names, defaults and descriptions are read from `config.py` and the policy's source.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from antiphon.config import ALIASES, NEGOTIATED, OUTSIDE_SETTINGS, PREFIX, Settings
from antiphon.core import policy

PAGE = "docs/reference/configuration.md"

_INTRODUCTION = f"""# Configuration

<!-- Made by `python -m antiphon.cli.reference {PAGE}`: change the settings, not this page. -->

Every setting has one name. It may be given in five places, each of which goes before those above it:

| where | how |
|---|---|
| default | see the tables below |
| file `antiphon.toml` in the working directory, or what `ANTIPHON_CONFIG` names | `[server]` and `port = 9000` |
| file `.env` in the working directory | `ANTIPHON_SERVER__PORT=9000` |
| environment | `ANTIPHON_SERVER__PORT=9000` |
| command line | `--set server.port=9000`, for some settings an option such as `--port 9000` |

Lists are written `a, b` or `["a", "b"]`. A name that does not exist is an error in each of these places, and the
nearest one is suggested; other programs' variables in `.env` are left alone.
"""


def page() -> str:
    """The whole page, Markdown."""
    parts = [_INTRODUCTION]
    single: list[tuple[str, Any, str]] = []
    for name, field in Settings.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            parts.append(_section(name, inspect.getdoc(kind), _of_model(kind)))
        elif dataclasses.is_dataclass(kind):
            about = "How a call is conducted. All times are milliseconds."
            parts.append(_section(name, about, _of_policy()))
        else:
            single.append((name, _default(field), field.description or ""))
    parts.append(_section("", "Of no section.", single))
    parts.append(_aliases())
    parts.append(_outside())
    return "\n".join(parts)


def _section(name: str, about: str | None, rows: list[tuple[str, Any, str]]) -> str:
    prefix = f"{name}." if name else ""
    lines = [f"## {name or 'Others'}\n"]
    if about and not about.startswith("!!!") and "Usage Documentation" not in about:
        lines.append(f"{about}\n")
    lines += ["| setting | default | what it does |", "|---|---|---|"]
    lines += [f"| `{prefix}{key}` | {_shown(value)} | {_cell(text)} |" for key, value, text in rows]
    return "\n".join(lines) + "\n"


def _of_model(model: type[BaseModel]) -> list[tuple[str, Any, str]]:
    fields = model.model_fields.items()
    return [(name, _default(field), field.description or "") for name, field in fields]


def _default(field: FieldInfo) -> Any:
    return field.get_default(call_default_factory=True)


def _of_policy() -> list[tuple[str, Any, str]]:
    docs = dict(_attribute_docs(policy.Policy))
    values = policy.Policy()
    return [
        (field.name, getattr(values, field.name), docs.get(field.name, ""))
        for field in dataclasses.fields(policy.Policy)
        if field.name not in NEGOTIATED
    ]


def _attribute_docs(cls: type) -> Iterator[tuple[str, str]]:
    """The text below each attribute of a class: Python keeps it in the source only."""
    (found,) = ast.parse(inspect.getsource(cls)).body
    assert isinstance(found, ast.ClassDef)
    for before, after in zip(found.body, found.body[1:], strict=False):
        match before, after:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=text)):
                yield name, str(text)


def _shown(value: Any) -> str:
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if value in ("", (), None, {}):
        return "none"
    if isinstance(value, tuple):
        return f"`{', '.join(value)}`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{_cell(str(value))}`"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _aliases() -> str:
    lines = [
        "## Names of other systems\n",
        "These variables are read as well; the setting's own name goes before them.\n",
        "| variable | setting |",
        "|---|---|",
    ]
    for name, alias in ALIASES.items():
        meanings = [
            f"; `{value}` means `{path} = {meant}`"
            for value, (path, meant) in alias.special.items()
        ]
        lines.append(f"| `{name}` | `{alias.path}`{''.join(meanings)} |")
    return "\n".join(lines) + "\n"


def _outside() -> str:
    names = ", ".join(f"`{name}`" for name in sorted(OUTSIDE_SETTINGS))
    return f"Variables with the prefix `{PREFIX}` that are no settings, for they say where things lie: {names}.\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(), encoding="utf-8")
