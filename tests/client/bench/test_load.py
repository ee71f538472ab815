"""The load of the benches on real servers: what its callers hear, count and leave behind."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.server.support import Served, serving
from tests.support import run, say, until

from antiphon.audio import g711
from antiphon.client.bench.load import CallerBehaviour, Fleet, LoadCaller, Tally, jitter_ms, turn_of
from antiphon.client.bench.load_stream import connect
from antiphon.client.phone.carrier_playback import Playback
from antiphon.client.phone.carrier_webhooks import PhoneNumbers
from antiphon.client.phone.clips import FRAME_BYTES, Clip, make_clip
from antiphon.errors import ProtocolError
from antiphon.models.scripted import tone


def asks(hz: int) -> Clip:
    return make_clip(f"{hz}", say(hz, 480, rate_hz=8_000), 8_000)


MANNER = CallerBehaviour([asks(440)], quiet_ms=200, rest_s=(0.0, 0.1), first_s=0.1, turns=1)


def url_of(served: Served) -> str:
    return f"ws://{served.address}/media-stream"


def test_two_callers_are_answered_and_hang_up(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as served:
            fleet = Fleet(url_of(served), MANNER)
            await fleet.resize(2, 0.05)
            assert fleet.calls == 2
            assert await fleet.until(0, 20)
            first, second = fleet.tally.turns
            for turn in (first, second):
                assert turn.answered
                assert not turn.talked_over
                assert turn.voice_to_voice_ms is not None
            assert fleet.tally.lost == []
            await until(lambda: len(served.calls) == 0, "the server still has calls")

    run(scenario())


def test_a_caller_goes_on_asking_and_a_fleet_shrinks(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as served:
            fleet = Fleet(
                url_of(served), CallerBehaviour([asks(440)], 200, rest_s=(0.0, 0.1), first_s=0.1)
            )
            await fleet.resize(2, 0.01)
            await until(lambda: len(fleet.tally.turns) >= 3, "the callers ask no more")
            later = Tally()
            fleet.tell(later)
            await fleet.resize(1)
            await until(lambda: len(later.turns) >= 1 and len(served.calls) == 1, "no turn later")
            fleet.close()
            assert fleet.calls == 0
            assert all(turn.answered for turn in later.turns)

    run(scenario())


def test_silence_of_the_server_is_an_unanswered_turn(tmp_path: Path) -> None:
    async def scenario() -> None:
        behaviour = CallerBehaviour([asks(999)], 200, answer_limit_s=0.6, first_s=0.0, turns=1)
        async with serving(
            tmp_path
        ) as served:  # nobody knows this tone: there is nothing to answer
            fleet = Fleet(url_of(served), behaviour)
            await fleet.dial()
            assert await fleet.until(0, 20)
            (turn,) = fleet.tally.turns
            assert not turn.answered
            assert turn.voice_to_voice_ms is None

    run(scenario())


def test_a_server_that_refuses_or_breaks_off_is_told_of(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path, server__max_calls=1) as served:
            fleet = Fleet(url_of(served), CallerBehaviour([asks(440)], first_s=60.0))
            await fleet.resize(2, 0.01)
            await until(lambda: fleet.tally.lost, "the busy call was not told of")
            assert "busy" in fleet.tally.lost[0]
            await until(lambda: fleet.calls == 1, "the busy call is still counted")
            fleet.close()
        with pytest.raises(ProtocolError, match="31902"):
            await connect(url_of(served), PhoneNumbers())

    run(scenario())


def test_what_is_not_a_media_stream(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as served:
            with pytest.raises(ProtocolError, match="instead of a websocket"):
                await connect(f"ws://{served.address}/health", PhoneNumbers())

    run(scenario())


@pytest.mark.parametrize(
    ("first", "body"),
    [(0x81, b"not json"), (0x82, b"binary"), (0x88, b"\x03\xf5too many calls")],
    ids=["no json", "binary", "closed"],
)
def test_frames_that_end_a_call(first: int, body: bytes) -> None:
    async def scenario() -> None:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(
                b"HTTP/1.1 101 Switching Protocols\r\n\r\n" + bytes([first, len(body)]) + body
            )
            await writer.drain()
            await reader.read()
            writer.close()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server:
            stream = await connect(f"ws://127.0.0.1:{port}/media-stream", PhoneNumbers())
            tally = Tally()
            LoadCaller(stream, MANNER, tally, 1, lambda: None).begin()
            await until(lambda: tally.lost, "the call goes on")
            assert len(tally.lost) == 1

    run(scenario())


def heard(*pieces: tuple[int, bool]) -> Playback:
    """(ms, audible) of the agent, in order."""
    playback = Playback(0.0)
    total_ms = 0
    for length_ms, audible in pieces:
        pcm = tone(300, length_ms, 8_000, 1_000 if audible else 0)
        playback.add(g711.encode_ulaw(pcm))
        total_ms += length_ms
    playback.advance(total_ms / 1000 - 0.001)
    return playback


def test_turns_as_they_were_heard() -> None:
    said = (0, 8_000)
    on_time = turn_of(heard((1_240, False), (400, True)), said, 2.0)
    assert (on_time.answered, on_time.talked_over) == (True, False)
    assert on_time.voice_to_voice_ms == pytest.approx(240, abs=3)
    never = turn_of(heard((3_000, False)), said, 3.0)
    assert (never.answered, never.voice_to_voice_ms) == (False, None)
    early = turn_of(heard((800, False), (600, True)), said, 2.0)
    assert (early.answered, early.talked_over, early.voice_to_voice_ms) == (True, True, None)
    taken_back = turn_of(heard((400, False), (100, True), (900, False), (300, True)), said, 2.0)
    assert (taken_back.answered, taken_back.talked_over) == (True, True)
    assert taken_back.voice_to_voice_ms == pytest.approx(400, abs=3)


def test_an_answer_that_ran_dry_has_a_gap() -> None:
    playback = Playback(0.0)
    word = g711.encode_ulaw(tone(300, 200, 8_000, 1_000))
    playback.add(word)
    playback.advance(0.39)
    playback.add(word)
    playback.advance(0.79)
    assert turn_of(playback, (-100, 0), 1.0).gaps == 1


def test_jitter_is_what_deliveries_differ_from_their_own_length() -> None:
    even = [(index * 0.1, 800) for index in range(5)]
    assert jitter_ms([(0.0, 2_000), *((at + 0.1, size) for at, size in even)]) == [0.0] * 3
    late = [(0.0, 800), (0.1, 800), (0.23, 800), (0.30, 800)]
    assert jitter_ms(late) == [pytest.approx(30.0)]
    assert jitter_ms([]) == []


def test_what_was_heard_can_be_forgotten() -> None:
    playback = Playback(5.0)
    playback.add(bytes(FRAME_BYTES * 4))
    playback.advance(5.05)
    assert playback.steps == 3
    assert playback.forget() == 3
    assert (playback.steps, playback.buffered_ms) == (0, 20.0)
    assert playback.next_step_s() == pytest.approx(5.06)
