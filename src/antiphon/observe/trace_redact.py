"""What people said, taken out of a trace so that it still replays to the same decisions.

The core's decisions depend on words in few ways: whether a word is on one of its lists (`endpointing`, `interruption`,
`text_segmenter`), how long it is (`playout`), which characters are letters, digits or punctuation, and whether two
words are the same (echoes; a transcript that has changed). So words on the lists stay, and every other word becomes a
made up one of the same length, another for each word: `Call Anna, Anna!` -> `Xxxx Xxxa, Xxxa!`. Digits become other
digits, spoken digits other spoken digits, spelled letters other letters.

What remains readable: function words, fillers, lengths, punctuation, which words are repeated, names of tools, ids,
and the reasons of failures. The made up words are numbered in the order in which they appear and hold nothing else.
Two things may make a redacted trace replay differently: a word that was cut in two because no segment may be longer
than `max_segment_chars`, and more different words of one or two letters than there are made up ones.
"""

from __future__ import annotations

import itertools
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Any

from antiphon.core import endpointing, interruption, text_segmenter
from antiphon.core.policy import Policy
from antiphon.observe.call_trace import TraceError

_NUMBERS = frozenset("zero one two three four five six seven eight nine ten".split())
_ASKED = frozenset(
    """number digit digits spell spelling email e-mail address code zip postcode reference account
    date of birth pin""".split()
)
"""The words of `endpointing._ASKS_DICTATION`."""
_KEPT = (
    endpointing.LISTED_WORDS | interruption.LISTED_WORDS | text_segmenter.ABBREVIATIONS | _ASKED
) - _NUMBERS

_FIRST = "xqzjkv"
"""No listed word that is all consonants begins with x, q or z, and few with the others."""
_LETTERS = "xabcdefghijklmnopqrstuvwyz"
_ALONE = "xbcdefghjklmnopqrstuvwyz"
"""A letter alone is one being spelled, but for `a` and `i`, which are words."""
_ACCENTED = "éèêëàâäùûüîïôöçñåøœæ"
_FOREIGN_DIGITS = "٠١٢٣٤٥٦٧٨٩"
_CASELESS = "İıſ\u212a"
"""Letters that match [a-z] when case is ignored. They stay: any other would be read differently somewhere."""

_DOTTED = "|".join(re.escape(word) for word in sorted(text_segmenter.ABBREVIATIONS) if "." in word)
_PIECES = re.compile(
    rf"(?P<dotted>(?<![A-Za-z0-9])(?:{_DOTTED})(?![A-Za-z0-9]))"
    rf"|(?P<word>[A-Za-z0-9{_CASELESS}]+(?:[-'’][A-Za-z0-9{_CASELESS}]+)*)"
    rf"|(?P<foreign>[^\x00-\x7f{_CASELESS}’]+)",
    re.IGNORECASE,
)
_PARTS = re.compile(r"(?i:e-?mail)(?![A-Za-z])|[A-Za-z]+|[0-9]+")

_TEXTS = frozenset(
    "text heard unheard user_text reply_text heard_text output arguments filler".split()
) | {"greeting", "idle_prompt", "goodbye", "apology", "tool_filler"}
"""Fields of events, actions, items and records that hold words."""
_OPAQUE = frozenset({"options", "extra"})
"""Fields of a client's own making: every text in them, at any depth."""
_PHRASES = ("greeting", "idle_prompt", "goodbye", "apology", "tool_filler")


class Pseudonyms:
    """Words -> made up words, the same one for the same word. One instance per trace."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], str] = {}
        self._fresh: dict[tuple[str, int], Iterator[str]] = {}

    def redact(self, text: str) -> str:
        """As many characters, words, letters, digits and marks as `text`."""
        return _PIECES.sub(self._piece, text)

    def _piece(self, match: re.Match[str]) -> str:
        found = match.group()
        if match.lastgroup == "dotted":
            return found
        if match.lastgroup == "foreign":
            return self._foreign(found)
        word = found.lower().replace("’", "'")
        if word in _KEPT or interruption.plain(word) in interruption.BACKCHANNELS:
            return found
        return _PARTS.sub(lambda part: self._part(part.group()), found)

    def _part(self, part: str) -> str:
        word = part.lower()
        if word in _KEPT:
            return part
        if word in _NUMBERS:
            kind = "number"
        else:
            kind = "digits" if part[0].isdigit() else "letters"
        made = self._name(kind, word)
        return "".join(
            new.upper() if old.isupper() else new for old, new in zip(part, made, strict=True)
        )

    def _foreign(self, run: str) -> str:
        """Characters beyond ASCII: letters with their marks, digits, and all others as they are."""
        out: list[str] = []
        for kind, group in itertools.groupby(run, _foreign_kind):
            part = "".join(group)
            words = kind == "digits-beyond" or any(ch.isalpha() for ch in part)
            out.append(self._name(kind, part) if kind and words else part)
        return "".join(out)

    def _name(self, kind: str, word: str) -> str:
        known = self._known.get((kind, word))
        if known is None:
            pool = self._fresh.setdefault((kind, len(word)), _names(kind, len(word)))
            known = next(pool, _last_resort(kind, len(word)))
            self._known[kind, word] = known
        return known


def redact(lines: Iterable[str]) -> list[str]:
    """A trace's lines -> the same without its words. Raises TraceError for lines that are no trace's."""
    records = [_load(text) for text in lines if text.strip()]
    return [
        json.dumps(record, ensure_ascii=False, separators=(",", ":"))
        for record in _Redaction(records).run()
    ]


class _Reply:
    """The words of one reply, which come and go in pieces cut anywhere: redacted as a whole, then cut alike."""

    def __init__(self) -> None:
        self.words = ""
        self.redacted = ""
        self.taken = 0
        self.shown = 0
        self.closed = False


class _Redaction:
    def __init__(self, records: list[dict[str, Any]]) -> None:
        self._records = records
        self._names = Pseudonyms()
        self._replies: dict[str, _Reply] = {}
        self._jobs: dict[int, str] = {}
        """Jobs that generate a reply -> the reply."""

    def run(self) -> Iterator[dict[str, Any]]:
        for record in self._records:
            self._collect(record)
        for reply in self._replies.values():
            reply.redacted = self._names.redact(reply.words)
            reply.closed = False
        for record in self._records:
            yield self._rewrite(record)

    def _collect(self, record: dict[str, Any]) -> None:
        event = record.get("event", {})
        if event.get("type") == "ReplyText":
            reply = self._reply_of(event)
            if not reply.closed:
                reply.words += event["text"]
        for action in record.get("actions", ()):
            if action["type"] == "Generate":
                self._jobs[action["job"]] = action["reply"]
        self._close(record)

    def _reply_of(self, event: dict[str, Any]) -> _Reply:
        """Of a job that nothing was asked for: one that nobody hears."""
        name = self._jobs.get(event["job"], "")
        return self._replies.setdefault(name, _Reply())

    def _close(self, record: dict[str, Any]) -> None:
        """What comes for a reply after its end is ignored by the core, and no part of its words."""
        ends = [a for a in record.get("actions", ()) if a["type"] in ("CancelReply", "ReplyEnded")]
        event = record.get("event", {})
        for end in ends:
            self._replies.setdefault(end["reply"], _Reply()).closed = True
        if event.get("type") in ("ReplyComplete", "JobFailed") and event["job"] in self._jobs:
            self._reply_of(event).closed = True

    def _rewrite(self, record: dict[str, Any]) -> dict[str, Any]:
        out = dict(record)
        if "antiphon_trace" in record:
            out["policy"] = self._policy(record.get("policy", {}))
        if "event" in record:
            out["event"] = self._event(record["event"])
        if "actions" in record:
            out["actions"] = [self._action(action) for action in record["actions"]]
        self._close(record)
        return out

    def _event(self, event: dict[str, Any]) -> dict[str, Any]:
        if event["type"] == "Configure":
            return {**event, "policy": self._policy(event["policy"])}
        if event["type"] != "ReplyText":
            return self._fields(event)
        reply, text = self._reply_of(event), event["text"]
        if reply.closed:
            return self._fields(event)
        start, reply.taken = reply.taken, reply.taken + len(text)
        return {**event, "text": reply.redacted[start : reply.taken]}

    def _action(self, action: dict[str, Any]) -> dict[str, Any]:
        reply = self._replies.get(action.get("reply", ""))
        if action["type"] != "ReplyWords" or reply is None:
            return self._fields(action)
        start, end = reply.shown, reply.shown + len(action["text"])
        if reply.words[start:end] != action["text"]:  # words of ours, not of a language model
            return self._fields(action)
        reply.shown = end
        return {**action, "text": reply.redacted[start:end]}

    def _policy(self, policy: dict[str, Any]) -> dict[str, Any]:
        """With its phrases, the default ones too: what the agent says in the trace is redacted."""
        phrases = {name: policy.get(name, getattr(Policy(), name)) for name in _PHRASES}
        redacted = {name: self._names.redact(text) for name, text in phrases.items()}
        return policy | redacted

    def _anything(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._anything(item) for item in value]
        return self._fields(value) if isinstance(value, dict) else value

    def _fields(self, value: dict[str, Any]) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for name, inner in value.items():
            if name in _OPAQUE:
                out[name] = self._everything(inner)
            elif name in _TEXTS and isinstance(inner, str):
                out[name] = self._names.redact(inner)
            else:
                out[name] = self._anything(inner)
        return out

    def _everything(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._everything(item) for item in value]
        if isinstance(value, dict):
            return {name: self._everything(inner) for name, inner in value.items()}
        return self._names.redact(value) if isinstance(value, str) else value


def _names(kind: str, length: int) -> Iterator[str]:
    """Made up words of one kind and length, never one that means something to the core."""
    if kind == "number":
        return iter(sorted(word for word in _NUMBERS if len(word) == length))
    pools = {
        "letters": (_ALONE,) if length == 1 else (_FIRST, *[_LETTERS] * (length - 1)),
        "digits": ("0123456789",) * length,
        "letters-beyond": (_ACCENTED,) * length,
        "digits-beyond": (_FOREIGN_DIGITS,) * length,
    }[kind]
    made = ("".join(chars) for chars in itertools.product(*pools))
    return (word for word in made if word not in _KEPT)


def _last_resort(kind: str, length: int) -> str:
    """When all made up words of a length are taken."""
    return {"letters": "x", "letters-beyond": "é", "digits-beyond": "٠"}.get(kind, "0") * length


def _foreign_kind(char: str) -> str:
    if char.isalpha() or unicodedata.category(char).startswith("M"):
        return "letters-beyond"
    return "digits-beyond" if char.isdigit() else ""


def _load(text: str) -> dict[str, Any]:
    try:
        record = json.loads(text)
    except json.JSONDecodeError as error:
        raise TraceError(f"a line is not JSON: {error}") from None
    except (RecursionError, ValueError):
        raise TraceError("a line is no line of a trace: too deep, or too long a number") from None
    if not isinstance(record, dict):
        raise TraceError("a line is not an object")
    return record
