"""OpenAI's HTTP bodies: what is read from requests, and every shape of an answer."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.json_body import BadRequest
from antiphon.protocols.openai_http import codec
from antiphon.protocols.openai_http.codec import Segment, TranscriptionRequest, TranscriptionResult
from antiphon.protocols.realtime import secret_routes

HEARD = TranscriptionResult(
    (Segment(0.0, 1.5, "Hello there."), Segment(3_661.25, 3_662.0, "A <b> & c --> d")),
    3_700.0,
    "en",
)


def body(**fields: Any) -> bytes:
    return msgspec.json.encode(fields)


# --- transcripts ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ([], TranscriptionRequest()),
        ([("response_format", "srt"), ("model", "whisper-1")], TranscriptionRequest("srt")),
        ([("language", "EN-gb")], TranscriptionRequest(language="en")),
        ([("stream", "true")], TranscriptionRequest(stream=True)),
        ([("stream", "False"), ("stream", "")], TranscriptionRequest()),
        ([("timestamp_granularities[]", "word")], TranscriptionRequest(words=True, segments=False)),
        (
            [("timestamp_granularities", "word"), ("timestamp_granularities[]", "segment")],
            TranscriptionRequest(words=True),
        ),
        (
            [("keywords[]", "x"), ("file", object()), ("chunking_strategy", "auto")],
            TranscriptionRequest(),
        ),
    ],
)
def test_the_form(fields: list[tuple[str, Any]], expected: TranscriptionRequest) -> None:
    assert codec.read_transcription(fields) == expected


@pytest.mark.parametrize(
    ("field", "param"),
    [
        (("response_format", "xml"), "response_format"),
        (("language", "english please, or french"), "language"),
        (("language", "<b>"), "language"),
        (("stream", "maybe"), "stream"),
        (("timestamp_granularities[]", "letter"), "timestamp_granularities"),
    ],
)
def test_a_form_that_is_wrong(field: tuple[str, str], param: str) -> None:
    with pytest.raises(BadRequest) as found:
        codec.read_transcription([field])
    assert found.value.param == param


def test_subtitles() -> None:
    assert codec.transcript_body(HEARD, TranscriptionRequest("srt")) == (
        "1\n00:00:00,000 --> 00:00:01,500\nHello there.\n\n"
        "2\n01:01:01,250 --> 01:01:02,000\nA <b> & c --> d\n\n"
    )
    assert codec.transcript_body(HEARD, TranscriptionRequest("vtt")) == (
        "WEBVTT\n\n"
        "00:00:00.000 --> 00:00:01.500\nHello there.\n\n"
        "01:01:01.250 --> 01:01:02.000\nA &lt;b> &amp; c --&gt; d\n\n"
    )
    nothing = TranscriptionResult((), 1.0, "")
    assert codec.transcript_body(nothing, TranscriptionRequest("srt")) == ""
    assert codec.transcript_body(nothing, TranscriptionRequest("vtt")) == "WEBVTT\n\n"


def test_words_fill_their_segment() -> None:
    found = codec.transcript_body(HEARD, TranscriptionRequest("verbose_json", words=True))
    assert isinstance(found, dict)
    words = found["words"]
    assert [w["word"] for w in words[:2]] == ["Hello", "there."]
    assert (words[0]["start"], words[1]["end"]) == (0.0, 1.5)
    assert words[0]["end"] == words[1]["start"]
    assert found["segments"][1]["id"] == 1


def test_languages_without_spaces() -> None:
    parts = (Segment(0, 1, "你好。"), Segment(1, 2, "再见。"))
    assert TranscriptionResult(parts, 2, "zh").text == "你好。再见。"
    assert TranscriptionResult(parts, 2, "").text == "你好。 再见。"


# --- speech ---------------------------------------------------------------------------------------


def test_a_voice_is_a_name_or_an_object() -> None:
    for voice, name in (("nova", "nova"), ({"id": "v1"}, "v1"), (None, "")):
        assert codec.read_speech(body(input="a", voice=voice)).voice_name == name
    assert codec.read_speech(body(input="a", instructions="whisper", new="field")).speed == 1.0


def test_events_are_one_line_each() -> None:
    framed = codec.sse_event(codec.speech_delta(b"\x00\xff\n"))
    assert framed == b'data: {"type":"speech.audio.delta","audio":"AP8K"}\n\n'
    assert codec.sse_event({"text": "two\nlines"}).count(b"\n") == 2


# --- chat -----------------------------------------------------------------------------------------


@given(
    st.text("abc", max_size=40),
    st.lists(st.text("abc", min_size=1, max_size=4), max_size=3),
    st.data(),
)
def test_stop_words_are_found_however_the_text_is_cut(
    text: str, stops: list[str], data: st.DataObject
) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    found = codec.StopFilter(stops)
    sent = "".join(found.feed(piece) for piece in pieces) + found.flush()
    assert text.startswith(sent)
    assert not any(stop in sent for stop in stops)
    assert found.hit == any(stop in text for stop in stops)
    if not found.hit:
        assert sent == text


def test_roles_and_parts() -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    ask = codec.read_chat(
        body(
            messages=[
                {"role": "developer", "content": "Be brief.", "name": "x"},
                {"role": "user", "content": parts},
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [
                        {
                            "id": "c",
                            "type": "function",
                            "function": {"name": "f", "arguments": "{}"},
                        }
                    ],
                },
            ],
            stop="a",
            stream_options={"include_usage": True},
            max_tokens=10**9,
        )
    )
    assert [m.plain_role for m in ask.messages] == ["system", "user", "assistant"]
    assert [m.text for m in ask.messages] == ["Be brief.", "one\ntwo", ""]
    assert (ask.stops, ask.wants_usage, ask.token_limit) == (("a",), True, codec.MAX_TOKENS)


@given(
    st.binary(max_size=60)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["messages", "role", "content", "tools", "input", "session"]), inner
            )
        ),
        max_leaves=12,
    ).map(msgspec.json.encode)
)
def test_any_body_is_read_or_refused(data: bytes) -> None:
    for read in (codec.read_chat, codec.read_speech, secret_routes.read, secret_routes.read_beta):
        try:
            read(data)
        except BadRequest as error:
            assert "\n" not in str(error)  # noqa: PT017


# --- client secrets -------------------------------------------------------------------------------


def test_secrets() -> None:
    ask = secret_routes.read(b"")
    assert (ask.expires_after.seconds, ask.session) == (600, {"type": "realtime"})
    answer = secret_routes.answer("ek_1", 5, {"type": "transcription"})
    assert answer["session"] == {"type": "transcription", "expires_at": 5}
    assert (answer["value"], answer["expires_at"]) == ("ek_1", 5)
    given = body(
        voice="a", client_secret={"expires_after": {"anchor": "created_at", "seconds": 60}}
    )
    assert secret_routes.read_beta(given) == ({"voice": "a"}, 60)
