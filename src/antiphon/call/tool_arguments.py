"""Arguments of a function as a language model wrote them, held against the function's JSON schema.

Small models write numbers as text, empty text for "no arguments", or an object within a string: what can be read
without guessing is read. Everything else is an error that tells the model what to write instead. Checks the part of
JSON schema (draft 2020-12) that declarations of functions use: types, required, additionalProperties, enum, const,
bounds, items, anyOf, oneOf, allOf and local `$ref`; other keywords are ignored.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from antiphon.errors import ToolError
from antiphon.text import valid_json

_MAX_CHARS = 100_000
_MAX_DEPTH = 32
_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}
_AN = frozenset("aeio")
_Measure = Callable[[Any], float | None]
_Fits = Callable[[float, float], bool]


def parse_arguments(text: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments by name. Raises ToolError with one line for the model that wrote them."""
    if len(text) > _MAX_CHARS:
        raise ToolError(f"the arguments are longer than {_MAX_CHARS} characters; write less")
    found = _load(text.strip() or "{}")
    if isinstance(found, str):
        found = _load(found.strip() or "{}")
    if found is None:
        found = {}
    if not isinstance(found, dict):
        raise ToolError("the arguments must be a JSON object")
    checked = _Checker(schema).check(found, schema, "", 0)
    assert isinstance(checked, dict)
    return checked


def _load(text: str) -> Any:
    try:
        return valid_json(json.loads(text))
    except (ValueError, RecursionError):
        raise ToolError("the arguments are not valid JSON; write one JSON object") from None


class _Checker:
    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root

    def check(self, value: Any, schema: Any, where: str, depth: int) -> Any:
        """-> the value, with harmless slips put right. Raises ToolError."""
        if depth > _MAX_DEPTH:
            raise ToolError(f"{_name(where)} is nested too deeply")
        if not isinstance(schema, Mapping):
            if schema is False:
                raise ToolError(f"{_name(where)} is not allowed")
            return value
        if isinstance(schema.get("$ref"), str):
            value = self.check(value, self._resolve(schema["$ref"]), where, depth + 1)
        value = self._check_type(value, schema, where)
        self._check_value(value, schema, where)
        if isinstance(value, dict):
            value = self._check_object(value, schema, where, depth)
        elif isinstance(value, list) and isinstance(schema.get("items"), Mapping | bool):
            inner = schema["items"]
            value = [self.check(v, inner, f"{where}[{n}]", depth + 1) for n, v in enumerate(value)]
        for part in _list(schema.get("allOf")):
            value = self.check(value, part, where, depth + 1)
        for key in ("anyOf", "oneOf"):
            if _list(schema.get(key)):
                value = self._check_any(value, schema[key], where, depth)
        return value

    def _check_type(self, value: Any, schema: Mapping[str, Any], where: str) -> Any:
        named = schema.get("type")
        kinds = [named] if isinstance(named, str) else _list(named)
        kinds = [kind for kind in kinds if isinstance(kind, str) and kind in _TYPES]
        if not kinds or any(_is(value, kind) for kind in kinds):
            return value
        for kind in kinds:
            read = _read_as(value, kind)
            if read is not None:
                return read
        wanted = " or ".join(f"an {k}" if k[0] in _AN else f"a {k}" for k in kinds)
        raise ToolError(f"{_name(where)} must be {wanted}, not {_shown(value)}")

    def _check_value(self, value: Any, schema: Mapping[str, Any], where: str) -> None:
        allowed = [schema["const"]] if "const" in schema else schema.get("enum")
        if isinstance(allowed, list) and not any(_same(value, one) for one in allowed):
            listed = ", ".join(_shown(one) for one in allowed[:20])
            raise ToolError(f"{_name(where)} must be one of {listed}, not {_shown(value)}")
        for key, measure, fits, wanted in _BOUNDS:
            bound = schema.get(key)
            size = measure(value)
            if size is None or bound is None or not _is(bound, "number"):
                continue
            if not fits(size, bound):
                raise ToolError(f"{_name(where)} must {wanted.format(bound)}, not {_shown(value)}")

    def _check_object(
        self, value: dict[str, Any], schema: Mapping[str, Any], where: str, depth: int
    ) -> dict[str, Any]:
        found = schema.get("properties")
        known: Mapping[str, Any] = found if isinstance(found, Mapping) else {}
        missing = [
            n for n in _list(schema.get("required")) if isinstance(n, str) and n not in value
        ]
        if missing:
            raise ToolError(f"{_names(missing, where)} missing")
        others = schema.get("additionalProperties", True)
        extra = [name for name in value if name not in known]
        if extra and others is False:
            have = ", ".join(known) or "none"
            raise ToolError(f"{_names(extra, where)} unknown; there are: {have}")
        return {
            name: self.check(inner, known.get(name, others), _join(where, name), depth + 1)
            for name, inner in value.items()
        }

    def _check_any(self, value: Any, choices: Iterable[Any], where: str, depth: int) -> Any:
        """The first choice that fits as written, else the first that fits after a slip was put right."""
        reasons: list[str] = []
        fitting: list[Any] = []
        for choice in choices:
            try:
                fitting.append(self.check(value, choice, where, depth + 1))
            except ToolError as error:
                reasons.append(str(error))
        if not fitting:
            raise ToolError(reasons[0] if reasons else f"{_name(where)} fits nothing")
        return next((one for one in fitting if _same(one, value)), fitting[0])

    def _resolve(self, pointer: str) -> Any:
        """A `$ref` into the same schema; any other is not followed and lets everything pass."""
        found: Any = self._root
        if not pointer.startswith("#"):
            return True
        for part in pointer[1:].split("/")[1:]:
            name = part.replace("~1", "/").replace("~0", "~")
            found = found.get(name) if isinstance(found, Mapping) else None
        return True if found is None else found


def _number(value: Any) -> float | None:
    return value if _is(value, "number") else None


def _chars(value: Any) -> int | None:
    return len(value) if isinstance(value, str) else None


def _entries(value: Any) -> int | None:
    return len(value) if isinstance(value, list) else None


_BOUNDS: tuple[tuple[str, _Measure, _Fits, str], ...] = (
    ("minimum", _number, lambda size, bound: size >= bound, "be {} or more"),
    ("maximum", _number, lambda size, bound: size <= bound, "be {} or less"),
    ("exclusiveMinimum", _number, lambda size, bound: size > bound, "be more than {}"),
    ("exclusiveMaximum", _number, lambda size, bound: size < bound, "be less than {}"),
    ("minLength", _chars, lambda size, bound: size >= bound, "have {} characters or more"),
    ("maxLength", _chars, lambda size, bound: size <= bound, "have {} characters or less"),
    ("minItems", _entries, lambda size, bound: size >= bound, "have {} entries or more"),
    ("maxItems", _entries, lambda size, bound: size <= bound, "have {} entries or less"),
)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _is(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    if kind == "integer" and isinstance(value, float):
        return value.is_integer()
    if isinstance(value, float) and not math.isfinite(value):
        return False
    return isinstance(value, _TYPES[kind])


def _same(one: Any, other: Any) -> bool:
    """Equal as JSON: true is not 1."""
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def _read_as(value: Any, kind: str) -> Any:
    """A value of another type that can only mean one thing; None: it cannot be read so."""
    if kind == "string" and _is(value, "number"):
        return str(value)
    if not isinstance(value, str):
        return None
    if kind == "boolean":
        return {"true": True, "false": False}.get(value.strip().lower())
    if kind not in ("integer", "number", "object", "array"):
        return None
    try:
        read = json.loads(value)
    except (ValueError, RecursionError):
        return None
    return read if _is(read, kind) else None


def _join(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _name(where: str) -> str:
    return f"the argument {where!r}" if where else "the arguments"


def _names(names: list[str], where: str) -> str:
    listed = ", ".join(repr(_join(where, name)) for name in names[:10])
    return (
        f"the argument{'s' if len(names) > 1 else ''} {listed} {'are' if len(names) > 1 else 'is'}"
    )


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)[:60]
