"""What is asked of a language model, checked before any model is asked: one place for all doors and all back ends.

What is wrong with a request is found here, so that it is told as the request's own fault and no model is blamed for it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from antiphon.errors import RequestError
from antiphon.models.ports import LlmRequest, Message, ToolCall
from antiphon.schemas import bounded
from antiphon.text import valid_json, valid_text

MAX_TOOLS = 256
"""Of a client, of ours and of MCP servers together."""
_ROLES = frozenset({"system", "user", "assistant", "tool"})
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_MAX_TEMPERATURE = 2.0


def checked(request: LlmRequest) -> LlmRequest:
    """The request with valid text and schemas that a model can be given. Raises RequestError."""
    if not request.messages:
        raise RequestError("there is no message to answer; send at least one", "messages")
    if not math.isfinite(request.temperature) or not 0 <= request.temperature <= _MAX_TEMPERATURE:
        raise RequestError(
            f"the temperature is {request.temperature:g}; choose 0 to {_MAX_TEMPERATURE:g}",
            "temperature",
        )
    if request.max_tokens < 1:
        raise RequestError(f"max_tokens is {request.max_tokens}; choose 1 or more", "max_tokens")
    messages = tuple(_message(m, f"messages[{n}]") for n, m in enumerate(request.messages))
    tools = _tools(request.tools)
    _check_choice(request.tool_choice, tools)
    schema = request.response_schema
    return replace(
        request,
        messages=messages,
        tools=tools,
        response_schema=None if schema is None else bounded(schema, "response_format"),
    )


def _message(message: Message, where: str) -> Message:
    if message.role not in _ROLES:
        raise RequestError(f"{where}: unknown role {message.role[:40]!r}", f"{where}.role")
    content = valid_text(message.content)
    calls = tuple(_call(call, f"{where}.tool_calls") for call in message.tool_calls)
    if content is message.content and calls == message.tool_calls:
        return message
    return replace(message, content=content, tool_calls=calls)


def _call(call: ToolCall, where: str) -> ToolCall:
    _check_name(call.name, where)
    if not call.arguments.strip():
        return replace(call, arguments="{}")
    if not is_object(call.arguments):
        raise RequestError(
            f"{where}: the arguments of {call.name} are not a JSON object", where, "invalid_json"
        )
    arguments = valid_text(call.arguments)
    return call if arguments is call.arguments else replace(call, arguments=arguments)


def is_object(text: str) -> bool:
    """Whether it is a JSON object."""
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def _tools(tools: tuple[Mapping[str, Any], ...]) -> tuple[Mapping[str, Any], ...]:
    if len(tools) > MAX_TOOLS:
        raise RequestError(f"{len(tools)} tools are declared; {MAX_TOOLS} is the most", "tools")
    kept: list[Mapping[str, Any]] = []
    names: set[str] = set()
    for number, tool in enumerate(tools):
        where = f"tools[{number}]"
        function = tool.get("function")
        if not isinstance(function, Mapping):
            raise RequestError(f"{where}: a tool must be a function with a name", where)
        name = function.get("name")
        _check_name(name, f"{where}.function.name")
        if name in names:
            raise RequestError(f"{where}: {name!r} is declared twice", f"{where}.function.name")
        names.add(str(name))
        kept.append(_tool(tool, function, f"{where}.function"))
    return tuple(kept)


def _tool(tool: Mapping[str, Any], function: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    schema = function.get("parameters")
    if schema is not None and not isinstance(schema, Mapping):
        raise RequestError(f"{where}.parameters: a JSON schema is an object", f"{where}.parameters")
    lighter = None if schema is None else valid_json(bounded(schema, f"{where}.parameters"))
    description = function.get("description")
    if not isinstance(description, str | None):
        raise RequestError(f"{where}.description: a text", f"{where}.description")
    told = valid_text(description or "")
    if lighter == schema and told == (description or ""):
        return tool
    return {**tool, "function": {**function, "description": told, "parameters": lighter}}


def _check_name(name: Any, where: str) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise RequestError(
            f"{where}: {str(name)[:40]!r} is no name of a function; it is 1 to 128 letters, digits, _, . and -",
            where,
        )


def _check_choice(choice: Any, tools: tuple[Mapping[str, Any], ...]) -> None:
    if not isinstance(choice, Mapping):
        return
    function = choice.get("function", choice)
    name = function.get("name") if isinstance(function, Mapping) else None
    if all(tool["function"]["name"] != name for tool in tools):
        raise RequestError(
            f"tool_choice: there is no function {str(name)[:40]!r} among the tools", "tool_choice"
        )
