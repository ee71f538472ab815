"""History as the language model reads it: items of the core -> chat messages.

The result for a longer history begins with the result for a shorter one, so that prompt
caches stay valid; the one exception is a function that was still running when something else was said.
"""

from __future__ import annotations

from collections.abc import Iterable

from antiphon.core.history import Item, ToolRequest
from antiphon.models.chat_request import is_object
from antiphon.models.ports import Message, ToolCall

RUNNING = '{"status": "still running; its result will follow"}'
"""Told of a call without a result when something was said after it: otherwise the model would call it again."""


def messages(prompt: str, history: Iterable[Item]) -> tuple[Message, ...]:
    """The system prompt (left out when empty), then every item in order.

    A function call stands where its result does: endpoints want the two together, and other things may have been said
    while it ran.
    """
    items = tuple(history)
    calls = {i.tool.call_id: i.tool for i in items if i.role == "tool_call" and i.tool is not None}
    answered = {item.call_id for item in items if item.role == "tool_result"}
    spoken = max((n for n, i in enumerate(items) if i.role in ("user", "assistant")), default=-1)
    out: list[Message] = [Message("system", prompt)] if prompt else []
    group = -1
    """Where in `out` the calls stand whose results are being told; -1: no results are."""
    for number, item in enumerate(items):
        if item.role == "tool_result":
            call = calls.pop(item.call_id, None)
            if call is not None and group < 0:
                group = len(out)
                out.append(Message("assistant", "", (_call(call),)))
            elif call is not None:
                out[group] = Message("assistant", "", (*out[group].tool_calls, _call(call)))
            out.append(Message("tool", item.text, tool_call_id=item.call_id))
            continue
        group = -1
        if item.role != "tool_call":
            out.append(Message(item.role, item.text))
        elif item.tool is not None and item.tool.call_id not in answered and number < spoken:
            out.append(Message("assistant", "", (_call(item.tool),)))
            out.append(Message("tool", RUNNING, tool_call_id=item.tool.call_id))
    return tuple(out)


def plain_messages(prompt: str, history: Iterable[Item]) -> tuple[Message, ...]:
    """The same for a model that does not understand calls and results: what functions returned, in a sentence each."""
    items = tuple(history)
    names = {i.tool.call_id: i.tool.name for i in items if i.tool is not None}
    out = [Message("system", prompt)] if prompt else []
    for item in items:
        if item.role == "tool_result":
            name = names.get(item.call_id, "that was called")
            out.append(Message("system", f"The function {name} returned: {item.text}"))
        elif item.role != "tool_call":
            out.append(Message(item.role, item.text))
    return tuple(out)


def _call(asked: ToolRequest) -> ToolCall:
    """What a model wrote that is no JSON object is told as none: templates and servers refuse to read it again."""
    arguments = asked.arguments if is_object(asked.arguments) else "{}"
    return ToolCall(asked.call_id, asked.name, arguments)
