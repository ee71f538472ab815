"""Text as a language model writes it -> text that a voice can say.

Markup, emoji and control characters go for every language; numbers, dates, addresses and symbols
become words where their rules are known (English). Does not know phonemes or voices.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

from antiphon.models.tts.spoken_english import speak_english

_LONGEST_PIECE = 2_000
"""Characters that are looked at together: the work grows with the text and not with its square."""
_LONGEST_WORD = 200
"""Characters without a space; what is longer is no word and no address, and is read in parts."""
_LONGEST_SENTENCE = 300
"""Characters: what is longer is cut at a comma or a space, so that no synthesis runs for seconds.
"""


def normalise(text: str, language: str = "en") -> str:
    """Any text -> one line of speakable text; empty when there is nothing to say.

    `language`: ISO 639-1. Other languages than English only lose markup, emoji and control
    characters.
    """
    english = language.partition("-")[0].lower() == "en"
    pieces = (_normalise(piece, english) for piece in _pieces(text))
    return " ".join(piece for piece in pieces if piece)


def _normalise(text: str, english: bool) -> str:
    text = strip_markup(_plain_characters(_LONG_WORD.sub(r"\g<0> ", text)))
    text = _DRAWN_OUT.sub(r"\1\1\1\1", text)
    if english:
        text = speak_english(text)
    return _NO_WORD.sub(r"\g<0> ", _tidy(text))


def _pieces(text: str) -> Iterator[str]:
    """Cut at a line's or a word's end, where there is one."""
    at = 0
    while len(text) - at > _LONGEST_PIECE:
        until = at + _LONGEST_PIECE
        cut = max(text.rfind(mark, at + _LONGEST_PIECE // 2, until) for mark in ("\n", " ")) + 1
        yield text[at : cut or until]
        at = cut or until
    yield text[at:]


def split_sentences(text: str) -> list[str]:
    """One line of normalised text -> its sentences, each of at most 300 characters."""
    sentences: list[str] = []
    for sentence in _SENTENCE_END.split(text):
        rest = sentence.strip()
        while len(rest) > _LONGEST_SENTENCE:
            window = rest[:_LONGEST_SENTENCE]
            cut = max(window.rfind(mark) for mark in (", ", "; ", ": ")) + 1
            cut = cut if cut > _LONGEST_SENTENCE // 3 else window.rfind(" ")
            cut = cut if cut > 0 else _LONGEST_SENTENCE
            sentences.append(rest[:cut].strip())
            rest = rest[cut:].strip()
        if rest:
            sentences.append(rest)
    return sentences


def strip_markup(text: str) -> str:
    """Markdown and HTML tags -> their text; lines of lists and headings become sentences."""
    if not _MARKUP_SIGN.search(text):
        return text
    for pattern, replacement in _MARKUP:
        text = pattern.sub(replacement, text)
    return text


def _plain_characters(text: str) -> str:
    text = unicodedata.normalize("NFC", text).translate(_CHARACTERS)
    text = _SPACES.sub(" ", _UNSPEAKABLE.sub(" ", text))
    return _BLANK_LINES.sub("\n\n", text)


def _tidy(text: str) -> str:
    for pattern, replacement in _TIDY:
        text = pattern.sub(replacement, text)
    return text.strip()


_CHARACTERS = str.maketrans(
    {
        "‘": "'",
        "’": "'",
        "“": '"',
        "”": '"',
        "…": "...",
        "½": " 1/2",
        "¼": " 1/4",
        "¾": " 3/4",
        "⅓": " 1/3",
        "⅔": " 2/3",
        "\u00a0": " ",
        "\u202f": " ",
        "•": "-",
        "™": "",
        "®": "",
        "\u00ad": "",
        "μ": "µ",
        "\ufe0f": "",
        "\u200b": "",
        "\u200d": "",
    }
)
_UNSPEAKABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff0-\uffff"
    "\u20e3\u2191-\u21ff\u2300-\u27bf\u2900-\u297f\u2b00-\u2bff\U0001f000-\U0001faff\U000e0000-\U000e007f]+"
)

_LONG_WORD = re.compile(rf"\S{{{_LONGEST_WORD}}}(?=\S)")
_DRAWN_OUT = re.compile(r"([^\W\d_])\1{4,}")
"""`Nooooooo`: four letters of a kind say as much."""
_NO_WORD = re.compile(r"[A-Za-z\u00c0-\u024f'-]{60}(?=[A-Za-z\u00c0-\u024f'-])")
"""Phonemisers need seconds for such a one."""
_SPACES = re.compile(r"[ \t]+")
_BLANK_LINES = re.compile(r"\n ?(?:\n ?)+")
_SENTENCE_END = re.compile(r"(?<=[.!?])(?<!\b[A-Z]\.)[\"')]*\s+(?=\S)")
"""Not after an initial: "J. K. Rowling"."""

_LINE = re.MULTILINE
_MARKUP_SIGN = re.compile(r"[*_`#>|~<\[\n]|[:;]-?[()DP]|^\s*(?:[-+]|\d{1,2}[.)]) ")
_MARKUP: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"^[ \t]*(?:```|~~~).*$", _LINE), ""),
    (re.compile(r"!?\[([^\]]{0,500})\]\([^)]{0,2000}\)"), r"\1"),
    (re.compile(r"<(https?://[^>\s]+)>"), r"\1"),
    (re.compile(r"</?[A-Za-z][^<>]*>|<!--[^>]*-->"), " "),
    (re.compile(r"^[ \t]*(?:[-*_] ?){3,}[ \t]*$", _LINE), ""),
    (re.compile(r"^[ \t]*\|?(?:[ \t]*:?-{2,}:?[ \t]*\|)+[ \t]*:?-*:?[ \t]*$", _LINE), ""),
    (re.compile(r"^[ \t]*\|(.*)\|[ \t]*$", _LINE), r"- \1"),
    (re.compile(r"^[ \t]*(?:#{1,6}|>+)[ \t]+(.*?)[ \t]*#*$", _LINE), r"- \1"),
    # A line of a list or a heading is a sentence, even without its full stop.
    (
        re.compile(
            r"^[ \t]*(?:[-*+](?=\s)|(?=\d{1,2}[.)]\s))[ \t]*(?=\S)(.*[^\s.!?:,;])[ \t]*(?=\n)",
            _LINE,
        ),
        r"\1.",
    ),
    (re.compile(r"^[ \t]*(\d{1,2})[.)][ \t]+(?=\S)", _LINE), r"\1, "),
    (re.compile(r"^[ \t]*[-*+][ \t]+(?=\S)", _LINE), ""),
    (re.compile(r"(?<=[^\s.!?:,;])[ \t]*\n[ \t]*\n"), ".\n"),
    (re.compile(r"(?<!\w)(\*{1,3}|_{1,3})(?=\S)(.+?)(?<=\S)\1(?!\w)"), r"\2"),
    (re.compile(r"\*\*(?=\S)|(?<=\S)\*\*|(?<![\s\d])\*|\*(?=[A-Za-z])"), ""),
    (re.compile(r"~~|`+"), ""),
    (re.compile(r"(?<!\w)[:;]-?[()DP](?!\w)"), ""),
    (re.compile(r" ?\| ?(?=\S)"), ", "),
)
_TIDY: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"\s+"), " "),
    (re.compile(r"\s+(?=[,.;:!?)])"), ""),
    (re.compile(r"([,;:])(?:\s*[,;:])+"), r"\1"),
    (re.compile(r",+(?=[.!?])"), ""),
    (re.compile(r"\(\s*\)|\"\s*\""), ""),
    (re.compile(r"^[\s,;:]+"), ""),
)
