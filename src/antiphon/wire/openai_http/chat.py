"""`/v1/chat/completions`: a request as turns and limits, and the answer whole or in chunks.

The stop words are looked for here, as not every back end knows them. Knows no model.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec

from antiphon.wire.openai_http.parsing import BadRequest, parse

MAX_STOPS = 4
MAX_MESSAGES = 2_000
MAX_TOKENS = 32_768
_ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}
_PLAIN_FORMATS = (None, "text")


class AskedFunction(msgspec.Struct):
    name: str
    arguments: str = ""


class AskedCall(msgspec.Struct):
    function: AskedFunction
    id: str = ""


class AskedMessage(msgspec.Struct):
    role: str
    content: str | list[dict[str, Any]] | None = None
    tool_calls: list[AskedCall] | None = None
    tool_call_id: str | None = None

    @property
    def plain_role(self) -> str:
        return _ROLES[self.role]

    @property
    def text(self) -> str:
        """Of all its parts."""
        if not isinstance(self.content, list):
            return self.content or ""
        return "\n".join(str(part.get("text", part.get("refusal", ""))) for part in self.content)


class StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class ChatAsk(msgspec.Struct):
    messages: list[AskedMessage]
    model: str = ""
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    max_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    max_completion_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    stop: str | list[str] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    response_format: dict[str, Any] | None = None
    n: int | None = None

    @property
    def token_limit(self) -> int | None:
        limit = self.max_completion_tokens or self.max_tokens
        return None if limit is None else min(limit, MAX_TOKENS)

    @property
    def stops(self) -> tuple[str, ...]:
        given = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return tuple(word for word in given if word)

    @property
    def wants_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)


def read(body: bytes) -> ChatAsk:
    """Raises BadRequest, also for what cannot be done: several answers, images, JSON by force."""
    ask = parse(ChatAsk, body)
    if not 0 < len(ask.messages) <= MAX_MESSAGES:
        raise BadRequest(f"messages must be 1 to {MAX_MESSAGES} messages", "messages")
    for number, message in enumerate(ask.messages):
        _check_message(message, f"messages[{number}]")
    if ask.n not in (None, 1):
        raise BadRequest("only one answer at a time can be made; leave n out", "n")
    if len(ask.stops) > MAX_STOPS:
        raise BadRequest(f"stop may list {MAX_STOPS} words at most", "stop")
    if (ask.response_format or {}).get("type") not in _PLAIN_FORMATS:
        raise BadRequest(
            "only response_format text can be served; ask for JSON in the prompt", "response_format"
        )
    for number, tool in enumerate(ask.tools or ()):
        function = tool.get("function")
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise BadRequest("a tool must be a function with a name", f"tools[{number}]")
    return ask


def _check_message(message: AskedMessage, where: str) -> None:
    if message.role not in _ROLES:
        raise BadRequest(f"unknown role {message.role[:40]!r}", f"{where}.role")
    for part in message.content if isinstance(message.content, list) else ():
        if part.get("type") not in ("text", "refusal"):
            kind = str(part.get("type"))[:40]
            raise BadRequest(
                f"a part of type {kind!r} cannot be read; send text", f"{where}.content"
            )


class StopFilter:
    """Text up to the first stop word; what may become one is held back."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.hit = False

    def feed(self, text: str) -> str:
        """-> what may be sent."""
        if self.hit or not self._stops:
            return "" if self.hit else text
        self._held += text
        found = [at for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if found:
            self.hit = True
            return self._take(min(found))
        keep = max(_overlap(self._held, stop) for stop in self._stops)
        return self._take(len(self._held) - keep)

    def flush(self) -> str:
        """The text is complete -> the rest."""
        return "" if self.hit else self._take(len(self._held))

    def _take(self, length: int) -> str:
        sent, self._held = self._held[:length], self._held[length:]
        return sent


def _overlap(text: str, word: str) -> int:
    """How much of the end of `text` is the beginning of `word`."""
    for length in range(min(len(text), len(word) - 1), 0, -1):
        if word.startswith(text[-length:]):
            return length
    return 0


@dataclass(frozen=True, slots=True)
class Call:
    """A function that the model wants to have called."""

    call_id: str
    name: str
    arguments: str

    def as_json(self) -> dict[str, Any]:
        function = {"name": self.name, "arguments": self.arguments}
        return {"id": self.call_id, "type": "function", "function": function}


@dataclass(frozen=True, slots=True)
class Tokens:
    """As the model counted them."""

    prompt: int = 0
    completion: int = 0
    cached: int = 0

    def as_json(self) -> dict[str, Any]:
        return {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
            "prompt_tokens_details": {"cached_tokens": self.cached},
        }


class Answer:
    """One answer's dictionaries: all its chunks bear the same id and time."""

    def __init__(self, model: str) -> None:
        self.id = f"chatcmpl-{secrets.token_hex(12)}"
        self._model = model
        self._created = int(time.time())
        self._begun = False
        self._calls: dict[str, str] = {}
        """Call id -> what was sent of its arguments, in the order in which they began."""

    def whole(
        self, text: str, calls: Sequence[Call], finish: str, tokens: Tokens
    ) -> dict[str, Any]:
        message: dict[str, Any] = {
            "role": "assistant",
            "content": text if text or not calls else None,
            "refusal": None,
        }
        if calls:
            message["tool_calls"] = [call.as_json() for call in calls]
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}
        return {
            **self._head("chat.completion"),
            "choices": [choice],
            "usage": tokens.as_json(),
        }

    def text(self, text: str) -> dict[str, Any]:
        return self._chunk({"content": text})

    def call_part(self, call_id: str, name: str, text: str) -> dict[str, Any]:
        """More of a call's arguments, at its index; the first piece bears its name."""
        if call_id not in self._calls:
            begun = Call(call_id, name, text).as_json()
            self._calls[call_id] = text
            return self._chunk({"tool_calls": [{"index": len(self._calls) - 1, **begun}]})
        self._calls[call_id] += text
        index = list(self._calls).index(call_id)
        return self._chunk({"tool_calls": [{"index": index, "function": {"arguments": text}}]})

    def call(self, call: Call) -> dict[str, Any] | None:
        """What has not been sent yet of a whole call; None: nothing."""
        rest = call.arguments.removeprefix(self._calls.get(call.call_id, ""))
        if call.call_id in self._calls and not rest:
            return None
        return self.call_part(call.call_id, call.name, rest)

    def end(self, finish: str) -> dict[str, Any]:
        return self._chunk({}, finish)

    def usage(self, tokens: Tokens) -> dict[str, Any]:
        """The chunk after the last, for those who asked for it."""
        return {
            **self._head("chat.completion.chunk"),
            "choices": [],
            "usage": tokens.as_json(),
        }

    def _chunk(self, delta: Mapping[str, Any], finish: str | None = None) -> dict[str, Any]:
        if not self._begun:
            self._begun = True
            delta = {"role": "assistant", "content": "", **delta}
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return {**self._head("chat.completion.chunk"), "choices": [choice]}

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self._created, "model": self._model}
