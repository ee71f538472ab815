"""Base64 as clients send it, formats, stable partials, ids, and the project's schemas."""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.protocols.realtime.make_schemas import PATH, make
from tests.protocols.realtime.strict import SAME_VERSION

from antiphon.core.history import ToolRequest
from antiphon.protocols.realtime import audio_formats as audio
from antiphon.protocols.realtime.frames import CLIENT_EVENTS, Frames
from antiphon.protocols.realtime.ids import Ids
from antiphon.protocols.realtime.input_audio_buffer import StableText
from antiphon.protocols.realtime.items import Items
from antiphon.protocols.realtime.responses import Response, Terms
from antiphon.protocols.realtime.schema import RealtimeError


@given(st.binary(max_size=400))
def test_base64_in_all_its_spellings(data: bytes) -> None:
    spellings = [
        base64.b64encode(data).decode(),
        base64.b64encode(data).decode().rstrip("="),
        base64.encodebytes(data).decode(),
        base64.urlsafe_b64encode(data).decode(),
    ]
    assert [audio.from_base64(text) for text in spellings] == [data] * 4


@pytest.mark.parametrize("text", ["!", "abc$", "é", "a", "====x"])
def test_what_is_no_base64(text: str) -> None:
    with pytest.raises(RealtimeError):
        audio.from_base64(text)


@pytest.mark.parametrize("kind", [audio.PCM, audio.ULAW, audio.ALAW])
def test_a_format_there_and_back(kind: str) -> None:
    pcm = (np.sin(np.arange(4_800) / 20) * 9_000).astype(np.int16)
    data = audio.encode(kind, pcm, 24_000)
    assert abs(audio.duration_ms(kind, len(data)) - 200) < 1
    back = audio.decode(kind, data, 24_000)
    assert abs(len(back) - len(pcm)) <= 3
    middle = slice(1_000, 3_800)
    assert np.abs(back[middle].astype(int) - pcm[middle]).mean() < 400


@pytest.mark.parametrize("kind", [audio.PCM, audio.ULAW])
def test_a_voice_in_pieces_is_the_voice_as_a_whole(kind: str) -> None:
    pcm = (np.sin(np.arange(9_600) / 20) * 9_000).astype(np.int16)
    voice = audio.OutputAudio(kind)
    pieces = b"".join(voice.feed(pcm[at : at + 700]) for at in range(0, 9_600, 700))
    spoken = audio.decode(kind, pieces + voice.flush(), 24_000)
    whole = audio.decode(kind, audio.encode(kind, pcm, 24_000), 24_000)
    assert len(spoken) == len(whole)
    assert np.abs(spoken.astype(int) - whole).max() <= 512  # a step of mu-law up there


def test_words_are_sent_once_two_transcripts_agree() -> None:
    stable = StableText()
    partials = ["what", "what time", "what time is", "what lime is it", "what time is it now"]
    deltas = [stable.partial(text) for text in partials]
    assert deltas == ["", "what", " time", "", ""]
    assert stable.final("what time is it") == " is it"


def test_what_was_sent_is_not_taken_back() -> None:
    stable = StableText()
    for text in ("ice cream now", "ice cream now please"):
        stable.partial(text)
    assert stable.final("I scream") == ""


@given(st.text(min_size=1, max_size=30))
def test_ids_of_clients_and_of_the_core_never_meet(item_id: str) -> None:
    names = Ids("abc")
    assert names.item(names.core(item_id)) == item_id
    assert names.core(names.item("u1")) == "u1"
    assert (names.core(item_id) == "u1") == (item_id == names.item("u1"))


def test_every_client_event_of_the_package_is_known() -> None:
    assert set(json.loads(PATH.read_text())["ga client"]) == set(CLIENT_EVENTS)


@pytest.mark.skipif(not SAME_VERSION, reason="made from another version of the openai package")
def test_the_schemas_are_those_of_the_package() -> None:
    assert json.loads(PATH.read_text()) == json.loads(json.dumps(make()))


@given(st.text(max_size=60))
def test_any_text_is_an_event_or_a_peer_error(text: str) -> None:
    for dialect in ("ga", "beta", "auto"):
        try:
            event = Frames(Ids("abc"), dialect).decode(text)
        except RealtimeError:
            continue
        assert event["type"] in CLIENT_EVENTS


def test_a_call_without_arguments_is_opened_and_closed() -> None:
    told: list[str] = []
    response = Response("r", Terms(), lambda kind, **_: told.append(kind), Items())
    response.call("item", ToolRequest("c", "clock", ""))
    assert [kind for kind in told if "conversation" not in kind] == [
        "response.created",
        "response.output_item.added",
        "response.function_call_arguments.done",
        "response.output_item.done",
    ]
