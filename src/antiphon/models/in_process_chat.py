"""What language models in this process share: prompts by the tokenizer's chat template, and text turned into deltas.

For back ends that hold a tokenizer of Transformers' form.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from antiphon.errors import ModelError, RequestError
from antiphon.models.chat_format import ThoughtFilter, WrittenCall, as_wire
from antiphon.models.ports import LlmDelta, LlmRequest, Usage
from antiphon.models.prompt_window import fit

_MARGIN_TOKENS = 32
_TAIL_TOKENS = 8


class ChatPrompts:
    """Of one model. `context_tokens`: longest prompt and reply together.

    Raises ModelError when the tokenizer has no chat template.
    """

    def __init__(self, tokenizer: Any, name: str, context_tokens: int) -> None:
        if not getattr(tokenizer, "chat_template", None):
            raise ModelError(
                f"{name} has no chat template: it is not an instruction model; choose another"
            )
        self._tokenizer, self._name = tokenizer, name
        self._context_tokens = context_tokens

    def ids(self, request: LlmRequest) -> list[int]:
        """Tokens of the whole prompt, the start of the reply included. Raises RequestError."""
        return self._render(request, more="")

    def settled(self, request: LlmRequest, ids: list[int]) -> list[int]:
        """Those of `ids` that stay the same when the user's last words grow: all but the last few."""
        return ids[: common(ids, self._render(request, more=" and"))]

    def thinks(self, ids: list[int]) -> bool:
        """The template has opened a thought for the model to finish."""
        tail = self._tokenizer.decode(ids[-_TAIL_TOKENS:])
        return str(tail).rstrip().endswith("<think>")

    def _render(self, request: LlmRequest, *, more: str) -> list[int]:
        if not request.messages:
            raise RequestError("the language model was asked without a message", "messages")
        reply = min(request.max_tokens, self._context_tokens // 4)
        room = self._context_tokens - reply - _MARGIN_TOKENS
        messages = as_wire(fit(request.messages, room, self._count))
        messages[-1] = {**messages[-1], "content": messages[-1]["content"] + more}
        options: dict[str, Any] = {}
        if request.tools and request.tool_choice != "none":
            options["tools"] = list(request.tools)
        try:
            ids = self._tokenizer.apply_chat_template(
                messages, add_generation_prompt=True, return_dict=False, **options
            )
        except Exception as error:  # templates are programs, and refuse what they do not know
            said = " ".join(str(error).split())[:200]
            raise RequestError(f"the language model cannot be asked this: {said}") from error
        return list(ids)

    def _count(self, text: str) -> int:
        return len(self._tokenizer.encode(text, add_special_tokens=False))


class ReplyDeltas:
    """The text of one reply, piece by piece -> deltas: thoughts are left out, a tool call that was written is made."""

    def __init__(self, request: LlmRequest, *, thinking: bool = False) -> None:
        self._thoughts = ThoughtFilter(thinking)
        self._written: WrittenCall | None = None
        if request.tools and request.tool_choice != "none":
            self._written = WrittenCall(tool["function"]["name"] for tool in request.tools)

    @property
    def complete(self) -> bool:
        """A whole tool call has been read: nothing more is worth waiting for."""
        return self._written is not None and self._written.complete

    def feed(self, piece: str) -> Iterator[LlmDelta]:
        text = self._thoughts.feed(piece)
        if text and self._written:
            text = self._written.feed(text)
        if text:
            yield LlmDelta(text)

    def end(self, finish: str, usage: Usage) -> Iterator[LlmDelta]:
        """What was held back, and the last delta. `finish`: `stop` or `length`."""
        rest, call = self._thoughts.flush(), None
        if self._written:
            spoken = self._written.feed(rest)
            call, _ = self._written.take()
            rest = spoken
        if call is not None:
            yield LlmDelta(tool_call=call)
            finish = "tool_calls"
        yield LlmDelta(rest, finish=finish, usage=usage)


def common(first: list[int], second: list[int]) -> int:
    """Length of the shared beginning."""
    for at, (a, b) in enumerate(zip(first, second, strict=False)):
        if a != b:
            return at
    return min(len(first), len(second))
