"""The caller's turns: order of events, manual and detected, formats, positions, silence."""

from __future__ import annotations

import base64
import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.protocols.realtime.support import (
    MANUAL,
    RATE_HZ,
    Client,
    b64,
    call,
    loud,
    spoken,
    talking,
)
from tests.server.support import serving
from tests.support import OPTIONS, run, until

from antiphon.audio import g711

HEARING = {"input": {"transcription": {"model": "whisper-1"}}}
SLOW_STT = {**OPTIONS["stt"], "delay_ms": 150}
SLOW_STORY = {**OPTIONS["llm"], "piece_delay_ms": 25}
RESPONSE = [
    "response.created",
    "response.output_item.added",
    "conversation.item.added",
    "response.content_part.added",
    "response.output_audio_transcript.delta",
    "response.output_audio.delta",
    "response.output_audio.done",
    "response.output_audio_transcript.done",
    "response.content_part.done",
    "conversation.item.done",
    "response.output_item.done",
    "response.done",
]


def without_repeats(kinds: list[str]) -> list[str]:
    """Deltas of text and audio are interleaved in any ratio."""
    seen: list[str] = []
    for kind in kinds:
        if not (kind.endswith(".delta") and kind in seen):
            seen.append(kind)
    return seen


def test_the_documented_order_of_a_spoken_turn(tmp_path: Path) -> None:
    async def main() -> None:
        async with call(tmp_path) as c:
            await c.update(audio=HEARING)
            start = len(c.events)
            await c.speak(spoken(440, silence_ms=1000))
            await c.wait("response.done")
            kinds = c.kinds(start)
            spoke, answered = kinds[:5], kinds[5:]
            assert spoke == [
                "input_audio_buffer.speech_started",
                "input_audio_buffer.speech_stopped",
                "input_audio_buffer.committed",
                "conversation.item.added",
                "conversation.item.done",
            ]
            assert without_repeats(answered) == RESPONSE
            ids = {e["item_id"] for e in c.events[start:] if e["type"].startswith("input_audio")}
            assert ids == {c.of("conversation.item.done")[0]["item"]["id"]}
            assert c.of("conversation.item.done")[0]["item"]["content"] == [
                {"type": "input_audio", "transcript": None}
            ]
            done = c.of("response.done")[0]["response"]
            (transcript,) = c.of("response.output_audio_transcript.done")
            assert c.said(done["id"]) == transcript["transcript"] == "It is noon."
            assert len(c.audio()) == 300 * 48
            assert loud(c.audio())
            assert done["usage"]["total_tokens"] == sum(
                done["usage"][k] for k in ("input_tokens", "output_tokens")
            )

    run(main())


def test_deltas_of_a_transcript_only_ever_add(tmp_path: Path) -> None:
    async def main() -> None:
        async with call(tmp_path) as c:
            await c.update(audio=HEARING)
            long = np.concatenate(
                [spoken(440), spoken(550), spoken(660), spoken(1, 1, silence_ms=900)]
            )
            await c.speak(long, piece_ms=20)
            kind = "conversation.item.input_audio_transcription"
            done = await c.wait(f"{kind}.completed")
            assert done["transcript"] == "what time is it tell me a story stop please"
            deltas = "".join(e["delta"] for e in c.of(f"{kind}.delta"))
            assert done["transcript"].startswith(deltas)
            assert done["usage"]["seconds"] > 2
            await c.wait("response.done")

    run(main())


def test_no_transcription_no_events_of_it(tmp_path: Path) -> None:
    async def main() -> None:
        async with call(tmp_path) as c:
            await c.speak(spoken(440, silence_ms=1000))
            await c.wait("response.done")
            assert not [e for e in c.events if "transcription" in e["type"]]

    run(main())


def test_a_commit_is_acknowledged_before_its_words_are_known(tmp_path: Path) -> None:
    async def main() -> None:
        async with call(tmp_path, models__options__stt__scripted=SLOW_STT) as c:
            await c.send("session.update", session=MANUAL)
            await c.update(audio=HEARING)
            await c.speak(spoken(440))
            await c.send("input_audio_buffer.commit")
            await c.send("response.create", response={"metadata": {"client_event_id": "r1"}})
            created = await c.wait("response.created")
            assert created["response"]["metadata"] == {"client_event_id": "r1"}
            assert not c.of("conversation.item.input_audio_transcription.completed")
            assert (
                c.of("conversation.item.done")[0]["item"]["id"]
                == (c.of("input_audio_buffer.committed")[0]["item_id"])
            )
            done = (await c.wait("response.done"))["response"]
            assert done["id"] == created["response"]["id"]
            assert c.said(done["id"]) == "It is noon."
            assert not c.of("input_audio_buffer.speech_started")
            assert len(c.of("response.created")) == 1

    run(main())


def test_a_response_that_waits_for_words_can_be_cancelled(tmp_path: Path) -> None:
    async def main() -> None:
        async with call(tmp_path, models__options__stt__scripted=SLOW_STT) as c:
            await c.send("session.update", session=MANUAL)
            await c.speak(spoken(440))
            await c.send("input_audio_buffer.commit")
            await c.send("response.create")
            await c.send("response.cancel")
            done = (await c.wait("response.done"))["response"]
            assert (done["status"], done["output"]) == ("cancelled", [])
            await c.text("what time is it")
            assert (await c.respond())["status"] == "completed"
            assert len(c.of("response.created")) == 2
            assert not c.of("error")

    run(main())


def test_a_commit_without_words_is_an_empty_item(tmp_path: Path) -> None:
    async def main() -> None:
        async with call(tmp_path) as c:
            await c.send("session.update", session=MANUAL)
            await c.update(audio=HEARING)
            await c.speak(spoken(440, 1, silence_ms=300))
            await c.send("input_audio_buffer.commit")
            kind = "conversation.item.input_audio_transcription.completed"
            done = await c.wait(kind)
            assert (done["transcript"], done["item_id"]) == (
                "",
                c.of("input_audio_buffer.committed")[0]["item_id"],
            )
            await c.send("conversation.item.delete", item_id=done["item_id"])
            await c.wait("conversation.item.deleted")
            assert not c.of("error")

    run(main())


def test_cleared_audio_is_never_heard(tmp_path: Path) -> None:
    async def main() -> None:
        async with call(tmp_path) as c:
            await c.send("session.update", session=MANUAL)
            await c.speak(spoken(550))
            await c.send("input_audio_buffer.clear")
            await c.wait("input_audio_buffer.cleared")
            await c.send("input_audio_buffer.commit")
            error = (await c.wait("error"))["error"]
            assert error["code"] == "input_audio_buffer_commit_empty"
            await c.speak(spoken(440))
            await c.send("input_audio_buffer.commit")
            done = await c.respond()
            assert c.said(done["id"]) == "It is noon."

    run(main())


def test_an_interruption_ends_the_response_and_drops_its_audio(tmp_path: Path) -> None:
    async def main() -> None:
        async with call(tmp_path, models__options__llm__scripted=SLOW_STORY) as c:
            await c.speak(spoken(550, silence_ms=900))
            await c.wait("response.output_audio.delta", 2)
            start = len(c.events)
            await c.speak(spoken(440, silence_ms=900))
            await c.wait("response.done", 2)
            kinds = c.kinds(start)
            began = kinds.index("input_audio_buffer.speech_started")
            ended = kinds.index("response.done")
            assert began < ended
            assert "response.output_audio.delta" not in kinds[began:ended]
            first, second = (e["response"] for e in c.of("response.done"))
            assert first["status_details"] == {"type": "cancelled", "reason": "turn_detected"}
            assert first["output"][0]["status"] == "incomplete"
            assert c.said(second["id"]) == "It is noon."

    run(main())


def test_speech_after_the_response_is_done_but_still_played_cuts_the_history(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        async with serving(tmp_path) as served, talking(served) as c:
            await c.speak(spoken(550, silence_ms=900))
            assert (await c.wait("response.done"))["response"]["status"] == "completed"
            await c.speak(spoken(440, silence_ms=900))
            assert (await c.wait("response.done", 2))["response"]["status"] == "completed"
            asked = served.models.backend("llm").requests[-1].messages
            (heard,) = [m.content for m in asked if m.role == "assistant"] or [""]
            assert len(heard.split()) < 26  # of a story that takes 2.6 s to hear

    run(main())


def test_asked_again_at_once_after_response_done(tmp_path: Path) -> None:
    """The window of one response ends with `response.done`, though the client still plays it."""

    async def main() -> None:
        async with call(tmp_path) as c:
            await c.text("tell me a story")
            await c.respond()
            await c.text("what time is it")
            assert c.said((await c.respond())["id"]) == "It is noon."
            assert not c.of("error")

    run(main())


def test_create_response_false_waits_for_the_client(tmp_path: Path) -> None:
    async def main() -> None:
        vad = {"type": "server_vad", "create_response": False, "silence_duration_ms": 200}
        async with call(tmp_path) as c:
            session = await c.update(audio={"input": {"turn_detection": vad}})
            assert session["audio"]["input"]["turn_detection"] == {
                "type": "server_vad",
                "threshold": 0.5,
                "prefix_padding_ms": 300,
                "silence_duration_ms": 200,
                "idle_timeout_ms": None,
                "create_response": False,
                "interrupt_response": True,
            }
            await c.speak(spoken(440, silence_ms=600))
            await c.wait("conversation.item.done")
            assert not c.of("response.created")
            assert c.said((await c.respond())["id"]) == "It is noon."

    run(main())


def test_semantic_vad(tmp_path: Path) -> None:
    async def main() -> None:
        vad = {"type": "semantic_vad", "eagerness": "high"}
        async with call(tmp_path) as c:
            session = await c.update(audio={"input": {"turn_detection": vad}})
            assert session["audio"]["input"]["turn_detection"]["eagerness"] == "high"
            await c.speak(spoken(440, silence_ms=900))
            await c.wait("response.done")

    run(main())


def test_silence_times_out_into_a_response(tmp_path: Path) -> None:
    async def main() -> None:
        async with call(tmp_path) as c:
            vad = {"type": "server_vad", "idle_timeout_ms": 5000}
            await c.update(audio={"input": {"turn_detection": vad}})
            await c.text("what time is it")
            await c.respond()
            await c.speak(spoken(440, 1, silence_ms=1000))
            passed = await _in_time(c, "input_audio_buffer.timeout_triggered")
            committed = await c.wait("input_audio_buffer.committed")
            assert committed["item_id"] == passed["item_id"]
            assert passed["audio_start_ms"] <= passed["audio_end_ms"]
            assert (await c.wait("response.done", 2))["response"]["status"] == "completed"

    run(main())


async def _in_time(c: Any, kind: str) -> Any:
    """Longer than tests usually wait: the least timeout of the protocol is 5 s."""
    with contextlib.suppress(AssertionError):
        await until(lambda: c.of(kind), "")
    return await c.wait(kind)


def test_mu_law_in_and_a_law_out(tmp_path: Path) -> None:
    async def main() -> None:
        async with call(tmp_path) as c:
            session = await c.update(
                audio={
                    "input": {"format": {"type": "audio/pcmu"}},
                    "output": {"format": {"type": "audio/pcma"}},
                }
            )
            assert session["audio"]["input"]["format"] == {"type": "audio/pcmu"}
            question = g711.encode_ulaw(spoken(440, silence_ms=1000)[::3])
            for at in range(0, len(question), 160):
                piece = base64.b64encode(question[at : at + 160]).decode()
                await c.send("input_audio_buffer.append", audio=piece)
            done = (await c.wait("response.done"))["response"]
            assert c.said(done["id"]) == "It is noon."
            assert done["audio"]["output"]["format"] == {"type": "audio/pcma"}
            assert abs(len(c.audio()) - 300 * 8) <= 8  # one byte per sample at 8 kHz
            assert np.abs(g711.decode_alaw(c.audio())).max() > 500
            stopped = c.of("input_audio_buffer.speech_stopped")[0]
            assert stopped["audio_end_ms"] <= len(question) / 8

    run(main())


def test_odd_bytes_wait_for_the_next_append(tmp_path: Path) -> None:
    async def main() -> None:
        async with call(tmp_path) as c:
            data = spoken(440, silence_ms=1000).astype("<i2").tobytes()
            for at in range(0, len(data), 1001):
                piece = base64.encodebytes(data[at : at + 1001]).decode().rstrip("=\n")
                await c.send("input_audio_buffer.append", audio=piece)
            done = (await c.wait("response.done"))["response"]
            assert c.said(done["id"]) == "It is noon."

    run(main())


def test_manual_mode_in_mid_utterance_makes_a_turn_of_it(tmp_path: Path) -> None:
    async def main() -> None:
        async with call(tmp_path) as c:
            await c.speak(spoken(440))
            await c.wait("input_audio_buffer.speech_started")
            await c.send("session.update", session=MANUAL)
            await c.wait("input_audio_buffer.committed")
            assert not c.of("response.created")
            assert c.said((await c.respond())["id"]) == "It is noon."

    run(main())


def test_a_transcription_session_only_listens(tmp_path: Path) -> None:
    async def main() -> None:
        async with call(tmp_path, query="?intent=transcription") as c:
            assert c.events[0]["session"]["type"] == "transcription"
            session = {"type": "transcription", "audio": HEARING}
            await c.send("session.update", session=session)
            await c.wait("session.updated")
            await c.speak(spoken(440, silence_ms=1000))
            kind = "conversation.item.input_audio_transcription.completed"
            assert (await c.wait(kind))["transcript"] == "what time is it"
            await c.send("response.create", event_id="e1")
            assert (await c.wait("error"))["error"]["event_id"] == "e1"
            assert not c.of("response.created")

    run(main())


def test_a_whole_file_in_one_event(tmp_path: Path) -> None:
    async def main() -> None:
        async with call(tmp_path) as c:
            await c.send("session.update", session=MANUAL)
            long = np.concatenate([spoken(1, 1, silence_ms=60_000), spoken(440)])
            await c.send("input_audio_buffer.append", audio=b64(long))
            await c.send("input_audio_buffer.commit")
            done = await c.respond()
            assert c.said(done["id"]) == "It is noon."
            assert len(long) > 60 * RATE_HZ

    run(main())


def test_speech_that_may_not_interrupt_is_an_item_and_no_response(tmp_path: Path) -> None:
    async def main() -> None:
        async with call(tmp_path, models__options__llm__scripted=SLOW_STORY) as c:
            vad = {"type": "server_vad", "interrupt_response": False, "silence_duration_ms": 200}
            await c.update(audio={"input": {"turn_detection": vad, **HEARING["input"]}})
            await c.text("tell me a story")
            await c.send("response.create")
            await c.wait("response.output_audio.delta", 2)
            await c.speak(spoken(440, silence_ms=500))
            kind = "conversation.item.input_audio_transcription.completed"
            assert (await c.wait(kind))["transcript"] == "what time is it"
            assert c.of("input_audio_buffer.speech_stopped")
            assert (await c.wait("response.done"))["response"]["status"] == "completed"
            assert len(c.of("response.created")) == 1

    run(main())


def test_speech_that_cannot_be_transcribed(tmp_path: Path) -> None:
    stt = {**OPTIONS["stt"], "fail_always": True}

    async def main() -> None:
        async with call(tmp_path, models__options__stt__scripted=stt) as c:
            await c.send("session.update", session=MANUAL)
            await c.update(audio=HEARING)
            await c.speak(spoken(440))
            await c.send("input_audio_buffer.commit")
            kind = "conversation.item.input_audio_transcription.failed"
            failed = await c.wait(kind)
            assert failed["item_id"] == c.of("input_audio_buffer.committed")[0]["item_id"]
            assert not c.of("error")
            assert (await c.respond())["status"] == "completed"

    run(main())


def test_noise_is_no_turn(tmp_path: Path) -> None:
    async def main() -> None:
        async with call(tmp_path) as c:
            await c.speak(spoken(990, silence_ms=900))  # no word of the scripted speech to text
            await c.wait("input_audio_buffer.speech_stopped")
            assert not c.of("input_audio_buffer.committed")
            await c.speak(spoken(440, silence_ms=900))
            await c.wait("response.done")

    run(main())


def test_noise_is_taken_out_on_request(tmp_path: Path) -> None:
    hiss = np.random.default_rng(1).normal(0, 300, 3 * RATE_HZ).astype(np.int16)

    async def loudness(c: Client, count: int) -> float:
        await c.speak(hiss, piece_ms=200)
        await c.send("input_audio_buffer.commit")
        item = (await c.wait("input_audio_buffer.committed", count))["item_id"]
        await c.wait("conversation.item.added", count)
        await c.send("conversation.item.retrieve", item_id=item)
        (part,) = (await c.wait("conversation.item.retrieved", count))["item"]["content"]
        heard = np.frombuffer(base64.b64decode(part["audio"]), "<i2").astype(np.float64)
        return float(np.sqrt(np.mean(heard[len(heard) // 2 :] ** 2)))

    async def main() -> None:
        async with call(tmp_path) as c:
            await c.send("session.update", session=MANUAL)
            await c.wait("session.updated")
            as_it_is = await loudness(c, 1)
            near = {"audio": {"input": {"noise_reduction": {"type": "near_field"}}}}
            assert (await c.update(**near))["audio"]["input"]["noise_reduction"] == {
                "type": "near_field"
            }
            assert await loudness(c, 2) < as_it_is / 3
            await c.update(audio={"input": {"noise_reduction": None}})
            assert await loudness(c, 3) == pytest.approx(as_it_is, rel=0.1)

    run(main())
