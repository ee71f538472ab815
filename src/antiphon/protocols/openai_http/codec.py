"""OpenAI's HTTP API as dictionaries and structs: what a request asks for, and what an answer looks like.

The stop words are looked for here, as not every back end knows them.

Times are those of the stretches of speech that were found; no model behind this server tells the times of words, so
those are spread over their stretch by length.
"""

from __future__ import annotations

import base64
import secrets
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec

from antiphon.errors import suggest
from antiphon.json_body import BadRequest, parse

MAX_STOPS = 4
MAX_MESSAGES = 2_000
MAX_TOKENS = 32_768
_ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}
_PLAIN_FORMATS = (None, "text")


class AskedFunction(msgspec.Struct):
    name: str
    arguments: str = ""


class AskedCall(msgspec.Struct):
    function: AskedFunction
    id: str = ""


class AskedMessage(msgspec.Struct):
    role: str
    content: str | list[dict[str, Any]] | None = None
    tool_calls: list[AskedCall] | None = None
    tool_call_id: str | None = None

    @property
    def plain_role(self) -> str:
        return _ROLES[self.role]

    @property
    def text(self) -> str:
        """Of all its parts."""
        if not isinstance(self.content, list):
            return self.content or ""
        return "\n".join(str(part.get("text", part.get("refusal", ""))) for part in self.content)


class StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class ChatAsk(msgspec.Struct):
    messages: list[AskedMessage]
    model: str = ""
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    max_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    max_completion_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    stop: str | list[str] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    response_format: dict[str, Any] | None = None
    n: int | None = None

    @property
    def token_limit(self) -> int | None:
        limit = self.max_completion_tokens or self.max_tokens
        return None if limit is None else min(limit, MAX_TOKENS)

    @property
    def stops(self) -> tuple[str, ...]:
        given = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return tuple(word for word in given if word)

    @property
    def wants_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)


def read_chat(body: bytes) -> ChatAsk:
    """Raises BadRequest, also for what cannot be done: several answers, images, JSON by force."""
    ask = parse(ChatAsk, body)
    if not 0 < len(ask.messages) <= MAX_MESSAGES:
        raise BadRequest(f"messages must be 1 to {MAX_MESSAGES} messages", "messages")
    for number, message in enumerate(ask.messages):
        _check_message(message, f"messages[{number}]")
    if ask.n not in (None, 1):
        raise BadRequest("only one answer at a time can be made; leave n out", "n")
    if len(ask.stops) > MAX_STOPS:
        raise BadRequest(f"stop may list {MAX_STOPS} words at most", "stop")
    if (ask.response_format or {}).get("type") not in _PLAIN_FORMATS:
        raise BadRequest(
            "only response_format text can be served; ask for JSON in the prompt", "response_format"
        )
    for number, tool in enumerate(ask.tools or ()):
        function = tool.get("function")
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise BadRequest("a tool must be a function with a name", f"tools[{number}]")
    return ask


def _check_message(message: AskedMessage, where: str) -> None:
    if message.role not in _ROLES:
        raise BadRequest(f"unknown role {message.role[:40]!r}", f"{where}.role")
    for part in message.content if isinstance(message.content, list) else ():
        if part.get("type") not in ("text", "refusal"):
            kind = str(part.get("type"))[:40]
            raise BadRequest(
                f"a part of type {kind!r} cannot be read; send text", f"{where}.content"
            )


class StopFilter:
    """Text up to the first stop word; what may become one is held back."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.hit = False

    def feed(self, text: str) -> str:
        """-> what may be sent."""
        if self.hit or not self._stops:
            return "" if self.hit else text
        self._held += text
        found = [at for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if found:
            self.hit = True
            return self._take(min(found))
        keep = max(_overlap(self._held, stop) for stop in self._stops)
        return self._take(len(self._held) - keep)

    def flush(self) -> str:
        """The text is complete -> the rest."""
        return "" if self.hit else self._take(len(self._held))

    def _take(self, length: int) -> str:
        sent, self._held = self._held[:length], self._held[length:]
        return sent


def _overlap(text: str, word: str) -> int:
    """How much of the end of `text` is the beginning of `word`."""
    for length in range(min(len(text), len(word) - 1), 0, -1):
        if word.startswith(text[-length:]):
            return length
    return 0


@dataclass(frozen=True, slots=True)
class FunctionCall:
    """A function that the model wants to have called."""

    call_id: str
    name: str
    arguments: str

    def as_json(self) -> dict[str, Any]:
        function = {"name": self.name, "arguments": self.arguments}
        return {"id": self.call_id, "type": "function", "function": function}


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """As the model counted them."""

    prompt: int = 0
    completion: int = 0
    cached: int = 0

    def as_json(self) -> dict[str, Any]:
        return {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
            "prompt_tokens_details": {"cached_tokens": self.cached},
        }


class ChatAnswer:
    """One answer's dictionaries: all its chunks bear the same id and time."""

    def __init__(self, model: str) -> None:
        self.id = f"chatcmpl-{secrets.token_hex(12)}"
        self._model = model
        self._created = int(time.time())
        self._begun = False
        self._calls: dict[str, str] = {}
        """Call id -> what was sent of its arguments, in the order in which they began."""

    def whole(
        self, text: str, calls: Sequence[FunctionCall], finish: str, tokens: TokenUsage
    ) -> dict[str, Any]:
        message: dict[str, Any] = {
            "role": "assistant",
            "content": text if text or not calls else None,
            "refusal": None,
        }
        if calls:
            message["tool_calls"] = [call.as_json() for call in calls]
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}
        return {
            **self._head("chat.completion"),
            "choices": [choice],
            "usage": tokens.as_json(),
        }

    def text(self, text: str) -> dict[str, Any]:
        return self._chunk({"content": text})

    def call_part(self, call_id: str, name: str, text: str) -> dict[str, Any]:
        """More of a call's arguments, at its index; the first piece bears its name."""
        if call_id not in self._calls:
            begun = FunctionCall(call_id, name, text).as_json()
            self._calls[call_id] = text
            return self._chunk({"tool_calls": [{"index": len(self._calls) - 1, **begun}]})
        self._calls[call_id] += text
        index = list(self._calls).index(call_id)
        return self._chunk({"tool_calls": [{"index": index, "function": {"arguments": text}}]})

    def call(self, call: FunctionCall) -> dict[str, Any] | None:
        """What has not been sent yet of a whole call; None: nothing."""
        rest = call.arguments.removeprefix(self._calls.get(call.call_id, ""))
        if call.call_id in self._calls and not rest:
            return None
        return self.call_part(call.call_id, call.name, rest)

    def end(self, finish: str) -> dict[str, Any]:
        return self._chunk({}, finish)

    def usage(self, tokens: TokenUsage) -> dict[str, Any]:
        """The chunk after the last, for those who asked for it."""
        return {
            **self._head("chat.completion.chunk"),
            "choices": [],
            "usage": tokens.as_json(),
        }

    def _chunk(self, delta: Mapping[str, Any], finish: str | None = None) -> dict[str, Any]:
        if not self._begun:
            self._begun = True
            delta = {"role": "assistant", "content": "", **delta}
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return {**self._head("chat.completion.chunk"), "choices": [choice]}

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self._created, "model": self._model}


MAX_INPUT_CHARS = 4_096
Format = Literal["mp3", "opus", "aac", "flac", "wav", "pcm"]


class SpeechVoiceId(msgspec.Struct):
    id: str


class SpeechAsk(msgspec.Struct):
    input: str
    model: str = ""
    voice: str | SpeechVoiceId | None = None
    instructions: str | None = None
    """Accepted; no voice behind this server follows any."""
    response_format: Format = "mp3"
    speed: Annotated[float, msgspec.Meta(ge=0.25, le=4.0)] = 1.0
    stream_format: Literal["audio", "sse"] = "audio"

    @property
    def voice_name(self) -> str:
        return self.voice.id if isinstance(self.voice, SpeechVoiceId) else self.voice or ""


def read_speech(body: bytes) -> SpeechAsk:
    """Raises BadRequest."""
    ask = parse(SpeechAsk, body)
    if not ask.input.strip():
        raise BadRequest("input is empty; send a text to be spoken", "input")
    if len(ask.input) > MAX_INPUT_CHARS:
        raise BadRequest(
            f"input has {len(ask.input)} characters, the limit is {MAX_INPUT_CHARS}; send it in parts",
            "input",
            "string_above_max_length",
        )
    return ask


def speech_delta(audio: bytes) -> dict[str, Any]:
    """Each piece is base64 of its own: clients decode them one by one."""
    return {"type": "speech.audio.delta", "audio": base64.b64encode(audio).decode()}


def speech_done(characters: int, audio_s: float) -> dict[str, Any]:
    """No speech model here counts tokens: four characters are taken for one, and 50 ms of audio, as is usual."""
    taken, made = -(-characters // 4), round(audio_s * 20)
    usage = {"input_tokens": taken, "output_tokens": made, "total_tokens": taken + made}
    return {"type": "speech.audio.done", "usage": usage}


FORMATS = ("json", "text", "srt", "verbose_json", "vtt", "diarized_json")
CONTENT_TYPES = {
    "text": "text/plain; charset=utf-8",
    "srt": "text/plain; charset=utf-8",
    "vtt": "text/vtt; charset=utf-8",
}
"""Of the formats that are not JSON."""
_SPACELESS = frozenset({"zh", "yue", "ja", "th"})
_MAX_LANGUAGE_CHARS = 16


@dataclass(frozen=True, slots=True)
class TranscriptionRequest:
    """What the form asks for."""

    response_format: str = "json"
    language: str = ""
    stream: bool = False
    words: bool = False
    segments: bool = True
    """In `verbose_json`."""


@dataclass(frozen=True, slots=True)
class Segment:
    """Words of one stretch of speech, and where it lies in the recording."""

    start_s: float
    end_s: float
    text: str


@dataclass(frozen=True, slots=True)
class TranscriptionResult:
    """A whole transcript."""

    segments: tuple[Segment, ...]
    duration_s: float
    """Of the recording."""
    language: str
    """ISO 639-1; empty: not known."""

    @property
    def text(self) -> str:
        return separator(self.language).join(segment.text for segment in self.segments)


def separator(language: str) -> str:
    """Between two stretches."""
    return "" if language in _SPACELESS else " "


def read_transcription(fields: Iterable[tuple[str, Any]]) -> TranscriptionRequest:
    """The form's text fields, in order; names that are not known are ignored. Raises BadRequest."""
    values: dict[str, str] = {}
    granularities: list[str] = []
    for name, value in fields:
        if not isinstance(value, str):
            continue
        if name.removesuffix("[]") == "timestamp_granularities":
            granularities.append(value)
        else:
            values[name] = value
    response_format = values.get("response_format") or "json"
    if response_format not in FORMATS:
        wrong = response_format[:40]
        raise BadRequest(
            f"unknown response_format {wrong!r}{suggest(wrong, FORMATS)}", "response_format"
        )
    if wrong_ones := [g for g in granularities if g not in ("word", "segment")]:
        raise BadRequest(
            f"unknown timestamp granularity {wrong_ones[0][:40]!r}; use word or segment",
            "timestamp_granularities",
        )
    return TranscriptionRequest(
        response_format,
        _language(values.get("language", "")),
        _flag(values),
        "word" in granularities,
        not granularities or "segment" in granularities,
    )


def _language(value: str) -> str:
    """`en`, `en-GB` and `EN` are the same to a model."""
    code = value.strip().lower().replace("_", "-").partition("-")[0]
    if len(value) > _MAX_LANGUAGE_CHARS or (code and not (code.isalpha() and code.isascii())):
        raise BadRequest("language must be an ISO 639-1 code, for instance en", "language")
    return code


def _flag(values: Mapping[str, str]) -> bool:
    value = values.get("stream", "").strip().lower()
    if value not in ("", "true", "false", "1", "0"):
        raise BadRequest("stream must be true or false", "stream")
    return value in ("true", "1")


def transcript_body(
    heard: TranscriptionResult, wanted: TranscriptionRequest
) -> dict[str, Any] | str:
    """The transcript in the format that was asked for: an object, or text as it is."""
    match wanted.response_format:
        case "text":
            return heard.text + "\n"
        case "srt":
            return _srt(heard.segments)
        case "vtt":
            return _vtt(heard.segments)
        case "verbose_json":
            return _verbose(heard, wanted)
        case "diarized_json":
            return _diarized(heard)
    return {"text": heard.text, "usage": _usage(heard)}


def transcript_delta(text: str) -> dict[str, Any]:
    return {"type": "transcript.text.delta", "delta": text}


def transcript_done(text: str) -> dict[str, Any]:
    return {"type": "transcript.text.done", "text": text}


def _usage(heard: TranscriptionResult) -> dict[str, Any]:
    return {"type": "duration", "seconds": round(heard.duration_s, 3)}


def _verbose(heard: TranscriptionResult, wanted: TranscriptionRequest) -> dict[str, Any]:
    found: dict[str, Any] = {
        "task": "transcribe",
        "language": heard.language,
        "duration": round(heard.duration_s, 3),
        "text": heard.text,
        "usage": _usage(heard),
    }
    if wanted.segments:
        found["segments"] = [_segment(n, segment) for n, segment in enumerate(heard.segments)]
    if wanted.words:
        found["words"] = [word for segment in heard.segments for word in _words(segment)]
    return found


def _segment(number: int, segment: Segment) -> dict[str, Any]:
    """Fields that only Whisper could fill are there, with values that say nothing: the SDK wants them."""
    encoded = segment.text.encode()
    return {
        "id": number,
        "seek": 0,
        "start": round(segment.start_s, 3),
        "end": round(segment.end_s, 3),
        "text": segment.text,
        "tokens": [],
        "temperature": 0.0,
        "avg_logprob": 0.0,
        "compression_ratio": round(len(encoded) / len(zlib.compress(encoded)), 3),
        "no_speech_prob": 0.0,
    }


def _words(segment: Segment) -> Iterator[dict[str, Any]]:
    words = segment.text.split()
    weights = [len(word) + 1 for word in words]
    pace_s = (segment.end_s - segment.start_s) / max(sum(weights), 1)
    at_s = segment.start_s
    for word, weight in zip(words, weights, strict=True):
        end_s = at_s + weight * pace_s
        yield {"word": word, "start": round(at_s, 3), "end": round(end_s, 3)}
        at_s = end_s


def _diarized(heard: TranscriptionResult) -> dict[str, Any]:
    """One speaker: nothing here tells voices apart."""
    return {
        "task": "transcribe",
        "duration": round(heard.duration_s, 3),
        "text": heard.text,
        "usage": _usage(heard),
        "segments": [
            {
                "type": "transcript.text.segment",
                "id": f"seg_{number}",
                "start": round(segment.start_s, 3),
                "end": round(segment.end_s, 3),
                "speaker": "A",
                "text": segment.text,
            }
            for number, segment in enumerate(heard.segments)
        ],
    }


def _srt(segments: Sequence[Segment]) -> str:
    cues = [
        f"{number}\n{_clock(s.start_s, ',')} --> {_clock(s.end_s, ',')}\n{s.text}\n\n"
        for number, s in enumerate(segments, 1)
    ]
    return "".join(cues)


def _vtt(segments: Sequence[Segment]) -> str:
    """WebVTT wants `<` and `&` escaped, and no arrow in a text."""
    cues = []
    for s in segments:
        text = s.text.replace("&", "&amp;").replace("<", "&lt;").replace("-->", "--&gt;")
        cues.append(f"{_clock(s.start_s, '.')} --> {_clock(s.end_s, '.')}\n{text}\n\n")
    return "WEBVTT\n\n" + "".join(cues)


def _clock(seconds: float, mark: str) -> str:
    ms = round(seconds * 1000)
    return f"{ms // 3_600_000:02}:{ms // 60_000 % 60:02}:{ms // 1000 % 60:02}{mark}{ms % 1000:03}"


CONTENT_TYPE = "text/event-stream"
HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
"""Proxies hold answers back unless they are told not to."""
DONE = b"data: [DONE]\n\n"


def sse_event(body: dict[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(body) + b"\n\n"


def sse_error(message: str) -> bytes:
    """An error in mid-stream: the SDK raises it."""
    return sse_event(
        {
            "error": {
                "message": message,
                "type": "server_error",
                "param": None,
                "code": "model_error",
            }
        }
    )


OWNER = "antiphon"


def model_entry(name: str, created: int) -> dict[str, Any]:
    """`created`: seconds since 1970."""
    return {"id": name, "object": "model", "created": created, "owned_by": OWNER}


def listing(entries: Iterable[dict[str, Any]]) -> dict[str, Any]:
    return {"object": "list", "data": list(entries)}


def voice_entry(name: str) -> dict[str, Any]:
    return {"id": name, "object": "voice", "name": name}
