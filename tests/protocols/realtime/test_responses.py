"""Responses asked for by hand: options, failures, tools, and one at a time."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.protocols.realtime.support import WEATHER, call, talking
from tests.server.support import serving
from tests.support import OPTIONS, run

from antiphon.call.tools import Tool

CALLS_WEATHER = {
    **OPTIONS["llm"],
    "tools": {"weather": {"name": "weather", "arguments": {"place": "Oslo"}}},
}
SLOW_STORY = {**OPTIONS["llm"], "piece_delay_ms": 25}


def test_text_output_in_the_documented_order(tmp_path: Path) -> None:
    async def main() -> None:
        async with call(tmp_path) as c:
            await c.text("what time is it")
            start = len(c.events)
            done = await c.respond(output_modalities=["text"])
            assert c.kinds(start) == [
                "response.created",
                "response.output_item.added",
                "conversation.item.added",
                "response.content_part.added",
                "response.output_text.delta",
                "response.output_text.done",
                "response.content_part.done",
                "conversation.item.done",
                "response.output_item.done",
                "response.done",
            ]
            assert done["output"][0]["content"] == [{"type": "output_text", "text": "It is noon."}]
            assert done["output_modalities"] == ["text"]

    run(main())


def test_too_many_tokens(tmp_path: Path) -> None:
    async def main() -> None:
        async with call(tmp_path) as c:
            await c.text("tell me a story")
            done = await c.respond(max_output_tokens=3)
            assert done["status"] == "incomplete"
            assert done["status_details"] == {"type": "incomplete", "reason": "max_output_tokens"}
            assert done["max_output_tokens"] == 3
            assert done["output"][0]["content"][0]["transcript"].split() == [
                "word1",
                "word2",
                "word3",
            ]

    run(main())


def test_a_model_that_fails_ends_the_response_and_not_the_session(tmp_path: Path) -> None:
    llm = {**OPTIONS["llm"], "fail_on": (1,)}

    async def main() -> None:
        async with call(tmp_path, models__options__llm__scripted=llm) as c:
            await c.text("what time is it")
            done = await c.respond()
            assert done["status"] == "failed"
            error = done["status_details"]["error"]
            assert (error["type"], error["code"]) == ("server_error", "reply_failed")
            assert "the server's log says why" in error["message"]
            assert not c.of("error")  # several clients take any for the end
            assert (await c.respond())["status"] == "completed"

    run(main())


def test_instructions_and_input_of_one_response(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as served, talking(served) as c:
            kept = await c.text("what time is it")
            await c.text("tell me a story")
            given = {"type": "message", "role": "user"}
            await c.respond(
                instructions="Be brief.",
                input=[
                    {"type": "item_reference", "id": kept},
                    {**given, "content": [{"type": "input_text", "text": "hello"}]},
                ],
            )
            asked = served.models.backend("llm").requests[-1].messages
            assert [(m.role, m.content) for m in asked] == [
                ("system", "Be brief."),
                ("user", "what time is it"),
                ("user", "hello"),
            ]
            await c.respond(input=[])
            asked = served.models.backend("llm").requests[-1].messages
            assert [m.role for m in asked] == ["system"]

    run(main())


def test_one_at_a_time(tmp_path: Path) -> None:
    async def main() -> None:
        async with call(tmp_path, models__options__llm__scripted=SLOW_STORY) as c:
            await c.text("tell me a story")
            await c.send("response.create")
            await c.send("response.create", event_id="second")
            error = (await c.wait("error"))["error"]
            assert error["code"] == "conversation_already_has_active_response"
            assert error["event_id"] == "second"
            assert (await c.wait("response.done"))["response"]["status"] == "completed"
            assert len(c.of("response.created")) == 1

    run(main())


def test_a_function_call_and_its_result(tmp_path: Path) -> None:
    async def main() -> None:
        async with call(tmp_path, models__options__llm__scripted=CALLS_WEATHER) as c:
            await c.update(tools=[WEATHER], tool_choice="auto")
            await c.text("how is the weather")
            start = len(c.events)
            done = await c.respond()
            assert c.kinds(start) == [
                "response.created",
                "response.output_item.added",
                "conversation.item.added",
                "response.function_call_arguments.delta",
                "response.function_call_arguments.done",
                "conversation.item.done",
                "response.output_item.done",
                "response.done",
            ]
            (asked,) = done["output"]
            assert (asked["type"], asked["name"], asked["status"]) == (
                "function_call",
                "weather",
                "completed",
            )
            deltas = c.of("response.function_call_arguments.delta")
            assert len(deltas) > 1
            assert "".join(e["delta"] for e in deltas) == asked["arguments"]
            item = {
                "type": "function_call_output",
                "call_id": asked["call_id"],
                "output": {"sky": "clear"},  # some clients send no text
            }
            await c.send("conversation.item.create", item=item)
            added = await c.wait("conversation.item.added", 3)
            assert json.loads(added["item"]["output"]) == {"sky": "clear"}
            assert len(c.of("response.created")) == 1  # the client asks for the answer
            assert "clear" in c.said((await c.respond())["id"])

    run(main())


def test_a_function_call_stopped_in_mid_argument_is_none(tmp_path: Path) -> None:
    endless = {"place": "far " * 2_000}
    tools = {"weather": {"name": "weather", "arguments": endless}}
    llm = {**OPTIONS["llm"], "tools": tools, "piece_delay_ms": 25}

    async def main() -> None:
        async with call(tmp_path, models__options__llm__scripted=llm) as c:
            await c.update(tools=[WEATHER])
            await c.text("how is the weather")
            await c.send("response.create")
            begun = await c.wait("response.function_call_arguments.delta", 2)
            start = len(c.events)
            await c.send("response.cancel")
            done = (await c.wait("response.done"))["response"]
            assert done["status"] == "cancelled"
            (asked,) = done["output"]
            assert (asked["id"], asked["status"]) == (begun["item_id"], "incomplete")
            kinds = [k for k in c.kinds(start) if not k.endswith(".delta")]
            assert kinds == [
                "response.output_item.done",
                "conversation.item.deleted",
                "response.done",
            ]
            output = {"type": "function_call_output", "call_id": asked["call_id"], "output": "far"}
            await c.send("conversation.item.create", item=output)
            assert (await c.wait("error"))["error"]["code"] == "invalid_tool_call_id"

    run(main())


def test_tools_of_one_response_only(tmp_path: Path) -> None:
    async def main() -> None:
        async with call(tmp_path, models__options__llm__scripted=CALLS_WEATHER) as c:
            await c.text("how is the weather")
            assert (await c.respond(tools=[WEATHER]))["output"][0]["type"] == "function_call"
            assert (await c.respond())["output"][0]["type"] == "message"

    run(main())


def test_a_function_of_the_server_is_run_here_once_and_not_shown(tmp_path: Path) -> None:
    runs: list[Any] = []

    async def weather(arguments: Mapping[str, Any]) -> str:
        runs.append(arguments)
        return "sunny"

    async def main() -> None:
        async with serving(tmp_path, models__options__llm__scripted=CALLS_WEATHER) as served:
            served.calls.tools = lambda: (Tool("weather", "", weather),)
            async with talking(served) as c:
                await c.update(tools=[WEATHER])
                await c.text("how is the weather")
                assert (await c.respond())["output"] == []
                done = (await c.wait("response.done", 2))["response"]
                assert c.said(done["id"]) == "The answer is sunny."
                assert runs == [{"place": "Oslo"}]

    run(main())


def test_an_answer_to_a_call_that_nobody_made(tmp_path: Path) -> None:
    async def main() -> None:
        async with call(tmp_path) as c:
            item = {"type": "function_call_output", "call_id": "call_x", "output": "1"}
            await c.send("conversation.item.create", item=item)
            assert (await c.wait("error"))["error"]["code"] == "invalid_tool_call_id"

    run(main())


def test_the_voice_may_change_until_it_was_heard(tmp_path: Path) -> None:
    tts: dict[str, Any] = {**OPTIONS["tts"], "voices": ("anna", "ben")}

    async def main() -> None:
        async with (
            serving(tmp_path, models__options__tts__scripted=tts) as served,
            talking(served) as c,
        ):
            await c.update(audio={"output": {"voice": "ben"}})
            await c.text("what time is it")
            await c.respond()
            assert served.models.backend("tts").requests[-1].voice == "ben"
            await c.update(audio={"output": {"voice": "ben"}})
            session = {"type": "realtime", "audio": {"output": {"voice": "anna"}}}
            await c.send("session.update", session=session)
            assert (await c.wait("error"))["error"]["code"] == "cannot_update_voice"
            done = await c.respond(audio={"output": {"voice": "anna"}})
            assert done["audio"]["output"]["voice"] == "anna"
            assert served.models.backend("tts").requests[-1].voice == "anna"

    run(main())


def test_a_response_out_of_band_speaks_and_leaves_no_trace(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as served, talking(served) as c:
            await c.text("what time is it")
            items = len(c.of("conversation.item.added"))
            done = await c.respond(conversation="none")
            assert done["conversation_id"] is None
            assert done["output"][0]["content"][0]["transcript"] == "It is noon."
            assert len(c.audio()) == 300 * 48
            assert len(c.of("conversation.item.added")) == items
            await c.respond()
            asked = served.models.backend("llm").requests[-1].messages
            assert [m.role for m in asked] == ["system", "user"]

    run(main())


def test_cancelling_one_out_of_band(tmp_path: Path) -> None:
    async def main() -> None:
        async with call(tmp_path, models__options__llm__scripted=SLOW_STORY) as c:
            await c.text("tell me a story")
            await c.send("response.create", response={"conversation": "none"})
            aside = (await c.wait("response.created"))["response"]["id"]
            await c.send("response.cancel", response_id=aside)
            done = (await c.wait("response.done"))["response"]
            assert (done["id"], done["status"]) == (aside, "cancelled")

    run(main())
