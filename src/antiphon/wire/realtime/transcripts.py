"""Partial transcripts as the protocol wants them: text that is only ever added to.

Our speech to text transcribes an utterance again and again and may change its mind about the last words; a delta cannot
be taken back. So a word is sent once two partial transcripts in a row agree on it and on all before it (LocalAgreement
of Macháček et al. 2023, with n = 2). Knows no event.
"""

from __future__ import annotations


class StableText:
    """Of one item."""

    def __init__(self) -> None:
        self._before: list[str] = []
        self._sent: list[str] = []

    def partial(self, text: str) -> str:
        """-> what may be added now, with its leading space; empty: nothing."""
        words = text.split()
        agreed = 0
        # The last word may still be growing, whatever two transcripts say of it.
        for old, new in zip(self._before, words[:-1], strict=False):
            if old != new:
                break
            agreed += 1
        self._before = words
        if words[: len(self._sent)] != self._sent:
            return ""
        return self._add(words[:agreed])

    def final(self, text: str) -> str:
        """-> the rest, or nothing when an earlier delta turned out wrong: `completed` has the last word."""
        words = text.split()
        if words[: len(self._sent)] != self._sent:
            return ""
        return self._add(words)

    def _add(self, words: list[str]) -> str:
        new = words[len(self._sent) :]
        if not new:
            return ""
        space = " " if self._sent else ""
        self._sent = words
        return space + " ".join(new)
