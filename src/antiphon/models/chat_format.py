"""The chat-completions form, which every language model speaks in some way: messages out, deltas
in.

Shared by the back ends, which never import each other. This module knows no server, no template and
no network; it turns ports into the wire's dictionaries and pieces of a stream back into ports.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from antiphon.models.ports import Message, ToolCall, ToolPart

_OPEN = "<think>"
_CLOSE = "</think>"


def as_wire(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Messages -> chat-completions dictionaries.

    Text is stripped: templates differ in whether they do it, and a prompt cache is only of use when
    a turn reads the same as the user's turn now and as history later.
    """
    return [_message_as_wire(message) for message in messages]


def _message_as_wire(message: Message) -> dict[str, Any]:
    wire: dict[str, Any] = {"role": message.role, "content": message.content.strip()}
    if message.tool_calls:
        wire["tool_calls"] = [
            {
                "id": call.call_id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in message.tool_calls
        ]
    if message.role == "tool":
        wire["tool_call_id"] = message.tool_call_id
    return wire


class ToolCalls:
    """Puts tool calls together from the fragments of a stream."""

    def __init__(self) -> None:
        self._parts: dict[int, list[str]] = {}

    def add(self, index: int, call_id: str, name: str, arguments: str) -> ToolPart | None:
        """One fragment. Id and name come once, with the first fragment of a call; arguments in
        pieces. -> what is new of it, once its name is known.
        """
        part = self._parts.setdefault(index, ["", "", ""])
        known = bool(part[1])
        part[0] = part[0] or self._own_id(call_id)
        part[1] = part[1] or name
        part[2] += arguments
        text = arguments if known else part[2]
        return ToolPart(part[0], part[1], text) if part[1] and text else None

    def _own_id(self, proposed: str) -> str:
        """Some servers give a call no id, or all calls the same; the answer must name one."""
        taken = {part[0] for part in self._parts.values()}
        return new_call_id() if not proposed or proposed in taken else proposed

    def take(self, *, cut_off: bool = False) -> Iterator[ToolCall]:
        """All calls, in order, once the stream has ended; those that never got a name are dropped.

        `cut_off`: the reply reached its limit of tokens, so a call may lack its end and is dropped.
        """
        parts, self._parts = self._parts, {}
        for index in sorted(parts):
            call_id, name, arguments = parts[index]
            if name and not (cut_off and not _is_json(arguments)):
                yield ToolCall(call_id, name, arguments or "{}")


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def new_call_id() -> str:
    """For servers that give a call no id: the answer must name one."""
    return f"call_{secrets.token_hex(8)}"


class WrittenCall:
    """Finds the tool call that a small model writes as plain JSON, so that it is made and not
    spoken.

    Only a reply that begins like one is held back: `{"name": ..., "arguments": {...}}`, fenced or
    tagged.
    """

    _STARTS = ("{", "```", "<tool_call>", "<tools>")

    def __init__(self, names: Iterable[str]) -> None:
        """`names` of the tools on offer."""
        self._names = frozenset(names)
        self._held = ""
        self._ordinary = False
        self._call: ToolCall | None = None
        self.senseless = False
        """A whole object has been read, and it is no call of a function on offer: not to be spoken."""

    @property
    def complete(self) -> bool:
        """A whole call has been read, or what was to be one: there is nothing more to wait for."""
        return self._call is not None or self.senseless

    def feed(self, text: str) -> str:
        """-> what may be spoken."""
        if self._ordinary or self._call:
            return text if self._ordinary else ""
        self._held += text
        start = self._held.lstrip()
        if start and not any(start.startswith(s) or s.startswith(start) for s in self._STARTS):
            self._ordinary = True
            held, self._held = self._held, ""
            return held
        if "}" in text:
            self._call = self._parse()
        return ""

    def take(self) -> tuple[ToolCall | None, str]:
        """At the end: -> the call, or what was held back and is none: nobody wants to hear it."""
        return (self._call, "") if self._call else (None, self._held)

    def _parse(self) -> ToolCall | None:
        try:
            found, _ = json.JSONDecoder().raw_decode(self._held[self._held.index("{") :])
        except ValueError:
            return None
        name, arguments = found.get("name"), found.get("arguments", {})
        if name not in self._names or not isinstance(arguments, dict):
            self.senseless = True
            return None
        return ToolCall(new_call_id(), name, json.dumps(arguments, ensure_ascii=False))


class ThoughtFilter:
    """Takes `<think>...</think>` out of a stream of text, wherever the pieces are cut.

    What might become a tag is held back until it is known not to be one.
    """

    def __init__(self, thinking: bool = False) -> None:
        """`thinking`: the prompt ends with an open tag."""
        self._held = ""
        self._thinking = thinking
        self._after_thought = False

    def feed(self, text: str) -> str:
        """-> what may be spoken of it, and of what was held back before."""
        self._held += text
        spoken = ""
        while self._held:
            tag = _CLOSE if self._thinking else _OPEN
            before, found, after = self._held.partition(tag)
            if found:
                spoken += self._say(before)
                self._held, self._thinking = after, not self._thinking
                self._after_thought = self._after_thought or not self._thinking
                continue
            keep = _overlap(self._held, tag)
            cut = len(self._held) - keep
            spoken += self._say(self._held[:cut])
            self._held = self._held[cut:]
            break
        return spoken

    def flush(self) -> str:
        """-> what was held back, at the end of the stream. An unfinished thought is dropped."""
        held, self._held = self._held, ""
        return self._say(held)

    def _say(self, text: str) -> str:
        if self._thinking:
            return ""
        if self._after_thought:  # the blank lines after a thought
            text = text.lstrip()
            self._after_thought = not text
        return text


def _overlap(text: str, tag: str) -> int:
    """Length of the longest end of `text` that begins `tag`."""
    for length in range(min(len(text), len(tag) - 1), 0, -1):
        if tag.startswith(text[-length:]):
            return length
    return 0


def error_text(error: Mapping[str, Any] | str) -> str:
    """The one line that matters of a server's error object."""
    if isinstance(error, str):
        message = error
    else:
        inner = error.get("error", error)
        message = str(inner.get("message", inner)) if isinstance(inner, Mapping) else str(inner)
    return " ".join(message.split())[:300]
