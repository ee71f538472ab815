"""Written English to spoken English: the patterns of numbers, dates, money, addresses and symbols.

Every rule is a regular expression compiled once and a function
of its match; they run in the order of `_RULES`, and what a rule has written is plain words for
those after it.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from antiphon.models.tts.spoken_numbers import (
    clock,
    day_month,
    decade,
    fraction,
    half_day,
    iso_date,
    measure,
    money,
    money_after,
    month_day,
    plain_number,
    say_amount,
    say_ordinal,
    say_year,
    slash_date,
    spell_digits,
    version,
    whole_hour,
)
from antiphon.models.tts.spoken_tables import (
    ABBREVIATIONS,
    MONTHS,
    SHOUTED,
    SPOKEN_AS_WORDS,
    SPOKEN_LIKE,
    SYMBOLS,
    TOP_LEVEL_DOMAINS,
    UNITS,
)

Match = re.Match[str]


def speak_english(text: str) -> str:
    """Text without markup -> the words to say, with the punctuation that shapes them."""
    has_digit = any("0" <= character <= "9" for character in text)
    text = _unshout(text)
    for needs_digit, pattern, replace in _RULES:
        if has_digit or not needs_digit:
            text = pattern.sub(replace, text)
    return text


# --- addresses and letters ----------------------------------------------------------------------

_MARKS = {".": "dot", "@": "at", "-": "dash", "_": "underscore", "+": "plus", "/": "slash"}
_MARKS |= {":": "colon", "~": "tilde", "#": "hash", "%": "percent", "=": "equals", "&": "and"}


def spell_letters(text: str) -> str:
    """`gpu` -> `G-P-U`: hyphens keep the letters together and keep `A` from being an article."""
    return "-".join(text.upper())


def _address_part(part: str) -> str:
    if part.isdigit():
        return spell_digits(part)
    if part in _MARKS:
        return _MARKS[part]
    vowels = any(letter in "aeiouy" for letter in part.lower())
    return part if (vowels and len(part) > 2) or part in ("co", "me") else spell_letters(part)


def speak_address(text: str) -> str:
    """An e-mail address or a URL without scheme, mark by mark."""
    parts = re.findall(r"\d+|[A-Za-z\u00c0-\u024f]+|[.@_+/:~#%=&-]", text)
    return " ".join(_address_part(part) for part in parts)


def _url(match: Match) -> str:
    return speak_address(match[1].rstrip("/"))


def _abbreviation(match: Match) -> str:
    spoken = ABBREVIATIONS[match[1].lower()]
    return spoken + ("." if match.end() == len(match.string) else "")


def _dotted(match: Match) -> str:
    """`U.S.A.` -> `U-S-A`; at the end of the text its full stop also ends the sentence."""
    letters = spell_letters(match[0].replace(".", ""))
    return letters + ("." if match.end() == len(match.string) else "")


def _acronym(match: Match) -> str:
    word, plural = match[1], match[2] or ""
    after = " " if match[3] else ""
    if word in SPOKEN_AS_WORDS or word in SHOUTED or len(word) > 5:
        return word.capitalize() + plural + after
    return spell_letters(word) + ("'s" if plural else "") + after


def _joined_letters(match: Match) -> str:
    """`AT&T`, `Q&A`."""
    sides = ("ay" if side == "A" else spell_letters(side) for side in match.groups())
    return " and ".join(sides)


def _unshout(text: str) -> str:
    """Text all in capitals, of three words or more, is shouting: no acronyms can be told in it."""
    if text.isupper() and len(text.split()) >= 3:
        return text.capitalize()
    return text


def _mixed(match: Match) -> str:
    """Letters and digits in one token: `MP3`, `4K`, `H264`, `B12`."""
    parts = re.findall(r"\d+|[A-Za-z]+", match[0])
    said = []
    for part in parts:
        if part.isdigit():
            said.append(say_amount(part) if len(part) <= 2 else spell_digits(part))
        else:
            short = len(part) <= 3 or part.isupper()
            said.append(spell_letters(part) if short else part)
    return " ".join(said)


# --- the rules, in order ------------------------------------------------------------------------

_NUM = r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?"
_CURRENCY_SIGN = r"[$€£¥₹]"
_MAGNITUDE = r"(thousand|million|billion|trillion|[kKMBT]|bn|mn|tn)"
_MONTH = f"({'|'.join(MONTHS)})"
# The last stop of "p.m." stays where it also ends a sentence.
_HALF = r"([aApP])(?:[mM]\b|\.[mM]\b(?:\.(?!\s+[A-Z]|\s*$))?)"
_UNIT = "|".join(re.escape(unit) for unit in sorted(UNITS, key=len, reverse=True))
_ABBREVIATED = "|".join(re.escape(a) for a in sorted(ABBREVIATIONS, key=len, reverse=True))
_CUE = r"(in|since|from|until|till|year|before|after|during|circa|early|late)"

_Replace = str | Callable[[Match], str]


def _rule(needs_digit: bool, pattern: str, replace: _Replace, flags: int = 0) -> _RuleType:
    return needs_digit, re.compile(pattern, flags), replace


_RuleType = tuple[bool, re.Pattern[str], _Replace]

_I = re.IGNORECASE
_RULES: tuple[_RuleType, ...] = (
    # Addresses first: their dots and dashes mean something else than elsewhere.
    _rule(False, r"(?<![\w.+-])[\w.+-]+@[\w-]+(?:\.[\w-]+)+", lambda m: speak_address(m[0])),
    _rule(False, r"https?://(?:www\.)?([^\s<>()\"'?]*[\w/])(?:\?[^\s<>()\"']*\w)?", _url, _I),
    _rule(
        False,
        rf"(?<![\w.-])(?:www\.)?((?:[a-z0-9-]+\.)+(?:{TOP_LEVEL_DOMAINS})(?:/[\w./~-]*[\w/])?)(?![\w@])",
        _url,
    ),
    _rule(False, rf"\b({_ABBREVIATED})\.(?=\W|$)", _abbreviation, _I),
    _rule(True, r"\b[Nn]o\. ?(?=\d)", "number "),
    _rule(True, r"\bp(p?)\. ?(?=\d)", lambda m: "pages " if m[1] else "page "),
    _rule(False, r"\bSt\. (?=[A-Z])", "Saint "),
    _rule(False, r"(?<=[a-z]) St\.", " Street"),
    _rule(False, r"\b(?:[A-Z]\.){2,}", _dotted),
    # Dates and times.
    _rule(True, r"\b(\d{4})-(\d{2})-(\d{2})\b", iso_date),
    _rule(True, r"\b(\d{1,2})/(\d{1,2})/(\d{4})\b", slash_date),
    _rule(
        True, rf"\b{_MONTH} (\d{{1,2}})(?:st|nd|rd|th)?\b(?!:)(?:,? ([12]\d{{3}})\b)?", month_day
    ),
    _rule(
        True,
        rf"\b(?:the )?(\d{{1,2}})(?:st|nd|rd|th)?(?: of)? {_MONTH}\b(?:,? ([12]\d{{3}})\b)?",
        day_month,
    ),
    _rule(True, r"(?<=[\dmM]) ?[-–—] ?(?=\d{1,2}(?::\d\d| ?[aApP]\.?[mM]\b))", " to "),
    _rule(True, rf"(?<![\d.])(\d{{1,2}}):(\d{{2}})(?::(\d{{2}}))?(?:\s*{_HALF})?(?!\d)", clock),
    _rule(True, rf"(?<![\d.])(\d{{1,2}})\.(\d{{2}})()\s*{_HALF}", clock),
    _rule(True, rf"\b(\d{{1,2}})\s*{_HALF}", whole_hour),
    _rule(False, r"\b([aApP])\.[mM]\b\.?", lambda m: half_day(m[1]).strip()),
    _rule(True, r"\b(\d+):(\d+)\b", lambda m: f"{say_amount(m[1])} to {say_amount(m[2])}"),
    # Telephone numbers and other grouped digits.
    _rule(
        True,
        r"\+\d{1,3}(?:[ .-]?\(?\d{2,4}\)?){2,5}\b",
        lambda m: "plus " + spell_digits(m[0]),
    ),
    _rule(
        True,
        r"(?:\b1[ .-])?(?:\(\d{3}\) ?|\b\d{3}[ .-])\d{3}[ .-]\d{4}\b",
        lambda m: spell_digits(m[0]),
    ),
    _rule(True, r"\b\d{3}-\d{4}\b|\b\d{3,4}(?:[ -]\d{3,4}){2,}\b", lambda m: spell_digits(m[0])),
    _rule(True, r"\b\d{1,2}(?:-\d{1,2}){2,}\b", lambda m: m[0].replace("-", ", ")),
    # Money, percentages, measures.
    _rule(
        True,
        rf"(?:\bUS)?({_CURRENCY_SIGN}) ?({_NUM})(?: ?[-–] ?{_CURRENCY_SIGN}?({_NUM}))?"
        rf"(?: ?{_MAGNITUDE}\b)?",
        money,
    ),
    _rule(
        True,
        rf"\b({_NUM})(?: {_MAGNITUDE})? ?([$€£¥₹](?!\d)|USD\b|EUR\b|GBP\b|JPY\b|CHF\b)",
        money_after,
    ),
    _rule(True, r"\b(1[89]|20|)(\d0)s\b", decade),
    _rule(True, rf"(?<![\w.])[-−](?=(?:{_NUM}))", "minus "),
    _rule(True, r"(?<=\d) ?[-−] ?(?=\d+ ?=)", " minus "),
    _rule(True, r"(?<=\d) ?[-–—] ?(?=\d+(?:[.,]\d+)*(?![\w-]| ?-\d)|\d+ ?(?:%|°|km|kg))", " to "),
    _rule(True, rf"\b({_NUM}) ?({_UNIT})(?![\w²³/])", measure),
    # Numbers.
    _rule(
        True,
        r"(?<![\d,])(\d{1,15}(?:,\d{3}){0,4})(?:st|nd|rd|th)\b",
        lambda m: say_ordinal(m[1]),
        _I,
    ),
    _rule(True, r"(?:\b(\d+) )?(?<![\d/])(\d{1,3})/(\d{1,3})\b(?!/)", fraction),
    _rule(
        True,
        r"\b([vV])?(\d+(?:\.\d+){2,})\b|\b([vV])(?=\d)",
        lambda m: version(m) if m[2] else "version ",
    ),
    _rule(True, r"#(?=\d)", "number "),
    _rule(True, r"(?<=\d)'(?=\d{1,2}(?:\"|\b))(\d+)\"?", r" foot \1"),
    _rule(True, r"(?<=\d) ?[*] ?(?=\d)", " times "),
    _rule(True, r"(?<=\d) ?[xX] ?(?=\d)", " by "),
    _rule(True, r"(?<=\d) 000\b", ",000"),
    _rule(True, rf"\b{_CUE} (1[0-8]\d\d)\b(?![,.]\d)", lambda m: f"{m[1]} {say_year(m[2])}", _I),
    _rule(True, r"(?<![\d,.])((?:19|20)\d\d)(?![\d\w]|[,.]\d)", lambda m: say_year(m[1])),
    _rule(True, r"\b(?=\w*[A-Za-z])(?=\w*\d)[A-Za-z0-9]+\b", _mixed),
    _rule(True, rf"\.\d+|{_NUM}", plain_number),
    # Symbols.
    _rule(False, r"\b([A-Z]{1,3}) ?& ?([A-Z]{1,3})\b", _joined_letters),
    _rule(False, r"\b([A-G])#", r"\1 sharp"),
    _rule(False, r"\+", " plus "),
    _rule(False, r"\band/or\b", "and or"),
    _rule(False, r"\bw/o\b", "without"),
    _rule(False, r"\bw/(?=\s|\w)", "with "),
    _rule(False, r"(?<=\w) ?/ ?(?=\w)", " slash "),
    _rule(False, r"#(?=[A-Za-z])", "hashtag "),
    _rule(False, r"@", " at "),
    _rule(False, r"[&=×÷≈~±≤≥<>→%°©§µπΩ\\^$€£]", lambda m: SYMBOLS[m[0]]),
    _rule(False, r"(?<=[a-z])\.(?=[a-z])", " dot "),
    _rule(False, r"\s+[-–—]+\s+|\s*(?:—|--)\s*|(?<=[a-z])–(?=[a-z])", ", "),
    _rule(False, r"[_|{}\[\]*`#/¥₹−–]", " "),
    # Letters.
    _rule(
        False,
        r"\b(?:" + "|".join(map(re.escape, SPOKEN_LIKE)) + r")\b",
        lambda m: SPOKEN_LIKE[m[0]],
    ),
    _rule(False, r"(?<![\w'])(?<![A-Z]-)([A-Z]{2,})(s|'s)?(?!\w|-[A-Z]\b)(-(?=[a-z]))?", _acronym),
    _rule(
        False, r"\b(plan|option|vitamin|group|grade|team|class|type|gate|answer) A\b", r"\1 ay", _I
    ),
    _rule(False, r"(?<!\w)([^\W\d_]*[\u0370-\U0010ffff][^\W\d_]*)(?!\w)", ""),
)
