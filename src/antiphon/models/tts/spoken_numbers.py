"""Numbers in written English as the words that are said: amounts, dates, times, money, measures.

Number words come from `num2words`. Functions of a match take what a rule of `spoken_english` has
found: the groups are named in each rule's pattern there.
"""

from __future__ import annotations

import re
from functools import lru_cache

from antiphon.models.tts.spoken_tables import (
    CURRENCIES,
    IRREGULAR_PLURALS,
    MAGNITUDES,
    MONTHS,
    UNIT_PLURALS,
    UNITS,
)

Match = re.Match[str]

_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_LONGEST_NUMBER = 15
"""Digits; what is longer is an identifier and is read digit by digit."""


# --- numbers ------------------------------------------------------------------------------------


@lru_cache(maxsize=4096)
def _number(digits: str, to: str = "cardinal") -> str:
    from num2words import num2words

    words = str(num2words(int(digits), to=to))
    return words.replace(",", "")


def spell_digits(text: str) -> str:
    """Each digit as a word; groups (anything between digits) are set apart by a comma."""
    groups = re.findall(r"\d+", text)
    return ", ".join(" ".join(_DIGITS[int(digit)] for digit in group) for group in groups)


def say_amount(text: str) -> str:
    """`1,234.5` -> words; leading zeros and very long numbers digit by digit."""
    whole, _, fraction = text.replace(",", "").partition(".")
    if (len(whole) > 1 and whole.startswith("0")) or len(whole) > _LONGEST_NUMBER:
        words = spell_digits(whole)
    else:
        words = _number(whole or "0")
    return f"{words} point {spell_digits(fraction)}" if fraction else words


def plain_number(match: Match) -> str:
    """A number that no other rule took. Seven digits and more that are not round are an identifier."""
    text = match[0]
    long = len(text) >= 7 and text.isdigit() and not text.endswith("000")
    return spell_digits(text) if long else say_amount(text)


def version(match: Match) -> str:
    """`2.0.1`, with `v` before it or not."""
    prefix = "version " if match[1] else ""
    return prefix + " point ".join(say_amount(part) for part in match[2].split("."))


def say_year(text: str) -> str:
    """`1998` -> `nineteen ninety-eight`."""
    return _number(text, "year")


def say_ordinal(text: str) -> str:
    """`1,000` -> `one thousandth`."""
    if len(text) > _LONGEST_NUMBER:
        return spell_digits(text)
    return _number(text.replace(",", ""), "ordinal")


def decade(match: Match) -> str:
    """`1990s`, `80s`."""
    century, tens = match[1] or "", match[2]
    plural = "hundreds" if tens == "00" else re.sub("y$", "ies", _number(tens))
    if century == "20" and tens == "00":
        return "two thousands"
    return f"{_number(century)} {plural}" if century else plural


def fraction(match: Match) -> str:
    """`1/2`, `2 1/2`, `8/10`; what is no fraction keeps its slash as a word."""
    whole, top, bottom = match[1], int(match[2]), int(match[3])
    if not 0 < top < bottom <= 20 or bottom in (10, 11):
        if (top, bottom) == (24, 7):
            return "twenty-four seven"
        if bottom in (10, 100):
            return f"{_number(match[2])} out of {_number(match[3])}"
        separator = " " if (top, bottom) == (9, 11) else " slash "
        return match[0].replace("/", separator)
    name = {2: "half", 4: "quarter"}.get(bottom) or say_ordinal(str(bottom))
    plural = "halves" if name == "half" else name + "s"
    words = f"{_number(str(top))} {name if top == 1 else plural}"
    if not whole:
        return words
    return f"{say_amount(whole)} and {words if top > 1 else 'a ' + name}"


# --- dates and times ----------------------------------------------------------------------------


def _date(year: str, month: str, day: str) -> str | None:
    if not (1 <= int(month) <= 12 and 1 <= int(day) <= 31):
        return None
    return f"{MONTHS[int(month) - 1]} {say_ordinal(day)}, {say_year(year)}"


def iso_date(match: Match) -> str:
    """`2024-03-15`."""
    return _date(match[1], match[2], match[3]) or match[0]


def slash_date(match: Match) -> str:
    """`3/15/2024`, or with the day first where that alone is possible."""
    month, day, year = match[1], match[2], match[3]
    return _date(year, month, day) or _date(year, day, month) or match[0]


def month_day(match: Match) -> str:
    """`March 3rd, 2024`."""
    year = f", {say_year(match[3])}" if match[3] else ""
    return f"{match[1]} {say_ordinal(match[2])}{year}"


def day_month(match: Match) -> str:
    """`3 March 2024`."""
    year = f", {say_year(match[3])}" if match[3] else ""
    return f"the {say_ordinal(match[1])} of {match[2]}{year}"


def clock(match: Match) -> str:
    """Hours, minutes, perhaps seconds and half of the day; else a ratio."""
    hour, minute, second, half = match[1], match[2], match[3], match[4]
    if int(hour) > 24 or int(minute) > 59:
        return f"{say_amount(hour)} to {say_amount(minute)}"
    if minute == "00":
        exact = "hundred" if int(hour) > 12 else "o'clock"
        words = _number(hour) if half else f"{_number(hour)} {exact}"
    else:
        minutes = f"oh {_number(minute)}" if minute.startswith("0") else _number(minute)
        words = f"{_number(hour)} {minutes}"
    if second:
        words += f" and {_number(second)} seconds"
    return words + half_day(half)


def whole_hour(match: Match) -> str:
    """`5pm`."""
    return _number(match[1]) + half_day(match[2])


def half_day(half: str | None) -> str:
    """`p` -> ` P-M`; nothing for None."""
    return f" {half[0].upper()}-M" if half else ""


# --- money and measures -------------------------------------------------------------------------


def _plural(word: str) -> str:
    return IRREGULAR_PLURALS.get(word, word + "s")


def money(match: Match) -> str:
    """`$5.50`, `$5-10`, `$3 million`."""
    return _price(match[1], match[2], match[3], match[4])


def money_after(match: Match) -> str:
    """`20 €`."""
    return _price(match[3], match[1], None, match[2])


def _price(symbol: str, amount: str, upper: str | None, magnitude: str | None) -> str:
    """`symbol`: a key of CURRENCIES; `upper`: the end of a range."""
    unit, small = CURRENCIES[symbol]
    if magnitude or upper:
        scale = f" {MAGNITUDES[magnitude.lower()]}" if magnitude else ""
        limit = f" to {say_amount(upper)}" if upper else ""
        return f"{say_amount(amount)}{limit}{scale} {_plural(unit)}"
    whole, _, cents = amount.replace(",", "").partition(".")
    if len(cents) != 2 or not small:
        return f"{say_amount(amount)} {unit if amount == '1' else _plural(unit)}"
    said = f"{say_amount(whole)} {unit if whole == '1' else _plural(unit)}"
    if cents == "00":
        return said
    coins = f"{_number(cents)} {small if cents == '01' else _plural(small)}"
    return coins if int(whole or "0") == 0 else f"{said} and {coins}"


def measure(match: Match) -> str:
    """A number and a key of UNITS."""
    first, _, rest = UNITS[match[2]].partition(" ")
    unit = f"{first} {rest}".strip()
    if match[1] != "1":
        if first in ("square", "cubic", "kilowatt") and rest:
            unit = f"{first} {rest}s"
        else:
            unit = f"{UNIT_PLURALS.get(first, first + 's')} {rest}".strip()
    return f"{say_amount(match[1])} {unit}"
