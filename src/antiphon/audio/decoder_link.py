"""Messages between this process and a decoder process: a kind, a length, a body, over a Unix socket."""

from __future__ import annotations

import socket
import struct
from enum import Enum
from typing import BinaryIO

_HEADER = struct.Struct(">cI")
MAX_BODY_BYTES = 64 << 20
"""Longest body that is taken."""
WANTED = struct.Struct(">QI")
"""Where in the file, and how many bytes at most."""


class MessageKind(Enum):
    """What a message means. The body is text in JSON or UTF-8 where no bytes are meant."""

    JOB = b"J"
    """To a decoder: what is to be decoded, as JSON."""
    DATA = b"D"
    """To a decoder: the next bytes of the recording, or those of the file that it asked for, empty at its end."""
    READ = b"Q"
    """From a decoder: it wants bytes of the file; see `WANTED`."""
    START = b"S"
    """To a decoder: a recording begins; the body is FFmpeg's name of the container."""
    WHOLE = b"W"
    """To a decoder: as `START`, and the next `DATA` is all of the recording."""
    END = b"E"
    """To a decoder: nothing more will come."""
    PCM = b"P"
    """From a decoder: int16 mono, little-endian."""
    FACTS = b"F"
    """From a decoder, as its last word on a file: what the file was, as JSON."""
    REFUSED = b"R"
    """From a decoder: what is wrong with the audio, as a line for the user."""
    MEMORY = b"M"
    """From a decoder: the audio wants more memory than it may take."""
    DIED = b"X"
    """About a decoder, from the process that forked it: the number of the signal that ended it, 0 if none did."""


def pack(kind: MessageKind, body: bytes = b"") -> bytes:
    return _HEADER.pack(kind.value, len(body)) + body


def send(connection: socket.socket, kind: MessageKind, body: bytes = b"") -> None:
    """Raises OSError when the other side is gone."""
    connection.sendall(pack(kind, body))


def receive(stream: BinaryIO) -> tuple[MessageKind, bytes] | None:
    """The next message; None when the other side is gone, also in the middle of one. Raises OSError."""
    head = stream.read(_HEADER.size)
    if len(head) < _HEADER.size:
        return None
    letter, length = _HEADER.unpack(head)
    if length > MAX_BODY_BYTES:
        raise ConnectionError(f"a message of {length} bytes between decoder processes")
    body = stream.read(length)
    return (MessageKind(letter), body) if len(body) == length else None
