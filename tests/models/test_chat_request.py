"""What is wrong with a request is found before any model is asked, and blames none."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from antiphon.errors import RequestError
from antiphon.models.chat_request import checked
from antiphon.models.ports import LlmRequest, Message, ToolCall

ASK = LlmRequest((Message("user", "Hello"),))


def tool(name: str = "f", **parameters: Any) -> dict[str, Any]:
    function = {"name": name, "description": "", "parameters": {"type": "object", **parameters}}
    return {"type": "function", "function": function}


def called(name: str, arguments: str) -> Message:
    return Message("assistant", "", (ToolCall("c", name, arguments),))


@pytest.mark.parametrize(
    ("request_", "param"),
    [
        (replace(ASK, messages=()), "messages"),
        (replace(ASK, messages=(Message("wizard", "x"),)), "messages[0].role"),
        (replace(ASK, messages=(called("f", "{broken"),)), "messages[0].tool_calls"),
        (replace(ASK, messages=(called("f", "[1]"),)), "messages[0].tool_calls"),
        (replace(ASK, messages=(called("f", "[" * 100_000),)), "messages[0].tool_calls"),
        (replace(ASK, messages=(called("no name", "{}"),)), "messages[0].tool_calls"),
        (replace(ASK, temperature=float("nan")), "temperature"),
        (replace(ASK, temperature=-1.0), "temperature"),
        (replace(ASK, max_tokens=0), "max_tokens"),
        (replace(ASK, tools=({"type": "function"},)), "tools[0]"),
        (replace(ASK, tools=(tool("a b"),)), "tools[0].function.name"),
        (replace(ASK, tools=(tool("\ud83d"),)), "tools[0].function.name"),
        (replace(ASK, tools=(tool(), tool())), "tools[1].function.name"),
        (replace(ASK, tools=(tool(**{"$ref": "#"}),)), "tools[0].function.parameters"),
        (replace(ASK, response_schema={"$ref": "#"}), "response_format"),
        (replace(ASK, tools=(tool(),), tool_choice={"function": {"name": "g"}}), "tool_choice"),
    ],
)
def test_a_request_that_no_model_can_serve(request_: LlmRequest, param: str) -> None:
    with pytest.raises(RequestError) as refused:
        checked(request_)
    assert refused.value.param == param
    str(refused.value).encode()


def test_an_ordinary_request_stays_as_it_is() -> None:
    ask = replace(ASK, tools=(tool(),), messages=(*ASK.messages, called("f", '{"a": 1}')))
    assert checked(ask) == ask
    assert checked(ask).tools[0] is ask.tools[0]


def test_half_characters_of_clients_are_replaced_and_missing_arguments_are_none() -> None:
    ask = replace(ASK, messages=(Message("user", "a\ud83d"), called("f", " ")))
    found = checked(ask).messages
    assert found[0].content == "a\N{REPLACEMENT CHARACTER}"
    assert found[1].tool_calls[0].arguments == "{}"
