"""A client that sends too much is held back or shown out: its audio, its containers, its messages."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.protocols.twilio.streams import dtmf_frame, media_frame, phone_call
from tests.server.support import START, client, serving
from tests.support import nothing_left, run, until

from antiphon.errors import AudioError, ProtocolError
from antiphon.models.ports import STT_RATE_HZ, Pcm16
from antiphon.protocols.browser import codec
from antiphon.protocols.browser.server import CallerAudio, DecodedAudio
from antiphon.protocols.twilio import codec as twilio
from antiphon.server.budget import Allowance, WorkBudget, WorkRate


@dataclass
class Ear:
    """The part of a session that audio meets, on a clock that only waiting moves."""

    now_s: float = 0.0
    pieces_ms: list[float] = field(default_factory=list)
    yields: int = 0

    def feed_audio(self, pcm: Pcm16, rate_hz: int) -> None:
        self.pieces_ms.append(1000 * len(pcm) / rate_hz)

    @property
    def heard_s(self) -> float:
        return sum(self.pieces_ms) / 1000

    async def sleep(self, delay_s: float) -> None:
        self.yields += 1
        self.now_s += delay_s
        await asyncio.sleep(0)

    def budget(self) -> WorkBudget:
        return WorkBudget(clock=lambda: self.now_s, cpu=lambda: 0.0, sleep=self.sleep)


def caller_audio(
    ear: Any, start: codec.StartCall, told: Callable[[str], None] = print
) -> CallerAudio:
    audio = CallerAudio(ear, ear.budget(), told)
    audio.use(start)
    return audio


@pytest.mark.parametrize(
    ("fmt", "rate"),
    [("pcm_s16le", 4_000), ("pcm_s16le", 16_000), ("pcm_f32le", 48_000), ("pcm_s16le", 192_000)],
)
def test_a_recording_sent_at_once_is_heard_at_its_rate(fmt: str, rate: int) -> None:
    async def main() -> None:
        ear = Ear()
        audio = caller_audio(ear, codec.StartCall(format=fmt, rate=rate))
        second = bytes(rate * (4 if fmt == "pcm_f32le" else 2))
        for number in range(1, 121):
            await audio.feed(second)
            assert ear.heard_s == pytest.approx(number)
            assert ear.heard_s <= 61 + 2 * ear.now_s
        assert ear.now_s == pytest.approx(30, abs=1)
        await audio.close()

    run(main())


@pytest.mark.parametrize("rate", [4_000, 8_000, 44_100, 192_000])
def test_a_long_message_is_worked_on_in_slices(rate: int) -> None:
    async def main() -> None:
        ear = Ear()
        audio = caller_audio(ear, codec.StartCall(format="pcm_s16le", rate=rate))
        await audio.feed(bytes(rate * 2 * 50 + 1))
        assert max(ear.pieces_ms) <= 201
        assert ear.heard_s == pytest.approx(50)
        assert ear.yields >= 50  # others had their turn at least each second
        await audio.close()

    run(main())


@pytest.mark.parametrize(
    ("fmt", "rate", "size"), [("pcm_s16le", 4_000, 22 << 20), ("pcm_f32le", 4_000, 22 << 20)]
)
def test_a_message_of_minutes_is_refused_before_it_is_looked_at(
    fmt: str, rate: int, size: int
) -> None:
    async def main() -> None:
        ear = Ear()
        audio = caller_audio(ear, codec.StartCall(format=fmt, rate=rate))
        with pytest.raises(AudioError, match="s of audio, the limit is 60 s; send it in smaller"):
            await audio.feed(bytes(size))
        assert ear.pieces_ms == []
        await audio.feed(bytes(rate))
        assert ear.heard_s > 0
        await audio.close()

    run(main())


def test_what_a_decoder_makes_is_bounded_and_paced() -> None:
    """An hour of silence from a container of a few bytes, before the event loop had a turn."""

    async def main() -> None:
        ear, full = Ear(), 0

        def on_full() -> None:
            nonlocal full
            full += 1

        def feed(pcm: Pcm16, rate_hz: int) -> None:
            budget.heard(len(pcm) / rate_hz)
            ear.feed_audio(pcm, rate_hz)

        budget = ear.budget()
        decoded = DecodedAudio(feed, budget, on_full)
        for _ in range(360):
            decoded.put(np.zeros(10 * STT_RATE_HZ, np.int16))
        assert decoded.waiting_s <= 70
        await until(lambda: decoded.waiting_s == 0)
        assert full == 1
        assert ear.heard_s == pytest.approx(70)
        assert max(ear.pieces_ms) <= 400
        decoded.put(np.zeros(320, np.int16))  # it is heard again
        await until(lambda: ear.heard_s > 70)
        await decoded.close()

    run(main())


def test_small_pieces_of_a_decoder_are_fed_together() -> None:
    async def main() -> None:
        ear = Ear()
        decoded = DecodedAudio(ear.feed_audio, ear.budget(), lambda: None)
        for _ in range(500):
            decoded.put(np.zeros(320, np.int16))
        await until(lambda: ear.heard_s == 10)
        assert len(ear.pieces_ms) == 50
        await decoded.close()

    run(main())


# --- the doors -------------------------------------------------------------------------------------


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Budgets of a tenth, and no patience."""
    allowance = Allowance(messages=WorkRate(100, 300), requests=WorkRate(10, 20), patience_s=0.3)
    for door in ("browser", "twilio"):
        monkeypatch.setattr(
            f"antiphon.protocols.{door}.server.WorkBudget", lambda: WorkBudget(allowance)
        )


TYPED: dict[str, dict[str, Any]] = {
    "pings": {"type": "ping"},
    "texts": {"type": "text", "text": "what time is it"},
    "levels": {"type": "set_level", "level": "beginner"},
    "settings": {"type": "configure", "voice": "v"},
    "buttons": {"type": "hold"},
    "reports": {"type": "played", "reply": "r1", "ms": 1},
}


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("kind", TYPED)
def test_a_flood_of_messages_ends_its_call_and_no_other(kind: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with nothing_left(), serving(tmp_path) as served:
            async with (
                client(served, start=START) as other,
                client(served, start=START) as hostile,
            ):
                await other.wait("connected")
                await hostile.wait("connected")
                while not hostile.closed:
                    await _flood(lambda: hostile.send(**TYPED[kind]))
                code, reason = await hostile.wait_closed()
                assert code == 1008
                assert "a second; send less" in reason
                await other.send(type="text", text="what time is it")
                await other.wait("turn_complete")
            await until(lambda: len(served.calls) == 0)

    run(main())


FRAMES: dict[str, dict[str, Any]] = {
    "keys": dtmf_frame("1"),
    "marks": {"event": "mark", "streamSid": "MZ1", "mark": {"name": "somebody else's"}},
    "unknown": {"event": "news"},
    "empty media": media_frame(b"", 1, 0),
}


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("kind", FRAMES)
def test_a_flood_of_telephone_frames_ends_its_call(kind: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with nothing_left(), serving(tmp_path) as served:
            async with phone_call(served) as line:
                while not line.closed:
                    await _flood(lambda: line.send(FRAMES[kind]))
                code, reason = await line.wait_closed()
                assert code == 1008
                assert "a second; send less" in reason
            await until(lambda: len(served.calls) == 0)

    run(main())


async def _flood(send: Callable[[], Any]) -> None:
    from websockets.exceptions import ConnectionClosed

    try:
        for _ in range(50):
            await send()
        await asyncio.sleep(0)
    except ConnectionClosed:
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("size", [257 << 10, 4 << 20, 20 << 20])
def test_a_text_frame_that_is_too_long_is_not_parsed(size: int) -> None:
    text = '{"type":"ping","x":"' + "x" * size + '"}'
    with pytest.raises(ProtocolError, match="characters, the limit is 262144"):
        codec.decode(text)


@pytest.mark.parametrize("size", [4 << 20, 20 << 20])
def test_a_telephone_frame_that_is_too_long_is_not_parsed(size: int) -> None:
    text = '{"event":"media","media":{"payload":"' + "/" * size + '"}}'
    with pytest.raises(ProtocolError, match="characters, the limit is 3145728; send 20 ms"):
        twilio.decode(text)
    assert not twilio.is_telephony(text)
