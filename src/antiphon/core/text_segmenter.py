"""Streamed text in, speakable segments out: a short first one, then segments at punctuation.

Latency to the first sound is the time to the first segment, so the first is cut after a few whole words; later ones
are cut where a speaker would breathe.
"""

from __future__ import annotations

import re

ABBREVIATIONS = frozenset(
    """mr mrs ms dr prof st jr sr vs etc e.g i.e a.m p.m no vol fig approx dept inc ltd co u.s""".split()
)
_SENTENCE_END = re.compile(r"[.!?…。！？]+[\"')\]”’]*(?=\s)|[。！？]")
_BREATH = re.compile(r"[,;:—–][\"')\]”’]*(?=\s)|\n+")
_MIN_BREATH_CHARS = 24
"""A breath is no place to cut while the segment is shorter than this."""
_MIN_REST_CHARS = 8
_LOOK_AHEAD_CHARS = 64
"""Looked at beyond the longest segment, to see what follows its end."""
_FIRST_BREATH_CHARS = 24
"""A first segment ends at a breath within this much text."""


class TextSegmenter:
    """Feed text as it is generated; take segments as they are ready. One instance per reply."""

    def __init__(self, *, first_words: int, max_chars: int) -> None:
        self._first_words = first_words
        self._max_chars = max(max_chars, 1)
        self._text = ""
        self._first = True

    def feed(self, text: str) -> list[str]:
        """-> segments that are complete now, each stripped and not empty."""
        whole, at = self._text + text, 0
        segments: list[str] = []
        while True:
            # No further than a segment may reach, so that the work grows with the text and not with its square.
            self._text = whole[at : at + self._max_chars + _LOOK_AHEAD_CHARS]
            cut = self._cut()
            if cut is None and len(self._text) > self._max_chars:
                cut = self._max_chars
            if cut is None:
                return segments
            segment = self._text[:cut].strip()
            at += cut
            if _speakable(segment):
                segments.append(segment)
                self._first = False

    def flush(self) -> list[str]:
        """The text is complete -> whatever is left."""
        segments = self.feed("\n")
        rest, self._text = self._text.strip(), ""
        return [*segments, rest] if _speakable(rest) else segments

    def _cut(self) -> int | None:
        text = self._text
        sentence = _sentence_end(text)
        if sentence is not None and sentence <= self._max_chars:
            if self._first and (early := self._first_cut(limit=sentence)) is not None:
                return early
            return sentence
        if self._first and (early := self._first_cut(limit=len(text))) is not None:
            return early
        for match in _BREATH.finditer(text):
            end = match.end()
            if end > self._max_chars:
                break
            if end >= _MIN_BREATH_CHARS and not _inside_number(text, match.start()):
                return end
        if len(text) > self._max_chars:
            space = text.rfind(" ", _MIN_BREATH_CHARS, self._max_chars)
            return space + 1 if space > 0 else self._max_chars
        return None

    def _first_cut(self, limit: int) -> int | None:
        """End of the first few words, when they are followed by enough to make the rest a segment of its own."""
        if not self._first_words:
            return None
        head = self._text[:limit]
        start = len(head) - len(head.lstrip())
        ends = [m.end() for m in re.finditer(r"\S+", head) if m.end() < len(head)]
        breath = _BREATH.search(head)
        if breath is not None and start < breath.end() <= start + _FIRST_BREATH_CHARS:
            cut = breath.end()  # "Sure, " is a segment of its own: the voice starts with it
        elif len(ends) >= self._first_words:
            cut = ends[self._first_words - 1]
        else:
            return None
        rest = self._text[cut:limit].strip()
        # A last word alone would be said in a breath of its own; better one segment of four words than three and one.
        return cut if len(rest) >= _MIN_REST_CHARS or limit == len(self._text) else None


def _sentence_end(text: str) -> int | None:
    for match in _SENTENCE_END.finditer(text):
        word = text[: match.start()].rsplit(None, 1)[-1:] or [""]
        bare = word[0].lower().lstrip("(\"'“‘")
        if match.group().startswith(".") and (bare in ABBREVIATIONS or _initial(bare)):
            continue
        if match.group().startswith(".") and bare.isdigit() and _list_number(text, match.start()):
            continue
        return match.end()
    return None


def _initial(word: str) -> bool:
    return len(word) == 1 and word.isalpha() and word != "i"


def _list_number(text: str, position: int) -> bool:
    """`1.` at the start of a line is a list's number, not the end of a sentence."""
    line = text[:position].rsplit("\n", 1)[-1].strip()
    return line.isdigit()


def _inside_number(text: str, position: int) -> bool:
    return (
        0 < position < len(text) - 1
        and text[position - 1].isdigit()
        and text[position + 1].isdigit()
    )


def _speakable(text: str) -> bool:
    return any(ch.isalnum() for ch in text)
