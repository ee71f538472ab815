"""History as the language model reads it: items of the core -> chat messages.

Knows neither turns nor audio. The result for a longer history begins with the result for a shorter one, so that prompt
caches stay valid.
"""

from __future__ import annotations

from collections.abc import Iterable

from antiphon.core.history import Item
from antiphon.models.ports import Message, ToolCall


def messages(prompt: str, history: Iterable[Item]) -> tuple[Message, ...]:
    """The system prompt (left out when empty), then every item in order."""
    out: list[Message] = [Message("system", prompt)] if prompt else []
    items = tuple(history)
    answered = {item.call_id for item in items if item.role == "tool_result"}
    for item in items:
        if item.role == "tool_call" and item.tool is not None:
            if item.tool.call_id not in answered:
                continue  # still running: endpoints refuse a call without its result
            call = ToolCall(item.tool.call_id, item.tool.name, item.tool.arguments)
            if out and out[-1].role == "assistant" and (out[-1].tool_calls or not out[-1].content):
                last = out.pop()
                out.append(Message("assistant", last.content, (*last.tool_calls, call)))
            else:
                out.append(Message("assistant", "", (call,)))
        elif item.role == "tool_result":
            out.append(Message("tool", item.text, tool_call_id=item.call_id))
        else:
            out.append(Message(item.role, item.text))
    return tuple(out)
