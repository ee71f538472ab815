"""Wyoming's events: cut anywhere, in both forms, and what is no event."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.errors import ProtocolError
from antiphon.protocols.wyoming.codec import MAX_PAYLOAD_BYTES, Event, WyomingDecoder, encode

EVENTS = st.builds(
    Event,
    st.text(min_size=1, max_size=20),
    st.dictionaries(st.text(max_size=5), st.text(max_size=9) | st.integers(-9, 9), max_size=3),
    st.binary(max_size=60),
)


@given(st.lists(EVENTS, max_size=4), st.integers(1, 40))
def test_however_it_is_cut(events: list[Event], step: int) -> None:
    data = b"".join(encode(event) for event in events)
    decoder = WyomingDecoder()
    found = [e for at in range(0, len(data), step) for e in decoder.feed(data[at : at + step])]
    assert found == events


@given(st.binary(max_size=300))
def test_any_bytes(data: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        WyomingDecoder().feed(data)


def test_data_in_the_line_and_apart_from_it() -> None:
    more = '{"b": "é"}'.encode()
    head = {"type": "x", "data": {"a": 1, "b": 2}, "data_length": len(more), "payload_length": 2}
    (event,) = WyomingDecoder().feed(json.dumps(head).encode() + b"\n" + more + b"ok")
    assert event == Event("x", {"a": 1, "b": "é"}, b"ok")


@pytest.mark.parametrize(
    "line",
    [
        b"{}",
        b"[]",
        b'{"type": "x", "payload_length": -1}',
        b'{"type": "x", "payload_length": %d}' % (MAX_PAYLOAD_BYTES + 1),
        b'{"type": "x", "data_length": "9"}',
    ],
)
def test_what_is_no_event(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        WyomingDecoder().feed(line + b"\n")
