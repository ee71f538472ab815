"""Words and the names of sounds."""

from __future__ import annotations

import pytest

from antiphon.call.non_speech_filter import without_sound_labels

SOUNDS = [
    "",
    " ",
    "...",
    "♪♪",
    "♪ la la la ♪",
    "♪ and I will always",
    "[Music]",
    "(upbeat music)",
    "*coughs*",
    "[BLANK_AUDIO] ♪",
]
WORDS = ["Yes.", "[laughs] all right", "(555) 0100", "(555)", "3", "你好", "¿Qué?"]


@pytest.mark.parametrize("text", SOUNDS)
def test_names_of_sounds(text: str) -> None:
    assert without_sound_labels(text) == ""


@pytest.mark.parametrize("text", WORDS)
def test_words(text: str) -> None:
    assert without_sound_labels(f" {text} ") == text
