"""The session object: partial updates, null, defaults, and what it makes of the policy."""

from __future__ import annotations

from typing import Any

import pytest

from antiphon.core.policy import Policy
from antiphon.protocols.realtime.schema import RealtimeError
from antiphon.protocols.realtime.session_config import SessionConfig, policy_of


def session(**patch: Any) -> SessionConfig:
    found = SessionConfig("sess_1", instructions="Be kind.", voice="alloy")
    found.update({"type": "realtime", **patch})
    return found


def heard(**patch: Any) -> dict[str, Any]:
    return {"audio": {"input": patch}}


def test_absent_keys_stay_and_null_clears() -> None:
    s = session(**heard(transcription={"model": "whisper-1", "language": "en"}))
    s.update({"type": "realtime", **heard(turn_detection={"type": "semantic_vad"})})
    assert s.transcription == {"model": "whisper-1", "language": "en"}
    s.update(heard(transcription={"language": "fr"}))
    assert s.transcription == {"model": "whisper-1", "language": "fr"}
    s.update(heard(format={"type": "audio/pcmu"}))
    assert s.turn_detection is not None
    assert s.turn_detection["type"] == "semantic_vad"
    s.update(heard(turn_detection=None, transcription=None, noise_reduction=None))
    assert s.turn_detection is None
    assert not s.transcribes
    assert s.input_format == "audio/pcmu"


def test_empty_and_null_are_not_the_same() -> None:
    tool = {"type": "function", "name": "f"}
    s = session(tools=[tool], instructions="x", max_output_tokens=9)
    s.update({})
    assert (s["instructions"], s["tools"], s["max_output_tokens"]) == ("x", [tool], 9)
    s.update({"instructions": "", "tools": [], "max_output_tokens": None})
    assert (s["instructions"], s["tools"], s["max_output_tokens"]) == ("", [], "inf")


def test_a_partial_turn_detection_keeps_its_kind() -> None:
    s = session(**heard(turn_detection={"type": "server_vad", "threshold": 0.8}))
    s.update(heard(turn_detection={"silence_duration_ms": 100}))
    assert s.turn_detection is not None
    assert (s.turn_detection["threshold"], s.turn_detection["silence_duration_ms"]) == (0.8, 100)
    s.update(heard(turn_detection={"type": "semantic_vad", "threshold": 0.1}))
    assert s.turn_detection == {
        "type": "semantic_vad",
        "eagerness": "auto",
        "create_response": True,
        "interrupt_response": True,
    }


def test_a_refused_update_changes_nothing() -> None:
    s = session()
    before = s.shown()
    with pytest.raises(RealtimeError):
        s.update({"instructions": "new", "audio": {"output": {"speed": 7}}})
    assert s.shown() == before


def test_unknown_keys_are_ignored() -> None:
    assert session(favourite_colour="blue").shown() == session().shown()


def test_the_kind_of_session_is_settled_by_its_first_update() -> None:
    s = SessionConfig("s")
    s.update({"type": "transcription"})
    assert s.shown()["type"] == "transcription"
    with pytest.raises(RealtimeError, match="cannot become"):
        s.update({"type": "realtime"})


def test_the_same_voice_may_be_sent_again() -> None:
    s = session()
    s.update({"audio": {"output": {"voice": {"id": "alloy"}}}}, spoke=True)
    with pytest.raises(RealtimeError) as refused:
        s.update({"audio": {"output": {"voice": "echo"}}}, spoke=True)
    assert refused.value.code == "cannot_update_voice"


def test_both_modalities_are_audio() -> None:
    assert session(output_modalities=["text", "audio"])["output_modalities"] == ["audio"]


def policy(**vad: Any) -> Policy:
    return policy_of(session(**heard(turn_detection=vad)), Policy(greeting="Hello!"))


def test_server_vad_as_policy() -> None:
    found = policy(
        type="server_vad",
        threshold=0.7,
        prefix_padding_ms=100,
        silence_duration_ms=350,
        idle_timeout_ms=6_000,
        create_response=False,
        interrupt_response=False,
    )
    assert (found.speech_threshold, found.prefix_padding_ms) == (0.7, 100)
    limits = {
        found.plain_silence_ms,
        found.min_silence_ms,
        found.unsure_silence_ms,
        found.max_silence_ms,
    }
    assert limits == {350}
    assert not found.use_turn_detector
    assert (found.auto_reply, found.interruptible, found.overhear) == (False, False, True)
    assert (found.idle_prompt_after_ms, found.idle_answer) == (6_000, True)
    assert found.greeting == ""


@pytest.mark.parametrize(
    ("eagerness", "longest_ms"), [("low", 8_000), ("auto", 4_000), ("high", 2_000)]
)
def test_eagerness_as_policy(eagerness: str, longest_ms: int) -> None:
    found = policy(type="semantic_vad", eagerness=eagerness)
    assert found.use_turn_detector
    assert found.max_silence_ms == longest_ms
    assert found.min_silence_ms <= found.unsure_silence_ms <= longest_ms


def test_manual_as_policy() -> None:
    found = policy_of(session(**heard(turn_detection=None)), Policy())
    assert (found.auto_turns, found.auto_reply) == (False, False)
