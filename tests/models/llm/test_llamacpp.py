"""llama.cpp on the default weights: the cache, the slots, closing, tools, long histories."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from antiphon.errors import ModelError, RequestError
from antiphon.models.llm.llamacpp import LlamaCpp
from antiphon.models.ports import LlmDelta, LlmRequest, Message, ToolCall, Usage
from antiphon.models.store import WeightStore
from antiphon.testing.contracts import check_llm

SLOTS = 2
SYSTEM = Message("system", "You are a friendly phone agent. Answer in one short sentence.")
CAPITAL = "What is the capital of France?"
TAIL_TOKENS = 8
"""At least what stands behind the user's words, and the last word."""
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}


class NoWeights:
    def files(self, name: str) -> dict[str, Path]:
        raise AssertionError("asked for weights")


@pytest.fixture(scope="module")
def model() -> Iterator[LlamaCpp]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever runs the tests
    model = LlamaCpp(WeightStore(), slots=SLOTS, context_tokens=512, seed=7)
    model.load()
    yield model
    model.close()
    signal.signal(signal.SIGINT, before)


def asked(said: str, call_id: str = "a", max_tokens: int = 24) -> LlmRequest:
    return LlmRequest((SYSTEM, Message("user", said)), call_id, max_tokens, temperature=0.0)


def said(deltas: list[LlmDelta]) -> str:
    return "".join(delta.text for delta in deltas)


def usage_of(deltas: list[LlmDelta]) -> Usage:
    usage = deltas[-1].usage
    assert usage is not None
    return usage


# --- loading ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "No such file"),
        (b"", "not a GGUF file"),
        (b"<html>not found</html>", "not a GGUF file"),
        (b"GGUF" + b"\x03\0\0\0" + b"\xff" * 64, "damaged"),
    ],
)
def test_a_file_that_cannot_be_loaded(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], content: bytes | None, reason: str
) -> None:
    path = tmp_path / "model.gguf"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError, match=reason) as failure:
        LlamaCpp(NoWeights(), model=str(path)).load()
    assert "\n" not in str(failure.value)
    assert capfd.readouterr() == ("", "")


def test_an_entry_without_a_gguf_file(tmp_path: Path) -> None:
    class Wrong:
        def files(self, name: str) -> dict[str, Path]:
            return {"voice.onnx": tmp_path / "voice.onnx"}

    with pytest.raises(ModelError, match="has no GGUF file"):
        LlamaCpp(Wrong()).load()


def test_it_must_be_loaded_before_it_is_asked() -> None:
    with pytest.raises(ModelError, match="not loaded"):
        next(LlamaCpp(NoWeights()).generate(asked(CAPITAL)))


# --- the port -----------------------------------------------------------------------------------


@pytest.mark.weights
def test_a_schema_is_followed(model: LlamaCpp) -> None:
    properties = {"city": {"type": "string", "maxLength": 20}, "sure": {"type": "boolean"}}
    schema = {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
    request = replace(asked(CAPITAL, "schema", 60), response_schema=schema)
    found = json.loads(said(list(model.generate(request))))
    assert isinstance(found["city"], str)
    assert isinstance(found["sure"], bool)
    assert len(found) == 2
    model.release("schema")


@pytest.mark.weights
def test_it_keeps_the_contract(model: LlamaCpp, capfd: pytest.CaptureFixture[str]) -> None:
    check_llm(model)
    assert capfd.readouterr() == ("", "")


@pytest.mark.weights
def test_a_reply(model: LlamaCpp) -> None:
    deltas = list(model.generate(asked(CAPITAL)))
    assert "Paris" in said(deltas)
    assert "<|" not in said(deltas)
    assert deltas[-1].finish == "stop"
    assert usage_of(deltas).output_tokens > 3


@pytest.mark.weights
def test_the_limit_of_tokens(model: LlamaCpp) -> None:
    deltas = list(model.generate(asked("Count from one to fifty.", max_tokens=4)))
    assert deltas[-1].finish == "length"
    assert usage_of(deltas).output_tokens == 4


@pytest.mark.weights
def test_ctrl_c_still_belongs_to_python(model: LlamaCpp) -> None:
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


@pytest.mark.weights
def test_characters_of_several_tokens_come_whole(model: LlamaCpp) -> None:
    for limit in range(1, 8):
        deltas = list(model.generate(asked("Say only this: 🦜🪗🫖 ç ű 鸚鵡", max_tokens=limit)))
        assert "\ufffd" not in said(deltas)
        said(deltas).encode()


@pytest.mark.weights
@pytest.mark.parametrize("messages", [(), (Message("user", "x " * 2_000),)])
def test_a_request_that_cannot_be_served(model: LlamaCpp, messages: tuple[Message, ...]) -> None:
    with pytest.raises(RequestError):
        next(model.generate(LlmRequest(messages)))
    assert list(model.generate(asked(CAPITAL)))


# --- the prompt cache ---------------------------------------------------------------------------


@pytest.mark.weights
def test_what_was_read_while_the_user_spoke_is_not_read_again(model: LlamaCpp) -> None:
    model.warm(asked("Please tell me what is the capital of"))
    usage = usage_of(list(model.generate(asked("Please tell me what is the capital of France?"))))
    assert usage.input_tokens - usage.cached_tokens <= TAIL_TOKENS


@pytest.mark.weights
def test_the_head_of_the_next_turn_can_be_read_before_it_begins(model: LlamaCpp) -> None:
    model.warm(asked("", call_id="head"))
    usage = usage_of(list(model.generate(asked("Hi", call_id="head"))))
    assert usage.input_tokens - usage.cached_tokens <= TAIL_TOKENS
    model.release("head")


@pytest.mark.weights
def test_a_history_that_grows_is_read_once(model: LlamaCpp) -> None:
    first = asked(CAPITAL)
    reply = said(list(model.generate(first)))
    more = (*first.messages, Message("assistant", reply), Message("user", "And of Spain?"))
    usage = usage_of(list(model.generate(LlmRequest(more, "a", 24, 0.0))))
    assert usage.input_tokens - usage.cached_tokens <= TAIL_TOKENS + 8


@pytest.mark.weights
def test_one_call_does_not_disturb_the_cache_of_another(model: LlamaCpp) -> None:
    long = "I would like to book a table for four people on Friday at eight, by the window."
    model.warm(asked(long, call_id="one"))
    for _ in range(3):
        list(model.generate(asked("Tell me about the sea.", call_id="two", max_tokens=4)))
    usage = usage_of(list(model.generate(asked(long, call_id="one", max_tokens=4))))
    assert usage.input_tokens - usage.cached_tokens <= TAIL_TOKENS
    model.release("one")
    model.release("two")


@pytest.mark.weights
def test_more_calls_than_slots_are_all_answered(model: LlamaCpp) -> None:
    requests = [asked(CAPITAL, call_id=f"call {number}") for number in range(2 * SLOTS + 1)]
    with ThreadPoolExecutor(len(requests)) as pool:
        replies = list(pool.map(lambda request: list(model.generate(request)), requests))
    assert all("Paris" in said(reply) for reply in replies)
    for request in requests:
        model.release(request.call_id)


@pytest.mark.weights
def test_a_history_longer_than_the_context(model: LlamaCpp) -> None:
    chat: tuple[Message, ...] = (SYSTEM,)
    for turn in range(20):
        chat = (*chat, Message("user", f"Number {turn}. " + "Tell me about bread and cake. " * 4))
        chat = (*chat, Message("assistant", "We have rye bread, wheat bread and apple cake."))
    deltas = list(model.generate(LlmRequest((*chat, Message("user", CAPITAL)), "a", 24, 0.0)))
    usage = usage_of(deltas)
    assert deltas[-1].finish in ("stop", "length")
    assert 100 < usage.input_tokens < 512


# --- stopping -----------------------------------------------------------------------------------


def threads() -> int:
    return sum(thread.name.startswith("llamacpp") for thread in threading.enumerate())


@pytest.mark.weights
def test_closing_a_reply_frees_its_slot(model: LlamaCpp) -> None:
    for _ in range(4 * SLOTS):
        begun = model.generate(asked("Tell me a very long story.", max_tokens=400))
        while not next(begun).text:
            pass
        begun.close()
        assert list(begun) == []
    assert "Paris" in said(list(model.generate(asked(CAPITAL))))
    assert threads() <= 2 * SLOTS


@pytest.mark.weights
def test_a_reply_that_is_dropped_stops_too(model: LlamaCpp) -> None:
    for _ in range(2 * SLOTS):
        begun = model.generate(asked("Tell me a very long story.", max_tokens=400))
        next(begun)
        del begun
    assert "Paris" in said(list(model.generate(asked(CAPITAL))))


@pytest.mark.weights
def test_a_closed_model_is_gone_even_while_a_reply_is_kept() -> None:
    model = LlamaCpp(WeightStore(), slots=1, context_tokens=256)
    model.load()
    begun = model.generate(asked("Tell me a very long story.", max_tokens=200))
    next(begun)
    address = model._server.listening_address
    model.close()
    with pytest.raises(httpx.ConnectError):  # the server inside has ended, and its memory with it
        httpx.get(address, trust_env=False)
    assert threads() <= 2 * SLOTS  # those of the module's own model
    with pytest.raises(ModelError, match="not loaded"):
        next(model.generate(asked(CAPITAL)))


@pytest.mark.weights
def test_closing_from_another_thread_while_the_prompt_is_read(model: LlamaCpp) -> None:
    begun = model.generate(asked("word " * 300, max_tokens=50))
    assert next(begun) == LlmDelta()  # the first batch of the prompt
    rest: list[LlmDelta] = []
    reader = threading.Thread(target=lambda: rest.extend(begun))
    reader.start()
    begun.close()
    reader.join()
    assert all(not delta.finish for delta in rest)


@pytest.mark.weights
def test_releasing_a_call_stops_what_runs_for_it(model: LlamaCpp) -> None:
    begun = model.generate(asked("Tell me a very long story.", call_id="gone", max_tokens=400))
    next(begun)
    model.release("gone")
    assert all(not delta.finish for delta in begun)


@pytest.mark.weights
def test_an_answer_in_words_when_a_function_was_made_up(model: LlamaCpp) -> None:
    history = (SYSTEM, Message("user", "What is the weather in Paris?"))
    request = LlmRequest(history, "words", 24, 0.0, tools=(WEATHER,))
    assert any(delta.tool_call for delta in model.generate(request))
    _, deltas = model._begin_in_words(request)
    told = list(deltas)
    assert told[-1].finish in ("stop", "length")
    assert said(told).strip()[0].isalpha()
    assert told[-1].usage is not None
    assert told[-1].usage.cached_tokens > told[-1].usage.input_tokens - TAIL_TOKENS
    model.release("words")


@pytest.mark.weights
def test_small_models_are_known(model: LlamaCpp) -> None:
    assert not model.info.calls_functions


# --- whether the user has finished ----------------------------------------------------------------


@pytest.mark.weights
def test_words_are_judged_ahead_of_the_reply(model: LlamaCpp) -> None:
    def judged(words: str) -> float:
        deltas = list(model.generate(replace(asked(words, "judged"), judge_words=True)))
        told = [delta.ends_here for delta in deltas if delta.ends_here is not None]
        assert deltas[0].ends_here == told[0] or deltas[0] == LlmDelta()
        assert said(deltas)
        (probability,) = told
        return probability

    whole = [CAPITAL, "My name is Anna.", "Is it going to rain tomorrow?"]
    begun = ["I would like to know.", "Could you explain?", "What is the best way?"]
    assert min(map(judged, whole)) > 0.2
    assert max(map(judged, begun)) < 0.02
    model.release("judged")


@pytest.mark.weights
def test_a_judgement_costs_no_cache(model: LlamaCpp) -> None:
    plain = list(model.generate(asked(CAPITAL, "plain")))[-1].usage
    model.release("plain")
    deltas = list(model.generate(replace(asked(CAPITAL, "judged"), judge_words=True)))
    judged = deltas[-1].usage
    assert plain is not None
    assert judged is not None
    assert judged.input_tokens == plain.input_tokens
    assert judged.input_tokens - judged.cached_tokens <= TAIL_TOKENS
    model.release("judged")


@pytest.mark.weights
def test_nothing_to_judge(model: LlamaCpp) -> None:
    for words in ("...", CAPITAL):
        history = (SYSTEM, Message("user", words))
        told = (*history, Message("assistant", "Paris.")) if words == CAPITAL else history
        request = LlmRequest(told, "none", 8, judge_words=True)
        assert [d for d in model.generate(request) if d.ends_here is not None] == []
    model.release("none")


# --- tools --------------------------------------------------------------------------------------


@pytest.mark.weights
@pytest.mark.parametrize(
    "choice", ["auto", "required", {"type": "function", "function": {"name": "get_weather"}}]
)
def test_a_tool_is_called(model: LlamaCpp, choice: object) -> None:
    request = LlmRequest(
        (SYSTEM, Message("user", "What is the weather in Paris?")),
        "tools",
        60,
        0.0,
        tools=(WEATHER,),
        tool_choice=choice,
    )
    deltas = list(model.generate(request))
    calls = [delta.tool_call for delta in deltas if delta.tool_call]
    assert [call.name for call in calls] == ["get_weather"]
    assert json.loads(calls[0].arguments) == {"city": "Paris"}
    parts = [delta.tool_part.text for delta in deltas if delta.tool_part]
    assert "".join(parts) in ("", calls[0].arguments)  # written as text, it is only known whole
    assert said(deltas).strip() == ""
    assert deltas[-1].finish == "tool_calls"
    model.release("tools")


@pytest.mark.weights
@pytest.mark.parametrize("tools", [(), (WEATHER,)])
def test_the_answer_of_a_tool_is_read(model: LlamaCpp, tools: tuple[object, ...]) -> None:
    call = ToolCall("c1", "get_weather", '{"city": "Paris"}')
    messages = (
        SYSTEM,
        Message("user", "What is the weather in Paris?"),
        Message("assistant", "", tool_calls=(call,)),
        Message("tool", "21 degrees and sunny", tool_call_id="c1"),
    )
    deltas = list(model.generate(LlmRequest(messages, "tools", 40, 0.0, tools=tools)))  # type: ignore[arg-type]
    assert deltas[-1].finish in ("stop", "length", "tool_calls")
    model.release("tools")
