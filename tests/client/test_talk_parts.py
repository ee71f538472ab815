"""What `antiphon talk` is made of, each by itself: codec, stopwatch, table, captions."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from tests.support import say

from antiphon.audio.streaming_decoder import StreamDecoder
from antiphon.client.call_table import CallTable, TalkTurn
from antiphon.client.live_view import LiveView
from antiphon.client.microphone import MicTrack, Transfer, check_codec, codec_for
from antiphon.errors import AudioError, ConfigError

BLOCK = 320
"""20 ms at 16 kHz."""


# -- the codec ---------------------------------------------------------------------------------------


def test_opus_pages_are_never_held_back_for_100_ms() -> None:
    transfer, speech = Transfer("opus", 16_000), say(300, 3_000)
    empty = longest = 0
    for at in range(0, len(speech), BLOCK):
        empty = 0 if transfer.pack(speech[at : at + BLOCK]) else empty + 1
        longest = max(longest, empty)
    assert longest * 20 < 100
    assert transfer.format == "auto"
    assert (transfer.ratio or 0) > 4


def test_opus_arrives_as_what_was_said() -> None:
    transfer, speech = Transfer("opus", 16_000), say(300, 2_000)
    came: list[Any] = []
    errors: list[AudioError] = []
    decoder = StreamDecoder(came.append, errors.append)
    for at in range(0, len(speech), BLOCK):
        decoder.feed(transfer.pack(speech[at : at + BLOCK]))
    decoder.end()
    assert decoder.join(10)
    assert not errors
    assert sum(map(len, came)) >= len(speech) - 16_000 * 40 // 1000


def test_pcm_is_sent_as_it_is() -> None:
    transfer, speech = Transfer("pcm", 16_000), say(300, 100)
    assert transfer.ratio is None
    assert transfer.pack(speech) == speech.astype("<i2").tobytes()
    assert (transfer.format, transfer.ratio) == ("pcm_s16le", 1)


@pytest.mark.parametrize(
    ("url", "codec"),
    [
        ("ws://127.0.0.1:8000/ws", "pcm"),
        ("ws://[::1]:8000", "pcm"),
        ("ws://localhost", "pcm"),
        ("wss://agent.example.org", "opus"),
        ("ws://192.168.1.7:8000", "opus"),
    ],
)
def test_opus_goes_over_networks_only(url: str, codec: str) -> None:
    assert codec_for(url) == codec


@pytest.mark.parametrize(("codec", "said"), [("mp3", "use --codec opus"), ("opos", "'opus'")])
def test_codecs_that_cannot_be_used_are_refused(codec: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        check_codec(codec)


# -- the stopwatch -----------------------------------------------------------------------------------


def filled_track(pcm: Any, late_s: list[float], began_s: float = 100.0) -> MicTrack:
    """As recorded from `began_s` on, each block told of so much too late."""
    track = MicTrack(16_000)
    for number, at in enumerate(range(0, len(pcm), BLOCK)):
        end_s = began_s + (at + BLOCK) / 16_000
        track.add(pcm[at : at + BLOCK], end_s + late_s[number % len(late_s)])
    return track


def test_the_end_of_speech_is_found_though_blocks_come_late() -> None:
    pcm = np.concatenate([say(440, 600, silence_ms=1_000), say(440, 400, silence_ms=1_000)])
    track = filled_track(pcm, late_s=[0.03, 0.0, 0.012])
    assert track.speech_end_s(100.0, 103.0) == pytest.approx(102.0, abs=0.02)
    assert track.speech_end_s(100.0, 101.4) == pytest.approx(100.6, abs=0.02)
    assert track.speech_end_s(102.2, 103.0) is None
    assert track.speech_end_s(500.0, 600.0) is None
    assert track.level_db == float("-inf")


def test_a_long_call_does_not_fill_the_memory() -> None:
    track = MicTrack(16_000)
    for second in range(400):
        track.add(np.zeros(16_000, np.int16), 100.0 + second)
    assert len(track._blocks) <= 182
    assert track.start_s == 99.0


# -- the table ---------------------------------------------------------------------------------------


def record(**marks: Any) -> dict[str, Any]:
    names = "speech_end_ms transcribe_ms transcript_ms generate_ms speak_ms first_audio_ms first_sent_ms"
    return {**dict.fromkeys(names.split()), "user_text": "hello", "status": "completed", **marks}


FIRST = record(
    speech_end_ms=1000,
    transcribe_ms=1064,
    transcript_ms=1114,
    generate_ms=1114,
    speak_ms=1234,
    first_audio_ms=1300,
    first_sent_ms=1310,
)
SECOND = FIRST | {"transcript_ms": 1164, "first_sent_ms": 1410}


def test_the_table_has_mean_min_and_max_of_each_stage() -> None:
    turns = [TalkTurn(FIRST, True, 330.0), TalkTurn(SECOND, True, 450.0)]
    session = CallTable(12.34, turns, [1.0, 2.0], "opus", 700, 100)
    found = session.as_object()
    assert (found["calls"], found["answered"], found["duration_s"]) == (2, 2, 12.34)
    assert found["asr_ms"] == {"mean": 75, "min": 50, "max": 100}
    assert found["llm_ms"]["max"] == 120
    assert found["tts_ms"]["min"] == 66
    assert found["pipeline_ms"] == {"mean": 360, "min": 310, "max": 410}
    assert found["network_overhead_ms"] == {"mean": 30, "min": 20, "max": 40}
    assert found["round_trip_ms"] == {"mean": 1.5, "min": 1.0, "max": 2.0}
    assert found["end_to_end_ms"] == {"mean": 390, "min": 330, "max": 450}
    assert found["transfer"]["ratio"] == 7
    json.dumps(found)
    text = shown(session.as_table())
    for part in (
        "ASR",
        "LLM",
        "TTS",
        "Pipeline",
        "Network overhead",
        "End to end",
        "mean",
        "390.0",
    ):
        assert part in text
    assert "2 answered" in session.headline()
    assert "opus, 7.0 : 1" in session.headline()


def test_a_call_without_turns_has_a_table_too() -> None:
    session = CallTable(ended="the connection was lost")
    assert session.as_object()["end_to_end_ms"] is None
    assert session.as_object()["calls"] == 0
    assert session.headline().endswith("Ended: the connection was lost")
    assert " - " in shown(session.as_table())


def test_a_turn_that_was_never_heard_counts_as_a_call_only() -> None:
    session = CallTable(turns=[TalkTurn(FIRST | {"first_sent_ms": None}, False, None)])
    assert (len(session.turns), session.answered) == (1, 0)
    assert session.as_object()["asr_ms"] is not None
    assert session.as_object()["pipeline_ms"] is None


def shown(what: Any) -> str:
    file = io.StringIO()
    Console(file=file, width=100).print(what)
    return file.getvalue()


# -- captions ----------------------------------------------------------------------------------------


def test_captions_of_both_sides_in_their_order() -> None:
    file = io.StringIO()
    messages: list[dict[str, Any]] = [
        {"type": "floor", "state": "caller"},
        {"type": "transcript", "text": "what", "is_final": False, "item": "i1"},
        {"type": "transcript", "text": "what time", "is_final": True, "item": "i1"},
        {"type": "withdrawn", "item": "i1"},
        {"type": "transcript", "text": "what time is it", "is_final": True, "item": "i2"},
        {"type": "ai_text", "text": "It is noon. ", "is_complete": False},
        {"type": "ai_audio_start", "sample_rate": 24_000, "reply": "r1"},
        {"type": "ai_text", "text": "And sunny.", "is_complete": False},
        {"type": "ai_text", "text": "", "is_complete": True},
        {"type": "heard", "reply": "r1", "text": "It is noon.", "unheard": "And sunny."},
        {"type": "turn_complete"},
        {"type": "error", "message": "slow down"},
        {"type": "something new"},
    ]
    with LiveView(Console(file=file, width=100)) as view:
        for message in messages:
            view.note(message)
    assert file.getvalue().splitlines() == [
        "you:   what time is it",
        "agent: It is noon. [unheard: And sunny.]",
        "server: slow down",
    ]


def test_the_live_line_tells_floor_and_level() -> None:
    view = LiveView(Console(file=io.StringIO(), width=80))
    assert "nobody speaks" in view.line().plain
    assert "[............]" in view.line().plain
    view.note({"type": "floor", "state": "contested"})
    view.note({"type": "transcript", "text": "wait " * 40, "is_final": False})
    view.level_db = lambda: 0.0
    line = view.line().plain
    assert "both speak" in line
    assert "[||||||||||||]" in line
    assert len(line) < 80


def test_a_terminal_is_left_clean() -> None:
    file = io.StringIO()
    with LiveView(Console(file=file, force_terminal=True, width=80)) as view:
        view.note({"type": "ai_text", "text": "Hello."})
    assert "agent: " in file.getvalue()
    assert file.getvalue().rstrip("\n").endswith("Hello.")
