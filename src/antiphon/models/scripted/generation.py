"""Scripted models that answer: the language model, text to speech."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Unpack

import numpy as np

from antiphon.errors import ConfigError
from antiphon.models.ports import (
    LlmDelta,
    LlmRequest,
    Message,
    ModelInfo,
    Pcm16,
    SpeechRequest,
    ToolCall,
    ToolPart,
    Usage,
    WeightSource,
)
from antiphon.models.scripted.pace import Pace, PaceOptions
from antiphon.models.scripted.recognition import tone

_PIECE_CHARS = 12
"""Of a function's arguments, told one after the other as models do."""

_SPEECH_HZ = 220.0


class ScriptedLlm:
    """Answers by rules, by list, or with an echo, word by word.

    The first that applies: `tools`, a regular expression on the last user message -> the call
    `{"name": ..., "arguments": {...}}`, made when the request offers that tool; `rules`, a regular
    expression -> the reply, in which `{0}` is the whole match and `{1}` the first group; `replies`,
    the n-th for the n-th user message of the history (the last one for ever), so that a repeated
    request gets the same answer; else `You said: ...`. The result of a tool is answered with `The
    answer is ...`.

    What it was asked: `requests`, `warmed` and `released`.
    """

    def __init__(
        self,
        weights: WeightSource | None = None,
        *,
        replies: Sequence[str] = (),
        rules: Mapping[str, str] | None = None,
        tools: Mapping[str, Mapping[str, Any]] | None = None,
        **pace: Unpack[PaceOptions],
    ) -> None:
        self.info = ModelInfo("scripted", detail="as told")
        self.requests: list[LlmRequest] = []
        self.warmed: list[LlmRequest] = []
        self.released: list[str] = []
        self._replies = tuple(replies)
        self._rules = [(_pattern(pattern), reply) for pattern, reply in (rules or {}).items()]
        self._tools = [(_pattern(pattern), dict(call)) for pattern, call in (tools or {}).items()]
        for _, call in self._tools:
            if not isinstance(call.get("name"), str):
                raise ConfigError("scripted llm: each of tools needs a name")
        self._pace = Pace("the scripted llm", pace)

    def load(self) -> None:
        pass

    def close(self) -> None:
        pass

    def warm(self, request: LlmRequest) -> None:
        self.warmed.append(request)

    def release(self, call_id: str) -> None:
        self.released.append(call_id)

    def generate(self, request: LlmRequest) -> Iterator[LlmDelta]:
        self.requests.append(request)
        course = self._pace.begin()
        read = sum(len(message.content.split()) for message in request.messages)
        call = self._tool_call(request)
        if call is not None:
            for piece in _pieces(call.arguments):
                course.step()
                yield LlmDelta(tool_part=ToolPart(call.call_id, call.name, piece))
            yield LlmDelta(tool_call=call)
            course.end()
            yield LlmDelta(finish="tool_calls", usage=Usage(read, 1))
            return
        words = re.findall(r"\S+\s*", self._reply(request.messages))
        for word in words[: request.max_tokens]:
            course.step()
            yield LlmDelta(word)
        course.end()
        cut = len(words) > request.max_tokens
        usage = Usage(read, min(len(words), request.max_tokens))
        yield LlmDelta(finish="length" if cut else "stop", usage=usage)

    def _tool_call(self, request: LlmRequest) -> ToolCall | None:
        if request.messages and request.messages[-1].role == "tool":
            return None
        offered = {tool.get("function", {}).get("name") for tool in request.tools}
        said = _last_user_text(request.messages)
        for pattern, call in self._tools:
            if call["name"] in offered and pattern.search(said):
                number = sum(message.role == "user" for message in request.messages)
                arguments = json.dumps(call.get("arguments", {}))
                return ToolCall(f"scripted-{number}", call["name"], arguments)
        return None

    def _reply(self, messages: Sequence[Message]) -> str:
        if messages and messages[-1].role == "tool":
            return f"The answer is {messages[-1].content}."
        said = _last_user_text(messages)
        for pattern, reply in self._rules:
            if match := pattern.search(said):
                return _filled(reply, match)
        if self._replies:
            asked = sum(message.role == "user" for message in messages)
            return self._replies[min(max(asked, 1), len(self._replies)) - 1]
        return f"You said: {said}"


def _pieces(text: str) -> list[str]:
    return [text[at : at + _PIECE_CHARS] for at in range(0, len(text), _PIECE_CHARS)]


class ScriptedTts:
    """Speaks a quiet tone per word, so that what was heard can be told from how much was played.

    `word_ms`: of each word, its last fifth silent, one piece of audio per word. `rate_hz`: of the
    audio. `rms`: its level. `voices`: those that may be asked for; any other is the default. What
    it was asked: `requests`.
    """

    def __init__(
        self,
        weights: WeightSource | None = None,
        *,
        word_ms: int = 200,
        rate_hz: int = 16_000,
        rms: float = 1000.0,
        voices: Sequence[str] = (),
        **pace: Unpack[PaceOptions],
    ) -> None:
        self.info = ModelInfo("scripted", detail=f"{word_ms} ms per word", voices=tuple(voices))
        self.sample_rate_hz = rate_hz
        self.requests: list[SpeechRequest] = []
        self._word_ms = word_ms
        self._rms = rms
        self._pace = Pace("the scripted tts", pace)
        self._lock = threading.Lock()
        self._words: dict[int, Pcm16] = {}

    def load(self) -> None:
        pass

    def close(self) -> None:
        pass

    def duration_ms(self, text: str, speed: float = 1.0) -> int:
        """Of the audio of this text."""
        return len(words_to_say(text)) * self._scaled_ms(speed)

    def synthesize(self, request: SpeechRequest) -> Iterator[Pcm16]:
        self.requests.append(request)
        course = self._pace.begin()
        for _ in words_to_say(request.text):
            course.step()
            yield self._word(self._scaled_ms(request.speed))
        course.end()

    def _scaled_ms(self, speed: float) -> int:
        return round(self._word_ms / speed)

    def _word(self, duration_ms: int) -> Pcm16:
        with self._lock:
            if duration_ms not in self._words:
                self._words[duration_ms] = spoken_word(duration_ms, self.sample_rate_hz, self._rms)
            return self._words[duration_ms].copy()


def spoken_word(duration_ms: int, rate_hz: int, rms: float = 1000.0) -> Pcm16:
    """A quiet tone, its last fifth silent."""
    sound = tone(_SPEECH_HZ, duration_ms * 4 // 5, rate_hz, rms)
    word: Pcm16 = np.zeros(rate_hz * duration_ms // 1000, np.int16)
    word[: sound.size] = sound
    return word


def words_to_say(text: str) -> list[str]:
    """Words with something to say in them."""
    return [word for word in text.split() if any(letter.isalnum() for letter in word)]


def _last_user_text(messages: Sequence[Message]) -> str:
    said = [message.content for message in messages if message.role == "user"]
    return said[-1] if said else ""


def _pattern(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern, re.IGNORECASE)
    except re.error as error:
        raise ConfigError(
            f"scripted llm: {pattern!r} is not a regular expression: {error}"
        ) from error


def _filled(reply: str, match: re.Match[str]) -> str:
    groups = [group or "" for group in (match.group(), *match.groups())]
    for number, group in enumerate(groups):
        reply = reply.replace(f"{{{number}}}", group)
    return reply
