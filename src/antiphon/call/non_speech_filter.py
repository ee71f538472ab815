"""Is a transcript something that was said, or the name of a sound? Knows no model: labels look alike in all of them."""

from __future__ import annotations

import re

_LABELS = re.compile(r"\[[^\]\d]*\]|\([^)\d]*\)|\*[^*\d]*\*|[♪♫][^♪♫]*[♪♫]?")
"""`[Music]`, `(door closes)`, `*coughs*`, and songs between notes."""


def without_sound_labels(transcript: str) -> str:
    """The transcript, or nothing where it has no words but names of sounds: hold music is not to be answered."""
    text = transcript.strip()
    said = _LABELS.sub(" ", text)
    return text if any(letter.isalnum() for letter in said) else ""
