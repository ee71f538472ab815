"""Arguments as language models write them, small ones too."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from antiphon.call.tool_arguments import parse_arguments
from antiphon.errors import ToolError

CITY: dict[str, Any] = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "minLength": 1},
        "days": {"type": "integer", "minimum": 1, "maximum": 7},
        "unit": {"enum": ["C", "F"]},
        "detailed": {"type": "boolean"},
        "near": {"anyOf": [{"$ref": "#/$defs/place"}, {"type": "null"}]},
        "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 3},
    },
    "required": ["city"],
    "additionalProperties": False,
    "$defs": {
        "place": {
            "type": "object",
            "properties": {"lat": {"type": "number"}},
            "required": ["lat"],
        }
    },
}


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ('{"city": "Oslo"}', {"city": "Oslo"}),
        ('"{\\"city\\": \\"Oslo\\"}"', {"city": "Oslo"}),
        ('{"city": 5}', {"city": "5"}),
        ('{"city": "Oslo", "days": "3"}', {"city": "Oslo", "days": 3}),
        ('{"city": "Oslo", "days": 3.0}', {"city": "Oslo", "days": 3}),
        ('{"city": "Oslo", "detailed": "True"}', {"city": "Oslo", "detailed": True}),
        ('{"city": "Oslo", "tags": "[\\"sea\\"]"}', {"city": "Oslo", "tags": ["sea"]}),
        ('{"city": "Oslo", "near": {"lat": "59.9"}}', {"city": "Oslo", "near": {"lat": 59.9}}),
        ('{"city": "Oslo", "near": null}', {"city": "Oslo", "near": None}),
    ],
)
def test_what_can_mean_only_one_thing_is_read(text: str, read: dict[str, Any]) -> None:
    assert parse_arguments(text, CITY) == read


@pytest.mark.parametrize("text", ["", "  ", "{}", "null", '""'])
def test_no_arguments_are_none(text: str) -> None:
    assert parse_arguments(text, {"type": "object", "properties": {}}) == {}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "the arguments are not valid JSON; write one JSON object"),
        ("Oslo", "the arguments are not valid JSON; write one JSON object"),
        ("[1]", "the arguments must be a JSON object"),
        ("[" * 50_000, "the arguments are not valid JSON; write one JSON object"),
        (f'{{"city": "{"x" * 100_000}"}}', "the arguments are longer than 100000 characters"),
        ("{}", "the argument 'city' is missing"),
        ('{"city": null}', "the argument 'city' must be a string, not null"),
        ('{"city": ""}', "the argument 'city' must have 1 characters or more"),
        ('{"city": "Oslo", "days": "soon"}', "'days' must be an integer, not \"soon\""),
        ('{"city": "Oslo", "days": true}', "'days' must be an integer, not true"),
        ('{"city": "Oslo", "days": 9}', "'days' must be 7 or less, not 9"),
        ('{"city": "Oslo", "unit": "K"}', '\'unit\' must be one of "C", "F", not "K"'),
        ('{"city": "Oslo", "town": "x"}', "'town' is unknown; there are: city, days"),
        ('{"city": "Oslo", "tags": [[]]}', "'tags[0]' must be a string, not []"),
        ('{"city": "Oslo", "near": {}}', "the argument 'near.lat' is missing"),
        ('{"city": "Oslo", "tags": ["a", "b", "c", "d"]}', "'tags' must have 3 entries or less"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(text: str, told: str) -> None:
    with pytest.raises(ToolError) as caught:
        parse_arguments(text, CITY)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "object", "properties": {"a": True}},
        {"type": "nonsense", "properties": 5, "required": "a", "items": [], "anyOf": 3},
        {"$ref": "elsewhere.json"},
        {"$ref": "#/$defs/none"},
        {"properties": {"a": {"minimum": "low", "enum": 5}}},
    ],
)
def test_a_schema_that_says_nothing_we_understand_lets_everything_pass(schema: Any) -> None:
    assert parse_arguments('{"a": 1}', schema) == {"a": 1}


def test_a_schema_that_refers_to_itself_ends() -> None:
    with pytest.raises(ToolError, match="nested too deeply"):
        parse_arguments("{}", {"$ref": "#"})


values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 9) | st.floats(-9, 9) | st.sampled_from(["", "C"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.just("lat"), inner),
    max_leaves=4,
)


@settings(max_examples=300, derandomize=True, database=None, deadline=None)
@given(st.dictionaries(st.sampled_from([*CITY["properties"], "other"]), values))
def test_what_is_let_through_is_valid_and_what_is_valid_is_let_through(value: Any) -> None:
    # The reference implementation has the last word on both.
    valid = Draft202012Validator(CITY)
    try:
        read = parse_arguments(json.dumps(value), CITY)
    except ToolError:
        assert not valid.is_valid(value)
    else:
        assert valid.is_valid(read)
        if valid.is_valid(value):
            assert read == value
