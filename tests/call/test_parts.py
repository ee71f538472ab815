"""The small parts of a call: what is kept of the caller's audio, stalls, and history as messages."""

from __future__ import annotations

import asyncio

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from tests.support import run, until

from antiphon.call.audio_buffer import AudioBuffer
from antiphon.call.audio_input import GapFiller
from antiphon.call.prompt_messages import RUNNING, messages
from antiphon.core.history import Item, ToolRequest
from antiphon.models.ports import Message, ToolCall


@given(
    st.lists(st.integers(0, 4_000), max_size=30),
    st.lists(st.integers(0, 3_000), max_size=5),
)
def test_kept_audio_is_what_came(pieces: list[int], trims: list[int]) -> None:
    buffer, whole = AudioBuffer(16_000, 2_000), np.empty(0, np.int16)
    for number, size in enumerate(pieces):
        piece = np.arange(len(whole), len(whole) + size).astype(np.int16)
        whole = np.concatenate([whole, piece])
        buffer.append(piece)
        if number < len(trims):
            buffer.trim(trims[number])
    assert buffer.end_ms == len(whole) // 16
    kept = buffer.slice(0, 10_000_000)
    assert np.array_equal(kept, whole[len(whole) - len(kept) :])
    assert len(kept) <= 3_000 * 16 + 4_000  # bounded, whatever nobody trims
    last = buffer.slice(buffer.end_ms - 10, buffer.end_ms)
    assert len(last) <= 160
    assert len(buffer.slice(5, 5)) == len(buffer.slice(9, 5)) == 0


def test_audio_is_given_out_at_the_rate_of_speech_to_text() -> None:
    buffer = AudioBuffer(8_000, 2_000)
    buffer.append(np.zeros(8_000, np.int16))
    assert len(buffer.slice(200, 700)) == 8_000


def test_a_stall_is_judged_by_the_clients_rhythm() -> None:
    async def main() -> None:
        loop, filled = asyncio.get_running_loop(), []
        now_s = 0.0
        loop.time, clock_of_loop = (lambda: now_s), loop.time  # type: ignore[method-assign]
        clock = GapFiller(loop, filled.append)
        try:
            for _ in range(5):  # a piece a second
                now_s += 1.0
                clock.arrived()
            for waited_s in (0.5, 1.0, 1.9):
                now_s = 5.0 + waited_s
                clock._check()
            assert filled == []
            now_s = 7.1
            clock._check()
            now_s = 7.2
            clock._check()
            assert filled == [2099, 100] or filled == [2100, 100] or sum(filled) in (2199, 2200)
            clock.arrived()
            now_s = 7.3
            clock._check()
            assert len(filled) == 2
        finally:
            clock.stop()
            loop.time = clock_of_loop  # type: ignore[method-assign]

    run(main())


def test_a_stall_matters_only_while_somebody_is_heard() -> None:
    async def main() -> None:
        filled: list[int] = []
        clock = GapFiller(asyncio.get_running_loop(), filled.append)
        clock.arrived()
        clock.watch(True)
        await until(lambda: filled)
        clock.watch(False)
        seen = len(filled)
        await asyncio.sleep(0.15)  # longer than its step
        assert len(filled) == seen

    run(main())


def test_history_as_messages_grows_at_its_end_only() -> None:
    items = [
        Item("u1", "user", "hello"),
        Item("a1", "assistant", "Let me see."),
        Item("t1", "tool_call", tool=ToolRequest("c1", "clock", "{}")),
        Item("t2", "tool_call", tool=ToolRequest("c2", "map", "{}")),
        Item("r1", "tool_result", "noon", call_id="c1"),
        Item("r2", "tool_result", "here", call_id="c2"),
        Item("a2", "assistant", "It is noon."),
    ]
    clock, place = ToolCall("c1", "clock", "{}"), ToolCall("c2", "map", "{}")
    assert messages("Be brief.", items) == (
        Message("system", "Be brief."),
        Message("user", "hello"),
        Message("assistant", "Let me see."),
        Message("assistant", "", (clock, place)),
        Message("tool", "noon", tool_call_id="c1"),
        Message("tool", "here", tool_call_id="c2"),
        Message("assistant", "It is noon."),
    )
    assert messages("", items[:1]) == (Message("user", "hello"),)


def test_a_function_call_stands_where_its_result_does() -> None:
    items = [
        Item("u1", "user", "what time is it"),
        Item("t1", "tool_call", tool=ToolRequest("c1", "clock", "{}")),
        Item("u2", "user", "and how are you"),
        Item("a2", "assistant", "Very well."),
        Item("r1", "tool_result", "noon", call_id="c1"),
    ]
    call = Message("assistant", "", (ToolCall("c1", "clock", "{}"),))
    question, answer = Message("user", "and how are you"), Message("assistant", "Very well.")
    asked = Message("user", "what time is it")
    # Until there is a result the model is told that it is coming, so that it does not call again.
    running = Message("tool", RUNNING, tool_call_id="c1")
    assert messages("", items[:2]) == (asked,)
    assert messages("", items[:3]) == (asked, call, running, question)
    assert messages("", items) == (
        asked,
        question,
        answer,
        call,
        Message("tool", "noon", tool_call_id="c1"),
    )


def test_calls_that_follow_each_other_are_told_one_by_one() -> None:
    items = [
        Item("u1", "user", "hello"),
        Item("t1", "tool_call", tool=ToolRequest("c1", "clock", "{}")),
        Item("r1", "tool_result", "noon", call_id="c1"),
        Item("t2", "tool_call", tool=ToolRequest("c2", "map", "{}")),
        Item("r2", "tool_result", "here", call_id="c2"),
        Item("r3", "tool_result", "of nothing", call_id="c3"),
    ]
    told = messages("", items)
    assert [len(m.tool_calls) for m in told] == [0, 1, 0, 1, 0, 0]
    assert told[: len(messages("", items[:3]))] == messages("", items[:3])
