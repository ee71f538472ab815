"""RFC 6455 over the real server: how frames in every order end a connection, as Autobahn's test suite asks it.

The numbers are those of its cases: 2 control frames, 3 reserved bits, 4 opcodes, 5 fragments, 6 UTF-8, 7 the close.
The echo that Autobahn wants is the talk protocol's answer to `{"type": "ping"}`.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from tests.security.strangers import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Line,
    frame,
    frames_of,
    socket,
)
from tests.server.support import serving
from tests.support import run

ASK = b'{"type": "ping"}'
HANG_UP = frame(CLOSE, (1000).to_bytes(2, "big"))


def close(code: int, reason: bytes = b"") -> bytes:
    return frame(CLOSE, code.to_bytes(2, "big") + reason)


def split(payload: bytes, *more: bytes) -> bytes:
    """A text in two fragments, and what comes between them."""
    middle = len(payload) // 2
    first = frame(TEXT, payload[:middle], final=False)
    return first + b"".join(more) + frame(CONTINUATION, payload[middle:])


CLOSED_WITH = {
    "2.5 ping of 126 bytes": (frame(PING, bytes(126)), 1002),
    "2.5 pong of 64 KiB": (frame(PONG, bytes(100), length=65_536), 1002),
    "3.2 RSV3": (bytes([0x91]) + frame(TEXT, ASK)[1:], 1002),
    "3.4 RSV1": (bytes([0xC1]) + frame(TEXT, ASK)[1:], 1002),
    "4.1.1 opcode 3": (bytes([0x83]) + frame(TEXT, b"")[1:], 1002),
    "4.2.1 opcode 11": (bytes([0x8B]) + frame(TEXT, b"")[1:], 1002),
    "unmasked": (b"\x81\x02hi", 1002),
    "5.1 a ping in two fragments": (frame(PING, b"a", final=False), 1002),
    "5.2 a pong in two fragments": (frame(PONG, b"a", final=False), 1002),
    "5.9 a continuation of nothing": (frame(CONTINUATION, ASK), 1002),
    "5.11 the same, unfinished": (frame(CONTINUATION, ASK, final=False), 1002),
    "5.18 a text within a text": (frame(TEXT, b"{", final=False) + frame(TEXT, b"}"), 1002),
    "a binary within a text": (frame(TEXT, b"{", final=False) + frame(BINARY, b"}"), 1002),
    "6.3.1 invalid UTF-8": (frame(TEXT, b"\xce\xba\xe1\xbd\xb9\xed\xa0\x80edited"), 1007),
    "6.3.2 invalid over fragments": (split(b"\xce\xba\xed\xa0\x80ed"), 1007),
    "6.4.1 above U+10FFFF": (split(b"\xf4\x90\x80\x80"), 1007),
    "6.6 a letter that does not end": (frame(TEXT, b"\xce"), 1007),
    "6.8 overlong": (frame(TEXT, b"\xc0\x80"), 1007),
    "7.1.1 a close": (HANG_UP, 1000),
    "7.1.2 two closes": (HANG_UP + HANG_UP, 1000),
    "7.1.3 a ping after the close": (HANG_UP + frame(PING), 1000),
    "7.1.4 a text after the close": (HANG_UP + frame(TEXT, ASK), 1000),
    "7.1.5 a close within a message": (
        frame(TEXT, b"{", final=False) + HANG_UP + frame(CONTINUATION, b"}"),
        1000,
    ),
    "7.3.1 no code": (frame(CLOSE), 0),
    "7.3.2 half a code": (frame(CLOSE, b"\x03"), 1002),
    "7.3.3 a code and nothing": (close(1000), 1000),
    "7.3.4 a reason": (close(1000, b"Hello World!"), 1000),
    "7.3.5 a reason of 123 bytes": (close(1000, b"*" * 123), 1000),
    "7.3.6 a reason of 124 bytes": (close(1000, b"*" * 124), 1002),
    "7.5.1 a reason that is no UTF-8": (close(1000, b"\xce\xba\xed\xa0\x80"), 1007),
    **{
        f"7.7 code {code}": (close(code), code)
        for code in (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999)
    },
    **{
        f"7.9 code {code}": (close(code), 1002)
        for code in (0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999, 5000, 65_535)
    },
}
ANSWERED = {
    "1.1 a text": frame(TEXT, ASK),
    "5.3 in two fragments": split(ASK),
    "5.6 with a ping between": split(ASK, frame(PING, b"between")),
    "5.15 empty fragments": frame(TEXT, final=False)
    + frame(CONTINUATION, final=False) * 3
    + frame(CONTINUATION, ASK),
    "6.2 a letter over two fragments": frame(TEXT, b'{"type": "ping", "x": "\xce', final=False)
    + frame(CONTINUATION, b'\xba"}'),
    "2.9 pongs that nobody asked for": frame(PONG, b"!") * 3 + frame(TEXT, ASK),
}


@pytest.mark.parametrize("case", CLOSED_WITH)
def test_how_it_ends(case: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    frames, code = CLOSED_WITH[case]

    async def main() -> None:
        async with serving(tmp_path) as served, socket(served.address, "/ws/conversation") as line:
            await line.send(frames)
            assert await line.closed_with() == code
            assert "pong" not in str(line.got)  # nothing was taken for a message

    run(main())
    assert not [record for record in caplog.records if record.exc_info]


@pytest.mark.parametrize("slowly", [False, True])
@pytest.mark.parametrize("case", ANSWERED)
def test_what_is_answered(case: str, slowly: bool, tmp_path: Path) -> None:
    """`slowly`: octet by octet, as 1.1.8 and 2.6 have it."""

    async def main() -> None:
        async with serving(tmp_path) as served, socket(served.address, "/ws/conversation") as line:
            step = 1 if slowly else 1_000
            frames = ANSWERED[case]
            await heard(line, b'"connected"')
            for at in range(0, len(frames), step):
                await line.send(frames[at : at + step])
                await asyncio.sleep(0)
            await heard(line, b'"pong"')
            await line.send(HANG_UP)
            assert await line.closed_with() == 1000
            found = frames_of(bytes(line.got))
            texts = [json.loads(payload) for opcode, payload in found if opcode == TEXT]
            assert {"type": "pong"} in texts
            between = [payload for opcode, payload in found if opcode == PONG]
            assert between == ([b"between"] if "between" in case else [])

    run(main())


async def heard(line: Line, words: bytes) -> None:
    async with asyncio.timeout(10):
        while words not in line.got:
            line.got += await line.reader.readexactly(1)
        while line.got[-1:] != b"}":
            line.got += await line.reader.readexactly(1)
