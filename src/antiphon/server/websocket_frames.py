"""Where the frames of a websocket begin and end (RFC 6455), read from their headers alone.

For counting and refusing frames before anybody parses them: payloads are neither unmasked nor kept. What is wrong in
other ways is for the parser behind it to find.
"""

from __future__ import annotations

_CONTINUATION, _CLOSE = 0, 8
_MAX_CONTROL_BYTES = 125

PROTOCOL_ERROR, POLICY, TOO_BIG = 1002, 1008, 1009


class FrameRefused(Exception):
    """The connection is to be closed with this code and reason."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class FrameScanner:
    """One direction of one websocket."""

    __slots__ = (
        "_ends_message",
        "_fragments",
        "_left_bytes",
        "_size_bytes",
        "max_bytes",
        "max_fragments",
    )

    def __init__(self, max_bytes: int, max_fragments: int) -> None:
        """`max_bytes`: of a message, over all its fragments."""
        self.max_bytes = max_bytes
        self.max_fragments = max_fragments
        self._left_bytes = 0
        """Of the payload of the frame that is passing."""
        self._ends_message = False
        self._size_bytes = 0
        self._fragments = 0

    def scan(self, data: bytes, at: int, frames: int) -> tuple[int, int, bool]:
        """From `at` over at most so many frames, or to the end of a message -> (end, frames begun, a message ended).

        `end` == `at`: not even a header is there. Raises FrameRefused as soon as a header says that its frame is too
        much.
        """
        begun, size = 0, len(data)
        while at < size:
            if not self._left_bytes:
                if begun == frames:
                    break
                header = self._header(data, at, size)
                if not header:
                    break
                begun += 1
                at += header
            passing = min(self._left_bytes, size - at)
            at += passing
            self._left_bytes -= passing
            if not self._left_bytes and self._ends_message:
                self._ends_message = False
                return at, begun, True
        return at, begun, False

    def _header(self, data: bytes, at: int, size: int) -> int:
        """-> its length in bytes; 0: it is not all there."""
        if size - at < 2:
            return 0
        first, second = data[at], data[at + 1]
        length, header = second & 0x7F, 2
        if length > 125:
            header = 4 if length == 126 else 10
        whole = header + (4 if second & 0x80 else 0)
        if size - at < header:
            return 0
        if header > 2:
            length = int.from_bytes(data[at + 2 : at + header], "big")
        opcode, final = first & 0x0F, bool(first & 0x80)
        if opcode >= _CLOSE:
            self._check_control(length)
        else:
            self._check_data(opcode, length, final)
        if size - at < whole:
            return 0
        if opcode < _CLOSE:
            self._note_data(opcode, length, final)
        self._left_bytes = length
        return whole

    def _check_control(self, length: int) -> None:
        if length > _MAX_CONTROL_BYTES:
            raise FrameRefused(PROTOCOL_ERROR, "control frame too long")

    def _check_data(self, opcode: int, length: int, final: bool) -> None:
        before = self._size_bytes if opcode == _CONTINUATION else 0
        if before + length > self.max_bytes:
            raise FrameRefused(TOO_BIG, f"a message has at most {self.max_bytes} bytes here")
        if opcode == _CONTINUATION and not final and self._fragments >= self.max_fragments:
            raise FrameRefused(POLICY, f"a message has at most {self.max_fragments} fragments")

    def _note_data(self, opcode: int, length: int, final: bool) -> None:
        if opcode != _CONTINUATION:
            self._size_bytes, self._fragments = 0, 0
        self._size_bytes += length
        self._fragments += 1
        self._ends_message = final
