"""The pieces that language model back ends share: filters, tool calls, slots, replies."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable
from typing import Any

import pytest

from antiphon.errors import ModelError, RequestError
from antiphon.models.chat_format import ThoughtFilter, ToolCalls, WrittenCall, as_wire, error_text
from antiphon.models.completion_stream import (
    CompletionReply,
    CompletionStream,
    read,
    read_judgement,
)
from antiphon.models.kv_slots import ANY_SLOT, KvSlots
from antiphon.models.ports import LlmDelta, Message, ToolCall, ToolPart


def test_messages_on_the_wire() -> None:
    call = ToolCall("c1", "look", "{}")
    assert as_wire(
        [
            Message("user", " hi "),
            Message("assistant", "", tool_calls=(call,)),
            Message("tool", "sunny", tool_call_id="c1"),
        ]
    ) == [
        {"role": "user", "content": "hi"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
            ],
        },
        {"role": "tool", "content": "sunny", "tool_call_id": "c1"},
    ]


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("plain", "plain"),
        ("<think>so</think>\n\nHello", "Hello"),
        ("Hello <think>so</think> there", "Hello there"),
        ("2 < 3 and <thin> air", "2 < 3 and <thin> air"),
        ("<think>never ends", ""),
        ("a<think>b</think>c<think>d</think>e", "ace"),
        ("ends with <thi", "ends with <thi"),
    ],
)
def test_thoughts_are_not_spoken_however_the_text_is_cut(text: str, spoken: str) -> None:
    for size in range(1, len(text) + 1):
        thoughts = ThoughtFilter()
        pieces = [thoughts.feed(text[at : at + size]) for at in range(0, len(text), size)]
        assert "".join(pieces) + thoughts.flush() == spoken


def test_a_thought_that_the_prompt_has_opened() -> None:
    thoughts = ThoughtFilter(thinking=True)
    assert thoughts.feed("hm</think> Yes") + thoughts.flush() == "Yes"


def test_ordinary_text_is_not_held_back() -> None:
    thoughts = ThoughtFilter()
    assert thoughts.feed("Hello") == "Hello"


def test_tool_calls_from_fragments() -> None:
    calls = ToolCalls()
    assert calls.add(1, "b", "second", "") is None
    assert calls.add(0, "a", "first", '{"x"') == ToolPart("a", "first", '{"x"')
    assert calls.add(0, "", "", ": 1}") == ToolPart("a", "first", ": 1}")
    assert calls.add(2, "", "", "no name") is None
    assert list(calls.take()) == [ToolCall("a", "first", '{"x": 1}'), ToolCall("b", "second", "{}")]
    assert list(calls.take()) == []


def test_a_name_that_comes_late_brings_what_was_held() -> None:
    calls = ToolCalls()
    assert calls.add(0, "a", "", '{"x"') is None
    assert calls.add(0, "", "look", ": 1}") == ToolPart("a", "look", '{"x": 1}')


def test_calls_of_one_id_are_told_apart() -> None:
    calls = ToolCalls()
    calls.add(0, "call_0", "look", "{}")
    calls.add(1, "call_0", "look", "{}")
    calls.add(2, "", "look", "{}")
    ids = [call.call_id for call in calls.take()]
    assert ids[0] == "call_0"
    assert len(set(ids)) == 3


def test_a_tool_call_that_was_cut_off_is_not_made() -> None:
    calls = ToolCalls()
    calls.add(0, "a", "whole", "{}")
    calls.add(1, "b", "half", '{"x": ')
    assert [call.name for call in calls.take(cut_off=True)] == ["whole"]


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "look", "arguments": {"q": "}"}}',
        '\n```json\n{"name": "look", "arguments": {"q": "}"}}\n```',
        '<tool_call>\n{"name": "look", "arguments": {"q": "}"}}\n</tool_call>',
    ],
)
def test_a_call_that_is_written_as_text_is_found(text: str) -> None:
    written = WrittenCall(["look"])
    assert "".join(written.feed(character) for character in text) == ""
    call, rest = written.take()
    assert call is not None
    assert (call.name, json.loads(call.arguments), rest) == ("look", {"q": "}"}, "")


@pytest.mark.parametrize(
    "text",
    ["Hello {you}", '{"name": "unknown", "arguments": {}}', '{"a": 1}', "```x", "{broken", "  "],
)
def test_other_text_is_spoken_whole(text: str) -> None:
    written = WrittenCall(["look"])
    spoken = "".join(written.feed(character) for character in text)
    call, rest = written.take()
    assert (call, spoken + rest) == (None, text)


@pytest.mark.parametrize(
    ("text", "senseless"),
    [
        ('{"name": "unknown", "arguments": {}}', True),
        ('```json\n{"direction": "weather is good"}', True),
        ('{"name": "look", "arguments": "here"}', True),
        ('{"name": "look", "arguments": {}}', False),
        ('{"name": "look", "argu', False),
        ("It rains.", False),
    ],
)
def test_functions_that_do_not_exist(text: str, senseless: bool) -> None:
    written = WrittenCall(["look"])
    for character in text:
        written.feed(character)
    assert written.senseless is senseless


def test_ordinary_text_beside_tools_is_not_held_back() -> None:
    assert WrittenCall(["look"]).feed("Hello") == "Hello"


@pytest.mark.parametrize(
    "error",
    ["no\nsuch thing", {"error": {"message": "no such\nthing"}}, {"message": "no such thing"}],
)
def test_the_line_of_an_error_that_matters(error: Any) -> None:
    assert error_text(error) == "no such thing"


# --- slots --------------------------------------------------------------------------------------


def finished(slots: KvSlots, call_id: str) -> int:
    slot = slots.acquire(call_id)
    slots.done(call_id, slot)
    return slot


def test_a_call_keeps_its_slot() -> None:
    slots = KvSlots(2)
    first, second = finished(slots, "a"), finished(slots, "b")
    assert {first, second} == {0, 1}
    assert (finished(slots, "a"), finished(slots, "b")) == (first, second)


def test_the_call_that_was_quiet_longest_loses_its_slot() -> None:
    slots = KvSlots(2)
    first, second = finished(slots, "a"), finished(slots, "b")
    finished(slots, "a")
    assert finished(slots, "c") == second
    assert finished(slots, "a") == first


def test_a_call_at_work_keeps_its_slot_and_with_all_at_work_the_server_decides() -> None:
    slots = KvSlots(2)
    first, second = slots.acquire("a"), finished(slots, "b")
    assert slots.acquire("c") == second
    assert slots.acquire("d") == ANY_SLOT
    slots.done("d", ANY_SLOT)
    slots.done("a", first)
    assert slots.acquire("d") == first


def test_a_released_slot_is_the_next_to_be_given_out() -> None:
    slots = KvSlots(3)
    first = finished(slots, "a")
    slots.release("a")
    slots.release("never seen")
    assert finished(slots, "b") == first


def test_requests_without_a_call_do_not_queue_for_one_slot() -> None:
    slots = KvSlots(2)
    first = slots.acquire("")
    assert slots.acquire("") == ANY_SLOT
    slots.done("", first)
    assert slots.acquire("") == first


# --- replies ------------------------------------------------------------------------------------

Callback = Callable[[dict[str, Any]], bool]


def chunk(text: str = "", finish: str | None = None, **more: Any) -> dict[str, Any]:
    return {"choices": [{"text": text, "finish_reason": finish}], **more}


def reply(handle: Callable[[dict[str, Any], Callback], None]) -> CompletionReply:
    def begin() -> tuple[CompletionStream, Any]:
        stream = CompletionStream("call", handle, {})
        threading.Thread(target=stream.run).start()
        return stream, read(stream, ThoughtFilter())

    return CompletionReply(begin)


def pushing(*chunks: dict[str, Any]) -> CompletionReply:
    def handle(_body: dict[str, Any], push: Callback) -> None:
        for one in chunks:
            push(one)

    return reply(handle)


def test_a_reply_as_deltas() -> None:
    usage = {"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": None}
    deltas = list(pushing(chunk("Hel"), chunk("lo"), chunk("", "stop", usage=usage)))
    assert "".join(delta.text for delta in deltas) == "Hello"
    assert deltas[-1].finish == "stop"
    assert deltas[-1].usage is not None
    assert deltas[-1].usage.input_tokens == 9


def test_reading_a_long_prompt_gives_empty_deltas() -> None:
    steps = [{"cache": 10, "processed": done, "total": 90} for done in (10, 50, 90)]
    chunks = [chunk(prompt_progress=step) for step in steps]
    assert list(pushing(*chunks, chunk("Hi"), chunk("", "stop"))) == [
        LlmDelta(),
        LlmDelta("Hi"),
        LlmDelta(finish="stop"),
    ]


@pytest.mark.parametrize(
    ("chunks", "reason"),
    [
        ([{"error": {"message": "too long"}}], "too long"),
        ([chunk("Hel")], "without a reason"),
        ([], "without a reason"),
    ],
)
def test_a_reply_that_fails(chunks: list[dict[str, Any]], reason: str) -> None:
    with pytest.raises(ModelError, match=reason):
        list(pushing(*chunks))


def test_what_a_handler_raises_reaches_the_reader() -> None:
    def handle(_body: dict[str, Any], _push: Callback) -> None:
        raise ValueError("All messages must\nhave content")

    with pytest.raises(RequestError, match="All messages must have content"):
        list(reply(handle))


def judging(*likely: tuple[str, float]) -> list[LlmDelta]:
    tokens = [{"token": token, "logprob": math.log(p)} for token, p in likely]
    logprobs = {"content": [{"token": likely[0][0], "top_logprobs": tokens}]} if likely else None
    told = {"choices": [{"text": "x", "finish_reason": "length", "logprobs": logprobs}]}
    stream = CompletionStream("call", lambda _body, push: push(told) and None, {})
    stream.run()
    return list(read_judgement(stream))


def test_how_likely_words_end_here() -> None:
    (judged,) = judging((" to", 0.5), ("?", 0.2), ("?\n", 0.1), ("<|im_end|>", 0.05), (",", 0.1))
    assert judged.ends_here == pytest.approx(0.35)
    (judged,) = judging(("。", 0.6), ("", 0.1), (" ", 0.1), ("的", 0.1))
    assert judged.ends_here == pytest.approx(0.8)
    assert judging() == []


def test_a_judgement_that_fails_is_none() -> None:
    def handle(_body: dict[str, Any], _push: Callback) -> None:
        raise ValueError("no")

    stream = CompletionStream("call", handle, {})
    stream.run()
    assert list(read_judgement(stream)) == []


def test_a_function_that_was_made_up_is_answered_in_words() -> None:
    made_up = [chunk('{"direction": '), chunk('"good"}'), chunk(" and so on")]
    begun: list[CompletionStream] = []

    def answering(*chunks: dict[str, Any]) -> Callable[[], tuple[CompletionStream, Any]]:
        def begin() -> tuple[CompletionStream, Any]:
            wanted: list[bool] = []

            def handle(_body: dict[str, Any], push: Callback) -> None:
                wanted.extend(push(one) for one in chunks)

            stream = CompletionStream("call", handle, {})
            begun.append(stream)
            stream.run()
            return stream, read(stream, ThoughtFilter(), WrittenCall(["look"]))

        return begin

    words = answering(chunk("It is sunny."), chunk("", "stop"))
    assert "".join(d.text for d in CompletionReply(answering(*made_up), words)) == "It is sunny."
    cut = answering(chunk('{"name": "lo'), chunk("", "length"))
    assert "".join(d.text for d in CompletionReply(cut, words)) == "It is sunny."
    begun.clear()
    called = answering(chunk('{"name": "look", "arguments": {}}'))
    deltas = list(CompletionReply(called, words))
    assert [d.tool_call.name for d in deltas if d.tool_call] == ["look"]
    assert len(begun) == 1


def test_requests_in_a_row_and_none_after_a_stop() -> None:
    streams: list[CompletionStream] = []

    def begin() -> tuple[CompletionStream, Any]:
        stream = CompletionStream(
            "call", lambda _body, push: push(chunk("Hi", "stop")) and None, {}
        )
        streams.append(stream)
        stream.run()
        return stream, read(stream, ThoughtFilter())

    def begin_to_judge() -> tuple[CompletionStream, Any]:
        stream, _ = begin()
        return stream, iter([LlmDelta(ends_here=0.5)])

    deltas = list(CompletionReply(begin_to_judge, begin, begin))
    assert [(d.text, d.ends_here) for d in deltas] == [("", 0.5), ("Hi", None), ("", None)]
    assert len(streams) == 2  # the second has answered
    both = CompletionReply(begin_to_judge, begin)
    next(both)
    streams[-1].stop()  # as when the call is released
    assert list(both) == []
    assert len(streams) == 3


def test_closing_while_another_thread_waits_ends_both() -> None:
    waiting, let_go, ended = threading.Event(), threading.Event(), threading.Event()
    told = []

    def handle(_body: dict[str, Any], push: Callback) -> None:
        push(chunk("Hello"))
        waiting.set()
        let_go.wait()
        told.append(push(chunk(" again")))
        ended.set()

    begun = reply(handle)
    rest: list[LlmDelta] = []
    assert next(begun).text == "Hello"
    reader = threading.Thread(target=lambda: rest.extend(begun))
    reader.start()
    waiting.wait()
    begun.close()
    reader.join()
    let_go.set()
    ended.wait()
    assert told == [True]  # llama.cpp gives the request up
    assert rest == []
    assert list(begun) == []


def test_a_reply_closed_before_it_began_never_begins() -> None:
    def begin() -> Any:
        raise AssertionError("begun")

    begun = CompletionReply(begin)
    begun.close()
    assert list(begun) == []
