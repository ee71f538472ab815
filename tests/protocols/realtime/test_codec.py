"""The codec by itself: a frame or an action in, effects out. No loop, no socket, no call."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from antiphon.core import actions as act
from antiphon.core import events as ev
from antiphon.core.history import History, Item
from antiphon.core.policy import Policy
from antiphon.models.ports import Pcm16
from antiphon.protocols.realtime import effects as do
from antiphon.protocols.realtime.client_events import SessionLimits
from antiphon.protocols.realtime.codec import RealtimeCodec
from antiphon.protocols.realtime.frames import Send
from antiphon.protocols.realtime.ids import Ids
from antiphon.protocols.realtime.session_config import SessionConfig


class View:
    """A call in which nothing happens by itself."""

    def __init__(self) -> None:
        self.heard_ms = 0
        self.auto_turns = True
        self.history = History()
        self.live_reply: tuple[str, str] | None = None
        self.owner_policy = Policy()
        self.owner_voice = "own"
        self.voices = ("own", "marin")
        self.ours: set[str] = set()

    def is_taken(self, core_id: str) -> bool:
        return self.history.find(core_id) is not None

    def runs(self, name: str) -> bool:
        return name in self.ours

    def heard_audio(self, start_ms: int, end_ms: int) -> Pcm16:
        return np.zeros((end_ms - start_ms) * 16, np.int16)


def codec(**options: Any) -> RealtimeCodec:
    return RealtimeCodec(SessionConfig("sess_t"), Ids("t"), **options)


def shown(effect: do.Effect) -> Any:
    """A frame as its type, whatever else as it is."""
    return json.loads(effect.data)["type"] if isinstance(effect, Send) else effect


def run(steps: do.Steps, answers: dict[type, Any] | None = None) -> Iterator[Any]:
    """Carries nothing out; effects of a type in `answers` are answered."""
    answer = None
    while True:
        try:
            effect = steps.send(answer)
        except StopIteration:
            return
        answer = (answers or {}).get(type(effect))
        yield shown(effect)


def receive(found: RealtimeCodec, view: View, kind: str, **fields: Any) -> list[Any]:
    return list(run(found.receive(json.dumps({"type": kind, **fields}), view)))


def test_it_opens_no_door_to_the_outside() -> None:
    """import-linter looks at the source; this at what is loaded."""
    code = (
        "import sys, antiphon.protocols.realtime.codec, antiphon.protocols.realtime.unmute;"
        "print(sorted(sys.modules))"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    outside = ("asyncio", "socket", "fastapi", "starlette", "httpx", "websockets", "aiortc")
    ours = ("antiphon.server", "antiphon.call", "antiphon.models", "antiphon.config")
    assert not [name for name in (*outside, *ours) if f"'{name}'" in loaded.stdout]
    assert "'antiphon.protocols.realtime.items'" in loaded.stdout


def test_audio_is_heard_piece_by_piece() -> None:
    found, view = codec(), View()
    audio = base64.b64encode(np.zeros(30_000, "<i2").tobytes()).decode()
    effects = receive(found, view, "input_audio_buffer.append", audio=audio)
    assert [type(effect) for effect in effects] == [do.AwaitRoom, do.Hear] * 2
    assert [len(e.pcm) for e in effects if isinstance(e, do.Hear)] == [24_000, 6_000]


def test_a_long_append_breathes() -> None:
    audio = base64.b64encode(bytes(1 << 20)).decode()
    effects = receive(codec(), View(), "input_audio_buffer.append", audio=audio)
    assert sum(isinstance(effect, do.Breathe) for effect in effects) == 5
    assert sum(len(e.pcm) for e in effects if isinstance(e, do.Hear)) == 1 << 19


def test_what_is_wrong_in_the_last_piece_leaves_all_of_it_unheard() -> None:
    audio = base64.b64encode(bytes(1 << 20)).decode()[:-4] + "!!!!"
    effects = receive(codec(), View(), "input_audio_buffer.append", audio=audio)
    assert {type(effect) for effect in effects} == {do.Breathe, str}
    assert effects[-1] == "error"


def test_a_turn_is_an_item_before_the_core_knows_its_words() -> None:
    found, view = codec(), View()
    receive(found, view, "session.update", session={"audio": {"input": {"turn_detection": None}}})
    audio = base64.b64encode(bytes(9_600)).decode()
    receive(found, view, "input_audio_buffer.append", audio=audio)
    view.heard_ms = 192
    told: list[Any] = []
    for effect in run(found.receive('{"type": "input_audio_buffer.commit"}', view)):
        told.append(effect)
        if isinstance(effect, do.Post):  # carried out before the next is asked for
            told += [shown(e) for e in found.notice(act.SpeechBegan("u1", 0), view)]
    assert told == [
        do.FlushAudio(),
        do.Post(ev.CommitInput(192, reply=False)),
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
    ]


def test_an_item_goes_to_the_core_and_is_shown_when_the_core_has_it() -> None:
    found, view = codec(), View()
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi"}]}
    frame = json.dumps({"type": "conversation.item.create", "item": {**item, "id": "mine"}})
    told: list[Any] = []
    for effect in run(found.receive(frame, view)):
        told.append(effect)
        if isinstance(effect, do.Post):
            told += [
                shown(e) for e in found.notice(act.ItemAdded(Item(".mine", "user"), None), view)
            ]
    assert told == [
        do.Post(ev.AddItem(Item(".mine", "user", "Hi"), None)),
        "conversation.item.added",
        "conversation.item.done",
    ]


@pytest.mark.parametrize("words", ["what time is it", None])
def test_speech_in_an_item_is_transcribed_first(words: str | None) -> None:
    found, view = codec(), View()
    part = {"type": "input_audio", "audio": base64.b64encode(bytes(4_800)).decode()}
    item = {"type": "message", "role": "user", "content": [part]}
    frame = json.dumps({"type": "conversation.item.create", "item": item})
    effects = list(run(found.receive(frame, view), {do.TranscribeSpeech: words}))
    assert effects[0] == do.TranscribeSpeech(bytes(4_800), "audio/pcm")
    assert effects[1].event.item.text == (words or "")


def test_too_many_responses_out_of_band_are_an_error_of_the_event() -> None:
    from antiphon.protocols.realtime.schema import RealtimeError

    found, view = codec(), View()
    frame = json.dumps({"type": "response.create", "response": {"conversation": "none"}})
    full = RealtimeError("too many", "rate_limit_exceeded")
    effects = list(run(found.receive(frame, view), {do.RespondOutOfBand: full}))
    assert [type(effect) for effect in effects] == [do.RespondOutOfBand, str]
    assert found.faults == 1


def test_a_frame_that_makes_no_sense_is_one_error() -> None:
    found, view = codec(), View()
    for number, frame in enumerate((b"\x00", "", "[]", '{"type": "x"}', "{" * 2_000), 1):
        assert list(run(found.receive(frame, view))) == ["error"]
        assert found.faults == number


def test_an_item_that_was_deleted_before_the_core_had_it_is_deleted_there() -> None:
    found, view = codec(), View()
    found.notice(act.SpeechBegan("u1", 0), view)
    found.notice(act.SpeechEnded("u1", 500), view)
    assert receive(found, view, "conversation.item.delete", item_id="item_t_u1") == [
        "conversation.item.deleted"
    ]
    assert found.notice(act.ItemAdded(Item("u1", "user", "Hi"), None), view) == [
        do.Post(ev.DeleteItem("u1"))
    ]


def test_the_dialect_shows_in_the_first_update() -> None:
    found, view = codec(), View()
    (begun,) = list(run(found.begin([], view)))
    assert begun == "session.created"
    frame = json.dumps({"type": "session.update", "session": {"voice": "marin"}})
    *_, sent = found.receive(frame, view)
    assert isinstance(sent, Send)
    assert json.loads(sent.data)["session"]["input_audio_format"] == "pcm16"


def test_the_session_is_bounded() -> None:
    found, view = codec(limits=SessionLimits(max_session_bytes=8_000)), View()
    session = {"type": "realtime", "instructions": "x" * 8_000}
    assert receive(found, view, "session.update", session=session) == ["error"]
