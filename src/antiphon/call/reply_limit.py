"""How long a reply may become: a model that does not stop must not be listened to for ever."""

from __future__ import annotations

import re

_ROOM_CHARS = 500
"""Before the limit, within which the end of a sentence ends the reply."""
_SENTENCE_END = re.compile(r"[.!?…]+[\"')\]”’]*(?=\s)|[。！？]")


class ReplyLimit:
    """The text of one reply, piece by piece, up to `max_chars`; 0: no limit.

    The reply ends with the first sentence that ends in the last 500 characters of that, else with a word.
    """

    def __init__(self, max_chars: int) -> None:
        self._max_chars = max_chars
        self._taken = 0
        self.reached = False
        """The reply has ended: nothing more is taken."""

    def take(self, piece: str) -> str:
        """-> as much of the piece as belongs to the reply."""
        if self.reached:
            return ""
        before, self._taken = self._taken, self._taken + len(piece)
        soft = max(self._max_chars - _ROOM_CHARS, self._max_chars // 2)
        if not self._max_chars or self._taken <= soft:
            return piece
        end = _SENTENCE_END.search(piece, max(soft - before, 0))
        if end is not None and before + end.end() <= self._max_chars:
            self.reached = True
            return piece[: end.end()]
        if self._taken < self._max_chars:
            return piece
        self.reached = True
        room = self._max_chars - before
        word = piece.rfind(" ", 0, room)
        return piece[: word if word > 0 else room]
