"""Python functions as tools: the schema comes from type hints and the docstring, through pydantic.

A plain function runs in a thread, so that it may block; one that never returns keeps its
thread for good, for threads cannot be ended.
"""

from __future__ import annotations

import asyncio
import contextvars
import importlib
import inspect
import re
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, create_model
from pydantic.errors import PydanticUserError
from pydantic_core import PydanticSerializationError, to_json

from antiphon.call.tools import Run, Tool
from antiphon.errors import ConfigError, ToolError

_DETAILS = re.compile(
    r"^\s*(args|arguments|parameters|returns|raises|yields|example|examples)\s*:?\s*$|^\s*:\w+",
    re.I,
)
_NAMED = re.compile(r"^\s*(?::param\s+)?\*{0,2}(\w+)\s*(?:\([^)]*\))?\s*:\s*(\S.*)$")
_PLAIN = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def load_function(entry: str) -> Callable[..., Any]:
    """`module:function` -> the function. Raises ConfigError."""
    module_name, _, name = entry.partition(":")
    if not module_name or not name:
        raise ConfigError(f"tools.functions: {entry!r} is not of the form module:function")
    try:
        found: Any = importlib.import_module(module_name)
    except Exception as error:  # noqa: BLE001 (the owner's module: anything can happen in it)
        reason = f"{type(error).__name__}: {error}"
        raise ConfigError(
            f"tools.functions: cannot import {module_name}: {reason}; is it on PYTHONPATH?"
        ) from None
    for part in name.split("."):
        found = getattr(found, part, None)
    if not callable(found):
        raise ConfigError(f"tools.functions: there is no function {name} in {module_name}")
    function: Callable[..., Any] = found
    return function


def tool_of(
    function: Callable[..., Any], threads: ThreadPoolExecutor, time_limit_s: float = 20.0
) -> Tool:
    """A tool of the function's name. `threads`: where it runs unless it is async. Raises ConfigError."""
    name = getattr(function, "__name__", type(function).__name__)
    about, details = _read_docstring(inspect.getdoc(function) or "")
    if not about:
        raise ConfigError(
            f"tools.functions: {name} has no docstring; say there what it does, for the model goes by it"
        )
    arguments = _model(function, name, details)
    return Tool(
        name=name,
        description=about,
        run=_runner(function, arguments, threads),
        parameters=_schema(arguments),
        time_limit_s=time_limit_s,
    )


def _runner(
    function: Callable[..., Any], arguments: type[BaseModel], threads: ThreadPoolExecutor
) -> Run:
    is_async = inspect.iscoroutinefunction(function)

    async def run(given: Mapping[str, Any]) -> str:
        try:
            checked = arguments.model_validate(dict(given))
        except ValidationError as error:
            raise ToolError(_explain(error)) from None
        values = {field: getattr(checked, field) for field in checked.model_fields_set}
        if is_async:
            result = await function(**values)
        else:
            context = contextvars.copy_context()
            result = await asyncio.get_running_loop().run_in_executor(
                threads, lambda: context.run(function, **values)
            )
        return _as_text(result)

    return run


def _as_text(result: Any) -> str:
    if isinstance(result, str):
        return result
    if result is None:
        return "done"
    try:
        return to_json(result).decode()
    except PydanticSerializationError:
        return str(result)


def _model(function: Callable[..., Any], name: str, details: Mapping[str, str]) -> type[BaseModel]:
    try:
        hints = get_type_hints(function, include_extras=True)
        parameters = inspect.signature(function).parameters.values()
    except (NameError, TypeError, ValueError) as error:
        raise ConfigError(f"tools.functions: the types of {name} cannot be read: {error}") from None
    fields: dict[str, Any] = {}
    for parameter in parameters:
        if parameter.kind not in _PLAIN:
            raise ConfigError(
                f"tools.functions: {name} may not have *args, **kwargs or unnamed ones"
            )
        default = ... if parameter.default is parameter.empty else parameter.default
        fields[parameter.name] = (hints.get(parameter.name, Any), default)
    try:
        model: type[BaseModel] = create_model(
            name, __config__=ConfigDict(extra="forbid", arbitrary_types_allowed=False), **fields
        )
        for field, text in details.items():
            if field in model.model_fields and not model.model_fields[field].description:
                model.model_fields[field].description = text
        model.model_rebuild(force=True)
        model.model_json_schema()
    except (PydanticUserError, NameError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"tools.functions: {name} cannot be described: {reason}") from None
    return model


def _schema(arguments: type[BaseModel]) -> dict[str, Any]:
    """Without the titles that pydantic makes of names: they tell a model nothing and cost tokens."""
    schema: dict[str, Any] = _untitled(arguments.model_json_schema())
    schema.setdefault("properties", {})
    return schema


def _untitled(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_untitled(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    out: dict[str, Any] = {}
    for key, value in schema.items():
        if key in ("properties", "$defs"):
            out[key] = {name: _untitled(part) for name, part in value.items()}
        elif key != "title":
            out[key] = _untitled(value)
    return out


def _read_docstring(doc: str) -> tuple[str, dict[str, str]]:
    """What the function does, and what is said of its arguments: `name: text` below `Args:`, or `:param name: text`."""
    about: list[str] = []
    details: dict[str, str] = {}
    beyond = False
    for line in doc.splitlines():
        beyond = beyond or bool(_DETAILS.match(line))
        if not beyond:
            about.append(line.strip())
        elif named := _NAMED.match(line):
            details.setdefault(named[1], named[2].strip())
    return " ".join(" ".join(about).split()), details


def _explain(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or "the arguments"
    return f"{where}: {first['msg']}"
