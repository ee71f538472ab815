"""Partial transcripts that do not flicker: what two of them agree on is only changed when two agree on the change.

After the local agreement of Liu, Spanakis and Niehues, "Low-Latency Sequence-to-Sequence Speech Recognition and
Translation by Partial Hypothesis Selection" (Interspeech 2020), for models that hear a turn anew for each partial.
New words are shown at once all the same.
"""

from __future__ import annotations


class PartialTranscript:
    """The partial transcripts of one utterance, smoothed."""

    def __init__(self) -> None:
        self._before: list[str] = []
        self._agreed: list[str] = []
        self._shown = ""

    def feed(self, partial: str) -> str:
        """The whole transcript so far -> what to show. Case and punctuation do not count as a change."""
        words = partial.split()
        confirmed = words[: _common(self._before, words)]
        self._before = words
        kept = _common(self._agreed, words) == len(self._agreed)
        if kept or len(confirmed) >= len(self._agreed):
            if len(confirmed) >= len(self._agreed):
                self._agreed = confirmed
            self._shown = partial
        return self._shown


def _common(first: list[str], second: list[str]) -> int:
    """Words at the beginning that are the same."""
    for at, (a, b) in enumerate(zip(first, second, strict=False)):
        if _bare(a) != _bare(b):
            return at
    return min(len(first), len(second))


def _bare(word: str) -> str:
    return "".join(character for character in word if character.isalnum()).casefold() or word
