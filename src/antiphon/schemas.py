"""JSON schemas of strangers: bounded before any model, grammar compiler or template sees them.

A schema of a few hundred bytes can keep a grammar compiler busy for hours: references in a circle, a tower of
alternatives that doubles with every storey, a text of at least a billion characters. Every door and every model goes
through `bounded`, which is linear in the size of the schema and stops as soon as a limit has passed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from antiphon.errors import RequestError

MAX_DEPTH = 24
"""Objects and lists within each other: about ten levels of objects with properties."""
MAX_NODES = 4_000
"""Values, of all kinds."""
MAX_BYTES = 64_000
"""Of all texts in a schema."""
MAX_EXPANDED_NODES = 10_000
"""Values with every reference replaced by what it refers to."""
MAX_REPETITIONS = 1_000
"""Entries or characters that may be demanded (`minItems`, `minLength`). Grammars write each of them out."""
MAX_PATTERN_CHARS = 256
_MAX_PATTERN_GROUPS = 16
_MAX_NUMBER = 2**53
"""Whole numbers that every JSON library reads alike."""

_DATA = frozenset({"const", "default", "enum", "example", "examples"})
"""What stands under these is data, and no schema."""
_AT_LEAST = frozenset({"minItems", "minLength", "minProperties", "minContains"})
_AT_MOST = frozenset({"maxItems", "maxLength", "maxProperties", "maxContains"})
_RANGES = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"})
_COUNTS = re.compile(r"\{(\d*)(?:,(\d*))?\}")


def bounded(schema: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """The schema as a model may be given it: itself, or a copy without limits that are too large to be written out.

    `where` names it in the error. Raises RequestError for a schema that refers to itself or to what is not in it, or
    that is too deep, too large, or demands too much.
    """
    _measure(schema, where)
    _Expansion(schema, where).check()
    return _without_large_limits(schema)


def _measure(schema: Any, where: str) -> None:
    """Depth, number of values and size of texts, without recursion."""
    nodes = size_bytes = 0
    waiting: list[tuple[Any, int]] = [(schema, 1)]
    while waiting:
        value, depth = waiting.pop()
        nodes += 1
        if depth > MAX_DEPTH:
            raise _refused(where, f"is nested more than {MAX_DEPTH} levels deep")
        if isinstance(value, Mapping):
            size_bytes += sum(len(str(name)) for name in value)
            children = list(value.values())
        elif isinstance(value, list | tuple):
            children = list(value)
        else:
            size_bytes += len(value) if isinstance(value, str) else 0
            continue
        if nodes + len(waiting) + len(children) > MAX_NODES:
            raise _refused(where, f"has more than {MAX_NODES} values")
        if size_bytes > MAX_BYTES:
            raise _refused(where, f"is longer than {MAX_BYTES} characters")
        waiting += [(child, depth + 1) for child in children]
    if size_bytes > MAX_BYTES:
        raise _refused(where, f"is longer than {MAX_BYTES} characters")


class _Expansion:
    """How large a schema is once its references are followed, and whether they lead anywhere."""

    def __init__(self, root: Mapping[str, Any], where: str) -> None:
        self._root = root
        self._where = where
        self._sizes: dict[str, int] = {}
        """By reference; 0 while it is being followed."""

    def check(self) -> None:
        if self._size(self._root) > MAX_EXPANDED_NODES:
            raise _refused(self._where, f"stands for more than {MAX_EXPANDED_NODES} values")

    def _size(self, value: Any) -> int:
        if isinstance(value, list | tuple):
            return 1 + sum(self._size(entry) for entry in value)
        if not isinstance(value, Mapping):
            return 1
        size = 1
        for name, inner in value.items():
            _check_keyword(name, inner, self._where)
            if name == "$ref" and isinstance(inner, str):
                size += self._size_of(inner)
            elif name not in _DATA and name not in ("$defs", "definitions"):
                size += self._size(inner)
        return size

    def _size_of(self, reference: str) -> int:
        known = self._sizes.get(reference)
        if known == 0:
            raise _refused(self._where, f"refers to itself: {reference[:80]!r}")
        if known is not None:
            return known
        self._sizes[reference] = 0
        size = self._size(self._target(reference))
        self._sizes[reference] = size
        return size

    def _target(self, reference: str) -> Any:
        if reference == "#":
            raise _refused(self._where, "refers to itself: '#'")
        found: Any = self._root if reference.startswith("#/") else None
        for part in reference[2:].split("/"):
            name = part.replace("~1", "/").replace("~0", "~")
            found = found.get(name) if isinstance(found, Mapping) else None
        if not isinstance(found, Mapping | bool):
            raise _refused(self._where, f"refers to what is not in it: {reference[:80]!r}")
        return found


def _check_keyword(name: str, value: Any, where: str) -> None:
    if name in _AT_LEAST and _is_number(value) and value > MAX_REPETITIONS:
        raise _refused(where, f"demands too much: {name} may be {MAX_REPETITIONS} at most")
    if name == "pattern" and isinstance(value, str):
        _check_pattern(value, where)


def _check_pattern(pattern: str, where: str) -> None:
    if len(pattern) > MAX_PATTERN_CHARS:
        raise _refused(where, f"has a pattern of more than {MAX_PATTERN_CHARS} characters")
    if pattern.count("(") > _MAX_PATTERN_GROUPS:
        raise _refused(where, f"has a pattern of more than {_MAX_PATTERN_GROUPS} groups")
    repeated = 1
    for counts in _COUNTS.findall(pattern):
        repeated *= max(*(min(int(count or 1), 10**6) for count in counts), 1)
    if repeated > MAX_REPETITIONS:
        raise _refused(where, f"has a pattern that repeats more than {MAX_REPETITIONS} times")


def _without_large_limits(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    if not any(_is_too_large(name, value) for name, value in _keywords(schema)):
        return schema
    lighter: Mapping[str, Any] = _lightened(schema)
    return lighter


def _keywords(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield name, inner
            if name not in _DATA:
                yield from _keywords(inner)
    elif isinstance(value, list | tuple):
        for entry in value:
            yield from _keywords(entry)


def _lightened(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {
            name: inner if name in _DATA else _lightened(inner)
            for name, inner in value.items()
            if not _is_too_large(name, inner)
        }
    return [_lightened(entry) for entry in value] if isinstance(value, list | tuple) else value


def _is_too_large(name: str, value: Any) -> bool:
    """A limit that allows more than a grammar can count: the model goes without it."""
    if not _is_number(value):
        return False
    if name in _AT_MOST:
        return bool(value > MAX_REPETITIONS)
    return name in _RANGES and not -_MAX_NUMBER <= value <= _MAX_NUMBER


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _refused(where: str, problem: str) -> RequestError:
    return RequestError(f"{where}: the JSON schema {problem}; make it simpler", where)
