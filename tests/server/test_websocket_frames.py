"""Frames are told apart by their headers, however they are cut, and refused before their payload is there."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.security.strangers import BINARY, CONTINUATION, PING, TEXT, frame

from antiphon.server.websocket_frames import FrameRefused, FrameScanner

MESSAGE = st.lists(st.binary(max_size=300), min_size=1, max_size=4)
STREAM = st.lists(st.one_of(MESSAGE, st.just(None)), max_size=12)


def frames(messages: list[list[bytes] | None]) -> list[bytes]:
    """None: a ping."""
    found = []
    for parts in messages:
        if parts is None:
            found.append(frame(PING, b"p"))
            continue
        for number, part in enumerate(parts):
            opcode = BINARY if number == 0 else CONTINUATION
            found.append(frame(opcode, part, final=number == len(parts) - 1))
    return found


@given(STREAM, st.integers(1, 50), st.integers(1, 5))
def test_all_frames_are_counted(messages: list[list[bytes] | None], step: int, most: int) -> None:
    sent = frames(messages)
    whole = b"".join(sent)
    scanner = FrameScanner(1 << 20, 10)
    held, begun, ended, passed = b"", 0, 0, 0
    for at in range(0, len(whole), step):
        held += whole[at : at + step]
        while held:
            end, count, message = scanner.scan(held, 0, most)
            assert count <= most
            begun, ended, passed, held = begun + count, ended + message, passed + end, held[end:]
            if not end:
                assert len(held) < 14
                break
    assert (begun, passed) == (len(sent), len(whole))
    assert ended == sum(parts is not None for parts in messages)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(TEXT, length=101), 1009),
        (frame(TEXT, length=1 << 62)[:10], 1009),
        (frame(TEXT, b"x" * 60, final=False) + frame(CONTINUATION, length=41), 1009),
        (frame(PING, length=126), 1002),
        (frame(TEXT, final=False) + frame(CONTINUATION, final=False) * 4, 1008),
    ],
)
def test_what_is_refused(data: bytes, code: int) -> None:
    scanner = FrameScanner(100, 4)
    with pytest.raises(FrameRefused) as refused:
        scanner.scan(data, 0, 100)
    assert refused.value.code == code


def test_what_is_not() -> None:
    scanner = FrameScanner(100, 4)
    for data in (
        frame(TEXT, bytes(100)),
        frame(PING, bytes(125)),
        frame(TEXT, bytes(50), final=False) + frame(PING) + frame(CONTINUATION, bytes(50)),
        frame(TEXT, final=False) + frame(CONTINUATION, final=False) * 3 + frame(CONTINUATION),
    ):
        end, _, message = scanner.scan(data, 0, 100)
        assert end == len(data)
        assert message is (data[0] & 0x0F != PING)
