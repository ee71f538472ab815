"""Hostile JSON schemas are refused before any model sees them, and what tools really declare is not."""

from __future__ import annotations

from typing import Any

import pytest

from antiphon.errors import RequestError
from antiphon.schemas import MAX_REPETITIONS, bounded


def with_a(a: Any, **more: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"a": a}, "required": ["a"], **more}


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        schema = with_a(schema)
    return schema


def laughs(storeys: int) -> dict[str, Any]:
    """Twice as much on every storey."""
    defs = {f"d{n}": {"anyOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(storeys)}
    return with_a({"$ref": "#/$defs/d0"}, **{"$defs": {**defs, f"d{storeys}": {"type": "null"}}})


HOSTILE: dict[str, tuple[dict[str, Any], str]] = {
    "itself": ({"$ref": "#"}, "refers to itself"),
    "itself within": (with_a({"$ref": "#"}), "refers to itself"),
    "itself by a property": (with_a({"$ref": "#/properties/a"}), "refers to itself"),
    "in a circle": (
        with_a(
            {"$ref": "#/$defs/x"},
            **{"$defs": {"x": {"$ref": "#/$defs/y"}, "y": {"items": {"$ref": "#/$defs/x"}}}},
        ),
        "refers to itself",
    ),
    "nowhere": (with_a({"$ref": "#/$defs/none"}), "refers to what is not in it"),
    "another host": (with_a({"$ref": "https://example.com/s.json"}), "refers to what is not in it"),
    "a tower": (nested(400), "nested more than"),
    "a doubling tower": (laughs(20), "stands for more than"),
    "a large enum": (with_a({"enum": [f"v{n}" for n in range(50_000)]}), "values"),
    "many properties": (
        {"type": "object", "properties": {f"p{n}": {"type": "string"} for n in range(3_000)}},
        "values",
    ),
    "allOf": ({"allOf": [{"anyOf": [{"type": "null"}] * 100}] * 100}, "values"),
    "a long text": (with_a({"description": "x" * 100_000}), "longer than"),
    "minLength": (with_a({"type": "string", "minLength": 10**9}), "demands too much"),
    "minItems": (with_a({"type": "array", "minItems": 10**9}), "demands too much"),
    "a pattern that repeats": (
        with_a({"type": "string", "pattern": "^((a{1,1000}){1,1000}){1,1000}$"}),
        "repeats more than",
    ),
    "a pattern of brackets": (
        with_a({"type": "string", "pattern": "^" + "(" * 100 + "a" + ")" * 100 + "$"}),
        "groups",
    ),
    "a long pattern": (with_a({"type": "string", "pattern": "a" * 10_000}), "pattern of more"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_schema_is_refused(name: str) -> None:
    schema, reason = HOSTILE[name]
    with pytest.raises(RequestError, match=reason) as refused:
        bounded(schema, "tools[0].parameters")
    assert refused.value.param == "tools[0].parameters"


ORDINARY: dict[str, dict[str, Any]] = {
    "empty": {},
    "nested": nested(8),
    "shared": with_a(
        {"items": {"$ref": "#/$defs/x"}},
        b={"$ref": "#/$defs/x"},
        **{"$defs": {"x": {"type": "null"}}},
    ),
    "the old word": with_a({"$ref": "#/definitions/x"}, definitions={"x": {"enum": ["a"]}}),
    "properties with the names of keywords": {
        "type": "object",
        "properties": {"$ref": {"type": "string"}, "pattern": {"type": "string"}, "minItems": {}},
    },
    "data that looks like a schema": with_a({"default": {"$ref": "#"}, "enum": [{"$ref": "#"}]}),
    "an enum of 500": with_a({"enum": [f"value {n}" for n in range(500)]}),
    "a pattern": with_a({"type": "string", "pattern": r"^\d{4}-\d{2}-\d{2}$"}),
    "limits": with_a({"type": "string", "minLength": 1, "maxLength": 500}),
}


@pytest.mark.parametrize("name", ORDINARY)
def test_an_ordinary_schema_stays_as_it_is(name: str) -> None:
    assert bounded(ORDINARY[name], "parameters") is ORDINARY[name]


@pytest.mark.parametrize(
    ("limits", "left"),
    [
        ({"maxLength": 10**9}, {}),
        ({"minItems": 1, "maxItems": MAX_REPETITIONS + 1}, {"minItems": 1}),
        ({"maxItems": MAX_REPETITIONS}, {"maxItems": MAX_REPETITIONS}),
        ({"minimum": -(10**400), "maximum": 10**400}, {}),
        ({"minimum": 0, "maximum": 100}, {"minimum": 0, "maximum": 100}),
    ],
)
def test_a_limit_that_is_too_large_to_count_is_left_out(
    limits: dict[str, Any], left: dict[str, Any]
) -> None:
    assert bounded(with_a({"type": "array", **limits}), "s") == with_a({"type": "array", **left})
