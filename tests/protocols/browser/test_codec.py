"""The talk protocol, both ways, as tables. No socket, no session."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.core import actions as act
from antiphon.core.floor import Floor
from antiphon.core.turn_record import TurnRecord
from antiphon.errors import ProtocolError
from antiphon.protocols.browser import codec

GOOD: list[tuple[str, codec.Incoming]] = [
    ('{"type":"ping"}', codec.Ping()),
    ('{"type":"ping","and":"more"}', codec.Ping()),
    ('{"type":"stop"}', codec.EndCall()),
    ('{"type":"end_conversation"}', codec.EndConversation()),
    ('{"type":"set_level","level":"advanced"}', codec.SetLevel("advanced")),
    ('{"type":"played","reply":"r3","ms":1234}', codec.PlayedReport("r3", 1234)),
    ('{"type":"text","text":"hello"}', codec.TypedText("hello")),
    ('{"type":"start"}', codec.StartCall()),
    (
        '{"type":"start","format":"pcm_f32le","rate":48000,"extensions":["clear","new"],"greeting":false,'
        '"voice":"joe","language":"de"}',
        codec.StartCall("pcm_f32le", 48_000, ("clear", "new"), False, "joe", "de"),
    ),
]

BAD: list[tuple[str, str]] = [
    ("", "must be JSON objects; send audio as binary frames"),
    ("hello", "must be JSON objects"),
    ('{"type":"ping"', "must be JSON objects"),
    ('{"type":"ping"}{"type":"ping"}', "must be JSON objects"),
    ("\x00\x01", "must be JSON objects"),
    ('{"type":"ping","x":"\ud800"}', "must be JSON objects"),
    ('{"x":' + "[" * 100_000 + "]" * 100_000 + ',"type":"ping"}', "must be JSON objects"),
    ("[]", "JSON object with a `type`"),
    ("7", "JSON object with a `type`"),
    ("null", "JSON object with a `type`"),
    ("{}", "needs a `type`; known: start, ping"),
    ('{"type":5}', "needs a `type`"),
    ('{"type":"pingg"}', "unknown message type 'pingg'; did you mean 'ping'?"),
    ('{"type":"' + "x" * 9_000 + '"}', "unknown message type 'xxxx"),
    ('{"type":"set_level","level":"expert"}', "unknown level 'expert'"),
    ('{"type":"set_level"}', "set_level: object missing required field `level`"),
    ('{"type":"played","reply":"r1","ms":"12"}', "played: expected `int`, got `str`"),
    ('{"type":"played","reply":"r1","ms":-1}', "must not be negative"),
    ('{"type":"played","reply":7,"ms":1}', "played: expected `str`"),
    ('{"type":"text","text":""}', "nothing in it"),
    ('{"type":"text","text":"' + "x" * 4_001 + '"}', "longer than 4000 characters"),
    ('{"type":"start","format":"pcm_s16"}', "unknown format 'pcm_s16'; did you mean 'pcm_s16le'?"),
    ('{"type":"start","rate":"16000"}', "start: expected `int`"),
    ('{"type":"start","rate":0}', "rate 0 is not between 4000 and 192000 Hz"),
    ('{"type":"start","rate":1000000}', "rate 1000000 is not between"),
    ('{"type":"start","extensions":"clear"}', "start: expected `array`, got `str`"),
    ('{"type":"start","greeting":1}', "start: expected `bool`"),
    ('{"type":"start","voice":"' + "v" * 201 + '"}', "are names"),
    ('{"type":"start","listen":"pish"}', "cannot listen 'pish'; did you mean 'push'?"),
    ('{"type":"start","frames":"3"}', "start: expected `int`"),
    ('{"type":"configure","agent":"' + "a" * 201 + '"}', "configure: `voice`"),
    ('{"type":"configure","instructions":"' + "a" * 4_001 + '"}', "longer than 4000"),
]


@pytest.mark.parametrize(("text", "expected"), GOOD)
def test_good_messages(text: str, expected: codec.Incoming) -> None:
    assert codec.decode(text) == expected


@pytest.mark.parametrize(("text", "reason"), BAD, ids=[text[:30] for text, _ in BAD])
def test_bad_messages(text: str, reason: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        codec.decode(text)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


@given(st.text())
def test_any_text_is_a_message_or_an_error_of_the_peer(text: str) -> None:
    with contextlib.suppress(ProtocolError):
        codec.decode(text)


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)
_fields = st.sampled_from(
    (
        "format rate extensions greeting voice level reply ms text x "
        "resume frames listen agent instructions"
    ).split()
)


@given(st.sampled_from([*codec._TYPES, "nope"]), st.dictionaries(_fields, _values, max_size=4))
def test_any_object_is_a_message_or_an_error_of_the_peer(kind: str, fields: dict[str, Any]) -> None:
    try:
        message = codec.decode(json.dumps({"type": kind, **fields}))
    except ProtocolError:
        return
    assert type(message).__struct_config__.tag == kind


QUERIES: list[tuple[dict[str, str], codec.StartCall | str]] = [
    ({}, codec.StartCall()),
    ({"rate": "8000"}, codec.StartCall("pcm_s16le", 8_000)),
    ({"sample_rate": "48000", "format": "pcm_f32le"}, codec.StartCall("pcm_f32le", 48_000)),
    ({"format": "auto"}, codec.StartCall()),
    ({"format": "pcm"}, "unknown format 'pcm'"),
    ({"rate": "fast"}, "rate 'fast' in the URL is not a number"),
    ({"rate": "-1"}, "is not a number"),
    ({"rate": "٣٣٣٣"}, "is not a number"),
    ({"rate": "1"}, "rate 1 is not between"),
    ({"rate": "9" * 5_000}, "is not a number"),
]


@pytest.mark.parametrize(("query", "expected"), QUERIES, ids=[str(q)[:40] for q, _ in QUERIES])
def test_audio_announced_in_the_url(query: dict[str, str], expected: codec.StartCall | str) -> None:
    if isinstance(expected, codec.StartCall):
        assert codec.start_from_query(query) == expected
        return
    with pytest.raises(ProtocolError, match=expected):
        codec.start_from_query(query)


# --- to the client --------------------------------------------------------------------------------

RECORD = TurnRecord(number=1)
TURN: list[act.Action | str] = [
    act.FloorChanged(Floor.CALLER),
    act.SpeechBegan("u1", 0),
    act.Transcript("u1", "what time", final=False),
    act.FloorChanged(Floor.DECIDING),
    act.SpeechEnded("u1", 900),
    act.Transcript("u1", "what time is it", final=True),
    act.FloorChanged(Floor.THINKING),
    act.ReplyBegan("r1", "a1"),
    act.ReplyWords("r1", "a1", "It is "),
    act.ReplyWords("r1", "a1", "noon."),
    act.Play("r1"),
    "r1",  # audio leaves
    "r1",
    act.ReplyGenerated("r1", "a1", "stop"),
    act.ReplyEnded("r1", "a1", "completed", heard="It is noon."),
    act.TurnRecorded(RECORD),
]
INTERRUPTED: list[act.Action | str] = [
    act.ReplyWords("r1", "a1", "It is a long"),
    act.Play("r1"),
    "r1",
    "clear",  # the caller speaks
    act.Play("r1", 400),  # but meant nothing
    "r1",
    "clear",
    act.ReplyEnded("r1", "a1", "cancelled", "turn_detected", "It is", "a long"),
    act.ReplyWords("r2", "a2", "Yes?"),
    act.Play("r2"),
    "r2",
]


def frames(script: list[act.Action | str], *extensions: str) -> list[str]:
    """What the client gets; `<pcm>` stands for a binary frame."""
    encoder, out = codec.BrowserEncoder(frozenset(extensions)), []
    for step in script:
        if step == "clear":
            out += [frame for frame in (encoder.clear(),) if frame is not None]
        elif isinstance(step, str):
            begin = encoder.audio_start(step)
            out += [*([begin] if begin else []), "<pcm>"]
        else:
            out += encoder.encode(step)
    return out


def test_what_an_older_client_sees_of_a_turn() -> None:
    assert codec.connected("s1") == '{"type":"connected","session_id":"s1"}'
    assert frames(TURN) == [
        '{"type":"transcript","text":"what time","is_final":false}',
        '{"type":"transcript","text":"what time is it","is_final":true}',
        '{"type":"ai_text","text":"It is ","is_complete":false}',
        '{"type":"ai_text","text":"noon.","is_complete":false}',
        '{"type":"ai_audio_start","sample_rate":24000}',
        "<pcm>",
        "<pcm>",
        '{"type":"ai_text","text":"","is_complete":true}',
        '{"type":"turn_complete"}',
    ]


def test_what_an_older_client_sees_of_an_interruption() -> None:
    """Binary frames carry no turn: a cancelled one is ended, text and all, before anything new."""
    assert frames(INTERRUPTED) == [
        '{"type":"ai_text","text":"It is a long","is_complete":false}',
        '{"type":"ai_audio_start","sample_rate":24000}',
        "<pcm>",
        "<pcm>",
        '{"type":"ai_text","text":"","is_complete":true}',
        '{"type":"turn_complete"}',
        '{"type":"ai_text","text":"Yes?","is_complete":false}',
        '{"type":"ai_audio_start","sample_rate":24000}',
        "<pcm>",
    ]


def test_what_all_extensions_add() -> None:
    assert codec.started("s1", frozenset({"played", "clear"})) == (
        '{"type":"connected","session_id":"s1","extensions":["clear","played"],"sample_rate":24000}'
    )
    out = frames(TURN, *codec.EXTENSIONS)
    assert out[:3] == [
        '{"type":"floor","state":"caller"}',
        '{"type":"transcript","text":"what time","is_final":false,"item":"u1"}',
        '{"type":"floor","state":"deciding"}',
    ]
    assert '{"type":"ai_audio_start","sample_rate":24000,"reply":"r1"}' in out
    assert '{"type":"ai_text","text":"It is ","is_complete":false,"reply":"r1"}' in out
    record = json.loads(out[-1])
    assert (record["type"], record["record"]["number"]) == ("turn", 1)
    assert "voice_to_voice_ms" in record["record"]


def test_a_cleared_reply_goes_on_from_a_place_that_is_named() -> None:
    out = frames(INTERRUPTED, "clear", "played", "heard")
    assert out == [
        '{"type":"ai_text","text":"It is a long","is_complete":false}',
        '{"type":"ai_audio_start","sample_rate":24000,"reply":"r1"}',
        "<pcm>",
        '{"type":"clear"}',
        '{"type":"ai_audio_start","sample_rate":24000,"reply":"r1","from_ms":400}',
        "<pcm>",
        '{"type":"clear"}',
        '{"type":"ai_text","text":"","is_complete":true}',
        '{"type":"heard","reply":"r1","text":"It is","unheard":"a long"}',
        '{"type":"turn_complete"}',
        '{"type":"ai_text","text":"Yes?","is_complete":false}',
        '{"type":"ai_audio_start","sample_rate":24000,"reply":"r2"}',
        "<pcm>",
    ]


SINGLE: list[tuple[act.Action, str, list[str]]] = [
    (act.Fault("x", "it broke"), "", ['{"type":"error","message":"it broke"}']),
    (act.FloorChanged(Floor.AGENT), "", []),
    (act.FloorChanged(Floor.AGENT), "floor", ['{"type":"floor","state":"agent"}']),
    (act.SpeechDropped("u1"), "", []),
    (act.SpeechDropped("u1"), "items", ['{"type":"withdrawn","item":"u1"}']),
    (act.ItemRemoved("u1"), "items", ['{"type":"withdrawn","item":"u1"}']),
    (act.TurnRecorded(RECORD), "", []),
    (act.Hangup("bye"), "", []),
    (act.Hangup("bye"), "heard", ['{"type":"ended","reason":"bye"}']),
    (act.WarmPrompt((), "x"), "items", []),
    (act.CancelReply("r1"), "items", []),
]


@pytest.mark.parametrize(("action", "extension", "expected"), SINGLE)
def test_single_actions(action: act.Action, extension: str, expected: list[str]) -> None:
    extensions = frozenset({extension}) if extension else frozenset()
    assert codec.BrowserEncoder(extensions).encode(action) == expected


def test_a_client_that_counts_wrongly_is_told_once() -> None:
    encoder, fault = (
        codec.BrowserEncoder(frozenset({"played"})),
        act.Fault("played_invalid", "too far"),
    )
    assert [len(encoder.encode(fault)) for _ in range(3)] == [1, 0, 0]


def test_a_report_that_crossed_a_clear_is_no_mistake() -> None:
    encoder = codec.BrowserEncoder(frozenset({"played", "clear"}))
    encoder.clear()
    assert encoder.encode(act.Fault("played_invalid", "too far")) == []
    assert encoder.encode(act.Fault("other", "broken")) != []


@given(st.lists(st.sampled_from(codec.EXTENSIONS), unique=True), st.text(max_size=50))
def test_every_frame_is_one_json_object(extensions: list[str], text: str) -> None:
    script = [act.ReplyWords("r1", "a1", text), act.Transcript("u1", text, final=True), *TURN]
    for frame in frames(script, *extensions):
        if frame != "<pcm>":
            assert isinstance(json.loads(frame)["type"], str)


def test_resuming_needs_reports_and_clear() -> None:
    assert codec.agreed(codec.StartCall(extensions=("resume",))) == frozenset()
    all_three = ("resume", "clear", "played")
    assert codec.agreed(codec.StartCall(extensions=all_three)) == frozenset(all_three)


def test_a_new_connection_is_told_where_audio_begins() -> None:
    encoder = codec.BrowserEncoder(frozenset({"clear", "played"}))
    first = encoder.audio_start("r1")
    assert first is not None
    assert "from_ms" not in first
    assert encoder.audio_start("r1") is None
    encoder.resumed()
    encoder.encode(act.Play("r1", 0))
    again = encoder.audio_start("r1")
    assert again is not None
    assert json.loads(again)["from_ms"] == 0


def test_what_is_worth_sending_again() -> None:
    kinds = ("transcript", "ai_text", "turn", "heard", "turn_complete", "floor")
    assert all(codec.outlives_its_connection(codec.frame(kind)) for kind in kinds)
    for kind in ("connected", "pong", "clear", "ai_audio_start"):
        assert not codec.outlives_its_connection(codec.frame(kind, reply="r1"))
