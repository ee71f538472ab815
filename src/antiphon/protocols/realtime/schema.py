"""What a client may put into the objects that it sends, and the error for what it may not.

Types and ranges are msgspec structs, which check and nothing else: values are taken from the raw JSON afterwards, for
an absent key and a null mean different things. Unknown keys are ignored.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from antiphon.errors import ProtocolError, RequestError
from antiphon.schemas import bounded

MAX_EVENT_ID_CHARS = 512


class RealtimeError(ProtocolError):
    """An event that cannot be obeyed. The session lives on."""

    def __init__(
        self,
        message: str,
        code: str = "invalid_value",
        param: str | None = None,
        kind: str = "invalid_request_error",
    ) -> None:
        """`code`: a stable word for programs. `param`: path of the field that is wrong. `kind`: the error's `type`."""
        super().__init__(message)
        self.code = code
        self.param = param
        self.kind = kind

    def body(self, event_id: str | None = None) -> dict[str, Any]:
        """The `error` object. `event_id`: of the client's event that caused it."""
        return {
            "type": self.kind,
            "code": self.code,
            "message": str(self),
            "param": self.param,
            "event_id": event_id,
        }


MAX_TOKENS = 4096
MIN_COMMIT_MS = 100
MAX_TOOLS = 128
_MAX_METADATA = 16
_TOOL_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_PATH = re.compile(r" - at `\$\.?(.*)`$")

Text = str | None | UnsetType
Flag = bool | None | UnsetType
Open = Any
"""Kept and shown, not looked into."""
Tokens = Annotated[int, Meta(ge=1, le=MAX_TOKENS)] | Literal["inf"] | None | UnsetType


class Format(Struct):
    type: Literal["audio/pcm", "audio/pcmu", "audio/pcma"]
    rate: Literal[24000] | UnsetType | None = UNSET


class Transcription(Struct):
    model: Text = UNSET
    language: Text = UNSET
    languages: list[str] | UnsetType | None = UNSET
    prompt: Text = UNSET
    delay: Text = UNSET


class NoiseReduction(Struct):
    type: Literal["near_field", "far_field"]


class TurnDetection(Struct):
    type: Literal["server_vad", "semantic_vad"] | UnsetType = UNSET
    threshold: Annotated[float, Meta(ge=0, le=1)] | UnsetType | None = UNSET
    prefix_padding_ms: Annotated[int, Meta(ge=0, le=10000)] | UnsetType | None = UNSET
    silence_duration_ms: Annotated[int, Meta(ge=0, le=60000)] | UnsetType | None = UNSET
    idle_timeout_ms: Annotated[int, Meta(ge=5000, le=30000)] | UnsetType | None = UNSET
    eagerness: Literal["low", "medium", "high", "auto"] | UnsetType | None = UNSET
    create_response: Flag = UNSET
    interrupt_response: Flag = UNSET


class Input(Struct):
    format: Format | UnsetType | None = UNSET
    transcription: Transcription | UnsetType | None = UNSET
    noise_reduction: NoiseReduction | UnsetType | None = UNSET
    turn_detection: TurnDetection | UnsetType | None = UNSET


class VoiceObject(Struct):
    id: str


class Output(Struct):
    format: Format | UnsetType | None = UNSET
    voice: str | VoiceObject | UnsetType | None = UNSET
    speed: Annotated[float, Meta(ge=0.25, le=1.5)] | UnsetType | None = UNSET


class Audio(Struct):
    input: Input | UnsetType | None = UNSET
    output: Output | UnsetType | None = UNSET


Modalities = Annotated[list[Literal["text", "audio"]], Meta(min_length=1)] | None | UnsetType


class SessionObject(Struct):
    type: Literal["realtime", "transcription"] | UnsetType | None = UNSET
    output_modalities: Modalities = UNSET
    instructions: Text = UNSET
    tools: list[dict[str, Any]] | UnsetType | None = UNSET
    tool_choice: str | dict[str, Any] | UnsetType | None = UNSET
    parallel_tool_calls: Flag = UNSET
    max_output_tokens: Tokens = UNSET
    temperature: Annotated[float, Meta(ge=0, le=2)] | UnsetType | None = UNSET
    include: list[str] | UnsetType | None = UNSET
    tracing: Open = UNSET
    truncation: Open = UNSET
    prompt: dict[str, Any] | UnsetType | None = UNSET
    reasoning: dict[str, Any] | UnsetType | None = UNSET
    audio: Audio | UnsetType | None = UNSET


class ReplyOutput(Struct):
    format: Format | UnsetType | None = UNSET
    voice: str | VoiceObject | UnsetType | None = UNSET


class ReplyAudio(Struct):
    output: ReplyOutput | UnsetType | None = UNSET


class ReplyParams(Struct):
    """`response` of `response.create`."""

    output_modalities: Modalities = UNSET
    instructions: Text = UNSET
    audio: ReplyAudio | UnsetType | None = UNSET
    tools: list[dict[str, Any]] | UnsetType | None = UNSET
    tool_choice: str | dict[str, Any] | UnsetType | None = UNSET
    max_output_tokens: Tokens = UNSET
    temperature: Annotated[float, Meta(ge=0, le=2)] | UnsetType | None = UNSET
    conversation: Literal["auto", "none"] | UnsetType | None = UNSET
    input: list[dict[str, Any]] | UnsetType | None = UNSET
    metadata: dict[str, Annotated[str, Meta(max_length=512)]] | UnsetType | None = UNSET


def check(value: Any, shape: type[Struct], at: str) -> None:
    """Raises RealtimeError that names the field, `at` and below."""
    try:
        msgspec.convert(value, shape)
    except msgspec.ValidationError as error:
        raise _explained(str(error), at) from None
    except RecursionError:
        raise RealtimeError("the object is nested too deeply", param=at) from None


def _explained(problem: str, at: str) -> RealtimeError:
    found = _PATH.search(problem)
    sentence = problem[: found.start()] if found else problem
    param = f"{at}.{found.group(1)}" if found and found.group(1) else at
    if "missing required field" in sentence:
        code = "missing_required_parameter"
    elif ", got `" in sentence:
        code = "invalid_type"
    else:
        code = "invalid_value"
    return RealtimeError(f"{param}: {sentence[:1].lower()}{sentence[1:]}", code, param)


def check_tools(tools: list[dict[str, Any]], at: str) -> None:
    """Raises RealtimeError for a function that no language model could be offered."""
    if len(tools) > MAX_TOOLS:
        raise RealtimeError(f"{at}: more than {MAX_TOOLS} tools", param=at)
    names: set[str] = set()
    for number, tool in enumerate(tools):
        where = f"{at}[{number}]"
        if tool.get("type", "function") != "function":
            raise RealtimeError(
                f"{where}.type: only functions can be declared here; MCP servers are configured at the server",
                param=f"{where}.type",
            )
        name = tool.get("name")
        if not isinstance(name, str) or not _TOOL_NAME.fullmatch(name):
            raise RealtimeError(
                f"{where}.name: a name is 1 to 64 letters, digits, _ and -", param=f"{where}.name"
            )
        if name in names:
            raise RealtimeError(f"{where}.name: {name!r} is declared twice", param=f"{where}.name")
        names.add(name)
        if not isinstance(tool.get("description") or "", str):
            raise RealtimeError(
                f"{where}.description: a text", "invalid_type", f"{where}.description"
            )
        _check_schema(tool.get("parameters"), f"{where}.parameters")


def _check_schema(schema: Any, at: str) -> None:
    if schema is None:
        return
    if not isinstance(schema, dict):
        raise RealtimeError(f"{at}: a JSON schema is an object", "invalid_type", at)
    if schema.get("type", "object") != "object":
        raise RealtimeError(f"{at}.type: arguments are an object", param=f"{at}.type")
    properties = schema.get("properties", {})
    if not isinstance(properties, dict) or not all(
        isinstance(p, dict | bool) for p in properties.values()
    ):
        raise RealtimeError(f"{at}.properties: an object of JSON schemas", param=f"{at}.properties")
    required = schema.get("required", [])
    if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
        raise RealtimeError(f"{at}.required: a list of names", param=f"{at}.required")
    try:
        bounded(schema, at)
    except RequestError as error:
        raise RealtimeError(str(error), error.code, at) from None


def check_tool_choice(choice: Any, at: str) -> None:
    if isinstance(choice, str):
        if choice not in ("auto", "none", "required"):
            raise RealtimeError(f"{at}: auto, none, required or a function", param=at)
    elif isinstance(choice, dict) and (
        choice.get("type") != "function" or not isinstance(choice.get("name"), str)
    ):
        raise RealtimeError(f'{at}: {{"type": "function", "name": ...}}', param=at)


def check_metadata(metadata: dict[str, str] | None) -> None:
    if metadata and (len(metadata) > _MAX_METADATA or any(len(key) > 64 for key in metadata)):
        raise RealtimeError(
            f"metadata: at most {_MAX_METADATA} keys of 64 characters", param="response.metadata"
        )


def chat_tools(tools: list[dict[str, Any]]) -> tuple[dict[str, Any], ...]:
    """Flat declarations -> the chat-completions form."""
    empty = {"type": "object", "properties": {}}
    return tuple(
        {
            "type": "function",
            "function": {
                "name": tool["name"],
                "description": tool.get("description") or "",
                "parameters": tool.get("parameters") or empty,
            },
        }
        for tool in tools
    )


def chat_tool_choice(choice: Any) -> Any:
    """The session's `tool_choice` -> that of chat completions."""
    if isinstance(choice, dict):
        return {"type": "function", "function": {"name": choice["name"]}}
    return choice


def needed(event: Mapping[str, Any], name: str) -> Any:
    if event.get(name) is None:
        raise RealtimeError(f"{name} is missing", "missing_required_parameter", name)
    return event[name]


def text(event: Mapping[str, Any], name: str) -> str:
    value = needed(event, name)
    if not isinstance(value, str):
        raise RealtimeError(f"{name}: a text", "invalid_type", name)
    return value


def whole(event: Mapping[str, Any], name: str) -> int:
    value = needed(event, name)
    if type(value) is not int:
        raise RealtimeError(f"{name}: a whole number", "invalid_type", name)
    return value
