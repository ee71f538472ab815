"""Text that JSON, UTF-8 and a terminal can carry, whatever a model gives."""

from __future__ import annotations

import pytest

from antiphon.text import TextJoiner, valid_json, valid_text

HIGH, LOW, EMOJI, BAD = "\ud83d", "\ude00", "\U0001f600", "\N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        ("plain", "plain"),
        ("Grüße, 你好 " + EMOJI, "Grüße, 你好 " + EMOJI),
        (HIGH + LOW, EMOJI),
        ("a" + HIGH, "a" + BAD),
        (LOW + "b", BAD + "b"),
        (LOW + HIGH, BAD + BAD),
        ("nul\x00, bell\x07, escape\x1b[31m", "nul, bell, escape[31m"),
        ("tab\t, line\n, return\r", "tab\t, line\n, return\r"),
        ("\x7f\x9b\ufffe\uffff", ""),
        ("", ""),
    ],
)
def test_any_text_becomes_valid(text: str, valid: str) -> None:
    assert valid_text(text) == valid
    valid_text(text).encode()


@pytest.mark.parametrize(
    ("pieces", "joined"),
    [
        (("a" + HIGH, LOW + "b"), ["a", EMOJI + "b", ""]),
        ((HIGH, LOW), ["", EMOJI, ""]),
        ((HIGH, "x"), ["", BAD + "x", ""]),
        ((HIGH, "", LOW), ["", "", EMOJI, ""]),
        ((HIGH,), ["", BAD]),
        ((LOW,), [BAD, ""]),
        ((HIGH, HIGH, LOW), ["", BAD, EMOJI, ""]),
    ],
)
def test_halves_in_two_pieces_are_joined(pieces: tuple[str, ...], joined: list[str]) -> None:
    joiner = TextJoiner()
    assert [*(joiner.feed(piece) for piece in pieces), joiner.flush()] == joined


def test_every_text_in_a_json_value() -> None:
    value = {"a" + HIGH: [1, None, {"b": "\x00" + LOW}]}
    assert valid_json(value) == {"a" + BAD: [1, None, {"b": BAD}]}
