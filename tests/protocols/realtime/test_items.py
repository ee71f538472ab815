"""The conversation's items by hand: create, retrieve, truncate, delete, and where they stand."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from tests.protocols.realtime.support import MANUAL, RATE_HZ, Client, b64, call, spoken, talking
from tests.server.support import Served, serving
from tests.support import run


def told(served: Served) -> list[tuple[str, str]]:
    """What the language model was asked last, after the system prompt."""
    asked = served.models.backend("llm").requests[-1].messages
    return [(m.role, m.content) for m in asked[1:]]


def message(text: str, role: str = "user", **more: Any) -> dict[str, Any]:
    kind = "output_text" if role == "assistant" else "input_text"
    return {"type": "message", "role": role, "content": [{"type": kind, "text": text}], **more}


async def create(c: Client, item: dict[str, Any], **more: Any) -> dict[str, Any]:
    count = len(c.of("conversation.item.added")) + 1
    await c.send("conversation.item.create", item=item, **more)
    return await c.wait("conversation.item.added", count)


def test_items_stand_where_the_client_puts_them(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as served, talking(served) as c:
            assert (await create(c, message("one", id="a")))["previous_item_id"] is None
            assert (await create(c, message("three", id="c")))["previous_item_id"] == "a"
            second = await create(c, message("two", "assistant", id="b"), previous_item_id="a")
            assert second["previous_item_id"] == "a"
            first = await create(c, message("zero", "system"), previous_item_id="root")
            assert first["previous_item_id"] is None
            await c.send("conversation.item.delete", item_id="a")
            await c.wait("conversation.item.deleted")
            await c.respond()
            assert told(served) == [("system", "zero"), ("assistant", "two"), ("user", "three")]

    run(main())


def test_ids_that_collide_or_do_not_exist(tmp_path: Path) -> None:
    async def main() -> None:
        async with call(tmp_path) as c:
            await create(c, message("one", id="a"))
            await c.send("conversation.item.create", item=message("two", id="a"), event_id="e1")
            await c.send(
                "conversation.item.create", item=message("two"), previous_item_id="b", event_id="e2"
            )
            await c.send("conversation.item.retrieve", item_id="b", event_id="rci_b")
            await c.send("conversation.item.delete", item_id="b", event_id="e4")
            await c.send(
                "conversation.item.truncate",
                item_id="b",
                content_index=0,
                audio_end_ms=1,
                event_id="e5",
            )
            await c.wait("error", 5)
            assert [(e["error"]["event_id"], e["error"]["code"]) for e in c.of("error")] == [
                ("e1", "item_create_duplicate_item_id"),
                ("e2", "item_create_invalid_previous_item_id"),
                ("rci_b", "item_retrieve_invalid_item_id"),
                ("e4", "item_delete_invalid_item_id"),
                ("e5", "item_truncate_invalid_item_id"),
            ]

    run(main())


def test_items_of_an_earlier_session_do_not_get_in_the_way(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as served:
            async with talking(served) as c:
                await c.speak(spoken(440, silence_ms=900))
                await c.wait("response.done")
                items = [e["item"]["id"] for e in c.of("conversation.item.done")]
            async with talking(served) as c:
                await create(c, message("what time is it", id=items[0]))
                await create(c, message("It is noon.", "assistant", id=items[1]))
                await c.speak(spoken(440, silence_ms=900))
                await c.wait("response.done")
                assert told(served) == [
                    ("user", "what time is it"),
                    ("assistant", "It is noon."),
                    ("user", "what time is it"),
                ]
                new = [e["item"]["id"] for e in c.of("conversation.item.done")]
                assert len(set(new)) == 4

    run(main())


def test_retrieved_items_carry_their_audio(tmp_path: Path) -> None:
    async def main() -> None:
        async with call(tmp_path) as c:
            await c.send("session.update", session=MANUAL)
            await c.speak(spoken(440, 640))
            await c.send("input_audio_buffer.commit")
            done = await c.respond()
            user = c.of("input_audio_buffer.committed")[0]["item_id"]
            for item_id, ms in ((user, 640), (done["output"][0]["id"], 300)):
                count = len(c.of("conversation.item.retrieved")) + 1
                await c.send("conversation.item.retrieve", item_id=item_id)
                item = (await c.wait("conversation.item.retrieved", count))["item"]
                (part,) = item["content"]
                length_ms = len(base64.b64decode(part["audio"])) / 48
                assert abs(length_ms - ms) <= 40
            assert [
                e["item"]["content"][0]["transcript"] for e in c.of("conversation.item.retrieved")
            ] == [
                "what time is it",
                "It is noon.",
            ]

    run(main())


def test_truncate_beyond_the_end_is_clamped(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as served, talking(served) as c:
            await c.text("what time is it")
            item = (await c.respond())["output"][0]["id"]
            truncate = {"item_id": item, "content_index": 0}
            await c.send("conversation.item.truncate", **truncate, audio_end_ms=99_999)
            assert (await c.wait("conversation.item.truncated"))["audio_end_ms"] == 300
            await c.send("conversation.item.truncate", **truncate, audio_end_ms=100)
            assert (await c.wait("conversation.item.truncated", 2))["audio_end_ms"] == 100
            await c.respond()
            assert ("assistant", "It") in told(served)
            await c.send("conversation.item.truncate", **truncate, audio_end_ms=0)
            await c.wait("conversation.item.truncated", 3)
            await c.respond()
            assert "It" not in [text for _, text in told(served)]
            assert not c.of("error")

    run(main())


def test_strict_truncation_if_wished(tmp_path: Path) -> None:
    async def main() -> None:
        async with call(tmp_path, realtime__strict_truncate=True) as c:
            await c.text("what time is it")
            item = (await c.respond())["output"][0]["id"]
            await c.send(
                "conversation.item.truncate", item_id=item, content_index=0, audio_end_ms=900
            )
            message_ = (await c.wait("error"))["error"]["message"]
            assert message_ == "Audio content of 300ms is already shorter than 900ms"

    run(main())


def test_only_our_speech_can_be_truncated(tmp_path: Path) -> None:
    async def main() -> None:
        async with call(tmp_path) as c:
            await create(c, message("hello", id="a"))
            await create(c, message("hi", "assistant", id="b"))
            for item in "ab":
                await c.send(
                    "conversation.item.truncate", item_id=item, content_index=0, audio_end_ms=1
                )
            await c.wait("error", 2)
            assert {e["error"]["type"] for e in c.of("error")} == {"invalid_request_error"}

    run(main())


def test_uploaded_speech_is_understood(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as served, talking(served) as c:
            await c.update(audio={"input": {"transcription": {"model": "whisper-1"}}})
            part = {"type": "input_audio", "audio": b64(spoken(440))}
            await create(c, {"type": "message", "role": "user", "content": [part], "id": "speech"})
            kind = "conversation.item.input_audio_transcription.completed"
            assert (await c.wait(kind))["transcript"] == "what time is it"
            await c.respond()
            assert told(served) == [("user", "what time is it")]
            await c.send("conversation.item.retrieve", item_id="speech")
            (part,) = (await c.wait("conversation.item.retrieved"))["item"]["content"]
            assert len(base64.b64decode(part["audio"])) == 640 * RATE_HZ * 2 // 1000

    run(main())


def test_deleting_what_is_being_said_stops_it(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as served, talking(served) as c:
            llm = served.models.backend("llm")
            await c.text("tell me a story")
            await c.send("response.create")
            item = (await c.wait("response.output_item.added"))["item"]["id"]
            await c.send("conversation.item.delete", item_id=item)
            assert (await c.wait("conversation.item.deleted"))["item_id"] == item
            await c.wait("response.done")
            await c.respond()
            assert [m.role for m in llm.requests[-1].messages] == ["system", "user"]

    run(main())
