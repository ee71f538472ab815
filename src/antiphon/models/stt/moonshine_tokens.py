"""Moonshine's vocabulary: token ids to text.

Source of the file format: moonshine-ai/moonshine, `tokenizer.bin`: for each id in order a length
(one byte below 128, else two: low seven bits, then the rest) and that many bytes. `▁` stands for a
space. Does not know the model.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from antiphon.errors import ModelError

START, END = 1, 2
_FIRST_TEXT_ID = 3
_SPACE = "▁".encode()


class Vocabulary:
    """The pieces of text that token ids stand for."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = pieces

    @classmethod
    def read(cls, path: Path) -> Vocabulary:
        """Raises ModelError when the file is not a vocabulary."""
        try:
            pieces = _split(path.read_bytes())
        except (OSError, IndexError) as error:
            raise ModelError(
                f"{path.name} is not a Moonshine vocabulary; fetch it again: antiphon models pull"
            ) from error
        if pieces[START : END + 1] != [b"<s>", b"</s>"]:
            raise ModelError(
                f"{path.name} is not a Moonshine vocabulary; fetch it again: antiphon models pull"
            )
        return cls(pieces)

    def __len__(self) -> int:
        return len(self._pieces)

    def text(self, ids: Iterable[int]) -> str:
        """Ids -> text without the space at either end. Control tokens (`<s>`, `<<ST_7>>`) say
        nothing.
        """
        known = (self._pieces[i] for i in ids if _FIRST_TEXT_ID <= i < len(self._pieces))
        joined = b"".join(piece for piece in known if not piece.startswith(b"<<ST_"))
        return joined.replace(_SPACE, b" ").decode("utf-8", errors="ignore").strip()


def _split(data: bytes) -> list[bytes]:
    pieces: list[bytes] = []
    at = 0
    while at < len(data):
        length = data[at]
        at += 1
        if length >= 128:
            length += (data[at] - 1) * 128
            at += 1
        if at + length > len(data):
            raise IndexError("the last piece is cut off")
        pieces.append(data[at : at + length])
        at += length
    return pieces
