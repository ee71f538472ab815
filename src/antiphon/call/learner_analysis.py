"""After a conversation: what a teacher would say of the learner's part in it.

Asks the language model, once more when its answer is not usable, and always gives an `LearnerAnalysis`, which says in
`status` whether a model stood behind it. Bounded in transcript, answer and time.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Iterable, Mapping
from contextlib import aclosing
from dataclasses import asdict, dataclass
from typing import Any

from antiphon.call.learner_level import LEVELS
from antiphon.core.history import Item
from antiphon.errors import AntiphonError
from antiphon.models.model_set import ModelSet, Work
from antiphon.models.ports import LlmRequest, Message

log = logging.getLogger(__name__)

MAX_TRANSCRIPT_CHARS = 6_000
"""Of the end of the conversation: about 1,700 tokens of English."""
MAX_ITEMS = 5
"""Mistakes, words and suggestions, each."""
_MAX_ANSWER_CHARS = 8_000
_MAX_TEXT_CHARS = 400
_MAX_TOKENS = 500
_ATTEMPTS = 2
_SAID_SHARE = 0.75
"""A mistake counts only when so many of its words were said: small models make some up."""
UNKNOWN = "unknown"

_TASK = (
    "You are a friendly language teacher. You read a conversation and judge only what the learner said, never the "
    "agent. Answer with one JSON object and nothing else, with these fields: "
    '"summary": two sentences about what the learner talked about and how well; '
    '"mistakes": a list of {"said": the learner\'s own words, "correction": the same corrected, "why": the rule in a '
    'few words}, empty when there are none; "vocabulary": a list of useful words for the learner; '
    '"estimated_level": "beginner", "intermediate" or "advanced"; "suggestions": a list of short tips.'
)
_AGAIN = "That was not the JSON object that I asked for. Answer with the JSON object only, without comment."
_STRING = {"type": "string", "maxLength": _MAX_TEXT_CHARS}
_STRINGS = {"type": "array", "items": {"type": "string", "maxLength": 160}, "maxItems": MAX_ITEMS}
SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["summary", "mistakes", "vocabulary", "estimated_level", "suggestions"],
    "properties": {
        "summary": _STRING,
        "mistakes": {
            "type": "array",
            "maxItems": MAX_ITEMS,
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["said", "correction", "why"],
                "properties": {"said": _STRING, "correction": _STRING, "why": _STRING},
            },
        },
        "vocabulary": _STRINGS,
        "estimated_level": {"type": "string", "enum": list(LEVELS)},
        "suggestions": _STRINGS,
    },
}


@dataclass(frozen=True, slots=True)
class Mistake:
    said: str
    correction: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class LearnerAnalysis:
    """The documented shape: every field is always there."""

    status: str
    """`ok`; `empty`: the learner said nothing; `unavailable`: the model failed, and `summary` says how."""
    summary: str
    mistakes: tuple[Mistake, ...] = ()
    vocabulary: tuple[str, ...] = ()
    estimated_level: str = UNKNOWN
    suggestions: tuple[str, ...] = ()

    def data(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)


EMPTY = LearnerAnalysis("empty", "You have not said anything yet, so there is nothing to look at.")
FAILED = "The conversation could not be analysed: {}."


async def analyse(
    models: ModelSet, history: Iterable[Item], *, call_id: str, limit_s: float
) -> LearnerAnalysis:
    """Never raises but when it is cancelled; never takes longer than `limit_s`."""
    items = [item for item in history if item.role in ("user", "assistant") and item.text.strip()]
    said = " ".join(item.text for item in items if item.role == "user")
    if not re.search(r"\w", said):
        return EMPTY
    limit = asyncio.timeout(limit_s)
    try:
        async with limit:
            return await _ask(models, items, said, call_id)
    except TimeoutError:
        if not limit.expired():
            raise
        reason = f"it took longer than {limit_s:g} seconds"
    except AntiphonError as error:
        log.warning("call %s: the analysis failed: %s", call_id, error)
        reason = "the language model failed"
    except Exception:  # the call is over but for this; its client still waits
        log.exception("call %s: the analysis failed", call_id)
        reason = "of an internal error"
    return LearnerAnalysis("unavailable", FAILED.format(reason))


async def _ask(models: ModelSet, items: list[Item], said: str, call_id: str) -> LearnerAnalysis:
    dialogue = [Message("system", _TASK), Message("user", transcript(items))]
    for attempt in range(_ATTEMPTS):
        answer = await _answer(models, tuple(dialogue), call_id, 0.2 if attempt else 0.4)
        found = parse(answer, said)
        if found is not None:
            return found
        log.info("call %s: the analysis is no JSON object", call_id)
        dialogue += [Message("assistant", answer[:1_000] or "?"), Message("user", _AGAIN)]
    return LearnerAnalysis(
        "unavailable", FAILED.format("the language model's answer made no sense")
    )


async def _answer(
    models: ModelSet, dialogue: tuple[Message, ...], call_id: str, temperature: float
) -> str:
    request = LlmRequest(
        dialogue,
        call_id=call_id,
        max_tokens=_MAX_TOKENS,
        temperature=temperature,
        response_schema=SCHEMA,
    )
    text = ""
    # Nobody waits for the next word of it: calls that are on go first.
    work = Work(call_id, int(asyncio.get_running_loop().time() * 1000) + 2_000)
    async with aclosing(models.generate(request, work=work)) as deltas:
        async for delta in deltas:
            text += delta.text
            if len(text) > _MAX_ANSWER_CHARS:
                break
    return text


def transcript(items: Iterable[Item]) -> str:
    """The end of the conversation, a line per item, at most `MAX_TRANSCRIPT_CHARS` long."""
    names = {"user": "Learner", "assistant": "Agent"}
    lines = [f"{names[item.role]}: {' '.join(item.text.split())}" for item in items]
    text = "\n".join(lines)
    if len(text) <= MAX_TRANSCRIPT_CHARS:
        return text
    kept = text[-MAX_TRANSCRIPT_CHARS:]
    return "...\n" + (kept.partition("\n")[2] or kept)


def parse(answer: str, said: str) -> LearnerAnalysis | None:
    """What is usable of a model's answer; None when there is no object with any of the fields in it.

    `said`: all that the learner said.
    """
    for found in _objects(answer):
        summary, level = _text(found.get("summary")), _text(found.get("estimated_level")).lower()
        mistakes = _mistakes(found.get("mistakes"), said)
        vocabulary, suggestions = _texts(found.get("vocabulary")), _texts(found.get("suggestions"))
        if summary or vocabulary or suggestions or mistakes:
            return LearnerAnalysis(
                "ok",
                summary,
                mistakes,
                vocabulary,
                level if level in LEVELS else UNKNOWN,
                suggestions,
            )
    return None


def _objects(answer: str) -> Iterable[dict[str, Any]]:
    """Every JSON object that stands somewhere in the text; the last may lack its end."""
    decoder, at = json.JSONDecoder(), answer.find("{")
    while at >= 0:
        try:
            found, end = decoder.raw_decode(answer, at)
        except (ValueError, RecursionError):
            found, end = _mended(answer[at:]), at + 1
        if isinstance(found, dict):
            yield found
        at = answer.find("{", max(end, at + 1))


def _mended(text: str) -> Any:
    """An object that broke off, up to its last whole field: answers have a limit of tokens."""
    for cut in [match.start() for match in re.finditer(r"[,}\]]", text)][:-41:-1]:
        for end in ("}", "]}", "}]}"):
            try:
                return json.loads(text[:cut].rstrip(", \n") + end)
            except (ValueError, RecursionError):
                continue
    return None


def _text(value: Any) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    return " ".join(value.split())[:_MAX_TEXT_CHARS] if isinstance(value, str) else ""


def _texts(value: Any) -> tuple[str, ...]:
    """A list of texts; small models write objects, or one text with commas, instead."""
    if isinstance(value, str):
        value = re.split(r"[,;\n]", value)
    if not isinstance(value, list):
        return ()
    found = []
    for entry in value:
        if isinstance(entry, dict):
            entry = next((inner for inner in entry.values() if isinstance(inner, str)), "")
        found.append(_text(entry))
    return tuple(dict.fromkeys(filter(None, found)))[:MAX_ITEMS]


def _mistakes(value: Any, said: str) -> tuple[Mistake, ...]:
    words = _words(said)
    found = []
    for entry in value if isinstance(value, list) else ():
        if not isinstance(entry, dict):
            continue
        quote, better = _text(entry.get("said")), _text(entry.get("correction"))
        if better and better != quote and _was_said(quote, words):
            found.append(Mistake(quote, better, _text(entry.get("why"))))
    return tuple(found[:MAX_ITEMS])


def _was_said(quote: str, words: frozenset[str]) -> bool:
    quoted = _words(quote)
    return bool(quoted) and len(quoted & words) >= _SAID_SHARE * len(quoted)


def _words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"[\w']+", text.lower()))
