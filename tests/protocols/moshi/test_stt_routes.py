"""`/api/asr-streaming`, message by message, and what Unmute's clock makes of it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
from tests.protocols.services_support import ZEROS, Moshi, frames, moshi_client, service
from tests.support import run, say, until

from antiphon.audio.encoding import encode_file
from antiphon.models.ports import Kind
from antiphon.protocols.moshi import codec

PATH = "/api/asr-streaming"
SPEECH = say(440, 640, rate_hz=codec.RATE_HZ)
WORDS = ["what", "time", "is", "it"]


async def _steps(client: Moshi, count: int) -> list[codec.Message]:
    """Everything up to the Step with number `count` - 1."""
    found: list[codec.Message] = []
    while not (found and isinstance(found[-1], codec.Step) and found[-1].step_idx == count - 1):
        message = await client.receive()
        assert message is not None, found[-3:]
        found.append(message)
    return found


def _words(messages: list[codec.Message]) -> list[str]:
    return [m.text for m in messages if isinstance(m, codec.Word)]


def test_one_step_per_frame_however_it_is_cut(tmp_path: Path) -> None:
    async def check() -> None:
        async with service(tmp_path, Kind.STT) as served, moshi_client(served.ws + PATH) as client:
            assert await client.receive() == codec.Ready()
            samples = np.zeros(codec.FRAME_SAMPLES * 5 + 700, np.float32)
            for start in range(0, samples.size, 1_000):
                await client.send(codec.Audio(samples[start : start + 1_000]))
            await client.send(codec.Marker(7))
            found = await client.until(codec.Marker)
            steps = [m for m in found if isinstance(m, codec.Step)]
            assert [s.step_idx for s in steps] == [0, 1, 2, 3, 4]
            assert all(len(s.prs) == 4 for s in steps)
            assert found[-1] == codec.Marker(7)

    run(check())


def test_a_burst_of_zeros_ends_the_turn_before_its_last_step(tmp_path: Path) -> None:
    """Unmute sends eight frames of zeros and takes the turn for finished when it has their Steps."""

    async def check() -> None:
        async with service(tmp_path, Kind.STT) as served, moshi_client(served.ws + PATH) as client:
            await client.until(codec.Ready)
            spoken = frames(SPEECH)
            await client.send(*spoken, *[ZEROS] * 8)
            found = await _steps(client, len(spoken) + 8)
            assert _words(found) == WORDS
            starts = [m.start_time for m in found if isinstance(m, codec.Word)]
            stops = [m.stop_time for m in found if isinstance(m, codec.EndWord)]
            assert starts == sorted(starts)
            assert len(stops) == 4
            assert stops[-1] == pytest.approx(0.64, abs=0.1)
            await client.send(*spoken, *[ZEROS] * 8)  # and the next turn
            more = await _steps(client, 2 * len(spoken) + 16)
            assert _words(more) == WORDS
            first = next(m for m in more if isinstance(m, codec.Word))
            assert first.start_time > 1.0

    run(check())


def test_pauses_are_told_by_silence(tmp_path: Path) -> None:
    """The third number, which Unmute waits for, passes 0.6 after 0.6 to 1 s of silence."""

    async def check() -> None:
        async with service(tmp_path, Kind.STT) as served, moshi_client(served.ws + PATH) as client:
            await client.until(codec.Ready)
            spoken, quiet = frames(SPEECH), frames(np.full(codec.RATE_HZ * 2, 1, np.int16))
            await client.send(*spoken, *quiet)
            found = await _steps(client, len(spoken) + len(quiet))
            steps = [m for m in found if isinstance(m, codec.Step)]
            assert max(s.prs[2] for s in steps[2 : len(spoken)]) < 0.2
            after = next(s.step_idx for s in steps[len(spoken) :] if s.prs[2] > 0.6)
            assert 0.6 <= (after + 1 - len(spoken)) * codec.FRAME_S <= 1.0
            assert list(steps[-1].prs) == sorted(steps[-1].prs, reverse=True)
            assert _words(found) == WORDS  # without any flush, at the pause

    run(check())


def test_a_marker_is_answered_without_more_audio(tmp_path: Path) -> None:
    async def check() -> None:
        async with service(tmp_path, Kind.STT) as served, moshi_client(served.ws + PATH) as client:
            await client.send(*frames(SPEECH), codec.Marker(3))
            found = await client.until(codec.Marker)
            assert _words(found) == WORDS
            assert not any(isinstance(m, codec.Word) for m in found[found.index(codec.Marker(3)) :])

    run(check())


def test_opus_goes_in_as_well(tmp_path: Path) -> None:
    async def check() -> None:
        data = encode_file(say(440, 1_000, silence_ms=300), 16_000, "opus")
        async with service(tmp_path, Kind.STT) as served, moshi_client(served.ws + PATH) as client:
            for start in range(0, len(data), 700):
                await client.send(codec.OggOpus(data[start : start + 700]))
            await client.send(codec.Marker(1))
            found = await client.until(codec.Marker)
            assert _words(found) == WORDS
            assert sum(isinstance(m, codec.Step) for m in found) == pytest.approx(16, abs=1)

    run(check())


def test_words_come_while_somebody_speaks(tmp_path: Path) -> None:
    async def check() -> None:
        long = say(440, 4_000, rate_hz=codec.RATE_HZ)
        async with service(tmp_path, Kind.STT) as served, moshi_client(served.ws + PATH) as client:
            await client.until(codec.Ready)
            found: list[codec.Message] = []
            for number, frame in enumerate(frames(long)):  # as slow as they are heard
                await client.send(frame)
                found += await _steps(client, number + 1)
            early = _words(found)
            assert early == WORDS[:3]  # the last one might go on
            await client.send(codec.Marker(1))
            assert early + _words(await client.until(codec.Marker)) == WORDS

    run(check())


def test_capacity_and_free_places(tmp_path: Path) -> None:
    async def check() -> None:
        async with service(tmp_path, Kind.STT, server__max_calls=1) as served:
            async with moshi_client(served.ws + PATH) as first:
                await first.until(codec.Ready)
                async with moshi_client(served.ws + PATH) as second:
                    assert await second.rest() == [codec.Error("no free channels")]
            await until(lambda: len(served.streams) == 0)
            for nonsense in (b"nonsense", codec.encode(codec.OggOpus(b"no ogg at all"))):
                async with moshi_client(served.ws + PATH) as third:
                    await third.until(codec.Ready)
                    await third.socket.send(nonsense)
                    assert isinstance((await third.until(codec.Error))[-1], codec.Error)
                    assert await third.rest() == []
            async with moshi_client(served.ws + PATH) as older:
                await older.until(codec.Ready)
                await older.socket.send(b"\0")
                assert await older.rest() == []
            await until(lambda: len(served.streams) == 0)

    run(check())


def test_a_model_that_fails_is_an_error(tmp_path: Path) -> None:
    async def check() -> None:
        broken = {"models__options__stt__scripted": {"fail_always": True}}
        async with (
            service(tmp_path, Kind.STT, **broken) as served,
            moshi_client(served.ws + PATH) as client,
        ):
            await client.send(*frames(SPEECH), codec.Marker(1))
            assert isinstance((await client.until(codec.Error))[-1], codec.Error)

    run(check())


def test_the_post_form(tmp_path: Path) -> None:
    async def check() -> None:
        async with service(tmp_path, Kind.STT) as served:
            file = encode_file(say(440, 640, silence_ms=300), 16_000, "wav")
            answer = (await served.http.post(PATH, content=file)).json()
            assert [m["text"] for m in answer if m["type"] == "Word"] == WORDS
            assert answer[1]["type"] == "EndWord"
            assert (await served.http.post(PATH, content=b"nonsense")).status_code == 400

    run(check())


def test_several_at_once(tmp_path: Path) -> None:
    async def check() -> None:
        async with service(tmp_path, Kind.STT) as served:

            async def one(hz: int, number: int) -> list[str]:
                async with moshi_client(served.ws + PATH) as client:
                    await client.send(*frames(say(hz, 640, rate_hz=codec.RATE_HZ)))
                    await client.send(codec.Marker(number))
                    return _words(await client.until(codec.Marker))

            heard = await asyncio.gather(*(one((440, 550)[n % 2], n) for n in range(6)))
            assert [" ".join(words) for words in heard[:2]] == [
                "what time is it",
                "tell me a story",
            ]
            assert heard[:2] * 3 == heard

    run(check())
