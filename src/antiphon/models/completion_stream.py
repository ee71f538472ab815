"""Replies that are pushed by a blocking handler, as iterators that can be closed at any time.

The chunks are those of llama.cpp's server: text completions and chat completions alike. This module
knows no prompt, no slot and no template.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import Any

from antiphon.errors import AntiphonError, ModelError, RequestError
from antiphon.models.chat_format import ThoughtFilter, ToolCalls, WrittenCall, error_text
from antiphon.models.ports import LlmDelta, ToolPart, Usage


class CompletionStream:
    """One request at the server: its chunks, as they come, on another thread.

    The handler blocks its thread and pushes; a reply is pulled and may be closed at any time. So
    the handler gets a thread of the pool, and learns of the end by what its callback returns.
    """

    def __init__(self, call_id: str, handle: Callable[..., None], body: dict[str, Any]) -> None:
        self.call_id = call_id
        self.stopped = False
        self._enough = False
        self._handle: Callable[..., None] | None = handle
        self._body = body
        self._chunks: SimpleQueue[dict[str, Any] | Exception | None] = SimpleQueue()

    def run(self) -> None:
        """Blocking, until the reply has ended or one token after `stop`."""
        handle, self._handle = self._handle, None  # a kept reply must not keep the server alive
        try:
            if handle is not None and not self.stopped:
                handle(self._body, self._take)
        except Exception as error:  # noqa: BLE001 - the reader's to raise
            self._chunks.put(error)
        finally:
            self._chunks.put(None)

    def stop(self) -> None:
        """From any thread; a reader that waits goes on at once."""
        self.stopped = True
        self._chunks.put(None)

    def enough(self) -> None:
        """From its reader, who has what was wanted: the request ends after one more token."""
        self._enough = True

    def _take(self, chunk: dict[str, Any]) -> bool:
        if not self.stopped:
            self._chunks.put(chunk)
        return self.stopped or self._enough  # true: llama.cpp gives the request up

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Raises ModelError or RequestError, with the server's reason."""
        while (chunk := self._chunks.get()) is not None and not self.stopped:
            if isinstance(chunk, Exception):
                raise _not_begun(chunk) from chunk
            if "choices" not in chunk:
                raise _refused(chunk)
            yield chunk


def _not_begun(error: Exception) -> AntiphonError:
    """The handler raises before it begins: what it makes of the request, or that it cannot work."""
    text = error_text(str(error))
    if isinstance(error, ValueError) or "parse" in text or "parsing" in text:
        return RequestError(f"the language model cannot be asked this: {text}")
    return ModelError(f"llama.cpp: {text}")


def _refused(chunk: dict[str, Any]) -> AntiphonError:
    """An error object, with a status as in HTTP."""
    found = chunk.get("error", chunk)
    status = found.get("code") if isinstance(found, dict) else None
    if not isinstance(status, int) or not 400 <= status < 500:
        return ModelError(f"llama.cpp: {error_text(chunk)}")
    too_long = found.get("type") == "exceed_context_size_error"
    return RequestError(
        f"the language model cannot be asked this: {error_text(chunk)}",
        "messages" if too_long else None,
        "context_length_exceeded" if too_long else "invalid_value",
    )


class CompletionReply(Iterator[LlmDelta]):
    """A reply being written, by the first of the given requests that comes to an end of its own (a
    delta with `finish`). Unlike a generator it may be closed while another thread waits in `next`.
    """

    def __init__(self, *begin: Callable[[], tuple[CompletionStream, Iterator[LlmDelta]]]) -> None:
        self._requests = deque(begin)
        self._stream: CompletionStream | None = None
        self._deltas: Iterator[LlmDelta] = iter(())
        self._closed = False

    def __next__(self) -> LlmDelta:
        while not self._closed:
            delta = next(self._deltas, None)
            if delta is not None:
                if delta.finish:
                    self._requests.clear()
                return delta
            if not self._requests or (self._stream is not None and self._stream.stopped):
                raise StopIteration
            self._stream, self._deltas = self._requests.popleft()()
        self.close()
        raise StopIteration

    def close(self) -> None:
        """Stop writing and free the slot. Never waits."""
        self._closed = True
        if self._stream is not None:
            self._stream.stop()

    def __del__(self) -> None:
        self.close()


def read(
    stream: CompletionStream, thoughts: ThoughtFilter, written: WrittenCall | None = None
) -> Iterator[LlmDelta]:
    """Chunks -> deltas: text as it comes, an empty delta while the prompt is being read, tool calls
    whole. No `finish` for a reply that is no words and no call either: not to be spoken.

    Raises ModelError.
    """
    calls = ToolCalls()
    finish, usage = "", None
    for chunk in stream:
        progress = chunk.get("prompt_progress")
        if progress and progress["cache"] < progress["processed"] < progress["total"]:
            yield LlmDelta()
        usage = _usage(chunk) or usage
        for choice in chunk["choices"]:
            finish = choice.get("finish_reason") or finish
            for part in _parts(choice, calls):
                yield LlmDelta(tool_part=part)
            text = choice.get("text") or (choice.get("delta") or {}).get("content") or ""
            text = thoughts.feed(text) if text else ""
            text = written.feed(text) if written and text else text
            if text:
                yield LlmDelta(text=text)
        if written and written.complete:
            stream.enough()  # what a small model adds after its call is of no use
            finish = "tool_calls"
            break
    else:
        if stream.stopped:
            return
    if not finish:
        raise ModelError("llama.cpp ended a reply without a reason")
    rest, whole = thoughts.flush(), list(calls.take(cut_off=finish == "length"))
    if written:
        rest = written.feed(rest)
        call, held = written.take()
        if held.strip() and not whole:
            return
        whole += [call] if call else []
    for tool_call in whole:
        yield LlmDelta(tool_call=tool_call)
    yield LlmDelta(text=rest, finish="tool_calls" if whole else finish, usage=usage)


def read_judgement(stream: CompletionStream) -> Iterator[LlmDelta]:
    """Of a request for one token after the user's words, with the likeliest tokens: how much of
    them ends a sentence or the turn. Nothing when the server does not tell: a reply comes all the
    same.
    """
    ends, told = 0.0, False
    try:
        for chunk in stream:
            for choice in chunk["choices"]:
                for token in ((choice.get("logprobs") or {}).get("content") or ())[:1]:
                    told = True
                    ends += sum(
                        math.exp(likely["logprob"])
                        for likely in token["top_logprobs"]
                        if _ends(likely["token"])
                    )
    except (ModelError, RequestError):
        return
    if told:
        yield LlmDelta(ends_here=min(ends, 1.0))


def _ends(token: str) -> bool:
    """Special tokens, the end of the turn among them, come as an empty text or in angle brackets."""
    text = token.strip(" ")
    return not text or text[0] in ".?!\n。？！।؟" or text.startswith("<|")


def _parts(choice: dict[str, Any], calls: ToolCalls) -> Iterator[ToolPart]:
    """Of tool calls."""
    for fragment in (choice.get("delta") or {}).get("tool_calls") or ():
        function = fragment.get("function") or {}
        part = calls.add(
            fragment.get("index", 0),
            fragment.get("id") or "",
            function.get("name") or "",
            function.get("arguments") or "",
        )
        if part is not None:
            yield part


def _usage(chunk: dict[str, Any]) -> Usage | None:
    usage = chunk.get("usage")
    if not usage:
        return None
    details = usage.get("prompt_tokens_details") or {}
    return Usage(
        input_tokens=usage.get("prompt_tokens", 0),
        output_tokens=usage.get("completion_tokens", 0),
        cached_tokens=details.get("cached_tokens", 0),
    )
