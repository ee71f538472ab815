"""The conversation as the client knows it: its items in order, with the audio of the latest, for `retrieve`.

The core keeps what the language model is told; this keeps what was shown. Audio is bounded in bytes: the oldest is
forgotten first, its item stays.
"""

from __future__ import annotations

import copy
import json
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from sys import getsizeof
from typing import Any

from antiphon.audio.framing import pcm_from_bytes
from antiphon.core.history import Item, ToolRequest
from antiphon.protocols.realtime import audio_formats as formats
from antiphon.protocols.realtime.schema import RealtimeError

MAX_TEXT_CHARS = 100_000
MAX_ITEMS = 10_000
MAX_PARTS = 100
"""The most parts that the content of one message may have."""
_ITEM_BYTES = 500
"""What an item costs beside its texts: here, and in the core's history."""
_PARTS = {
    "user": ("input_text", "input_audio"),
    "assistant": ("output_text", "text"),
    "system": ("input_text",),
}


@dataclass(slots=True)
class ItemAudio:
    """Audio of one item, in one of the protocol's formats."""

    kind: str
    data: bytearray

    def as_sent(self, heard_as: str) -> str:
        """Base64. `heard_as`: the format in which the client wants to have back what it said."""
        data = bytes(self.data)
        if self.kind == formats.HEARD:
            data = formats.encode(heard_as, pcm_from_bytes(data), formats.RATES_HZ[self.kind])
        return formats.to_base64(data)


def memory_bytes(value: Any) -> int:
    """What a JSON value occupies, texts and containers counted."""
    total, waiting = 0, [value]
    while waiting:
        found = waiting.pop()
        total += getsizeof(found)
        if isinstance(found, dict):
            waiting += found.values()  # keys are few and the same for all
        elif isinstance(found, list | tuple):
            waiting += found
    return total


class Items:
    """What the client has been shown. Every method that takes an id raises KeyError for an unknown one."""

    def __init__(self, max_audio_bytes: int = 16 << 20, max_bytes: int = 16 << 20) -> None:
        """`max_bytes`: of items without their audio, and of the session object."""
        self._shown: dict[str, dict[str, Any]] = {}
        self._order: list[str] = []
        self._clips: OrderedDict[str, ItemAudio] = OrderedDict()
        self._audio_bytes = 0
        self._max_audio_bytes = max_audio_bytes
        self._max_bytes = max_bytes
        self._bytes: dict[str, int] = {}
        self._items_bytes = self.session_bytes = 0

    def __contains__(self, item_id: str) -> bool:
        return item_id in self._shown

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, item_id: str) -> dict[str, Any]:
        return self._shown[item_id]

    @property
    def last(self) -> str | None:
        return self._order[-1] if self._order else None

    def before(self, item_id: str) -> list[str]:
        """Ids up to and including this one, the nearest first."""
        return self._order[self._order.index(item_id) :: -1]

    def add(self, item: dict[str, Any], after: str | None = None) -> str | None:
        """After the item `after` (`root`: first; None: last) -> id of the one before it."""
        index = len(self._order)
        if after == "root":
            index = 0
        elif after is not None:
            index = self._order.index(after) + 1
        self._order.insert(index, item["id"])
        self._shown[item["id"]] = item
        self._weigh(item["id"])
        return self._order[index - 1] if index else None

    def remove(self, item_id: str) -> None:
        del self._shown[item_id]
        self._items_bytes -= self._bytes.pop(item_id)
        self._order.remove(item_id)
        clip = self._clips.pop(item_id, None)
        if clip is not None:
            self._audio_bytes -= len(clip.data)

    def knows_call(self, call_id: str) -> bool:
        return any(
            item["type"] == "function_call"
            and item.get("call_id") == call_id
            and item.get("status") != "in_progress"
            for item in self._shown.values()
        )

    # -- how large it is ------------------------------------------------------------------------

    def _weigh(self, item_id: str) -> None:
        size = memory_bytes(self._shown[item_id]) + _ITEM_BYTES
        self._items_bytes += size - self._bytes.get(item_id, 0)
        self._bytes[item_id] = size

    def update(self, item_id: str, fields: Mapping[str, Any]) -> None:
        """It has changed."""
        self._shown[item_id].update(fields)
        self._weigh(item_id)

    def transcribe(self, item_id: str, text: str) -> None:
        """What the caller said in it."""
        self._shown[item_id]["content"][0]["transcript"] = text
        self._weigh(item_id)

    def check_room(self, item: Any, param: str) -> None:
        """Raises RealtimeError when the conversation cannot hold this as well."""
        self._check_bytes(self._items_bytes + self.session_bytes + memory_bytes(item), param)

    def check_session(self, session: Any) -> None:
        """Raises RealtimeError for a session object that is too large beside the conversation, else counts it."""
        size = memory_bytes(session)
        self._check_bytes(self._items_bytes + size, "session")
        self.session_bytes = size

    def _check_bytes(self, size: int, param: str) -> None:
        if size > self._max_bytes:
            raise RealtimeError(
                f"{param}: the session would hold {size} bytes of {self._max_bytes}; delete items, or send less",
                "session_too_large",
                param,
            )

    # -- audio ----------------------------------------------------------------------------------

    def keep_audio(self, item_id: str, kind: str, data: bytes) -> None:
        """More of an item's audio."""
        clip = self._clips.get(item_id)
        if clip is None:
            clip = self._clips[item_id] = ItemAudio(kind, bytearray())
        clip.data += data
        self._audio_bytes += len(data)
        while self._audio_bytes > self._max_audio_bytes:
            _, oldest = self._clips.popitem(last=False)
            self._audio_bytes -= len(oldest.data)

    def audio_s(self, item_id: str) -> float:
        """How long the audio is that is kept of this item."""
        clip = self._clips.get(item_id)
        return 0.0 if clip is None else formats.duration_ms(clip.kind, len(clip.data)) / 1000

    def cut(self, item_id: str, text: str) -> None:
        """The caller heard only these words of this assistant item."""
        item = self._shown[item_id]
        item["status"] = "incomplete"
        for part in item["content"]:
            part["transcript" if "transcript" in part else "text"] = text
        self._weigh(item_id)

    def cut_audio(self, item_id: str, heard_ms: int) -> None:
        """The client says that only so much of this assistant item was heard."""
        clip = self._clips.get(item_id)
        if clip is not None:
            before = len(clip.data)
            del clip.data[formats.bytes_at(clip.kind, heard_ms) :]
            self._audio_bytes -= before - len(clip.data)

    def copied(self, item_id: str) -> tuple[dict[str, Any], ItemAudio | None]:
        """The item, and what there is of its audio: only `conversation.item.retrieved` carries that."""
        clip = self._clips.get(item_id)
        kept = None if clip is None else ItemAudio(clip.kind, bytearray(clip.data))
        return copy.deepcopy(self._shown[item_id]), kept


# -- items as JSON -------------------------------------------------------------------------------------


def _head(item_id: str, kind: str, status: str) -> dict[str, Any]:
    return {"id": item_id, "object": "realtime.item", "type": kind, "status": status}


def message(
    item_id: str, role: str, content: list[dict[str, Any]], status: str = "completed"
) -> dict[str, Any]:
    return {**_head(item_id, "message", status), "role": role, "content": content}


def spoken_by_user(item_id: str) -> dict[str, Any]:
    return message(item_id, "user", [{"type": "input_audio", "transcript": None}])


def call_json(item_id: str, call: ToolRequest, *, done: bool) -> dict[str, Any]:
    return {
        **_head(item_id, "function_call", "completed" if done else "in_progress"),
        "name": call.name,
        "call_id": call.call_id,
        "arguments": call.arguments if done else "",
    }


# -- items that a client makes -------------------------------------------------------------------------


@dataclass(slots=True)
class Offered:
    """An item as a client sent it, checked: how it is shown, and what the core is told of it."""

    shown: dict[str, Any]
    item: Item
    speech: tuple[str, ...] = ()
    """Base64 of speech in it that has no transcript yet, in the session's input format."""

    def add_words(self, text: str) -> None:
        """What was said in its audio."""
        for part in self.shown["content"]:
            if part["type"] == "input_audio" and part["transcript"] is None:
                part["transcript"] = text
        self.item = replace(self.item, text="\n".join(filter(None, (self.item.text, text))))


def offered(raw: Any, item_id: str, core_id: str, at: str = "item") -> Offered:
    """Raises RealtimeError. `item_id`: what the client calls it; `core_id`: what the core does."""
    if not isinstance(raw, Mapping):
        raise RealtimeError(f"{at} must be an object", "invalid_type", at)
    match raw.get("type"):
        case "message":
            return _message(raw, item_id, core_id, at)
        case "function_call":
            call = ToolRequest(
                _text(raw, "call_id", at) or f"call_{core_id.lstrip('.')}",
                _text(raw, "name", at, needed=True),
                _text(raw, "arguments", at, needed=True),
            )
            shown = call_json(item_id, call, done=True)
            return Offered(shown, Item(core_id, "tool_call", tool=call))
        case "function_call_output":
            call_id = _text(raw, "call_id", at, needed=True)
            output = _output_text(raw, at)
            shown = {**_head(item_id, "function_call_output", "completed"), "call_id": call_id}
            shown["output"] = output
            return Offered(shown, Item(core_id, "tool_result", output, call_id=call_id))
        case None:
            raise RealtimeError(f"{at}.type is missing", "missing_required_parameter", f"{at}.type")
        case kind:
            raise RealtimeError(
                f"{at}.type: {str(kind)[:40]!r} cannot be created; message, function_call and "
                "function_call_output can",
                param=f"{at}.type",
            )


def _message(raw: Mapping[str, Any], item_id: str, core_id: str, at: str) -> Offered:
    role, parts = raw.get("role"), raw.get("content")
    if not isinstance(role, str) or role not in _PARTS:
        raise RealtimeError(f"{at}.role: user, assistant or system", param=f"{at}.role")
    if not isinstance(parts, list):
        raise RealtimeError(f"{at}.content: a list", "invalid_type", f"{at}.content")
    if len(parts) > MAX_PARTS:
        raise RealtimeError(
            f"{at}.content: {len(parts)} parts; at most {MAX_PARTS}", param=f"{at}.content"
        )
    shown: list[dict[str, Any]] = []
    texts: list[str] = []
    speech: list[str] = []
    for number, part in enumerate(parts):
        where = f"{at}.content[{number}]"
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind not in _PARTS[role]:
            raise RealtimeError(
                f"{where}.type: {str(kind)[:40]!r} is not for a {role} message; "
                f"{' or '.join(_PARTS[role])} is",
                param=f"{where}.type",
            )
        if kind == "input_audio":
            transcript = _text(part, "transcript", where)
            shown.append({"type": kind, "transcript": transcript or None})
            texts.append(transcript)
            if not transcript:
                speech.append(_text(part, "audio", where, needed=True))
        else:
            texts.append(_text(part, "text", where, needed=True))
            shown.append({"type": "output_text" if kind == "text" else kind, "text": texts[-1]})
    text = "\n".join(filter(None, texts))
    return Offered(message(item_id, role, shown), Item(core_id, role, text), tuple(speech))


def _text(raw: Mapping[str, Any], name: str, at: str, *, needed: bool = False) -> str:
    value = raw.get(name)
    if value is None and not needed:
        return ""
    where = f"{at}.{name}"
    if value is None:
        raise RealtimeError(f"{where} is missing", "missing_required_parameter", where)
    if not isinstance(value, str):
        raise RealtimeError(f"{where}: a text", "invalid_type", where)
    if len(value) > MAX_TEXT_CHARS and name != "audio":
        raise RealtimeError(f"{where}: longer than {MAX_TEXT_CHARS} characters", param=where)
    return value


def _output_text(raw: Mapping[str, Any], at: str) -> str:
    """Some clients send an object or a number where a text belongs."""
    value = raw.get("output")
    if value is None:
        raise RealtimeError(f"{at}.output is missing", "missing_required_parameter", f"{at}.output")
    if not isinstance(value, str):
        value = json.dumps(value, ensure_ascii=False)
    if len(value) > MAX_TEXT_CHARS:
        raise RealtimeError(f"{at}.output: longer than {MAX_TEXT_CHARS} characters")
    return str(value)
