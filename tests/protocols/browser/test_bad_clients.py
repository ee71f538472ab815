"""Clients of `/ws/conversation` that misbehave: senseless, too large, deaf, gone."""

from __future__ import annotations

import asyncio
import gc
import socket
import weakref
from pathlib import Path
from typing import Any

import pytest
from tests.server.support import QUESTION, START, client, serving
from tests.support import PATIENCE_S, STORY, nothing_left, run, say, until
from websockets.asyncio.client import connect

from antiphon.core.conversation import Conversation
from antiphon.core.floor import Floor

WRONG = [
    ("hello", "must be JSON objects"),
    ("[1]", "JSON object with a `type`"),
    ('{"type":"pong"}', "unknown message type 'pong'; did you mean 'ping'?"),
    ('{"type":"played"}', "played: object missing required field"),
    ('{"type":"start","rate":1}', "rate 1 is not between"),
]


@pytest.mark.parametrize("at_once", [True, False])
def test_senseless_messages_are_answered_and_the_call_lives(at_once: bool, tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as served, client(served) as caller:
            if not at_once:
                await caller.wait("connected")
            for number, (text, reason) in enumerate(WRONG, 1):
                await caller.socket.send(text)
                assert reason in (await caller.wait("error", number))["message"]
            assert caller.kinds()[0] == "connected"
            await caller.send(type="ping")
            await caller.wait("pong")
            assert len(caller.of("error")) == len(WRONG)

    run(main())


def test_too_many_senseless_messages_end_the_call(tmp_path: Path) -> None:
    async def main() -> None:
        async with nothing_left(), serving(tmp_path) as served, client(served) as caller:
            for _ in range(50):
                await caller.socket.send("hello")
            code, reason = await caller.wait_closed()
            assert (code, reason) == (1008, "too many senseless messages")
            await until(lambda: len(served.calls) == 0)

    run(main())


def test_audio_before_start(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as served, client(served) as caller:
            await caller.speak(QUESTION[8_000:9_000])
            assert "announce raw PCM" in (await caller.wait("error"))["message"]
            await caller.send(**START)
            assert "before any audio" in (await caller.wait("error", 2))["message"]

    run(main())


def test_wrong_words_in_the_url(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as served, client(served, "?format=mp5") as caller:
            assert "unknown format 'mp5'" in (await caller.wait("error"))["message"]
            assert caller.kinds()[0] == "connected"

    run(main())


def test_a_frame_that_is_too_large(tmp_path: Path) -> None:
    async def main() -> None:
        async with (
            nothing_left(),
            serving(tmp_path, server__max_message_bytes=100_000) as served,
            client(served, start=START) as caller,
        ):
            await caller.socket.send(bytes(90_000))
            await caller.send(type="ping")
            await caller.wait("pong")
            await caller.socket.send(bytes(100_001))
            code, _ = await caller.wait_closed()
            assert code == 1009
            await until(lambda: len(served.calls) == 0)

    run(main())


@pytest.mark.parametrize("when", ["at once", "listening", "speaking", "generating"])
def test_a_client_that_vanishes_leaves_nothing(
    when: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    endless = {
        "models__options__llm__scripted": {"rules": {"story": STORY * 90}, "piece_delay_ms": 5}
    }

    async def main() -> None:
        async with nothing_left(), serving(tmp_path, **endless) as served:
            for _ in range(2):
                async with client(served, start=START) as caller:
                    if when != "at once":
                        await caller.wait("connected")
                    if when == "listening":
                        await caller.speak(say(550, 640))
                        await until(lambda: floors(served) == [Floor.CALLER])
                    elif when != "at once":
                        await caller.speak(say(550, 640, silence_ms=1200))
                        await caller.wait("ai_audio_start" if when == "speaking" else "ai_text")
                    caller.socket.transport.abort()
                await until(lambda: len(served.calls) == 0, "the call goes on")
            stats = served.models.scheduler_stats()["llm:scripted"]
            assert (stats.running, stats.depth) == (0, 0)
            # Its place in the model was given back as well, and the next caller is served.
            async with client(served, start=START) as caller:
                await caller.speak(QUESTION)
                await caller.wait("transcript")
            await until(lambda: not served.server.server_state.connections)

    def floors(served: Any) -> list[Floor]:
        return [s.view.floor for s in served.calls._sessions.values()]

    run(main())
    assert "Exception in ASGI" not in caplog.text
    assert "Traceback" not in caplog.text


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="Linux only")
def test_a_client_that_stops_reading(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with (
            nothing_left(),
            serving(
                tmp_path, narrow=True, stuck_peer_ms=1_000, server__max_outbox_bytes=20_000
            ) as served,
        ):
            narrow = socket.socket()
            narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            narrow.setblocking(False)
            await asyncio.get_running_loop().sock_connect(narrow, _address(served.address))
            async with connect(
                served.ws, sock=narrow, compression=None, ping_interval=None
            ) as peer:
                await until(lambda: len(served.calls) == 1)
                session = weakref.ref(next(iter(served.calls._sessions.values())))
                peer.transport.pause_reading()
                ping = b'{"type":"ping"}'
                frame = bytes([0x81, 0x80 | len(ping), 0, 0, 0, 0]) + ping
                async with asyncio.timeout(PATIENCE_S * 4):
                    while len(served.calls):
                        peer.transport.write(frame * 100)
                        await asyncio.sleep(0)
                await until(lambda: gc.collect() >= 0 and session() is None, "memory is kept")
                # It never reads again, and never hangs up: the system lets go of it.
                await until(lambda: not served.server.server_state.connections)
                peer.transport.abort()

    run(main())
    assert "Traceback" not in caplog.text


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.partition(":")
    return host, int(port)


def test_a_bug_in_the_core_ends_the_call_with_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(self: Conversation, *arguments: object) -> object:
        raise AssertionError("a bug")

    async def main() -> None:
        async with nothing_left(), serving(tmp_path) as served, client(served) as caller:
            await caller.wait("connected")
            monkeypatch.setattr(Conversation, "handle", failing)
            await caller.send(type="text", text="hello")
            assert "the call failed" in (await caller.wait("error"))["message"]
            assert (await caller.wait_closed())[0] == 1000

    run(main())
