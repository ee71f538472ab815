"""What a client has not read yet, and who may connect at all."""

from __future__ import annotations

import asyncio

import pytest
from tests.support import run, until

from antiphon.server import outbox as module
from antiphon.server.outbox import Outbox
from antiphon.server.security import is_loopback, origin_allowed


class Slow:
    """Takes a frame when it is told to."""

    def __init__(self) -> None:
        self.taken: list[str | bytes] = []
        self.may_take = asyncio.Semaphore(0)

    async def send_text(self, data: str) -> None:
        await self.may_take.acquire()
        self.taken.append(data)

    async def send_bytes(self, data: bytes) -> None:
        await self.may_take.acquire()
        self.taken.append(data)


def test_in_order_to_the_end() -> None:
    async def main() -> None:
        peer, box = Slow(), Outbox(1_000, lambda: None)
        box.put("a")
        draining = asyncio.create_task(box.drain(peer))
        peer.may_take.release()
        await until(lambda: peer.taken == ["a"])
        box.put(b"b")
        box.put("c")
        box.close()
        box.put("too late")
        for _ in range(3):
            peer.may_take.release()
        await draining
        assert peer.taken == ["a", b"b", "c"]

    run(main())


def test_full_is_told_once_and_sends_nothing_more() -> None:
    async def main() -> None:
        told: list[int] = []
        peer, box = Slow(), Outbox(10, lambda: told.append(1))
        draining = asyncio.create_task(box.drain(peer))
        box.put(b"12345")
        box.put(b"12345")
        assert told == []
        box.put(b"1")
        box.put(b"1234567890")
        assert told == [1]
        for _ in range(4):
            peer.may_take.release()
        await draining
        assert peer.taken == []

    run(main())


def test_what_leaves_makes_room() -> None:
    async def main() -> None:
        told: list[int] = []
        peer, box = Slow(), Outbox(10, lambda: told.append(1))
        draining = asyncio.create_task(box.drain(peer))
        for number in range(20):
            box.put(b"12345678")
            peer.may_take.release()
            await until(lambda seen=number: len(peer.taken) == seen + 1)
        assert told == []
        box.abort()
        await draining

    run(main())


def test_only_this_replys_audio_is_purged() -> None:
    async def main() -> None:
        peer, box = Slow(), Outbox(40, lambda: None)
        for frame, reply in ((b"1" * 10, "r1"), ("text", ""), (b"2" * 10, "r2"), (b"3" * 10, "r1")):
            box.put(frame, reply)
        box.purge("r1")
        box.put(b"4" * 20)  # there is room again
        box.close()
        for _ in range(4):
            peer.may_take.release()
        await box.drain(peer)
        assert peer.taken == ["text", b"2" * 10, b"4" * 20]

    run(main())


def test_a_peer_that_takes_nothing_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SEND_TIMEOUT_S", 0.01)

    async def main() -> None:
        box = Outbox(10, lambda: None)
        box.put("a")
        with pytest.raises(TimeoutError):
            await box.drain(Slow())

    run(main())


ORIGINS: list[tuple[dict[str, str], tuple[str, ...], bool]] = [
    ({"host": "a:1"}, (), True),
    ({"host": "a:1", "origin": "http://a:1"}, (), True),
    ({"host": "A:1", "origin": "https://a:1"}, (), True),
    ({"host": "a:1", "origin": "http://a"}, (), False),
    ({"host": "a:1", "origin": "null"}, (), False),
    ({"origin": "http://a"}, (), False),
    ({"host": "a:1", "origin": "http://b"}, ("http://b/",), True),
    ({"host": "a:1", "origin": "http://b"}, ("*",), True),
    ({"host": "a:1", "origin": "http://b.evil"}, ("http://b",), False),
]


@pytest.mark.parametrize(("headers", "allowed", "expected"), ORIGINS)
def test_origins(headers: dict[str, str], allowed: tuple[str, ...], expected: bool) -> None:
    assert origin_allowed(headers, allowed) is expected


def test_loopback() -> None:
    assert [
        is_loopback(h) for h in ("localhost", "127.0.0.9", "::1", "0.0.0.0", "example.org")
    ] == [
        True,
        True,
        True,
        False,
        False,
    ]


def test_another_socket_gets_what_the_lost_one_swallowed() -> None:
    async def main() -> None:
        lost, next_one, box = Slow(), Slow(), Outbox(1_000, lambda: None, remember=3)
        for frame in ("1", b"audio", "2", "drop", "4", "5"):
            box.put(frame)
        assert box.next_number() == 6
        draining = asyncio.create_task(box.drain(lost))
        for _ in range(5):
            lost.may_take.release()
        await until(lambda: lost.taken == ["1", b"audio", "2", "drop", "4"])
        draining.cancel()  # "5" is in the air
        box.put(b"more audio")
        box.put("6")
        box.requeue(2, lambda number: f"welcome {number}", lambda text: text != "drop")
        box.close()
        for _ in range(4):
            next_one.may_take.release()
        await box.drain(next_one)
        assert next_one.taken == ["welcome 6", "4", "5", "6"]

    run(main())
