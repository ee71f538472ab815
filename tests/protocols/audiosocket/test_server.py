"""AudioSocket on a real TCP socket, with a small Asterisk of ours at the other end."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.server.support import Served, serving
from tests.support import nothing_left, run, say, settings, until

from antiphon.errors import ConfigError
from antiphon.protocols.audiosocket import codec
from antiphon.protocols.audiosocket.server import check_peers
from antiphon.protocols.twilio.phone_services import PhoneServices

ID = uuid.UUID(int=7)
LOUD = 500


@dataclass(slots=True)
class Asterisk:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    frames: list[codec.Frame] = field(default_factory=list)
    closed: bool = False

    async def listen(self) -> None:
        decoder = codec.AudioSocketDecoder()
        with contextlib.suppress(OSError):
            while data := await self.reader.read(4_096):
                self.frames += decoder.feed(data)
        self.closed = True

    def speak(self, hz: int, silence_ms: int = 1_200) -> None:
        pcm = say(hz, 640, silence_ms=silence_ms, rate_hz=8_000)
        for at in range(0, len(pcm), codec.FRAME_SAMPLES):
            self.writer.write(codec.encode_audio(pcm[at : at + codec.FRAME_SAMPLES]))

    def audio(self) -> list[np.ndarray[Any, np.dtype[np.int16]]]:
        return [f.pcm for f in self.frames if isinstance(f, codec.AudioFrame)]

    def loud(self) -> int:
        """Frames in which the agent speaks."""
        return sum(1 for pcm in self.audio() if np.abs(pcm).max() > LOUD)


@dataclass(slots=True)
class Line:
    served: Served
    port: int

    @contextlib.asynccontextmanager
    async def call(self, opening: bytes = codec.encode_id(ID)) -> AsyncIterator[Asterisk]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        found = Asterisk(reader, writer)
        listening = asyncio.create_task(found.listen())
        try:
            writer.write(opening)
            yield found
        finally:
            writer.close()
            await listening


@contextlib.asynccontextmanager
async def line(folder: Path, **overrides: Any) -> AsyncIterator[Line]:
    async with serving(folder, **overrides) as served:
        services = served.app.state.services
        assert isinstance(services, PhoneServices)
        yield Line(served, await served.app.state.audiosocket.listen(0))


def test_a_question_and_its_answer(tmp_path: Path) -> None:
    async def main() -> None:
        async with nothing_left(), line(tmp_path) as phone:
            async with phone.call() as asterisk:
                asterisk.speak(440)
                await until(lambda: asterisk.loud() >= 12)  # "It is noon." lasts 300 ms
                assert {len(pcm) for pcm in asterisk.audio()} == {codec.FRAME_SAMPLES}
                asterisk.writer.write(codec.HANG_UP)
                await until(lambda: not len(phone.served.calls))
            log = (await phone.served.http.get("/calls/compare")).json()
            assert log["flows"]["audiosocket"]["turns"] == 1

    run(main())


def test_silence_is_sent_while_the_agent_says_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        async with line(tmp_path) as phone, phone.call() as asterisk:
            await until(lambda: len(asterisk.audio()) >= 5)
            assert asterisk.loud() == 0

    run(main())


def test_an_interruption_is_immediate(tmp_path: Path) -> None:
    async def main() -> None:
        async with (
            line(tmp_path, conversation__barge_in="immediate") as phone,
            phone.call() as asterisk,
        ):
            asterisk.speak(550)  # a long story
            await until(lambda: asterisk.loud() >= 10)
            asterisk.speak(660, silence_ms=0)
            await until(lambda: bool(phone.served.calls) and _stopped(asterisk))
            session = next(iter(phone.served.calls._sessions.values()))
            heard = session.view.history.last("assistant")
            assert heard is not None
            assert not heard.complete

    def _stopped(asterisk: Asterisk) -> bool:
        return all(np.abs(pcm).max() < LOUD for pcm in asterisk.audio()[-10:])

    run(main())


def test_keys_are_told(tmp_path: Path) -> None:
    async def main() -> None:
        async with line(tmp_path, phone__keypad_pause_ms=200) as phone, phone.call() as asterisk:
            asterisk.writer.write(codec.encode_digit("1") + codec.encode_digit("2"))
            await until(lambda: asterisk.loud() > 3)
            session = next(iter(phone.served.calls._sessions.values()))
            said = session.view.history.last("user")
            assert said is not None
            assert "1 2" in said.text

    run(main())


def test_the_agent_ends_the_call(tmp_path: Path) -> None:
    async def main() -> None:
        changes: dict[str, Any] = {
            "conversation__idle_prompt_after_ms": 100,
            "conversation__max_idle_prompts": 0,
        }
        changes["conversation__goodbye"] = "Goodbye now."
        async with line(tmp_path, **changes) as phone, phone.call() as asterisk:
            await until(lambda: asterisk.closed)
            assert isinstance(asterisk.frames[-1], codec.HangupFrame)
            assert asterisk.loud() >= 8

    run(main())


@pytest.mark.parametrize(
    "opening",
    [codec.encode_digit("1"), b"\x01\x00\x01a", b"GET / HTTP/1.1\r\n\r\n" + bytes(70_000)],
)
def test_strangers_are_hung_up(tmp_path: Path, opening: bytes) -> None:
    async def main() -> None:
        async with nothing_left(), line(tmp_path) as phone, phone.call(opening) as asterisk:
            await until(lambda: asterisk.closed)
            assert not len(phone.served.calls)

    run(main())


def test_nonsense_in_a_call_ends_it(tmp_path: Path) -> None:
    async def main() -> None:
        async with nothing_left(), line(tmp_path) as phone, phone.call() as asterisk:
            await until(lambda: len(phone.served.calls) == 1)
            asterisk.writer.write(b"\x10\x00\x01a")
            await until(lambda: asterisk.closed)
            await until(lambda: not len(phone.served.calls))

    run(main())


def test_a_cut_line_frees_the_call(tmp_path: Path) -> None:
    async def main() -> None:
        async with nothing_left(), line(tmp_path) as phone:
            async with phone.call() as asterisk:
                asterisk.speak(550)
                await until(lambda: asterisk.loud() > 2)
                asterisk.writer.transport.abort()
            await until(lambda: not len(phone.served.calls))

    run(main())


def test_busy(tmp_path: Path) -> None:
    async def main() -> None:
        async with line(tmp_path, server__max_calls=1) as phone, phone.call():
            await until(lambda: len(phone.served.calls) == 1)
            async with phone.call() as second:
                await until(lambda: second.closed)
                assert [type(f) for f in second.frames] == [codec.HangupFrame]

    run(main())


def test_an_open_door_needs_a_list(tmp_path: Path) -> None:
    wide = {"phone__audiosocket_port": 9_092, "phone__audiosocket_host": "0.0.0.0"}
    with pytest.raises(ConfigError, match="audiosocket_peers"):
        check_peers(settings(tmp_path, **wide).phone)
    with pytest.raises(ConfigError, match=r"10\.0\.0\.0/24"):
        check_peers(settings(tmp_path, phone__audiosocket_peers="pbx").phone)
    assert (
        len(check_peers(settings(tmp_path, **wide, phone__audiosocket_peers="10.0.0.0/8").phone))
        == 1
    )
