"""The Unmute dialect over real sockets: Ogg Opus both ways, the agent first, words as they are heard."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.protocols.realtime.support import b64, call, spoken
from tests.server.support import Served, serving
from tests.support import run, say, until
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from antiphon.audio.containers import decode_file
from antiphon.audio.encoding import StreamEncoder
from antiphon.models.ports import Pcm16

RATE_HZ = 24_000
HELLO = "Hello, who are you?"
LLM = {"rules": {"^Hello.$": HELLO, "time": "It is noon.", "stop": "Good bye!"}}
SMALLTALK = {
    "instructions": {"type": "smalltalk", "language": "en"},
    "voice": "unmute-prod-website/p329.wav",
    "allow_recording": False,
}


@dataclass(slots=True)
class Unmute:
    socket: ClientConnection
    events: list[dict[str, Any]] = field(default_factory=list)
    closed: int = 0
    microphone: StreamEncoder = field(default_factory=lambda: StreamEncoder("opus", RATE_HZ))

    async def listen(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            async for frame in self.socket:
                assert isinstance(frame, str)
                self.events.append(json.loads(frame))
        self.closed = self.socket.close_code or 0

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["type"] == kind]

    async def wait(self, kind: str, count: int = 1) -> dict[str, Any]:
        await until(
            lambda: len(self.of(kind)) >= count or self.closed,
            f"no {kind}: {[e['type'] for e in self.events]}",
        )
        assert len(self.of(kind)) >= count, [e["type"] for e in self.events]
        return self.of(kind)[count - 1]

    async def send(self, kind: str, **fields: Any) -> None:
        await self.socket.send(json.dumps({"type": kind, **fields}))

    async def say(self, pcm: Pcm16) -> None:
        for at in range(0, len(pcm), 960):
            pages = self.microphone.encode(pcm[at : at + 960])
            if pages:
                await self.send("input_audio_buffer.append", audio=base64.b64encode(pages).decode())

    def voice(self) -> Pcm16:
        pages = b"".join(base64.b64decode(e["delta"]) for e in self.of("response.audio.delta"))
        return decode_file(io.BytesIO(pages).getvalue(), rate_hz=RATE_HZ).pcm

    def kinds(self, start: int = 0) -> list[str]:
        kinds = [event["type"] for event in self.events[start:]]
        return [k for n, k in enumerate(kinds) if n == 0 or kinds[n - 1] != k]


@contextlib.asynccontextmanager
async def unmute(served: Served, path: str = "/v1/realtime") -> AsyncIterator[Unmute]:
    url = f"ws://{served.address}{path}"
    async with connect(url, subprotocols=["realtime"]) as socket:  # type: ignore[list-item]
        assert socket.subprotocol == "realtime"
        found = Unmute(socket)
        listening = asyncio.create_task(found.listen())
        try:
            yield found
        finally:
            await socket.close()
            await listening


@pytest.mark.parametrize("path", ["/v1/realtime", "/api/v1/realtime", "/ws"])
def test_the_agent_speaks_first_and_a_turn_follows(tmp_path: Path, path: str) -> None:
    async def main() -> None:
        async with (
            serving(tmp_path, models__options__llm__scripted=LLM) as served,
            unmute(served, path) as c,
        ):
            await c.send("session.update", session=SMALLTALK)
            updated = await c.wait("session.updated")
            assert updated["session"] == SMALLTALK
            await c.say(np.zeros(4800, np.int16))
            created = (await c.wait("response.created"))["response"]
            assert (created["status"], created["voice"]) == ("in_progress", SMALLTALK["voice"])
            assert created["chat_history"][0]["role"] == "system"
            await c.wait("response.audio.done")
            assert [e["delta"] for e in c.of("response.text.delta")] == HELLO.split()
            ready = "".join(e["delta"] for e in c.of("unmute.response.text.delta.ready"))
            assert ready == HELLO
            kinds = [e["type"] for e in c.events]
            last = kinds.index("response.audio.done")
            assert kinds[last - 1] == "unmute.additional_outputs"
            assert "response.audio.delta" not in kinds[last:]
            history = c.events[last - 1]["args"]["chat_history"]
            assert history[-1] == {"role": "assistant", "content": HELLO}
            voice = c.voice()
            assert len(voice) >= RATE_HZ * 0.4
            assert np.abs(voice).max() > 1000
            begin = len(c.events)
            await c.say(say(440, 640, silence_ms=1200, rate_hz=RATE_HZ))
            await c.wait("response.audio.done", 2)
            heard = "conversation.item.input_audio_transcription.delta"
            assert [e["delta"] for e in c.of(heard)] == ["what", "time", "is", "it"]
            kinds = c.kinds(begin)
            for first, then in (
                ("input_audio_buffer.speech_started", "input_audio_buffer.speech_stopped"),
                ("input_audio_buffer.speech_stopped", "response.created"),
                ("response.created", "response.audio.delta"),
                ("response.text.delta", "response.audio.done"),
            ):
                assert kinds.index(first) < kinds.index(then)
            history = c.of("unmute.additional_outputs")[-1]["args"]["chat_history"]
            assert [m["content"] for m in history[2:]] == ["what time is it", "It is noon."]
            assert not c.of("error")
            assert not c.of("session.created")

    run(main())


def test_stale_pages_are_not_heard_and_goodbye_ends_the_call(tmp_path: Path) -> None:
    async def main() -> None:
        async with (
            serving(tmp_path, models__options__llm__scripted=LLM) as served,
            unmute(served) as c,
        ):
            await c.send("session.update", session={**SMALLTALK, "instructions": None})
            stale = StreamEncoder("opus", RATE_HZ)
            stale.encode(np.zeros(RATE_HZ, np.int16))
            pages = stale.encode(say(440, 640, rate_hz=RATE_HZ))
            await c.send("input_audio_buffer.append", audio=base64.b64encode(pages).decode())
            await c.wait("session.updated")
            assert not c.of("response.created")
            await c.say(np.zeros(4800, np.int16))
            await c.wait("response.audio.done")
            await c.say(say(660, 640, silence_ms=1200, rate_hz=RATE_HZ))
            await until(lambda: c.closed, "the call was not ended")
            assert c.closed == 1000
            assert c.of("response.text.done")[-1]["text"] == "Good bye!"

    run(main())


def test_interruption(tmp_path: Path) -> None:
    llm = {"rules": {"^Hello.$": " ".join(f"word{n}" for n in range(1, 27))}}

    async def main() -> None:
        async with (
            serving(tmp_path, models__options__llm__scripted=llm) as served,
            unmute(served) as c,
        ):
            await c.send("session.update", session=SMALLTALK)
            await c.say(np.zeros(4800, np.int16))
            await c.wait("response.text.delta", 3)
            await c.say(say(660, 960, silence_ms=1200, rate_hz=RATE_HZ))
            await c.wait("unmute.interrupted_by_vad")
            await c.wait("response.audio.done")
            said = c.of("response.text.done")[0]["text"].split()
            assert 3 <= len(said) < 26
            told = [e["delta"] for e in c.of("response.text.delta")]
            assert told[: len(said)] == said

    run(main())


def test_bad_input_is_told_and_too_many_are_refused(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path, server__max_calls=1) as served, unmute(served) as c:
            await c.send("session.update", session={**SMALLTALK, "instructions": {"type": "x"}})
            await c.send("no.such.event")
            await c.send("input_audio_buffer.append", audio="***")
            await c.socket.send("[]")
            await c.socket.send(b"x")
            await c.wait("error", 5)
            assert {e["error"]["type"] for e in c.of("error")} == {"warning"}
            begin = base64.b64encode(b"OggS\0\2" + b"x" * 60).decode()
            await c.send("input_audio_buffer.append", audio=begin)
            await c.send("session.update", session=SMALLTALK)
            await c.wait("session.updated")
            async with unmute(served) as second:
                await second.send("session.update", session=SMALLTALK)
                await until(lambda: second.closed)
                assert second.closed == 1011
                assert second.events[0]["error"]["type"] == "fatal"
                assert "too many people" in second.events[0]["error"]["message"]

    run(main())


def test_others_without_a_model_are_told_of_their_session(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as served, unmute(served) as c:
            await c.wait("session.created")  # it said nothing: it is not Unmute
            await c.send("session.update", session={"type": "realtime", "instructions": "x"})
            await c.wait("session.updated")
        async with serving(tmp_path) as served, unmute(served, "/ws") as c:
            await c.send("session.update", session={"type": "realtime", "instructions": "x"})
            assert (await c.wait("session.updated"))["session"]["instructions"] == "x"
            assert c.of("session.created")

    run(main())


def test_ws_wants_the_key_too(tmp_path: Path) -> None:
    async def main() -> None:
        async with (
            serving(tmp_path, security__api_key="sk-right-and-long-enough") as served,
            unmute(served, "/ws") as c,
        ):
            await c.send("session.update", session=SMALLTALK)
            await until(lambda: c.closed)
            assert c.closed == 1008

    run(main())


def test_ogg_opus_in_an_ordinary_session(tmp_path: Path) -> None:
    async def main() -> None:
        async with call(tmp_path) as c:
            encoder = StreamEncoder("opus", RATE_HZ)
            pages = encoder.encode(spoken(440, silence_ms=1200)) + encoder.finish()
            for at in range(0, len(pages), 4_000):
                piece = base64.b64encode(pages[at : at + 4_000]).decode()
                await c.send("input_audio_buffer.append", audio=piece)
            await c.wait("response.done")
            assert b64(np.zeros(1, np.int16)) != c.audio()

    run(main())


def test_health_and_voices(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as served:
            for prefix in ("/v1", "/api/v1"):
                health = (await served.http.get(f"{prefix}/health")).json()
                up = {"tts_up": True, "stt_up": True, "llm_up": True, "ok": True}
                assert health == {**up, "voice_cloning_up": health["voice_cloning_up"]}
                (first, *_) = (await served.http.get(f"{prefix}/voices")).json()
                assert first["source"]["path_on_server"]
                assert first["instructions"]["type"] == "smalltalk"
            clip = say(440, 3000)
            encoder = StreamEncoder("wav", 16_000)
            wav = encoder.encode(clip) + encoder.finish()
            answer = await served.http.post("/v1/voices", files={"file": ("clip.wav", wav)})
            if health["voice_cloning_up"]:
                assert answer.json()["name"].startswith("custom:")
            else:
                assert answer.status_code == 501
            big = await served.http.post("/v1/voices", files={"file": ("a", bytes(5 << 20))})
            assert big.status_code == 413
            assert (await served.http.post("/v1/voices")).status_code in (400, 411)

            async def chunks() -> AsyncIterator[bytes]:
                yield b"x"

            unsized = await served.http.post("/v1/voices", content=chunks())
            assert unsized.status_code == 411

    run(main())
