"""Media Streams frames: tables of cases for three companies, and any bytes at all."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.errors import ProtocolError
from antiphon.protocols.twilio import codec
from antiphon.protocols.twilio.codec import PLIVO, TELNYX, TWILIO, AudioFormat, MediaEncoder

AUDIO = bytes(range(160))
PAYLOAD = base64.b64encode(AUDIO).decode()

CASES: list[tuple[dict[str, Any], codec.Incoming]] = [
    ({"event": "connected", "protocol": "Call", "version": "1.0.0"}, codec.Connected()),
    (
        {"event": "media", "media": {"chunk": "2", "timestamp": "40", "payload": PAYLOAD}},
        codec.Media(AUDIO, 2, 40),
    ),
    (
        {"event": "media", "media": {"chunk": 2, "timestamp": 40.0, "payload": PAYLOAD}},
        codec.Media(AUDIO, 2, 40),
    ),
    (
        {"event": "media", "media": {"chunk": "x", "timestamp": -1, "payload": ""}},
        codec.Media(b""),
    ),
    (
        {"event": "media", "media": {"chunk": True, "timestamp": "9" * 30, "payload": "AA=="}},
        codec.Media(b"\x00"),
    ),
    (
        {"event": "media", "media": {"track": "outbound", "payload": PAYLOAD}},
        codec.UnknownMessage("media of our own voice"),
    ),
    ({"event": "dtmf", "dtmf": {"track": "inbound_track", "digit": "1"}}, codec.Digit("1")),
    ({"event": "dtmf", "dtmf": {"digit": 5}}, codec.Digit("5")),
    ({"event": "dtmf", "dtmf": {"digit": "d"}}, codec.Digit("D")),
    ({"event": "mark", "mark": {"name": "g3"}}, codec.MarkEchoed("g3")),
    ({"event": "playedStream", "streamId": "S", "name": "g3"}, codec.MarkEchoed("g3")),
    ({"event": "stop", "stop": {"callSid": "CA1"}}, codec.StreamStop()),
    ({"event": "clearedAudio", "streamId": "S"}, codec.UnknownMessage("clearedAudio")),
    ({"event": 12}, codec.UnknownMessage("12")),
    (
        {
            "event": "start",
            "streamSid": "MZ1",
            "start": {
                "streamSid": "MZ1",
                "accountSid": "AC1",
                "callSid": "CA1",
                "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
                "customParameters": {"tenant": "acme", "n": 7, "deep": {"no": 1}},
            },
        },
        codec.StreamStart(TWILIO, "MZ1", "CA1", "AC1", AudioFormat(), {"tenant": "acme", "n": "7"}),
    ),
    (
        {"event": "start", "start": {"streamSid": 1, "callSid": 2, "mediaFormat": None}},
        codec.StreamStart(TWILIO, "1", "2"),
    ),
    (
        {
            "event": "start",
            "stream_id": "T1",
            "start": {
                "user_id": "U1",
                "call_control_id": "v3:1",
                "from": "+15550100",
                "to": "+15550199",
                "media_format": {"encoding": "PCMA", "sample_rate": "16000", "channels": 1},
                "custom_parameters": {"a": "b"},
            },
        },
        codec.StreamStart(
            TELNYX,
            "T1",
            "v3:1",
            "U1",
            AudioFormat("alaw", 16_000),
            {"a": "b", "from_number": "+15550100", "to_number": "+15550199"},
        ),
    ),
    (
        {
            "event": "start",
            "start": {"callId": "P1", "streamId": "S1", "accountId": "A1"},
            "extra_headers": '{"a":"b"}',
        },
        codec.StreamStart(PLIVO, "S1", "P1", "A1", AudioFormat(), {"a": "b"}),
    ),
    (
        {"event": "start", "start": {"callId": "P1", "streamId": "S1"}, "extra_headers": "a=b,c=d"},
        codec.StreamStart(PLIVO, "S1", "P1", parameters={"a": "b", "c": "d"}),
    ),
]


@pytest.mark.parametrize(("frame", "meant"), CASES)
def test_what_a_frame_means(frame: dict[str, Any], meant: codec.Incoming) -> None:
    assert codec.decode(json.dumps(frame)) == meant


def test_parameters_are_bounded() -> None:
    given = {f"n{number}": "v" * 5_000 for number in range(500)}
    start = {"streamSid": "MZ1", "callSid": "CA1", "customParameters": given}
    found = codec.decode(json.dumps({"event": "start", "start": start}))
    assert isinstance(found, codec.StreamStart)
    assert len(found.parameters) == 50
    assert max(map(len, found.parameters.values())) == 500


def test_who_is_speaking() -> None:
    assert codec.is_telephony('{"event":"connected"}')
    for text in ('{"type":"session.update"}', "hello", "[]", "{}", '{"event":null}'):
        assert not codec.is_telephony(text)


FRAMES = [
    (
        TWILIO,
        {"event": "media", "streamSid": "X", "media": {"payload": PAYLOAD}},
        {"event": "mark", "streamSid": "X", "mark": {"name": "m"}},
        {"event": "clear", "streamSid": "X"},
    ),
    (
        TELNYX,
        {"event": "media", "media": {"payload": PAYLOAD}},
        {"event": "mark", "mark": {"name": "m"}},
        {"event": "clear"},
    ),
    (
        PLIVO,
        {
            "event": "playAudio",
            "media": {"contentType": "audio/x-mulaw", "sampleRate": 8000, "payload": PAYLOAD},
        },
        {"event": "checkpoint", "streamId": "X", "name": "m"},
        {"event": "clearAudio", "streamId": "X"},
    ),
]


@pytest.mark.parametrize(("dialect", "media", "mark", "clear"), FRAMES)
def test_what_we_say(
    dialect: codec.Dialect, media: dict[str, Any], mark: dict[str, Any], clear: dict[str, Any]
) -> None:
    encoder = MediaEncoder(dialect, "X")
    assert json.loads(encoder.media(AUDIO)) == media
    assert json.loads(encoder.mark("m")) == mark
    assert json.loads(encoder.clear()) == clear


@given(st.binary(max_size=500), st.text(max_size=20))
def test_audio_goes_out_whole_whatever_the_stream_is_called(codes: bytes, stream: str) -> None:
    frame = json.loads(MediaEncoder(TWILIO, stream).media(codes))
    assert frame["streamSid"] == stream
    assert base64.b64decode(frame["media"]["payload"]) == codes


_json = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=12)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=12), inner, max_size=4)
    ),
    max_leaves=12,
)
_keys = st.sampled_from(["event", "media", "start", "mark", "dtmf", "name", "extra_headers"])
_events = st.sampled_from(["connected", "start", "media", "dtmf", "mark", "playedStream", "stop"])


@given(
    st.one_of(
        st.text(),
        st.binary(),
        st.dictionaries(_keys, _json).map(json.dumps),
        st.tuples(_events, st.dictionaries(_keys, _json)).map(
            lambda pair: json.dumps({**pair[1], "event": pair[0]})
        ),
    )
)
def test_any_frame_is_understood_or_explained(text: str | bytes) -> None:
    problem = ""
    try:
        assert isinstance(codec.decode(text), codec.Incoming)
    except ProtocolError as error:
        problem = str(error)
    assert "\n" not in problem
