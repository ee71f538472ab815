"""`/ws/conversation` over real sockets: whole turns, every kind of audio, and clients that misbehave."""

from __future__ import annotations

import asyncio
import gc
import io
import socket
import weakref
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from tests.server.support import QUESTION, START, Client, client, serving
from tests.support import PATIENCE_S, STORY, nothing_left, run, say, until
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from antiphon.audio.encoding import StreamEncoder, encode_file
from antiphon.core import trace
from antiphon.core.conversation import Conversation
from antiphon.core.floor import Floor
from antiphon.models.ports import Kind
from antiphon.models.registry import register_model
from antiphon.models.scripted import ScriptedLlm

EVERYTHING = ["clear", "played", "floor", "heard", "turn", "items"]


# --- a turn -----------------------------------------------------------------------------------------


def test_an_older_client_sees_its_protocol_and_nothing_else(tmp_path: Path) -> None:
    async def main() -> None:
        async with nothing_left(), serving(tmp_path) as served:
            async with client(served, "?rate=16000") as caller:
                first = await caller.wait("connected")
                assert caller.frames[0] == first
                assert set(first) == {"type", "session_id"}
                await caller.send(type="ping")
                await caller.wait("pong")
                await caller.send(type="set_level", level="beginner")
                await caller.speak(QUESTION)
                await caller.wait("turn_complete")
                texts = caller.of("ai_text")
                assert "".join(m["text"] for m in texts) == "It is noon."
                assert [m["is_complete"] for m in texts[-2:]] == [False, True]
                assert caller.of("transcript")[-1] == {
                    "type": "transcript",
                    "text": "what time is it",
                    "is_final": True,
                }
                assert caller.of("ai_audio_start") == [
                    {"type": "ai_audio_start", "sample_rate": 24_000}
                ]
                pcm = b"".join(f for f in caller.frames if isinstance(f, bytes))
                assert len(pcm) == 3 * 24_000 // 10 * 2
                kinds = [k for k in caller.kinds() if k != "pong"]
                order = [
                    "connected",
                    "transcript",
                    "ai_text",
                    "ai_audio_start",
                    "(pcm)",
                    "turn_complete",
                ]
                assert [k for n, k in enumerate(kinds) if k not in kinds[:n]] == order
                await caller.send(type="end_conversation")
                assert await caller.wait_closed() == (1000, "")
            await until(lambda: len(served.calls) == 0)

    run(main())


def test_all_extensions(tmp_path: Path) -> None:
    async def main() -> None:
        async with (
            nothing_left(),
            serving(tmp_path) as served,
            client(served, start={**START, "extensions": [*EVERYTHING, "new"]}) as caller,
        ):
            connected = await caller.wait("connected")
            assert connected["extensions"] == sorted(EVERYTHING)
            assert connected["sample_rate"] == 24_000
            await caller.speak(QUESTION)
            begin = await caller.wait("ai_audio_start")
            await until(
                lambda: sum(len(f) for f in caller.frames if isinstance(f, bytes)) == 14_400
            )
            await caller.send(type="played", reply=begin["reply"], ms=300)
            turn = await caller.wait("turn")
            assert turn["record"]["user_text"] == "what time is it"
            assert turn["record"]["first_played_ms"] is not None
            floors = [m["state"] for m in caller.of("floor")]
            assert floors == ["caller", "deciding", "thinking", "agent", "open"]
            await caller.send(type="played", reply=begin["reply"], ms=10**30)
            await caller.send(type="stop")
            assert (await caller.wait("ended"))["reason"] == "caller hung up"

    run(main())


def test_written_instead_of_spoken(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as served, client(served) as caller:
            await caller.send(type="text", text="what time is it")
            await caller.wait("turn_complete")
            assert "".join(m["text"] for m in caller.of("ai_text")) == "It is noon."

    run(main())


def test_voice_and_language_of_the_client(tmp_path: Path) -> None:
    async def main() -> None:
        start = {**START, "voice": "anna", "language": "fr"}
        async with serving(tmp_path) as served, client(served, start=start) as caller:
            await caller.speak(QUESTION)
            await caller.wait("turn_complete")
            asked = served.models.backend(Kind.TTS).requests[-1]
            assert (asked.voice, asked.language) == ("anna", "fr")

    run(main())


def test_a_start_that_was_long_on_its_way(tmp_path: Path) -> None:
    """Over a satellite `start` comes after we have taken the client for an older one."""

    async def main() -> None:
        options: dict[str, Any] = {"conversation__greeting": "Hello there, how are you doing?"}
        async with serving(tmp_path, **options) as served, client(served) as caller:
            await caller.wait("connected")
            assert await caller.wait("ai_audio_start") == {
                "type": "ai_audio_start",
                "sample_rate": 24_000,
            }
            await caller.send(**START, extensions=EVERYTHING, greeting=False)
            assert (await caller.wait("connected", 2))["extensions"] == sorted(EVERYTHING)
            await caller.wait("turn_complete")
            await caller.speak(QUESTION)
            assert (await caller.wait("ai_audio_start", 2))["reply"] == "r2"
            await caller.send(**START)
            assert "must come once" in (await caller.wait("error"))["message"]

    run(main())


def test_barge_in_and_resume_over_the_socket(tmp_path: Path) -> None:
    async def main() -> None:
        start = {**START, "extensions": EVERYTHING}
        async with serving(tmp_path) as served, client(served, start=start) as caller:
            await caller.speak(say(550, 640, silence_ms=1200))
            await caller.wait("ai_audio_start")
            await _pcm(caller, 48 * 700)
            await caller.send(type="played", reply="r1", ms=500)
            await caller.speak(say(880, 320, silence_ms=1600))
            await caller.wait("clear")
            resumed = await caller.wait("ai_audio_start", 2)
            assert resumed["reply"] == "r1"
            assert 300 <= resumed["from_ms"] <= 1_500
            await _pcm(caller, 48 * 1_500)
            await caller.speak(say(660, 640, silence_ms=1200))
            heard = await caller.wait("heard")
            assert f"{heard['text']} {heard['unheard']}" == STORY
            after = caller.frames[caller.frames.index(caller.of("clear")[-1]) :]
            sound = [f for f in after if isinstance(f, bytes) or f["type"] == "ai_audio_start"]
            assert not sound or isinstance(sound[0], dict)  # nothing of r1 after its last clear
            await caller.wait("turn_complete", 2)
            assert not caller.of("error")

    run(main())


async def _pcm(caller: Client, size: int) -> None:
    await until(lambda: sum(len(f) for f in caller.frames if isinstance(f, bytes)) >= size)


# --- audio in every dress ---------------------------------------------------------------------------


def container(fmt: str, pcm: np.ndarray = QUESTION) -> bytes:
    if fmt == "mp4":
        return fragmented_mp4(pcm)
    encoder = StreamEncoder(fmt, 16_000)
    return encoder.encode(pcm) + encoder.finish()


def fragmented_mp4(pcm: np.ndarray) -> bytes:
    """As Safari's MediaRecorder makes it."""
    options = {"movflags": "frag_every_frame+empty_moov+default_base_moof"}
    file = io.BytesIO()
    with av.open(file, "w", format="mp4", options=options) as out:
        stream: Any = out.add_stream("aac", rate=16_000)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(pcm.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate = 16_000
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return file.getvalue()


@pytest.mark.parametrize("fmt", ["webm", "opus", "mp4"])
def test_recorders(fmt: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with nothing_left(), serving(tmp_path) as served, client(served) as caller:
            await caller.send_pieces(container(fmt))
            await caller.wait("turn_complete")
            assert caller.of("transcript")[-1]["text"] == "what time is it"
            assert not caller.of("error")

    run(main())


@pytest.mark.parametrize("fmt", ["wav", "flac", "webm"])
def test_a_file_per_utterance(fmt: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as served, client(served) as caller:
            for number in (1, 2):
                await caller.socket.send(encode_file(QUESTION, 16_000, fmt))
                if fmt == "flac":  # not a recorder's format
                    assert "no WebM, Ogg, MP4 or WAV" in (await caller.wait("error"))["message"]
                    return
                await caller.wait("turn_complete", number)

    run(main())


def test_a_recorder_that_restarts(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as served, client(served) as caller:
            for number in (1, 2):
                await caller.send_pieces(container("webm"))
                await caller.wait("turn_complete", number)
            finals = [m["text"] for m in caller.of("transcript") if m["is_final"]]
            assert finals == ["what time is it"] * 2

    run(main())


def test_the_middle_of_a_recording_is_one_error(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as served, client(served) as caller:
            await caller.send_pieces(container("webm")[2_000:])
            await caller.send(type="ping")
            await caller.wait("pong")
            assert len(caller.of("error")) == 1
            assert "restart the recorder" in caller.of("error")[0]["message"]
            await caller.send_pieces(container("webm"))
            await caller.wait("turn_complete")

    run(main())


def test_a_damaged_recording_is_one_error(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as served, client(served) as caller:
            await caller.send_pieces(container("webm")[:60] + bytes(range(256)) * 40)
            await caller.send_pieces(container("webm"))
            await caller.wait("turn_complete")
            assert len(caller.of("error")) <= 1

    run(main())


@pytest.mark.parametrize(
    ("start", "dtype", "piece_bytes"),
    [
        (START, "<i2", 641),
        ({**START, "rate": 48_000}, "<i2", 1_921),
        ({**START, "format": "pcm_f32le"}, "<f4", 1_283),
    ],
    ids=["odd-pieces", "48 kHz", "floats"],
)
def test_raw_samples(start: dict[str, Any], dtype: str, piece_bytes: int, tmp_path: Path) -> None:
    async def main() -> None:
        heard = say(440, 640, silence_ms=1200, rate_hz=start["rate"])
        data = heard if dtype == "<i2" else heard / 32768
        async with serving(tmp_path) as served, client(served, start=start) as caller:
            await caller.send_pieces(data.astype(dtype).tobytes(), piece_bytes)
            await caller.wait("turn_complete")
            assert caller.of("transcript")[-1]["text"] == "what time is it"

    run(main())


# --- clients that misbehave -------------------------------------------------------------------------

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
            stats = served.models.lane_stats()["llm:scripted"]
            assert (stats.running, stats.depth) == (0, 0)
            # Its place in the model was given back as well, and the next caller is served.
            async with client(served, start=START) as caller:
                await caller.speak(QUESTION)
                await caller.wait("transcript")
            await until(lambda: not served.server.server_state.connections)

    def floors(served: Any) -> list[Floor]:
        return [s.conversation.floor for s in served.calls._sessions.values()]

    run(main())
    assert "Exception in ASGI" not in caplog.text
    assert "Traceback" not in caplog.text


def test_a_client_that_stops_reading(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with (
            nothing_left(),
            serving(tmp_path, narrow=True, server__max_outbox_bytes=20_000) as served,
        ):
            narrow = socket.socket()
            narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            narrow.setblocking(False)
            await asyncio.get_running_loop().sock_connect(narrow, _address(served.address))
            for listener in served.server.servers[0].sockets:
                assert listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) > 0
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
                peer.transport.abort()
            await until(lambda: not served.server.server_state.connections)

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


# --- who may call -----------------------------------------------------------------------------------


def test_too_many_calls(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path, server__max_calls=1) as served, client(served) as first:
            await first.wait("connected")
            async with client(served) as second:
                error = await second.wait("error")
                assert error["message"] == "all 1 lines are busy; try again soon"
                assert await second.wait_closed() == (1013, error["message"])
                assert not second.of("connected")
            await first.send(type="stop")
            await first.wait_closed()
            await until(lambda: len(served.calls) == 0)
            async with client(served) as third:
                await third.wait("connected")
            assert served.calls.counters.refused == 1

    run(main())


def test_two_at_the_door_at_the_same_moment(tmp_path: Path) -> None:
    """Both find room when they knock; only one finds it when its `start` has been waited for."""

    async def main() -> None:
        async with (
            serving(tmp_path, server__max_calls=1) as served,
            client(served) as one,
            client(served) as other,
        ):
            await until(lambda: one.frames and other.frames)
            refused = other if one.of("connected") else one
            assert "busy" in refused.of("error")[0]["message"]
            assert (await refused.wait_closed())[0] == 1013

    run(main())


def test_pages_of_other_sites(tmp_path: Path) -> None:
    async def main() -> None:
        allowed = {"server__cors_origins": "https://shop.example, http://localhost:3000"}
        async with serving(tmp_path, **allowed) as served:
            for origin in (
                "https://evil.example",
                "null",
                "http://127.0.0.1",
                "https://shop.example.evil",
            ):
                with pytest.raises(InvalidStatus) as refused:
                    await connect(served.ws, origin=origin)  # type: ignore[arg-type]
                assert refused.value.response.status_code == 403
            for origin in (
                None,
                f"http://{served.address}",
                "https://shop.example",
                "http://localhost:3000",
            ):
                async with client(served, origin=origin) as caller:
                    await caller.wait("connected")
            await until(lambda: len(served.calls) == 0)

    run(main())


class SlowLlm(ScriptedLlm):
    """Loads when it is told to."""

    may_load: asyncio.Event

    async def load(self) -> None:  # type: ignore[override]
        await type(self).may_load.wait()


register_model("llm", "test-slow")(SlowLlm)


def test_models_that_are_still_loading(tmp_path: Path) -> None:
    async def main() -> None:
        SlowLlm.may_load = asyncio.Event()
        options: dict[str, Any] = {"models__llm": "test-slow"}
        async with nothing_left(), serving(tmp_path, wait=False, **options) as served:
            async with client(served) as caller:
                assert "still loading" in (await caller.wait("error"))["message"]
                assert (await caller.wait_closed())[0] == 1013
            ready = await served.http.get("/ready")
            assert (ready.status_code, ready.json()["status"]) == (503, "loading")
            SlowLlm.may_load.set()
            await until(lambda: served.ready)
            assert (await served.http.get("/ready")).status_code == 200
            async with client(served) as caller:
                await caller.wait("connected")

    run(main())


def test_stopping_while_models_load(tmp_path: Path) -> None:
    async def main() -> None:
        SlowLlm.may_load = asyncio.Event()
        async with nothing_left(), serving(tmp_path, wait=False, models__llm="test-slow"):
            pass

    run(main())


def test_a_server_that_is_told_to_stop_lets_calls_end(tmp_path: Path) -> None:
    async def main() -> None:
        async with nothing_left(), serving(tmp_path, drain_s=PATIENCE_S) as served:
            async with client(served, start={**START, "extensions": ["heard"]}) as caller:
                await caller.wait("connected")
                served.server.should_exit = True
                await until(lambda: served.calls.draining)
                ready = await served.http.get("/ready")
                assert (ready.status_code, ready.json()["status"]) == (503, "draining")
                async with client(served) as late:
                    assert "shutting down" in (await late.wait("error"))["message"]
                await caller.speak(QUESTION)  # the call that is on goes on
                await caller.wait("turn_complete")
                await caller.send(type="stop")
                assert await caller.wait_closed() == (1000, "")
            await served.serving

    run(main())


def test_a_server_that_has_no_more_patience_ends_calls(tmp_path: Path) -> None:
    async def main() -> None:
        async with nothing_left(), serving(tmp_path, drain_s=0.05) as served:
            async with client(served, start={**START, "extensions": ["heard"]}) as caller:
                await caller.speak(say(550, 640, silence_ms=1200))
                await caller.wait("ai_audio_start")
                served.server.should_exit = True
                assert (await caller.wait("ended"))["reason"] == "the server is shutting down"
                assert (await caller.wait_closed())[0] == 1000
            await served.serving

    run(main())


def test_a_call_cannot_last_for_ever(tmp_path: Path) -> None:
    async def main() -> None:
        async with (
            serving(tmp_path, server__max_call_s=1) as served,
            client(served, start={**START, "extensions": ["heard"]}) as caller,
        ):
            assert "longest duration" in (await caller.wait("ended"))["reason"]
            await caller.wait_closed()

    run(main())


def test_traces_are_written_and_replay(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path, trace_dir=tmp_path / "traces") as served:
            async with client(served, start=START) as caller:
                await caller.speak(QUESTION)
                await caller.wait("turn_complete")
            await until(lambda: len(served.calls) == 0)

    run(main())
    (file,) = (tmp_path / "traces").iterdir()
    assert trace.replay(file.read_text().splitlines()) is None
