"""Prompts that only ever grow: where the user's words stand in one, and how a long history is cut.

A prompt cache is good for as many tokens as the new prompt shares with the old one from the start.
So the text of the last user message is kept apart from the end-of-turn tokens behind it (a prompt
may then be read while the user still speaks), and a history that has become too long is cut rarely
and in large steps.

This module does not know how a template is rendered or how tokens are counted: both are handed in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from antiphon.errors import RequestError
from antiphon.models.ports import Message

USER_TEXT = "antiphon-user-text-9f2c"
"""Stands for the user's words while a prompt is rendered."""

_MESSAGE_OVERHEAD_TOKENS = 12
"""Role and end-of-turn tokens of one message: generous, for no template needs more."""


@dataclass(frozen=True, slots=True)
class PromptFrame:
    """A rendered prompt around the words of its last user message."""

    head: str
    tail: str
    """End of turn and start of the reply: a handful of tokens."""

    def whole(self, text: str) -> str:
        return f"{self.head}{text.strip()}{self.tail}"

    def unfinished(self, text: str) -> str:
        """Nothing behind the words: more of them may follow."""
        return f"{self.head}{text.strip()}"


def frame(rendered: str) -> PromptFrame | None:
    """Split a prompt rendered with USER_TEXT as its last user message.

    None when the template drops or repeats the words, so that they have no place of their own.
    """
    head, found, tail = rendered.partition(USER_TEXT)
    if not found or USER_TEXT in tail:
        return None
    return PromptFrame(head, tail)


def fit(
    messages: Sequence[Message], budget_tokens: int, count: Callable[[str], int]
) -> tuple[Message, ...]:
    """The messages that fit `budget_tokens`, oldest turns dropped, leading system messages kept.

    The history is walked from its beginning, and whenever it outgrows the budget the oldest turns
    go until half of the budget is left. The same beginning is therefore always cut at the same
    place, and a growing history keeps its cut, and so its prompt cache, until the next step.

    `count`: text -> tokens. Raises RequestError when the system messages or the last turn alone are
    too long.
    """
    if (
        sum(len(m.content.encode()) + _calls_bytes(m) for m in messages)
        + (_MESSAGE_OVERHEAD_TOKENS * len(messages))
        <= budget_tokens
    ):
        return tuple(messages)  # a token is at least a byte long: no need to count
    system, turns = _split(messages)
    room = budget_tokens - sum(_tokens(message, count) for message in system)
    if room <= 0:
        raise _too_long("system prompt")
    costs = [sum(_tokens(message, count) for message in turn) for turn in turns]
    start = held = 0
    for last, cost in enumerate(costs):
        held += cost
        if held <= room:
            continue
        while start < last and held > room // 2:
            held -= costs[start]
            start += 1
    if held > room:
        raise _too_long("last turn")
    return (*system, *(message for turn in turns[start:] for message in turn))


def _too_long(what: str) -> RequestError:
    return RequestError(
        f"the {what} does not fit the context: shorten it or raise context_tokens",
        "messages",
        "context_length_exceeded",
    )


def _split(messages: Sequence[Message]) -> tuple[list[Message], list[list[Message]]]:
    """-> leading system messages, and turns: each begins with a user's message and has all up to
    the next.
    """
    system: list[Message] = []
    turns: list[list[Message]] = []
    for message in messages:
        if message.role == "system" and not turns:
            system.append(message)
        elif not turns or (message.role == "user" and turns[-1][-1].role != "user"):
            turns.append([message])
        else:
            turns[-1].append(message)
    return system, turns


def _calls_bytes(message: Message) -> int:
    return sum(
        len(call.name.encode()) + len(call.arguments.encode()) for call in message.tool_calls
    )


def _tokens(message: Message, count: Callable[[str], int]) -> int:
    calls = "".join(f"{call.name}{call.arguments}" for call in message.tool_calls)
    return count(message.content + calls) + _MESSAGE_OVERHEAD_TOKENS * (1 + len(message.tool_calls))
