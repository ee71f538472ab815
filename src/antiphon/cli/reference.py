"""The reference of all settings, made from the settings themselves: `python -m antiphon.cli.reference PAGE`.

The same command writes `env.example` and `antiphon.example.toml` into the folder above `docs`.
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

from antiphon.config import (
    ALIASES,
    IGNORED,
    NEGOTIATED,
    OUTSIDE_SETTINGS,
    PASSED_ON,
    PREFIX,
    RENAMED,
    Settings,
)
from antiphon.config.aliases import Alias
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

`env.example` and `antiphon.example.toml`, in the folder above `docs`, hold every setting with its default; the same
command makes them and this page. Profiles for GPUs of several sizes are in `deploy/profiles`.

Lists are written `a, b` or `["a", "b"]`. A name that does not exist is an error in each of these places, and the
nearest one is suggested; other programs' variables in `.env` are left alone.
"""


@dataclasses.dataclass(frozen=True, slots=True)
class ReferenceSection:
    """Settings that share the first part of their names; `name` is empty for those of no section."""

    name: str
    about: str
    rows: list[tuple[str, Any, str]]
    """Last part of the name, default, description."""


def sections() -> list[ReferenceSection]:
    """Every setting that there is, in the order of the settings object; those of no section last."""
    found: list[ReferenceSection] = []
    single: list[tuple[str, Any, str]] = []
    for name, field in Settings.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            found.append(ReferenceSection(name, _about(kind), _of_model(kind)))
        elif dataclasses.is_dataclass(kind):
            about = "How a call is conducted. All times are milliseconds."
            found.append(ReferenceSection(name, about, _of_policy()))
        else:
            single.append((name, _default(field), field.description or ""))
    return [*found, ReferenceSection("", "Of no section.", single)]


def page() -> str:
    """The whole page, Markdown."""
    parts = [_INTRODUCTION, *map(_table, sections())]
    return "\n".join([*parts, _renamed(), _aliases(), _ignored(), _passed_on(), _outside()])


def _about(kind: type[BaseModel]) -> str:
    text = inspect.getdoc(kind) or ""
    return "" if text.startswith("!!!") or "Usage Documentation" in text else text


def _table(section: ReferenceSection) -> str:
    prefix = f"{section.name}." if section.name else ""
    lines = [f"## {section.name or 'Others'}\n"]
    if section.about:
        lines.append(f"{section.about}\n")
    lines += ["| setting | default | what it does |", "|---|---|---|"]
    lines += [
        f"| `{prefix}{key}` | {_shown(value)} | {_cell(text)} |"
        for key, value, text in section.rows
    ]
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
        "These variables are read as well, from the environment and from `.env`; the setting's own name goes before "
        "them.\n",
        "| variable | setting |",
        "|---|---|",
    ]
    lines += [f"| `{name}` | {_meaning(alias)} |" for name, alias in ALIASES.items()]
    return "\n".join(lines) + "\n"


def _meaning(alias: Alias) -> str:
    parts = [", ".join(f"`{path}`" for path in (alias.path, *alias.also) if path)]
    parts += [
        f"`{value}` means `{path} = {meant}`" for value, (path, meant) in alias.special.items()
    ]
    if alias.with_endpoint:
        parts.append(f"with an endpoint `{alias.with_endpoint}`")
    parts += [f"and, unless it is set, `{path} = {meant}`" for path, meant in alias.implies.items()]
    parts.append(alias.about)
    return "; ".join(part for part in parts if part)


def _renamed() -> str:
    lines = [
        "## Settings that had another name\n",
        "The old name works everywhere for one more release, with a warning; the name now goes before it.\n",
        "| old name | name now |",
        "|---|---|",
    ]
    lines += [f"| `{old}` | `{current}` |" for old, current in RENAMED.items()]
    return "\n".join(lines) + "\n"


def _ignored() -> str:
    lines = ["Accepted without effect:\n", "| variable | what stands in its place |", "|---|---|"]
    lines += [f"| `{name}` | {reason} |" for name, reason in IGNORED.items()]
    return "\n".join(lines) + "\n"


def _passed_on() -> str:
    names = ", ".join(
        f"`{name}`" if name == ours else f"`{name}` (as `{ours}`)"
        for name, ours in PASSED_ON.items()
    )
    return (
        "Read by the weight store and the model libraries, and found by them where they stand in `.env` too: "
        f"{names}.\n"
    )


def _outside() -> str:
    names = ", ".join(f"`{name}`" for name in sorted(OUTSIDE_SETTINGS))
    return f"Variables with the prefix `{PREFIX}` that are no settings, for they say where things lie: {names}.\n"


def write(path: Path) -> None:
    """The page, and the examples in the folder above its `docs`."""
    from antiphon.cli import examples

    path.write_text(page(), encoding="utf-8")
    for name, text in examples.files().items():
        (path.absolute().parents[2] / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
