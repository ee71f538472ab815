"""A call as text: nothing lost on the way there and back, and a clear word about what is no trace."""

from __future__ import annotations

import dataclasses
import json
import typing
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.core import events as ev
from antiphon.core.history import Item, ToolRequest
from antiphon.core.policy import Policy
from antiphon.observe import call_trace
from antiphon.testing.virtual_call import World

EVENTS: tuple[type, ...] = typing.get_args(ev.Event)

CALL = ToolRequest("c1", "weather", '{"city": "Oslo"}')
ITEM = Item("i1", "tool_call", tool=CALL, complete=False, extra={"type": "Policy", "n": [1, None]})


def example(cls: type) -> Any:
    """An event with every field different from its default."""
    values: dict[str, Any] = {}
    for name, hint in typing.get_type_hints(cls).items():
        values[name] = {
            str: f"some {name} “ü”\n",
            int: 12_345,
            float: 0.75,
            bool: True,
            bool | None: False,
            str | None: "root",
            Policy: Policy(greeting="", min_silence_ms=1),
            Item: ITEM,
            ToolRequest: CALL,
        }.get(hint, {"type": "Item", "deep": {"er": [1, "two", None, 0.5]}})
    for field in dataclasses.fields(cls):
        if field.default is True:
            values[field.name] = False
    return cls(**values)


@pytest.mark.parametrize("cls", EVENTS, ids=lambda cls: cls.__name__)
def test_every_event_survives_the_round_trip(cls: type) -> None:
    event = example(cls)
    line = call_trace.line(1, event, [])
    assert call_trace.decode_event(json.loads(line)["event"]) == event


@pytest.mark.parametrize("cls", EVENTS, ids=lambda cls: cls.__name__)
def test_defaults_are_left_out_and_come_back(cls: type) -> None:
    required = {
        field.name: getattr(example(cls), field.name)
        for field in dataclasses.fields(cls)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }
    event = cls(**required)
    encoded = call_trace.encode(event)
    assert set(encoded) == {"type", *required}
    assert call_trace.decode_event(json.loads(json.dumps(encoded))) == event


HEADER = call_trace.header(Policy())


def call() -> World:
    world = World(Policy(greeting="Hello.", partial_every_ms=0))
    world.speak(3_000, "what time is it", 1_200)
    return world.run(9_000)


def test_a_call_replays_without_a_difference() -> None:
    lines = call().lines
    assert call_trace.replay(lines) is None
    assert call_trace.replay(["", *lines, "  "]) is None


def test_the_policy_travels_with_the_trace() -> None:
    policy, steps = call_trace.read(
        [call_trace.header(Policy(greeting="Ahoy", interruptible=False))]
    )
    assert (policy.greeting, policy.interruptible) == ("Ahoy", False)
    assert list(steps) == []


def test_a_difference_is_found_where_it_is() -> None:
    lines = call().lines
    number = next(i for i, line in enumerate(lines) if "ReplyEnded" in line)
    lines[number] = lines[number].replace("Hello.", "Hullo.")
    difference = call_trace.replay(lines)
    assert difference is not None
    assert difference.line_number == number + 1
    assert "Hullo." in str(difference)
    assert "Hello." in str(difference)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "trace version none"),
        (['{"antiphon_trace": 0}'], "trace version 0, this is version 2: record the call again"),
        (['{"antiphon_trace": 1, "policy": {"new": 1}}'], "trace version 1"),
        (['{"antiphon_trace": 2, "policy": {"colour": "red"}}'], "Policy has no field 'colour'"),
        (['{"antiphon_trace": 2, "policy": {"min_silence_ms": "x"}}'], "Policy.min_silence_ms"),
        (['{"antiphon_trace": 2, "policy": []}'], "policy is not an object"),
        (["not json"], "line 1 is not JSON"),
        (["[1, 2]"], "line 1 is not an object"),
        ([HEADER, '{"event": {"type": "Started"}}'], "line 2 is not a step"),
        ([HEADER, '{"t": "1"}'], "line 2 is not a step"),
        ([HEADER, '{"t": 1, "actions": 7}'], "line 2 is not a step"),
        ([HEADER, '{"t": 1, "event": 7}'], "unknown event 7"),
        ([HEADER, '{"t": 1, "event": {}}'], "unknown event None"),
        ([HEADER, '{"t": 1, "event": {"type": ["Started"]}}'], "unknown event"),
        ([HEADER, '{"t": 1, "event": {"type": "Exploded"}}'], "unknown event 'Exploded'"),
        ([HEADER, '{"t": 1, "event": {"type": "UserText"}}'], "UserText"),
        (
            [HEADER, '{"t": 1, "event": {"type": "UserText", "text": 5}}'],
            "UserText.text cannot be 5",
        ),
        ([HEADER, '{"t": 1, "event": {"type": "UserText", "text": "x", "loud": true}}'], "'loud'"),
        ([HEADER, '{"t": 1, "event": {"type": "AddItem", "item": "x"}}'], "AddItem.item"),
        ([HEADER, '{"t": 1, "event": {"type": "AddItem", "item": {"idd": 1}}}'], "Item"),
    ],
)
def test_what_is_no_trace_is_refused_with_a_reason(lines: list[str], message: str) -> None:
    with pytest.raises(call_trace.TraceError) as refused:
        call_trace.replay(lines)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_what_a_client_sent_along_never_breaks_the_recording() -> None:
    event = ev.RequestReply({"odd": {1, 2}, "bytes": b"x", "tuple": (1,)})
    assert json.loads(call_trace.line(1, event, []))["event"]["options"]["tuple"] == [1]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(derandomize=True, max_examples=200, deadline=None)
@given(st.sampled_from(EVENTS), st.data())
def test_garbage_gives_an_event_or_a_trace_error(cls: type, data: st.DataObject) -> None:
    fields = [field.name for field in dataclasses.fields(cls)]
    garbage = {name: data.draw(JSON) for name in fields if data.draw(st.booleans())}
    try:
        event = call_trace.decode_event({**garbage, "type": cls.__name__})
    except call_trace.TraceError:
        return
    assert isinstance(event, cls)
