"""Strangers who send as much as the network takes: what of it is looked at, what they hear, and that others go on."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.protocols.openai_http.support import with_key
from tests.security.strangers import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PATIENCE_S,
    PING,
    PONG,
    TEXT,
    frame,
    line,
    socket,
    upgrade,
)
from tests.server.support import QUESTION, START, client, serving
from tests.support import nothing_left, run, until
from uvicorn.protocols.http.h11_impl import H11Protocol
from websockets.server import ServerProtocol

from antiphon.server import traffic, valve

PACED = traffic.STRANGER.burst + traffic.STRANGER.per_s * (valve._PATIENCE_S + 2)
"""Units that a stranger has at most before it is sent away."""
MANY = 40_000
HEADERS = b"GET /health HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
FLOODS = {
    "empty pings": frame(PING),
    "full pings": frame(PING, bytes(125)),
    "pongs nobody asked for": frame(PONG),
    "binary frames of a byte": frame(BINARY, b"x"),
    "empty texts": frame(TEXT),
}


class Parsed:
    """What reached the parsers, whatever the network took."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.frames = 0
        self.bytes = 0
        self.largest_slice = 0
        recv_frame, received = ServerProtocol.recv_frame, H11Protocol.data_received
        fed = ServerProtocol.receive_data

        def counted(protocol: Any, found: Any) -> None:
            self.frames += 1
            recv_frame(protocol, found)

        def measured(protocol: Any, data: bytes) -> None:
            self.bytes += len(data)
            self.largest_slice = max(self.largest_slice, len(data))
            received(protocol, data)

        def buffered(protocol: Any, data: bytes) -> None:
            self.bytes += len(data)
            fed(protocol, data)

        patch.setattr(ServerProtocol, "recv_frame", counted)
        patch.setattr(ServerProtocol, "receive_data", buffered)
        patch.setattr(H11Protocol, "data_received", measured)


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Parsed]:
    monkeypatch.setattr(valve, "_PATIENCE_S", 0.5)
    with monkeypatch.context() as patch:
        yield Parsed(patch)


@pytest.mark.parametrize("kind", FLOODS)
@pytest.mark.parametrize("path", ["/ws", "/media-stream"])
def test_a_flood_of_small_frames_is_mostly_not_looked_at(
    kind: str, path: str, parsed: Parsed, tmp_path: Path
) -> None:
    async def main() -> None:
        async with (
            nothing_left(),
            serving(tmp_path) as served,
            socket(served.address, path) as line,
        ):
            await line.flood(FLOODS[kind] * 1_000, MANY // 1_000)
            assert (await served.http.get("/health")).status_code == 200
            assert await line.closed_with() in (1003, 1008)
            assert parsed.frames <= PACED
            assert len(served.server.strangers) <= 1  # the probe above

    run(main())


def test_empty_fragments_are_counted(parsed: Parsed, tmp_path: Path) -> None:
    """No byte of a message ever comes, and it never ends."""

    async def main() -> None:
        async with serving(tmp_path) as served, socket(served.address, "/ws") as line:
            await line.send(frame(TEXT, final=False))
            await line.flood(frame(CONTINUATION, final=False) * 1_000, MANY // 1_000)
            assert await line.closed_with() == 1008
            assert parsed.frames <= valve._STRANGERS_FRAGMENTS

    run(main())


@pytest.mark.parametrize(
    "frames",
    [
        frame(TEXT, b"x", length=65_537),
        frame(BINARY, b"x", length=24 << 20),
        frame(TEXT, b"x", length=1 << 62),
        frame(TEXT, b"x" * 60_000, final=False) + frame(CONTINUATION, b"x", length=6_000),
        frame(TEXT, b"x" * 60_000, final=False) + frame(PING) + frame(CONTINUATION, length=1 << 40),
    ],
)
def test_a_strangers_large_message_is_refused_by_its_header(
    frames: bytes, parsed: Parsed, tmp_path: Path
) -> None:
    """Nothing of its payload is waited for or kept."""

    async def main() -> None:
        async with serving(tmp_path) as served, socket(served.address, "/ws") as line:
            await line.send(frames)
            assert await line.closed_with() == 1009
            assert parsed.bytes < 62_000

    run(main())


def test_a_refused_stranger_keeps_nothing_alive(tmp_path: Path) -> None:
    """What it sent is freed when it goes, without the collector."""

    async def main() -> None:
        async with serving(tmp_path, phone__auth_token="t" * 32) as served:
            gc.collect()
            gc.disable()
            try:
                for number in range(5):
                    marker = f"marker {number} " + "x" * 20_000
                    text = json.dumps({"event": "connected", "marker": marker})
                    async with socket(served.address, "/ws") as line:
                        await line.send(frame(TEXT, text.encode()))
                        assert (await line.reader.readexactly(2))[0] == 0x88
                        await line.send(frame(CLOSE, (1008).to_bytes(2, "big")))
                        await line.to_the_end()
                await until(lambda: not served.server.server_state.connections)
                held = [o for o in gc.get_objects() if isinstance(o, dict | list) and _holds(o)]
                assert held == []
            finally:
                gc.enable()

    run(main())


def _holds(container: dict[Any, Any] | list[Any]) -> bool:
    values = container.values() if isinstance(container, dict) else container
    return any(isinstance(v, str) and "marker" in v and len(v) > 20_000 for v in list(values))


def test_chunks_of_a_byte_are_mostly_not_looked_at(parsed: Parsed, tmp_path: Path) -> None:
    async def main() -> None:
        async with nothing_left(), serving(tmp_path) as served, line(served.address) as stranger:
            await stranger.send(HEADERS)
            await stranger.flood(b"1\r\nx\r\n" * 1_000, MANY // 1_000)
            assert (await served.http.get("/health")).status_code == 200
            assert b" 200 " in (await stranger.to_the_end())[:40]
            assert parsed.bytes < 6 * PACED + 10_000
            assert parsed.largest_slice <= valve._SLICE_BYTES

    run(main())


@pytest.mark.parametrize("most", [1, 3_000])
def test_a_head_without_an_end_is_refused(most: int, parsed: Parsed, tmp_path: Path) -> None:
    """By its size, or by its time."""

    async def main() -> None:
        slow = serving(tmp_path, server__head_timeout_s=0.5)
        async with slow as served, line(served.address) as stranger:
            await stranger.send(b"GET / HTTP/1.1\r\n")
            await stranger.flood(b"X-Header: some value\r\n", most)
            status = (await stranger.to_the_end()).split()[1]
            assert status in (b"400", b"408", b"429")
            assert parsed.bytes < 40_000

    run(main())


def test_who_says_nothing_is_sent_away(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path, server__head_timeout_s=0.2) as served:
            async with line(served.address) as stranger:
                assert b" 408 " in await stranger.to_the_end()
            async with line(served.address) as stranger:  # between two requests too
                await stranger.send(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert b" 200 " in await stranger.head()
                await stranger.send(b"GET /hea")
                assert b" 408 " in await stranger.to_the_end()

    run(main())


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/speech-to-speech"])
def test_a_body_that_does_not_come_ends(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("antiphon.server.body_limit._LINGER_S", 0.1)

    async def main() -> None:
        slow = serving(tmp_path, server__body_timeout_s=0.2)
        async with nothing_left(), slow as served, line(served.address) as stranger:
            head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n"
            kind = "Content-Type: multipart/form-data; boundary=x\r\n"
            await stranger.send(f"{head}{kind}\r\n--x".encode())
            assert b" 408 " in await stranger.to_the_end()

    run(main())


def test_an_answered_request_does_not_go_on_sending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its body is thrown away for a while, for clients that read late, and then the connection ends."""
    monkeypatch.setattr("antiphon.server.body_limit._LINGER_S", 0.3)

    async def main() -> None:
        async with nothing_left(), serving(tmp_path) as served, line(served.address) as stranger:
            head = "GET /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n"
            await stranger.send(head.encode())
            assert b'"healthy"' in await stranger.to_the_end()

    run(main())


@pytest.mark.parametrize("path", ["/health", "/", "/nothing", "/v1/models", "/ws/nothing"])
def test_an_upgrade_where_there_is_no_websocket(path: str, parsed: Parsed, tmp_path: Path) -> None:
    """Not a frame is looked at, though they came with the request."""

    async def main() -> None:
        async with serving(tmp_path) as served, line(served.address) as stranger:
            await stranger.send(upgrade(path) + frame(PING) * 500)
            answer = await stranger.to_the_end()
            assert answer.startswith(b"HTTP/1.1 403")
            assert parsed.frames == 0

    run(main())


def test_requests_one_after_the_other(
    parsed: Parsed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stranger's requests are served at its rate, however many it sends at once."""
    request = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    monkeypatch.setattr(valve, "STRANGER", traffic.Rate(1, 300))

    async def main() -> None:
        async with serving(tmp_path) as served, line(served.address) as stranger:
            await stranger.send(request * 500)
            answer = await stranger.to_the_end()
            assert 5 <= answer.count(b" 200 OK") <= 300 / traffic.REQUEST_UNITS

    run(main())


def test_there_are_so_many_strangers(tmp_path: Path) -> None:
    """One more takes the place of one for whom nothing is done; those that are at work keep theirs."""

    async def main() -> None:
        options = {"server__max_strangers_per_address": 3, "phone__trusted_proxies": ""}
        async with serving(tmp_path, **options) as served:
            async with line(served.address) as first, line(served.address), line(served.address):
                await until(lambda: len(served.server.strangers) == 3)
                async with line(served.address) as fourth:
                    assert await first.to_the_end() == b""
                    await fourth.send(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
                    assert b" 200 " in await fourth.head()
                    assert len(served.server.strangers) == 3
            async with (
                socket(served.address, "/ws"),
                socket(served.address, "/ws"),
                socket(served.address, "/ws"),
                line(served.address) as late,
            ):
                assert await late.to_the_end() == b""
            await until(lambda: len(served.server.strangers) == 0)

    run(main())


def test_who_is_let_in_is_no_stranger(tmp_path: Path) -> None:
    """Calls and requests with a key take no stranger's place, send long messages, and many at once."""
    clear, options = with_key(tmp_path)
    options |= {"server__max_strangers_per_address": 2, "server__max_strangers": 2}
    headers = {"Authorization": f"Bearer {clear}"}

    async def main() -> None:
        async with serving(tmp_path, **options) as served:
            for _ in range(8):
                assert (await served.http.get("/v1/models", headers=headers)).status_code == 200
            await until(lambda: len(served.server.strangers) == 0)
            async with client(served, start=START, additional_headers=headers) as caller:
                await caller.wait("connected")
                assert len(served.server.strangers) == 0
                await caller.speak(QUESTION, piece_bytes=80_000)  # longer than a stranger's may be
                await caller.speak(QUESTION, piece_bytes=64)  # 900 frames as fast as they go
                await caller.wait("transcript")

    run(main())


def test_a_call_goes_on_beside_strangers(parsed: Parsed, tmp_path: Path) -> None:
    clear, options = with_key(tmp_path)
    headers = {"Authorization": f"Bearer {clear}"}

    async def main() -> None:
        async with serving(tmp_path, **options) as served:

            async def attack() -> None:
                async with socket(served.address, "/ws") as stranger:
                    await stranger.flood(frame(PING) * 1_000, MANY // 1_000)

            attacks = [asyncio.create_task(attack()) for _ in range(10)]
            async with client(served, start=START, additional_headers=headers) as caller:
                await caller.wait("connected")
                await caller.speak(QUESTION)
                await caller.wait("transcript")
            await asyncio.wait_for(asyncio.gather(*attacks), PATIENCE_S)
            shared = traffic.ADDRESS.burst + traffic.ADDRESS.per_s * PATIENCE_S
            assert parsed.frames <= shared + 2_000

    run(main())
