"""Functions that the language model may call and that we run: what one is, and running it safely.

Bounds, per call:
`MAX_RUNNING` functions at a time, `MAX_WAITING` more that wait for a place, `MAX_RESULT_CHARS` of a result.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from antiphon.call.tool_arguments import parse_arguments
from antiphon.core import events as ev
from antiphon.core.history import Item, ToolRequest
from antiphon.errors import RequestError, ToolError
from antiphon.schemas import bounded as bounded_schema
from antiphon.text import valid_text

log = logging.getLogger(__name__)

MAX_RUNNING = 4
MAX_WAITING = 16
MAX_RESULT_CHARS = 8_000
"""About 2,000 tokens: more would push the conversation itself out of a small model's context."""
MAX_CALLS = 12
"""Without a word of the caller in between. Then the model has to answer with what it has."""
MAX_SAME_CALLS = 2
"""Of these with the same arguments. The second is not run: it is told what the first returned."""
_ERROR = '{"error": '
_REASON_CHARS = 300
_CLOSE_S = 5.0

Run = Callable[[Mapping[str, Any]], Awaitable[str]]
"""Arguments by name -> what the language model is told. Raises ToolError with a line for the model."""


@dataclass(frozen=True, slots=True)
class Tool:
    """One function. `run` is called once per call of the model, on the event loop, and must not block it."""

    name: str
    description: str
    run: Run
    parameters: Mapping[str, Any] = field(
        default_factory=lambda: {"type": "object", "properties": {}}
    )
    """JSON schema of the arguments: an object."""
    time_limit_s: float = 20.0
    """After this the model is told that the function did not answer."""
    filler: str = ""
    """Said when the function is slow; empty: the agent's own."""

    def spec(self) -> dict[str, Any]:
        """The function as OpenAI-compatible endpoints declare it."""
        return {
            "type": "function",
            "function": {
                "name": self.name,
                "description": self.description,
                "parameters": dict(self.parameters),
            },
        }


def error_text(reason: str) -> str:
    """A failure as the language model is told it: one line."""
    line = " ".join(reason.split())
    return json.dumps({"error": line[:_REASON_CHARS]}, ensure_ascii=False)


def bounded(result: str) -> str:
    """A result that the model can be given whatever its size."""
    if len(result) <= MAX_RESULT_CHARS:
        return result
    return f"{result[:MAX_RESULT_CHARS]}... (cut; {len(result)} characters in all)"


def goes_in_circles(history: Sequence[Item]) -> bool:
    """Whether the model, since the caller last said something, has only called: small ones do so for ever."""
    asked = Counter((c.name, c.arguments) for c in _calls_since_caller(history).values())
    return asked.total() >= MAX_CALLS or max(asked.values(), default=0) >= MAX_SAME_CALLS


def known_result(call: ToolRequest, history: Sequence[Item]) -> str | None:
    """What the same call, made since the caller last said something, returned. A failure may be tried again."""
    calls = _calls_since_caller(history)
    for item in reversed(history):
        same = calls.get(item.call_id) if item.role == "tool_result" else None
        if same is not None and (same.name, same.arguments) == (call.name, call.arguments):
            return None if item.text.startswith(_ERROR) else item.text
    return None


def _calls_since_caller(history: Sequence[Item]) -> dict[str, ToolRequest]:
    calls: dict[str, ToolRequest] = {}
    for item in reversed(history):
        if item.role == "user":
            break
        if item.tool is not None:
            calls[item.tool.call_id] = item.tool
    return calls


def _ignore(event: ev.Event) -> None:
    pass


class Toolbox:
    """The functions that one call may use, and those of them that are running."""

    def __init__(self, call_id: str, post: Callable[[ev.Event], None]) -> None:
        self._call_id = call_id
        self._post = post
        self._tools: dict[str, Tool] = {}
        self._places = asyncio.Semaphore(MAX_RUNNING)
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    def __contains__(self, name: str) -> bool:
        return name in self._tools

    def __len__(self) -> int:
        return len(self._tools)

    def offer(self, tools: Iterable[Tool]) -> None:
        """More functions from now on. One of a name that is there already takes its place.

        One with a JSON schema that no model should be given is left out: else no reply could be made.
        """
        for tool in tools:
            try:
                bounded_schema(tool.parameters, tool.name)
            except RequestError as error:
                log.warning("call %s: a function is left out: %s", self._call_id, error)
            else:
                self._tools[tool.name] = tool

    def specs(self) -> tuple[dict[str, Any], ...]:
        return tuple(tool.spec() for tool in self._tools.values())

    def start(self, call: ToolRequest) -> None:
        """Run it; `ToolReturned` follows in every case, unless the call ends before. Raises KeyError when unknown."""
        if self._closed:
            return
        tool = self._tools[call.name]
        if len(self._tasks) >= MAX_RUNNING + MAX_WAITING:
            self._return(call, error_text("too many functions are running; wait for their results"))
            return
        self._post(ev.ToolStarted(call.call_id, tool.filler))
        task = asyncio.get_running_loop().create_task(
            self._run(tool, call), name=f"tool {tool.name} of {self._call_id}"
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, tool: Tool, call: ToolRequest) -> None:
        try:
            arguments = parse_arguments(call.arguments, tool.parameters)
        except ToolError as error:
            self._return(call, error_text(str(error)))
            return
        async with self._places:
            self._return(call, await self._result(tool, arguments))

    async def _result(self, tool: Tool, arguments: Mapping[str, Any]) -> str:
        limit = asyncio.timeout(tool.time_limit_s)
        try:
            async with limit:
                return bounded(await tool.run(arguments))
        except ToolError as error:
            reason = str(error)
        except TimeoutError as error:
            if limit.expired():
                reason = f"{tool.name} did not answer within {tool.time_limit_s:g} seconds"
            else:
                reason = f"{tool.name} failed: {str(error) or 'it waited too long'}"
        except Exception as error:  # somebody else's code: whatever it raises, the call goes on
            log.warning("call %s: the function %s failed", self._call_id, tool.name, exc_info=True)
            reason = f"{tool.name} failed: {type(error).__name__}: {error}"
        return error_text(reason)

    def _return(self, call: ToolRequest, output: str) -> None:
        self._post(ev.ToolReturned(call.call_id, valid_text(output)))

    async def close(self) -> None:
        """Cancel what runs and wait until it is gone; a function that does not let itself be cancelled is left."""
        self._closed = True
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            _, left = await asyncio.wait(tasks, timeout=_CLOSE_S)
            for task in left:
                log.error("call %s: %s does not end", self._call_id, task.get_name())
        self._post = _ignore
        self._tools.clear()  # they refer to the client's side of the call
