"""Whole calls on a real event loop, with scripted models and a transport that records."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from tests.call.support import RecordingDoor, call
from tests.support import (
    STORY,
    broken_registry,
    loaded,
    model_set,
    nothing_left,
    run,
    say,
    until,
)

from antiphon.call import audio_input
from antiphon.call.transport import TransportAudio
from antiphon.core import actions as act
from antiphon.core import events as ev
from antiphon.core.floor import Floor
from antiphon.errors import ModelError
from antiphon.models.model_set import FallbackConfig
from antiphon.models.ports import Kind, SpeechRequest
from antiphon.models.scripted import ScriptedTts
from antiphon.observe import call_trace

RATE_HZ = 16_000


def spoken(text: str, word_ms: int = 100) -> np.ndarray:
    """The audio that the scripted voice makes of a text."""
    pieces = list(ScriptedTts(word_ms=word_ms).synthesize(SpeechRequest(text)))
    return np.concatenate(pieces)


def test_a_whole_turn() -> None:
    async def main() -> None:
        async with nothing_left(), call() as line:
            line.session.feed_audio(say(440, silence_ms=1200), RATE_HZ)
            ended = await line.ended()
            assert (ended.status, ended.heard, ended.unheard) == ("completed", "It is noon.", "")
            captions = [c for c in line.transport.all(act.Transcript) if c.final]
            assert [c.text for c in captions] == ["what time is it"]
            assert (
                "".join(w.text for w in line.transport.all(act.ReplyWords)).strip() == "It is noon."
            )
            assert np.array_equal(line.transport.heard("r1"), spoken("It is noon."))
            assert line.floor is Floor.OPEN
            record = line.session.records[0]
            assert (record.user_text, record.reply_text) == ("what time is it", "It is noon.")
            assert record.first_sent_ms is not None
            roles = [m.role for m in line.models.backend(Kind.LLM).requests[0].messages]
            assert roles == ["system", "user"]

    run(main())


def test_any_rate_and_any_chunks() -> None:
    async def main() -> None:
        async with call() as line:
            heard = say(440, silence_ms=1200, rate_hz=44_100)
            for at in range(0, len(heard), 331):
                line.session.feed_audio(heard[at : at + 331], 44_100)
            assert (await line.ended()).heard == "It is noon."

    run(main())


def test_greeting() -> None:
    async def main() -> None:
        async with call(greet=True, greeting="Hi there friend.") as line:
            assert (await line.ended()).heard == "Hi there friend."
            assert np.array_equal(line.transport.heard("r1"), spoken("Hi there friend."))

    run(main())


def test_barge_in_cuts_history_at_what_was_heard() -> None:
    async def main() -> None:
        async with nothing_left(), call() as line:
            line.session.feed_audio(say(550, silence_ms=1200), RATE_HZ)
            await line.playing("r1", 700)
            line.session.feed_audio(say(660, 640, silence_ms=1200), RATE_HZ)
            ended = await line.ended()
            assert ended.status == "cancelled"
            assert STORY.startswith(ended.heard)
            assert ended.unheard
            assert line.transport.dropped.count("r1") == 2  # the pause, then for good
            assert (await line.ended(2)).heard == "You said: stop please"
            request = line.models.backend(Kind.LLM).requests[-1]
            assert [m.content for m in request.messages[1:]] == [
                "tell me a story",
                ended.heard,
                "stop please",
            ]

    run(main())


def test_mm_hm_does_not_interrupt_and_no_word_is_lost() -> None:
    async def main() -> None:
        async with nothing_left(), call() as line:
            line.session.feed_audio(say(550, silence_ms=1200), RATE_HZ)
            await line.playing("r1", 700)
            line.session.feed_audio(say(880, 320, silence_ms=1600), RATE_HZ)
            await until(lambda: len(line.transport.plays) == 2, "it does not go on")
            resumed, sent_before = line.transport.plays[1][0], line.transport.sent_ms("r1")
            assert resumed.reply == "r1"
            assert 0 < resumed.from_ms <= sent_before
            ended = await line.ended()
            assert (ended.status, ended.heard) == ("completed", STORY)
            # Whatever was cleared came again: the client has every sample in its place.
            assert np.array_equal(line.transport.heard("r1"), spoken(STORY))

    run(main())


@pytest.mark.parametrize("lead_ms", [100, 240])
def test_audio_leaves_with_a_small_lead(lead_ms: int) -> None:
    async def main() -> None:
        transport = RecordingDoor(TransportAudio(rate_hz=16_000, lead_ms=lead_ms, chunk_ms=40))
        async with call(transport=transport) as line:
            line.session.feed_audio(say(550, silence_ms=1200), RATE_HZ)
            await line.playing("r1", 1500)
            began_s = transport.plays[0][1]
            for piece in transport.sent:
                end_ms = (piece.start + len(piece.pcm)) / 16
                ahead_ms = end_ms - (piece.at_s - began_s) * 1000
                assert ahead_ms <= lead_ms + 40, f"{ahead_ms} ms ahead"
            assert len(transport.sent) > 10

    run(main())


def test_unpaced_audio_leaves_as_it_is_made() -> None:
    async def main() -> None:
        transport = RecordingDoor(TransportAudio(rate_hz=16_000, paced=False))
        async with call(transport=transport, speak_ahead_ms=60_000) as line:
            line.session.feed_audio(say(550, silence_ms=1200), RATE_HZ)
            await until(lambda: len(transport.heard("r1")) == len(spoken(STORY)))
            assert all(len(piece.pcm) % 1_600 == 0 for piece in transport.sent)  # whole words

    run(main())


def test_a_model_that_fails_in_mid_call_is_replaced() -> None:
    async def main() -> None:
        models = model_set(
            FallbackConfig(Kind.LLM, ("broken", "scripted")), registry=broken_registry()
        )
        async with nothing_left(), loaded(models), call(models) as line:
            line.session.feed_audio(say(440, silence_ms=1200), RATE_HZ)
            assert (await line.ended()).heard == "You said: what time is it"

    run(main())


@pytest.mark.parametrize("kind", [Kind.STT, Kind.LLM, Kind.TTS])
def test_a_call_outlives_its_models(kind: Kind) -> None:
    """The last of a kind fails: the client is told, and an apology is tried."""

    async def main() -> None:
        models = model_set(FallbackConfig(kind, ("broken",)), registry=broken_registry())
        async with nothing_left(), loaded(models), call(models) as line:
            line.session.feed_audio(say(440, silence_ms=1200), RATE_HZ)
            await until(lambda: line.transport.all(act.Fault), f"{line.transport.actions}")
            await until(lambda: line.floor is Floor.OPEN)
            assert not line.session.ended
            assert "the server's log says why" in line.transport.all(act.Fault)[0].message
            if kind is not Kind.TTS:
                apology = await line.ended(1 if kind is Kind.STT else 2)
                assert apology.heard.startswith("Sorry")

    run(main())


def test_half_characters_of_models_do_not_end_a_call() -> None:
    async def main() -> None:
        models = model_set(
            stt={"tones": {"440": "what \ud83d time\x00 is it"}},
            llm={"rules": {"time": "It is \ud83d \ude00 noon."}},
        )
        async with nothing_left(), loaded(models), call(models) as line:
            line.session.feed_audio(say(440, silence_ms=1200), RATE_HZ)
            ended = await line.ended()
            assert not line.session.ended
            "".join(str(action) for action in line.transport.actions).encode()
            "\n".join(line.trace).encode()
            assert ended.heard == "It is \N{REPLACEMENT CHARACTER} \N{REPLACEMENT CHARACTER} noon."

    run(main())


def test_a_bug_in_a_model_task_is_told() -> None:
    class Odd:
        """Not what the port promises."""

        text = None

    async def main() -> None:
        models = model_set()
        models.transcribe = lambda *a, **k: asyncio.sleep(0, Odd())  # type: ignore[method-assign]
        async with loaded(models), call(models) as line:
            line.session.feed_audio(say(440, silence_ms=1200), RATE_HZ)
            await until(lambda: line.transport.all(act.Fault), f"{line.transport.actions}")
            assert "internal error" in line.transport.all(act.Fault)[0].message
            assert not line.session.ended

    run(main())


def test_too_much_audio_at_once_is_told_once() -> None:
    async def main() -> None:
        async with call(min_speech_ms=100_000) as line:
            minute = np.zeros(60 * RATE_HZ, np.int16)
            for _ in range(4):
                line.session.feed_audio(minute, RATE_HZ)
            faults = [f for f in line.transport.all(act.Fault) if f.code == "audio_overflow"]
            assert len(faults) == 1
            assert 0 <= line.session.heard_ms // 32 - audio_input.MAX_WINDOWS < 100
            for _ in range(200):  # full again and again while it is worked off
                line.session.feed_audio(np.zeros(5120, np.int16), RATE_HZ)
                await asyncio.sleep(0)
            assert (
                len([f for f in line.transport.all(act.Fault) if f.code == "audio_overflow"]) == 1
            )

    run(main())


def test_a_client_that_stops_sending_has_ended_its_turn() -> None:
    async def main() -> None:
        async with call() as line:
            for at in range(0, 640, 20):  # in its own rhythm, then not a sample more
                line.session.feed_audio(say(440, 640)[at * 16 : at * 16 + 320], RATE_HZ)
                await asyncio.sleep(0.002)
            assert (await line.ended()).heard == "It is noon."

    run(main())


def test_a_recorded_call_replays_without_a_difference() -> None:
    async def main() -> list[str]:
        async with call(greet=True, greeting="Hello there.") as line:
            await line.ended()
            line.session.feed_audio(say(550, silence_ms=1200), RATE_HZ)
            await line.playing("r2", 500)
            line.session.feed_audio(say(880, 320, silence_ms=1600), RATE_HZ)
            await until(lambda: len(line.transport.plays) == 3)
            await line.playing("r2", 1_500)
            line.session.feed_audio(say(660, 640, silence_ms=1600), RATE_HZ)
            assert (await line.ended(3)).heard == "You said: stop please"
        return line.trace

    lines = run(main())
    assert len(lines) > 100
    assert call_trace.replay(lines) is None


def test_an_unknown_vad_is_refused_before_there_is_a_call() -> None:
    async def main() -> None:
        with pytest.raises(ModelError, match="no vad model"):
            async with call(model_set()):  # not loaded
                pass

    run(main())


def test_a_trace_ends_where_it_is_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("antiphon.observe.call_trace.MAX_TRACE_CHARS", 5_000)

    async def main() -> None:
        async with call() as line:
            for number in range(500):
                line.session.post(ev.UserText(f"message {number}"))
            lines = line.trace
            assert 4_000 <= sum(map(len, lines[1:])) <= 5_000
            line.session.feed_audio(say(440, 640, silence_ms=900), 16_000)
            await line.ended()
            assert call_trace.replay(lines) is None

    run(main())
