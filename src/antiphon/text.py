"""Text that can be carried: by JSON, UTF-8, XML, a log line and a terminal.

Models and remote servers give half characters (one half of a surrogate pair, cut at a token) and control characters;
clients may write them into JSON (`"\\ud83d"`). Nothing that a `str` may hold beyond Unicode's characters goes further
than this module.
"""

from __future__ import annotations

import re
from typing import Any

_BAD = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffe\uffff]+")
_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")
_LONE = re.compile("[\ud800-\udfff]")
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_MAX_DEPTH = 200


def valid_text(text: str) -> str:
    """The text with surrogate pairs joined, lone halves replaced by U+FFFD, and control characters left out.

    Tab, line feed and carriage return stay.
    """
    if (text.isascii() and text.isprintable()) or not _BAD.search(text):
        return text
    return _LONE.sub(_REPLACEMENT, _PAIR.sub(_joined, _CONTROL.sub("", text)))


def valid_json(value: Any) -> Any:
    """A JSON value with every text in it, names included, made valid. Raises RecursionError beyond 200 levels."""
    return _valid_json(value, 0)


class TextJoiner:
    """Makes a stream of text valid, piece by piece: half a pair at the end of a piece waits for its other half."""

    def __init__(self) -> None:
        self._held = ""

    def feed(self, piece: str) -> str:
        if not piece:
            return ""
        if self._held:
            piece, self._held = self._held + piece, ""
        if "\ud800" <= piece[-1] <= "\udbff":
            piece, self._held = piece[:-1], piece[-1]
        return valid_text(piece)

    def flush(self) -> str:
        """At the end: what stands for half a character whose other half never came, or nothing."""
        held, self._held = self._held, ""
        return valid_text(held)


def _joined(pair: re.Match[str]) -> str:
    return pair[0].encode("utf-16-le", "surrogatepass").decode("utf-16-le")


def _valid_json(value: Any, depth: int) -> Any:
    if depth > _MAX_DEPTH:
        raise RecursionError("the JSON value is nested too deeply")
    if isinstance(value, str):
        return valid_text(value)
    if isinstance(value, list):
        return [_valid_json(entry, depth + 1) for entry in value]
    if isinstance(value, dict):
        return {valid_text(str(k)): _valid_json(v, depth + 1) for k, v in value.items()}
    return value
