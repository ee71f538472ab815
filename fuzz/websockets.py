"""Wrong messages for every websocket: `python -m fuzz.websockets --seconds 60 --seed 1`.

Conversations that would be right are spoiled: members of another type, too deep, too large, no text, in another order.
A server may answer, complain, or close the connection with a code that says why. It must not close with 1011 or without
a word, write a traceback into its log, stop answering others, or end.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import collections
import json
import random
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from fuzz.mutations import mutated, shuffled
from fuzz.target import Target, target

_PCM = base64.b64encode(bytes(640)).decode()
_HEARD_S = 0.15
"""That the server has for an answer, after the last message."""
_LIMIT_S = 15.0
_PROBE_EVERY = 50
_BAD_CODES = {1006, 1011}

TALK: Sequence[Any] = (
    {"type": "start", "format": "pcm_s16le", "rate": 16000, "extensions": ["clear", "resume"]},
    {"type": "ping"},
    {"type": "set_level", "level": "beginner"},
    {"type": "configure", "voice": "", "language": "en", "instructions": "Be short."},
    {"type": "hold"},
    {"type": "commit"},
    {"type": "text", "text": "What time is it?"},
    {"type": "played", "reply": "r1", "ms": 100},
    {"type": "end_conversation"},
)
TWILIO: Sequence[Any] = (
    {"event": "connected", "protocol": "Call", "version": "1.0.0"},
    {
        "event": "start",
        "sequenceNumber": "1",
        "streamSid": "MZ1",
        "start": {
            "accountSid": "AC1",
            "streamSid": "MZ1",
            "callSid": "CA1",
            "tracks": ["inbound"],
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
            "customParameters": {"from_number": "+1", "agent": "x"},
        },
    },
    {
        "event": "media",
        "sequenceNumber": "2",
        "streamSid": "MZ1",
        "media": {"track": "inbound", "chunk": "1", "timestamp": "0", "payload": _PCM},
    },
    {"event": "mark", "sequenceNumber": "3", "streamSid": "MZ1", "mark": {"name": "m"}},
    {"event": "dtmf", "streamSid": "MZ1", "sequenceNumber": "4", "dtmf": {"digit": "1"}},
    {"event": "stop", "sequenceNumber": "5", "streamSid": "MZ1", "stop": {"callSid": "CA1"}},
)
_ITEM = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi"}]}
_TOOL = {
    "type": "function",
    "name": "f",
    "description": "d",
    "parameters": {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]},
}
_AUDIO = {
    "input": {
        "format": {"type": "audio/pcm", "rate": 24000},
        "turn_detection": {"type": "server_vad", "threshold": 0.5, "silence_duration_ms": 200},
        "transcription": {"model": "x", "language": "en"},
        "noise_reduction": {"type": "near_field"},
    },
    "output": {"format": {"type": "audio/pcmu"}, "voice": "alloy", "speed": 1.0},
}
REALTIME: Sequence[Any] = (
    {
        "type": "session.update",
        "event_id": "e1",
        "session": {
            "type": "realtime",
            "instructions": "Be short.",
            "output_modalities": ["audio"],
            "audio": _AUDIO,
            "tools": [_TOOL],
            "tool_choice": "auto",
            "max_output_tokens": 100,
        },
    },
    {"type": "input_audio_buffer.append", "audio": _PCM},
    {"type": "input_audio_buffer.commit"},
    {"type": "input_audio_buffer.clear"},
    {"type": "output_audio_buffer.clear"},
    {"type": "conversation.item.create", "previous_item_id": None, "item": {"id": "i1", **_ITEM}},
    {
        "type": "conversation.item.create",
        "item": {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
    },
    {
        "type": "conversation.item.create",
        "item": {"type": "function_call_output", "call_id": "c1", "output": "42"},
    },
    {"type": "conversation.item.retrieve", "item_id": "i1"},
    {
        "type": "conversation.item.truncate",
        "item_id": "i1",
        "content_index": 0,
        "audio_end_ms": 100,
    },
    {"type": "response.create", "response": {"input": [_ITEM], "metadata": {"a": "b"}}},
    {"type": "response.cancel", "response_id": "r1"},
    {"type": "conversation.item.delete", "item_id": "i1"},
)
BETA: Sequence[Any] = (
    {
        "type": "session.update",
        "session": {
            "modalities": ["text", "audio"],
            "instructions": "x",
            "voice": "alloy",
            "input_audio_format": "g711_ulaw",
            "output_audio_format": "pcm16",
            "turn_detection": None,
            "tools": [_TOOL],
            "temperature": 0.8,
        },
    },
    *REALTIME[1:],
)
UNMUTE: Sequence[Any] = (
    {
        "type": "session.update",
        "session": {
            "instructions": {"type": "smalltalk", "language": "en"},
            "voice": "x",
            "allow_recording": False,
        },
    },
    {"type": "input_audio_buffer.append", "audio": _PCM},
    {"type": "unmute.additional_outputs", "args": {}},
)
MOSHI_STT: Sequence[Any] = (
    {"type": "Audio", "pcm": [0.0] * 1_920},
    {"type": "Marker", "id": 1},
)
MOSHI_TTS: Sequence[Any] = (
    {"type": "Text", "text": "Hello there."},
    {"type": "Voice", "embeddings": [0.0, 1.0], "shape": [1, 2]},
    {"type": "Eos"},
)
LLM: Sequence[Any] = (
    {"type": "generate", "prompt": "Hello", "max_tokens": 10, "temperature": 0.5},
    {
        "type": "generate",
        "messages": [{"role": "user", "content": "Hello"}],
        "cumulative": True,
    },
    {"type": "stop"},
)


@dataclass(frozen=True, slots=True)
class Door:
    path: str
    messages: Sequence[Any]
    packed: bool = False
    """MessagePack in binary frames."""
    subprotocols: Sequence[str] = ()


DOORS: Mapping[tuple[str, ...], Sequence[Door]] = {
    ("serve",): (
        Door("/ws/conversation", TALK),
        Door("/media-stream", TWILIO),
        Door("/ws", TWILIO),
        Door("/ws", REALTIME),
        Door("/v1/realtime?model=x", REALTIME),
        Door("/v1/realtime?intent=transcription", REALTIME),
        Door(
            "/v1/realtime?model=x",
            BETA,
            subprotocols=("realtime", "openai-beta.realtime-v1"),
        ),
        Door("/v1/realtime", UNMUTE, subprotocols=("realtime",)),
    ),
    ("service", "stt"): (Door("/api/asr-streaming", MOSHI_STT, packed=True),),
    ("service", "tts"): (
        Door("/api/tts_streaming?format=PcmMessagePack", MOSHI_TTS, packed=True),
        Door("/api/tts_streaming", MOSHI_TTS, packed=True),
    ),
    ("service", "llm"): (Door("/ws", LLM),),
}


@dataclass(slots=True)
class Report:
    seed: int
    seconds: float = 0.0
    inputs: int = 0
    """Messages that were sent."""
    connections: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)
    by_door: dict[str, int] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    tracebacks: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        return not self.failed and not self.tracebacks


def spoiled(door: Door, dice: random.Random) -> list[str | bytes]:
    """A conversation, some of whose messages are wrong."""
    messages = list(door.messages)
    if dice.random() < 0.5:
        messages = shuffled(messages, dice)
    chosen: list[str | bytes] = []
    for message in messages:
        wrong = dice.random() < 0.4
        text = mutated(message, dice) if wrong else json.dumps(message)
        chosen.append(_packed(message, text, wrong, dice) if door.packed else text)
        if dice.random() < 0.05:
            chosen.append(dice.randbytes(dice.choice((0, 1, 640, 5_000))))
    return chosen


def _packed(message: Any, text: str, wrong: bool, dice: random.Random) -> bytes:
    try:
        data = msgspec.msgpack.encode(json.loads(text))
    except (ValueError, OverflowError, RecursionError, TypeError, msgspec.EncodeError):
        data = msgspec.msgpack.encode(message)
    if wrong and dice.random() < 0.3:
        at = dice.randrange(len(data))
        data = data[:at] + dice.randbytes(2) + data[at + dice.randrange(4) :]
    return data


async def attempt(address: str, door: Door, frames: Sequence[str | bytes]) -> tuple[str, int]:
    """-> how it ended, and how many messages were taken."""
    sent = 0
    options: dict[str, Any] = {"subprotocols": list(door.subprotocols) or None}
    try:
        async with (
            asyncio.timeout(_LIMIT_S),
            connect(
                f"ws://{address}{door.path}", compression=None, max_size=None, **options
            ) as socket,
        ):
            answers = 0
            for frame in frames:
                # A text that is no UTF-8 is what the library will not send: the bytes go as a text frame.
                data = frame.encode("utf-8", "replace") if isinstance(frame, str) else frame
                await socket.send(data, text=isinstance(frame, str))
                sent += 1
            try:
                while True:
                    async with asyncio.timeout(_HEARD_S):
                        await socket.recv()
                    answers += 1
            except TimeoutError:
                return ("answered" if answers else "said nothing"), sent
    except ConnectionClosed as closed:
        code = closed.rcvd.code if closed.rcvd else 1006
        return f"closed {code}", sent
    except InvalidHandshake as refused:
        return f"refused {refused}", sent
    except TimeoutError:
        return "hung", sent
    except OSError as error:
        return f"lost: {error}", sent


def _is_bad(outcome: str) -> bool:
    kind, _, rest = outcome.partition(" ")
    if kind == "closed":
        return int(rest) in _BAD_CODES
    return kind in ("hung", "lost:", "refused")


async def fuzz_one(found: Target, doors: Sequence[Door], seconds: float, report: Report) -> None:
    dice = random.Random(f"{report.seed} {doors[0].path}")
    outcomes: collections.Counter[str] = collections.Counter(report.outcomes)
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s and found.alive:
        door = dice.choice(doors)
        frames = spoiled(door, dice)
        outcome, sent = await attempt(found.address, door, frames)
        outcomes[outcome] += 1
        report.connections += 1
        report.inputs += sent
        report.by_door[door.path] = report.by_door.get(door.path, 0) + 1
        if _is_bad(outcome) and len(report.failed) < 20:
            shown = [frame[:300] for frame in frames]
            report.failed.append(f"{door.path}: {outcome}: {shown!r}"[:3_000])
        if report.connections % _PROBE_EVERY == 0 and not await asyncio.to_thread(found.answers):
            report.failed.append(f"{door.path}: others are not answered")
    report.outcomes = dict(outcomes)
    if not found.alive:
        report.failed.append(f"the server ended with {found.process.returncode}")
    elif not await asyncio.to_thread(found.answers):
        report.failed.append("the server does not answer")


def fuzz(seconds: float, seed: int) -> Report:
    """The time is shared by the servers as they have doors."""
    report = Report(seed)
    began_s = time.monotonic()
    doors_in_all = sum(len(doors) for doors in DOORS.values())
    for command, doors in DOORS.items():
        share_s = seconds * len(doors) / doors_in_all
        with ExitStack() as stack:
            found = stack.enter_context(target(*command))
            asyncio.run(fuzz_one(found, doors, share_s, report))
            time.sleep(0.5)  # for what is still to be written into the log
            report.tracebacks += found.tracebacks()
    report.seconds = round(time.monotonic() - began_s, 1)
    return report


def main() -> int:
    parser = argparse.ArgumentParser(description="Wrong messages for every websocket.")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(".fuzz/websockets.json"))
    asked = parser.parse_args()
    report = fuzz(asked.seconds, asked.seed)
    text = json.dumps({**asdict(report), "good": report.good}, indent=2, sort_keys=True)
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(text + "\n")
    print(text)
    return 0 if report.good else 1


if __name__ == "__main__":
    sys.exit(main())
