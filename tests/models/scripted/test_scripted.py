"""The scripted models do what their docstrings promise."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pytest

from antiphon.errors import ConfigError, ModelError
from antiphon.models.ports import LlmDelta, LlmRequest, Message, SpeechRequest, ToolCall, Usage
from antiphon.models.scripted import (
    ScriptedLlm,
    ScriptedStt,
    ScriptedTts,
    ScriptedTurnDetector,
    ScriptedVad,
    tone,
)

SILENCE = np.zeros(16_000, np.int16)


def _user(*said: str, **request: Any) -> LlmRequest:
    messages = []
    for text in said:
        messages += [Message("user", text), Message("assistant", "yes")]
    return LlmRequest(tuple(messages[:-1]), **request)


def _text(model: ScriptedLlm, request: LlmRequest) -> str:
    return "".join(delta.text for delta in model.generate(request))


# --- hearing -------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate_hz", [8_000, 16_000])
def test_vad_goes_by_level(rate_hz: int) -> None:
    vad = ScriptedVad(silence_rms=100, speech_rms=500)
    levels = [50, 100, 300, 500, 5000]
    windows = [tone(500, 32, rate_hz, rms) for rms in levels]
    assert windows[0].size == vad.window_samples(rate_hz)
    scores = vad.score(windows, [vad.new_state(rate_hz)] * len(windows))
    assert scores == pytest.approx([0, 0, 0.5, 1, 1], abs=0.01)
    with pytest.raises(ConfigError, match="above silence_rms"):
        ScriptedVad(silence_rms=500, speech_rms=500)


def test_turn_detector_says_its_list_then_the_last_for_ever() -> None:
    detector = ScriptedTurnDetector(probabilities=[0.1, 0.9])
    assert [detector.predict(SILENCE[:n]) for n in (1_600, 3_200, 16_000)] == [0.1, 0.9, 0.9]
    assert detector.audio_ms == [100, 200, 1000]


def test_stt_hears_tones_as_words_however_often_it_is_asked() -> None:
    stt = ScriptedStt(tones={"440": "what time is it", 660: "in Lisbon"})
    first, second = tone(440, 400, 16_000), tone(660, 400, 16_000)
    said = np.concatenate([SILENCE[:3_210], first, SILENCE, second, first, SILENCE])
    for partial in (True, False, False):
        heard = stt.transcribe(said, partial=partial)
        assert heard.text == "what time is it in Lisbon what time is it"
    assert stt.transcribe(said[:9_000]).text == "what time is it"
    assert stt.transcribe(tone(1_000, 400, 16_000)).text == ""
    assert stt.transcribe(SILENCE).text == ""
    assert stt.finals == 5


def test_stt_gives_its_transcripts_out_in_order() -> None:
    stt = ScriptedStt(transcripts=["one two three four", "five"])
    assert stt.transcribe(SILENCE, partial=True).text == "one two"
    finals = [stt.transcribe(SILENCE, language="en") for _ in range(3)]
    assert [heard.text for heard in finals] == ["one two three four", "five", "five"]
    assert finals[0].language == "en"


def test_stt_may_be_a_function_but_only_one_thing_at_once() -> None:
    stt = ScriptedStt(hear=lambda audio, partial: f"{audio.size} {partial}")
    assert stt.transcribe(SILENCE, partial=True).text == "16000 True"
    assert ScriptedStt().transcribe(tone(300, 100, 16_000)).text == "hello"
    with pytest.raises(ConfigError, match="one of tones, transcripts and hear"):
        ScriptedStt(tones={"440": "x"}, transcripts=["y"])


# --- answering -----------------------------------------------------------------------------------


def test_llm_answers_by_rule_by_list_or_with_an_echo() -> None:
    assert _text(ScriptedLlm(), _user("hello there")) == "You said: hello there"
    ruled = ScriptedLlm(rules={r"my name is (\w+)": "Hello {1}!", "time": "It is noon."})
    assert _text(ruled, _user("My name is Ada")) == "Hello Ada!"
    assert _text(ruled, _user("what TIME is it")) == "It is noon."
    listed = ScriptedLlm(replies=["first", "second"])
    assert _text(listed, _user("a")) == "first"
    assert _text(listed, _user("a")) == "first"
    assert _text(listed, _user("a", "b")) == "second"
    assert _text(listed, _user("a", "b", "c")) == "second"
    assert len(listed.requests) == 4
    with pytest.raises(ConfigError, match="not a regular expression"):
        ScriptedLlm(rules={"(": "x"})


def test_llm_streams_words_and_says_how_it_finished() -> None:
    assert list(ScriptedLlm(replies=["one two"]).generate(_user("a b c"))) == [
        LlmDelta("one "),
        LlmDelta("two"),
        LlmDelta(finish="stop", usage=Usage(3, 2)),
    ]
    cut = list(ScriptedLlm(replies=["one two"]).generate(_user("a", max_tokens=1)))
    assert cut == [LlmDelta("one "), LlmDelta(finish="length", usage=Usage(1, 1))]


def test_llm_calls_a_tool_that_is_offered_and_reads_its_result() -> None:
    llm = ScriptedLlm(tools={"weather": {"name": "get_weather", "arguments": {"city": "Lisbon"}}})
    offered = ({"type": "function", "function": {"name": "get_weather"}},)
    asked = _user("the weather please", tools=offered)
    call = ToolCall("scripted-1", "get_weather", '{"city": "Lisbon"}')
    deltas = list(llm.generate(asked))
    assert [delta.tool_call for delta in deltas if not delta.tool_part] == [call, None]
    parts = [delta.tool_part for delta in deltas if delta.tool_part]
    assert len(parts) > 1
    assert "".join(part.text for part in parts) == call.arguments
    assert {(part.call_id, part.name) for part in parts} == {(call.call_id, call.name)}
    assert list(llm.generate(asked))[-1].finish == "tool_calls"
    answered = (*asked.messages, Message("assistant", "", (call,)), Message("tool", "sunny"))
    assert _text(llm, LlmRequest(answered, tools=offered)) == "The answer is sunny."
    assert _text(llm, _user("the weather please")) == "You said: the weather please"


def test_llm_remembers_what_was_warmed_and_released() -> None:
    llm = ScriptedLlm()
    llm.warm(_user("a"))
    llm.release("call")
    assert (llm.warmed, llm.released) == ([_user("a")], ["call"])


def test_tts_speaks_a_tone_per_word() -> None:
    tts = ScriptedTts(word_ms=250, rate_hz=8_000, rms=800)
    pieces = list(tts.synthesize(SpeechRequest("Hello, my - friend!")))
    assert [piece.size for piece in pieces] == [2_000] * 3
    assert tts.duration_ms("Hello, my - friend!") == 750
    loud, quiet = pieces[0][:1_600], pieces[0][1_600:]
    assert np.sqrt(np.mean(loud.astype(float) ** 2)) == pytest.approx(800, rel=0.01)
    assert not quiet.any()
    assert [p.size for p in tts.synthesize(SpeechRequest("Hello", speed=2.0))] == [1_000]
    assert [request.text for request in tts.requests] == ["Hello, my - friend!", "Hello"]


# --- pace and faults -----------------------------------------------------------------------------


def test_delays_go_through_the_given_sleep() -> None:
    slept: list[float] = []
    llm = ScriptedLlm(
        replies=["one two three"], delay_ms=100, piece_delay_ms=20, sleep=slept.append
    )
    _text(llm, _user("a"))
    assert slept == [0.1, 0.02, 0.02]
    ScriptedStt(delay_ms=50, sleep=slept.append).transcribe(SILENCE)
    assert slept[3:] == [0.05]


def test_failures_on_the_requests_that_were_named() -> None:
    stt = ScriptedStt(fail_on=[2])
    stt.transcribe(SILENCE)
    with pytest.raises(ModelError, match=r"scripted stt was told to fail \(request 2\)"):
        stt.transcribe(SILENCE)
    stt.transcribe(SILENCE)
    always: Sequence[Any] = [ScriptedVad(fail_always=True), ScriptedTurnDetector(fail_always=True)]
    with pytest.raises(ModelError):
        always[0].score([SILENCE[:512]], [None])
    with pytest.raises(ModelError):
        always[1].predict(SILENCE)


@pytest.mark.parametrize("fail_after", [0, 1, 5])
def test_a_stream_fails_after_so_many_pieces_or_at_its_end(fail_after: int) -> None:
    options: Any = {"fail_always": True, "fail_after": fail_after}
    for stream in (
        ScriptedLlm(replies=["a b"], **options).generate(_user("x")),
        ScriptedTts(**options).synthesize(SpeechRequest("a b")),
    ):
        given: list[Any] = []
        with pytest.raises(ModelError, match="told to fail"):
            _take(stream, given)
        assert len(given) == min(fail_after, 2)


def _take(stream: Iterable[Any], given: list[Any]) -> None:
    for piece in stream:
        given.append(piece)


def test_an_unknown_option_is_an_error() -> None:
    with pytest.raises(ConfigError, match="did you mean 'fail_always'"):
        ScriptedTts(fail_alway=True)  # type: ignore[call-arg]
