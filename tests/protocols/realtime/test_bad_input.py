"""Clients that do not know the protocol, or do not wish us well: an error each, and the session goes on."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from tests.protocols.realtime.support import MANUAL, b64, call, spoken, talking
from tests.server.support import serving
from tests.support import OPTIONS, run, until

PATCH = "session.update"
BAD: list[tuple[str | bytes, str, str | None]] = [
    ("{", "invalid_json", None),
    ("[1]", "invalid_event", None),
    ('"text"', "invalid_event", None),
    ("[" * 5_000, "invalid_json", None),
    (b"\x00\x01", "invalid_event", None),
    ("{}", "invalid_event", "type"),
    ('{"type": 3}', "invalid_event", "type"),
    ('{"type": "respons.create"}', "invalid_event", "type"),
    ('{"type": "output_audio_buffer.clear"}', "invalid_event", "type"),
    ('{"type": "session.update"}', "missing_required_parameter", "session"),
    ('{"type": "response.create", "event_id": 3}', "invalid_value", "event_id"),
    ('{"type": "input_audio_buffer.append"}', "missing_required_parameter", "audio"),
    ('{"type": "input_audio_buffer.append", "audio": 3}', "invalid_type", "audio"),
    ('{"type": "input_audio_buffer.append", "audio": "!!!"}', "invalid_value", "audio"),
    ('{"type": "response.create", "response": []}', "invalid_type", "response"),
    ('{"type": "conversation.item.create"}', "missing_required_parameter", "item"),
    ('{"type": "conversation.item.create", "item": {}}', "missing_required_parameter", "item.type"),
    ('{"type": "conversation.item.create", "item": "x"}', "invalid_type", "item"),
    ('{"type": "conversation.item.delete"}', "missing_required_parameter", "item_id"),
    ('{"type": "conversation.item.delete", "item_id": 7}', "invalid_type", "item_id"),
]
SESSIONS: list[tuple[Any, str, str]] = [
    ([], "invalid_type", "session"),
    ({"type": "video"}, "invalid_value", "session.type"),
    ({"instructions": 3}, "invalid_type", "session.instructions"),
    ({"output_modalities": ["smell"]}, "invalid_value", "session.output_modalities[0]"),
    ({"output_modalities": []}, "invalid_value", "session.output_modalities"),
    ({"max_output_tokens": 0}, "invalid_value", "session.max_output_tokens"),
    ({"max_output_tokens": 9999}, "invalid_value", "session.max_output_tokens"),
    ({"audio": {"output": {"speed": 9}}}, "invalid_value", "session.audio.output.speed"),
    ({"audio": {"output": {"speed": "fast"}}}, "invalid_type", "session.audio.output.speed"),
    (
        {"audio": {"input": {"format": {"type": "audio/mp3"}}}},
        "invalid_value",
        "session.audio.input.format.type",
    ),
    (
        {"audio": {"input": {"format": {"type": "audio/pcm", "rate": 16000}}}},
        "invalid_value",
        "session.audio.input.format.rate",
    ),
    (
        {"audio": {"input": {"turn_detection": {"type": "server_vad", "threshold": 3}}}},
        "invalid_value",
        "session.audio.input.turn_detection.threshold",
    ),
    (
        {"audio": {"input": {"turn_detection": {"type": "server_vad", "idle_timeout_ms": 10}}}},
        "invalid_value",
        "session.audio.input.turn_detection.idle_timeout_ms",
    ),
    ({"tools": [{"type": "function"}]}, "invalid_value", "session.tools[0].name"),
    ({"tools": [{"name": "a b"}]}, "invalid_value", "session.tools[0].name"),
    ({"tools": [{"name": "a"}, {"name": "a"}]}, "invalid_value", "session.tools[1].name"),
    ({"tools": [{"name": "a", "parameters": []}]}, "invalid_type", "session.tools[0].parameters"),
    (
        {"tools": [{"name": "a", "parameters": {"type": "string"}}]},
        "invalid_value",
        "session.tools[0].parameters.type",
    ),
    (
        {"tools": [{"name": "a", "parameters": {"properties": 1}}]},
        "invalid_value",
        "session.tools[0].parameters.properties",
    ),
    (
        {"tools": [{"name": "a", "parameters": {"$ref": "#"}}]},
        "invalid_value",
        "session.tools[0].parameters",
    ),
    (
        {"tools": [{"name": "a", "parameters": {"properties": {"b": {"minLength": 10**9}}}}]},
        "invalid_value",
        "session.tools[0].parameters",
    ),
    ({"tools": [{"type": "mcp", "server_label": "x"}]}, "invalid_value", "session.tools[0].type"),
    ({"tool_choice": "maybe"}, "invalid_value", "session.tool_choice"),
    ({"tool_choice": {"type": "mcp"}}, "invalid_value", "session.tool_choice"),
]


def test_senseless_frames(tmp_path: Path) -> None:
    async def main() -> None:
        async with call(tmp_path) as c:
            for number, (frame, code, param) in enumerate(BAD, 1):
                await c.socket.send(frame)
                error = (await c.wait("error", number))["error"]
                assert (error["code"], error["param"]) == (code, param), frame
                assert error["type"] == "invalid_request_error"
            await c.text("what time is it")
            assert (await c.respond())["status"] == "completed"

    run(main())


def test_sessions_that_cannot_be(tmp_path: Path) -> None:
    async def main() -> None:
        async with call(tmp_path) as c:
            before = await c.update()
            for number, (session, code, param) in enumerate(SESSIONS, 1):
                await c.send(PATCH, session=session, event_id=f"e{number}")
                error = (await c.wait("error", number))["error"]
                assert (error["event_id"], error["code"], error["param"]) == (
                    f"e{number}",
                    code,
                    param,
                )
            assert await c.update() == before

    run(main())


@pytest.mark.parametrize(
    "content",
    [
        [{"type": "input_image", "image_url": "data:,"}],
        [{"type": "output_text", "text": "x"}],
        [{"type": "input_text"}],
        [{"type": "input_audio", "audio": "?"}],
        "x",
        [None],
    ],
)
def test_items_that_cannot_be(tmp_path: Path, content: Any) -> None:
    async def main() -> None:
        async with call(tmp_path) as c:
            item = {"type": "message", "role": "user", "content": content}
            await c.send("conversation.item.create", item=item)
            await c.wait("error")
            await c.text("hello")
            assert len(c.of("conversation.item.added")) == 1

    run(main())


def test_too_little_audio_to_commit(tmp_path: Path) -> None:
    async def main() -> None:
        async with call(tmp_path) as c:
            await c.send("input_audio_buffer.commit")  # speech detection is on: nothing to say
            await c.send("session.update", session=MANUAL)
            await c.speak(spoken(440, 60))
            await c.send("input_audio_buffer.commit")
            error = (await c.wait("error"))["error"]
            assert error["code"] == "input_audio_buffer_commit_empty"
            assert "60.00ms" in error["message"]
            await c.speak(spoken(440, 60))
            await c.send("input_audio_buffer.commit")
            await c.wait("input_audio_buffer.committed")
            assert len(c.of("error")) == 1

    run(main())


def test_more_audio_than_one_event_may_hold(tmp_path: Path) -> None:
    async def main() -> None:
        async with call(tmp_path, realtime__max_append_bytes=10_000) as c:
            await c.send("input_audio_buffer.append", audio=b64(spoken(440, 400)))
            assert (await c.wait("error"))["error"]["param"] == "audio"
            await c.speak(spoken(440, silence_ms=900))
            await c.wait("response.done")

    run(main())


def test_a_message_beyond_all_limits_ends_the_connection(tmp_path: Path) -> None:
    async def main() -> None:
        async with call(tmp_path, server__max_message_bytes=100_000) as c:
            await c.socket.send(json.dumps({"type": "x", "audio": "A" * 200_000}))
            code, _ = await c.wait_closed()
            assert code == 1009

    run(main())


def test_audio_without_end_is_told_once_and_bounded(tmp_path: Path) -> None:
    async def main() -> None:
        options = {"conversation__max_turn_ms": 2_000}
        async with serving(tmp_path, **options) as served, talking(served) as c:
            await c.send("session.update", session=MANUAL)
            await c.wait("session.updated")
            second = b64(spoken(440, 1_000))
            for _ in range(40):
                await c.send("input_audio_buffer.append", audio=second)
            assert (await c.wait("error"))["error"]["code"] == "input_audio_buffer_full"
            await c.send("input_audio_buffer.commit")
            await c.wait("input_audio_buffer.committed")
            assert len(c.of("error")) == 1

    run(main())


def test_a_client_that_stops_reading(tmp_path: Path) -> None:
    async def main() -> None:
        story = {**OPTIONS["llm"], "rules": {"story": "word " * 400}}
        options: dict[str, Any] = {
            "server__max_outbox_bytes": 200_000,
            "realtime__speak_ahead_ms": 100_000,
            "models__options__llm__scripted": story,
        }
        async with (
            serving(tmp_path, narrow=True, **options) as served,
            talking(served, max_queue=(1, 0)) as c,
        ):
            await c.text("tell me a story")
            c.socket.transport.pause_reading()
            await c.send("response.create")
            await until(lambda: not len(served.calls), "the call is still on")
            c.socket.transport.resume_reading()
            code, reason = await c.wait_closed()
            assert (code, reason) in ((1013, "the client stopped reading"), (1006, ""))

    run(main())


def test_nothing_but_nonsense(tmp_path: Path) -> None:
    async def main() -> None:
        async with call(tmp_path) as c:
            for _ in range(200):
                await c.socket.send("?")
            code, _ = await c.wait_closed()
            assert (code, len(c.of("error"))) == (1008, 200)
            await asyncio.sleep(0)

    run(main())
