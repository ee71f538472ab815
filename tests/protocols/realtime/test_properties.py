"""Any events in any order: every answer is valid, every response ends once, and the session lives until it is left.

Real sessions with scripted models; only the websocket is left out.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tests.protocols.realtime.strict import check
from tests.protocols.realtime.support import WEATHER, b64, spoken
from tests.support import OPTIONS, model_set
from tests.support import settings as server_settings

from antiphon.models.model_set import ModelSet
from antiphon.protocols.realtime.connection import Opening, RealtimeConnection
from antiphon.protocols.realtime.frames import CLIENT_EVENTS
from antiphon.server.admission import Calls

LLM = {**OPTIONS["llm"], "tools": {"weather": {"name": "weather", "arguments": {"place": "Oslo"}}}}
SPEECH = {hz: b64(spoken(hz, 400, silence_ms=0)) for hz in (440, 550, 660)}
SILENCE = b64(spoken(440, 1, silence_ms=400))
VADS: list[Any] = [
    None,
    {"type": "server_vad", "silence_duration_ms": 100},
    {"type": "server_vad", "create_response": False, "interrupt_response": False},
    {"type": "server_vad", "interrupt_response": False, "silence_duration_ms": 100},
    {"type": "semantic_vad", "eagerness": "high"},
    {"type": "no_vad"},
]
TEXTS = ["tell me a story", "what time is it", "how is the weather", ""]
GARBAGE = ["{", "[]", "null", '{"type": []}', '{"type": "x", "event_id": {}}']

Step = Any
"""A tuple of the strategies below, or an event as it is."""
numbers = st.integers(0, 5)
usual = st.one_of(
    st.tuples(st.just("speech"), st.sampled_from([440, 550, 660])),
    st.tuples(
        st.sampled_from(["silence", "silence", "commit", "respond", "wait", "wait"]), numbers
    ),
    st.tuples(st.just("item"), st.sampled_from(TEXTS)),
    st.tuples(st.just("truncate"), st.integers(0, 1_000)),
)
rare = st.one_of(
    st.tuples(st.sampled_from(["clear", "cancel", "aside", "output"]), numbers),
    st.tuples(st.sampled_from(["delete", "retrieve", "insert"]), numbers),
    st.tuples(st.just("truncate"), st.integers(-1, 3_000)),
    st.tuples(st.just("vad"), st.integers(0, len(VADS) - 1)),
    st.tuples(st.sampled_from(["text", "tools", "transcribe", "mulaw"]), numbers),
    st.tuples(st.just("garbage"), st.sampled_from(GARBAGE)),
)
scripts = st.lists(st.one_of(usual, usual, rare), min_size=4, max_size=40)


@dataclass
class Pipe:
    """A transport without a network. What the server says is checked as it comes."""

    dialect: str
    gone: tuple[type[Exception], ...] = ()
    inbox: asyncio.Queue[str | None] = field(default_factory=asyncio.Queue)
    events: list[dict[str, Any]] = field(default_factory=list)
    closed: tuple[int, str] | None = None

    async def receive(self) -> str | None:
        return await self.inbox.get()

    async def send_text(self, data: str) -> None:
        raise AssertionError("events leave as bytes")

    async def send_bytes(self, data: bytes) -> None:
        self.events.append(check(data, self.dialect))

    async def close(self, code: int, reason: str) -> None:
        self.closed = (code, reason)

    def ids(self, kind: str = "") -> list[str]:
        """Of the items that were announced."""
        names = ("conversation.item.added", "conversation.item.created")
        found = [e["item"] for e in self.events if e["type"] in names]
        return [item["id"] for item in found if kind in ("", item["type"])]


def event(step: tuple[str, Any], pipe: Pipe) -> dict[str, Any] | str | None:
    op, value = step
    items = pipe.ids() or ["nothing"]
    item = items[value % len(items)] if isinstance(value, int) else ""
    match op:
        case "speech":
            return {"type": "input_audio_buffer.append", "audio": SPEECH[value]}
        case "silence":
            return {"type": "input_audio_buffer.append", "audio": SILENCE}
        case "commit" | "clear":
            return {"type": f"input_audio_buffer.{op}"}
        case "cancel":
            return {"type": "response.cancel"}
        case "respond":
            return {"type": "response.create", "response": {"metadata": {"n": str(value)}}}
        case "item" | "insert":
            content = [{"type": "input_text", "text": value if op == "item" else "hello"}]
            message = {"type": "message", "role": "user", "content": content}
            made = {"type": "conversation.item.create", "item": message}
            return made if op == "item" else {**made, "previous_item_id": item}
        case "delete" | "retrieve":
            return {"type": f"conversation.item.{op}", "item_id": item}
        case "truncate":
            place = {"item_id": items[-1], "content_index": 0, "audio_end_ms": value}
            return {"type": "conversation.item.truncate", **place}
        case "output":
            calls = [e["call_id"] for e in pipe.events if e["type"].endswith("arguments.done")]
            call_id = calls[value % len(calls)] if calls else "call_x"
            output = {"type": "function_call_output", "call_id": call_id, "output": "sunny"}
            return {"type": "conversation.item.create", "item": output}
        case "garbage":
            return str(value)
        case "wait":
            return None
    return (
        {"type": "session.update", "session": _session(op, value)}
        if op != "aside"
        else {
            "type": "response.create",
            "response": {"conversation": "none", "input": [], "output_modalities": ["text"]},
        }
    )


def _session(op: str, value: int) -> dict[str, Any]:
    changed: dict[str, Any] = {
        "vad": {"audio": {"input": {"turn_detection": VADS[value] if op == "vad" else None}}},
        "text": {"output_modalities": ["text" if value % 2 else "audio"]},
        "tools": {"tools": [WEATHER] if value % 2 else []},
        "transcribe": {
            "audio": {"input": {"transcription": {"model": "x"} if value % 2 else None}}
        },
        "mulaw": {
            "audio": {"output": {"format": {"type": "audio/pcmu" if value % 2 else "audio/pcm"}}}
        },
    }[op]
    return {"type": "realtime", **changed}


def check_responses(events: list[dict[str, Any]]) -> None:
    """Each begins once, ends once, says nothing before or after, and closes what it opened."""
    opened: dict[str, int] = {}
    done: set[str] = set()
    live: set[str] = set()
    for e in events:
        kind = e["type"]
        if kind == "response.created":
            name = e["response"]["id"]
            assert name not in opened, "created twice"
            opened[name] = 0
            if e["response"]["conversation_id"] is not None:
                assert not live, "two responses of the conversation at a time"
                live.add(name)
        elif kind == "response.done":
            name = e["response"]["id"]
            assert name in opened
            assert name not in done
            assert opened[name] == 0, "an item is still open"
            done.add(name)
            live.discard(name)
        elif kind.startswith("response."):
            name = e["response_id"]
            assert name in opened, f"{kind} before its response"
            assert name not in done, f"{kind} after its response"
            opened[name] += {"response.output_item.added": 1, "response.output_item.done": -1}.get(
                kind, 0
            )
    assert set(opened) == done, "a response did not end"


async def play(pipe: Pipe, models: ModelSet, folder: Path, script: list[Step]) -> None:
    calls = Calls(server_settings(folder), models)
    opening = Opening(model="gpt-4o-realtime-preview", dialect=pipe.dialect)
    serving = asyncio.create_task(RealtimeConnection(pipe, calls, opening).serve())
    for step in script:
        found = event(step, pipe) if isinstance(step, tuple) else step
        if found is None:
            await asyncio.sleep(0.02 * step[1])  # a client that takes its time
        else:
            await pipe.inbox.put(found if isinstance(found, str) else json.dumps(found))
            await asyncio.sleep(0.003)  # so that models have a say
    await pipe.inbox.put(None)
    async with asyncio.timeout(20):
        await serving
    assert pipe.closed == (1000, ""), pipe.closed
    assert not [
        e for e in pipe.events if e["type"] == "error" and e["error"]["code"] == "internal_error"
    ]
    check_responses(pipe.events)


def run_session(dialect: str, script: list[Step]) -> Pipe:
    pipe = Pipe(dialect)

    async def main() -> None:
        models = model_set(llm=LLM)
        await models.load()
        try:
            with tempfile.TemporaryDirectory() as folder:
                await play(pipe, models, Path(folder), script)
        finally:
            await models.close()

    asyncio.run(main())
    return pipe


unhurried = settings(
    max_examples=60,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow],
)


@unhurried
@given(scripts)
def test_any_events_in_any_order(script: list[tuple[str, Any]]) -> None:
    check_responses(run_session("ga", list(script)).events)


NAMES = """session item item_id previous_item_id content_index audio_end_ms audio response response_id event_id type
    role content text id call_id output name arguments tools tool_choice metadata input conversation instructions
    output_modalities modalities turn_detection transcription format voice speed parameters properties
    max_output_tokens input_audio_format temperature""".split()
WORDS = [
    "message",
    "function_call",
    "function_call_output",
    "user",
    "assistant",
    "text",
    "audio",
    "server_vad",
]
words = st.sampled_from([*WORDS, "realtime", "none", "root", "", "\ud800", "\0"])
leaves = st.none() | st.booleans() | st.integers(-2, 10**20) | st.floats(allow_nan=False) | words
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=5)
    ),
    max_leaves=12,
)
kinds = st.sampled_from([*CLIENT_EVENTS, "transcription_session.update"])
loose = st.builds(
    lambda kind, fields: {**fields, "type": kind},
    kinds,
    st.dictionaries(st.sampled_from(NAMES), values, max_size=6),
)
part_types = st.sampled_from(["input_text", "input_audio", "output_text", "text"]) | leaves
part = st.fixed_dictionaries(
    {"type": part_types}, optional={"text": leaves, "audio": leaves, "transcript": leaves}
)
item = st.fixed_dictionaries(
    {"type": st.sampled_from(WORDS[:3]) | leaves},
    optional={
        "id": leaves,
        "role": st.sampled_from(["user", "assistant", "system"]) | values,
        "content": st.lists(part | leaves, max_size=3) | values,
        "call_id": leaves,
        "name": leaves,
        "arguments": leaves,
        "output": values,
    },
)
created = st.builds(
    lambda item, more: {"type": "conversation.item.create", "item": item, **more},
    item,
    st.dictionaries(st.sampled_from(["previous_item_id", "event_id"]), leaves, max_size=2),
)
asked = st.builds(
    lambda response: {"type": "response.create", "response": response},
    st.fixed_dictionaries(
        {},
        optional={
            "input": st.lists(item, max_size=2),
            "metadata": st.dictionaries(words, leaves, max_size=2),
            "tools": st.lists(
                st.dictionaries(st.sampled_from(NAMES), values, max_size=3), max_size=2
            ),
            "conversation": words,
            "audio": values,
            "instructions": leaves,
        },
    ),
)
anything = st.one_of(loose, created, asked)


@unhurried
@given(st.sampled_from(["ga", "beta"]), st.lists(anything, min_size=1, max_size=30))
def test_anything_in_any_field(dialect: str, script: list[dict[str, Any]]) -> None:
    run_session(dialect, list(script))
