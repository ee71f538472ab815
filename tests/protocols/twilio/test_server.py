"""Telephone calls over `/media-stream`: the real server on a real socket, models that do as they are told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.protocols.twilio.streams import (
    CONNECTED,
    FORMAT,
    history_of,
    llm_of,
    open_stream,
    phone_call,
    session_of,
    start_frame,
    token_of,
)
from tests.server.support import client, serving
from tests.support import nothing_left, run, say, until

from antiphon.audio import g711
from antiphon.core.floor import Floor

QUESTION = say(440, 640, silence_ms=1200, rate_hz=8_000)
STORY = say(550, 640, silence_ms=1200, rate_hz=8_000)
STOP = say(660, 640, silence_ms=1200, rate_hz=8_000)


def test_a_call_from_the_webhook_to_the_end(tmp_path: Path) -> None:
    async def main() -> None:
        async with nothing_left(), serving(tmp_path, phone__greeting="Good morning.") as served:
            async with phone_call(served, tenant="acme") as line:
                await until(
                    lambda: ("assistant", "Good morning.") in history_of(session_of(served))
                )
                await line.speak(QUESTION)
                await until(lambda: ("assistant", "It is noon.") in history_of(session_of(served)))
                # 200 ms of greeting and 300 of answer, with a mark after each piece.
                assert len(line.heard()) == 8 * 500
                pieces = [len(f["media"]["payload"]) * 3 // 4 for f in line.of("media")]
                assert max(pieces) <= 960 + 2
                assert len(line.of("mark")) == len(line.of("media"))
                prompt = llm_of(served).requests[-1].messages[1].content
                facts = json.loads(prompt.splitlines()[-1])
                assert facts == {
                    "caller": "+15550100",
                    "called": "+15550199",
                    "direction": "they called us",
                    "tenant": "acme",
                }
                await line.send({"event": "stop", "streamSid": "MZ1", "stop": {"callSid": "CA1"}})
                assert await line.wait_closed() == (1000, "")
            await until(lambda: len(served.calls) == 0)

    run(main())


def test_the_voice_is_listened_to_at_8_khz(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as served, phone_call(served) as line:
            assert session_of(served).transport.audio.listen_hz == 8_000
            assert session_of(served)._audio_input.rate_hz == 8_000
            await line.speak(QUESTION)
            await until(lambda: len(history_of(session_of(served))) == 2)

    run(main())


def test_an_interruption_clears_what_twilio_has_queued(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as served, phone_call(served, echo=False) as line:
            await line.speak(STORY)
            await line.wait("mark", 2)
            names = list(line.pending)
            assert names[0].startswith("1:")
            await line.send({"event": "mark", "mark": {"name": names[0]}})
            line.pending.remove(names[0])
            await line.speak(STOP)
            await line.wait("clear")
            await until(lambda: ("user", "stop please") in history_of(session_of(served)))
            roles = history_of(session_of(served))
            told = next(text for role, text in roles if role == "assistant")
            # 26 words were made, 240 ms or so had left; the echoes after the `clear` are not what was heard.
            assert len(told.split()) <= 4, told
            await until(lambda: any(name[0] != "1" for name in line.pending), "no new generation")

    run(main())


def test_nothing_of_the_old_reply_follows_a_clear(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as served, phone_call(served, echo=False) as line:
            await line.speak(STORY)
            await line.wait("mark", 2)
            reply = line.pending[0].split(":")[1]
            await line.speak(STOP)
            await line.wait("clear")
            await until(lambda: ("user", "stop please") in history_of(session_of(served)))
            cleared = max(n for n, f in enumerate(line.frames) if f["event"] == "clear")
            after = [f["mark"]["name"] for f in line.frames[cleared:] if f["event"] == "mark"]
            assert not [name for name in after if f":{reply}:" in name]

    run(main())


def test_the_goodbye_is_played_out_before_the_line_is_cut(tmp_path: Path) -> None:
    call = {"name": "hang_up", "arguments": {"goodbye": "Bye for now."}}

    async def main() -> None:
        options = {
            "models__options__llm__scripted": {"tools": {"time": call}},
            "conversation__playout_grace_ms": 60_000,
        }
        async with serving(tmp_path, **options) as served, phone_call(served, echo=False) as line:
            await line.speak(QUESTION)
            await until(lambda: session_of(served).view.floor is Floor.CLOSING, "no goodbye")
            await until(lambda: len(line.heard()) == 8 * 300)
            assert line.closed is None, "the caller has not heard it yet"
            await line.echo_all()
            assert await line.wait_closed() == (1000, "")

    run(main())


@pytest.mark.parametrize("orderly", [True, False])
@pytest.mark.parametrize("when", ["opening", "listening", "speaking"])
def test_a_stream_that_ends_leaves_nothing(when: str, orderly: bool, tmp_path: Path) -> None:
    async def main() -> None:
        async with nothing_left(), serving(tmp_path) as served:
            async with open_stream(served) as line:
                await line.send(CONNECTED)
                if when != "opening":
                    await line.send(start_frame())
                    await until(lambda: len(served.calls) == 1)
                    await line.speak(STORY if when == "speaking" else say(550, 640, rate_hz=8_000))
                if when == "speaking":
                    await line.wait("media", 2)
                if orderly:
                    await line.send({"event": "stop", "stop": {}})
                    await line.wait_closed()
                else:
                    line.socket.transport.abort()
            await until(lambda: len(served.calls) == 0, "the call goes on")
            await until(lambda: served.models.scheduler_stats()["llm:scripted"].running == 0)

    run(main())


def test_nobody_is_there(tmp_path: Path) -> None:
    """The caller is asked, then told goodbye, then the line is cut."""

    async def main() -> None:
        options: dict[str, Any] = {
            "conversation__idle_prompt_after_ms": 200,
            "conversation__max_idle_prompts": 1,
            "conversation__idle_prompt": "Hello?",
            "conversation__goodbye": "Goodbye.",
        }
        async with serving(tmp_path, **options) as served, phone_call(served) as line:
            session = session_of(served)
            await line.wait_closed()
            said = [text for role, text in history_of(session) if role == "assistant"]
            assert said == ["Hello?", "Goodbye."]

    run(main())


TELNYX_START = {
    "event": "start",
    "sequence_number": "1",
    "stream_id": "T1",
    "start": {
        "user_id": "U1",
        "call_control_id": "v3:1",
        "from": "+15550100",
        "media_format": {"encoding": "PCMU", "sample_rate": 8000, "channels": 1},
    },
}
PLIVO_START = {
    "event": "start",
    "sequenceNumber": 0,
    "start": {
        "callId": "P1",
        "streamId": "S1",
        "accountId": "A1",
        "tracks": ["inbound"],
        "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000},
    },
    "extra_headers": "{}",
}


@pytest.mark.parametrize("start", [TELNYX_START, PLIVO_START])
def test_other_companies(start: dict[str, Any], tmp_path: Path) -> None:
    """Their webhooks do not ask us: the key in the path opens the transport, whatever else is checked."""

    async def main() -> None:
        options = {"phone__auth_token": "secret", "phone__stream_key": "the-key"}
        async with (
            serving(tmp_path, **options) as served,
            open_stream(served, "/media-stream/the-key") as line,
        ):
            await line.send(start)
            await line.speak(QUESTION)
            await until(lambda: len(line.heard()) == 8 * 300, "no answer")

    run(main())


def test_a_law_is_read_and_answered(tmp_path: Path) -> None:
    async def main() -> None:
        start = start_frame()
        start["start"]["mediaFormat"] = {**FORMAT, "encoding": "PCMA"}
        async with serving(tmp_path) as served, open_stream(served) as line:
            await line.send(start)
            await until(lambda: len(served.calls) == 1)
            line.encode = g711.encode_alaw
            await line.speak(QUESTION)
            await until(lambda: ("user", "what time is it") in history_of(session_of(served)))

    run(main())


def test_ws_is_told_apart_by_its_first_frame(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as served:
            async with open_stream(served, "/ws") as line:
                await line.send(CONNECTED)
                await line.send(start_frame())
                await until(lambda: len(served.calls) == 1)
                await line.speak(QUESTION)
                await line.wait("media")
            async with open_stream(served, "/ws") as line:
                await line.send({"hello": "there"})
                code, reason = await line.wait_closed()
                assert code == 1003
                assert "/v1/realtime" in reason

    run(main())


def test_a_full_house(tmp_path: Path) -> None:
    async def main() -> None:
        async with (
            serving(tmp_path, server__max_calls=1) as served,
            client(served, start={"type": "start", "format": "pcm_s16le"}),
        ):
            await until(lambda: len(served.calls) == 1)
            answer = await served.http.post("/voice-stream", data={"CallSid": "CA9"})
            assert answer.status_code == 200
            assert "lines are busy" in answer.text
            assert "<Hangup/>" in answer.text
            async with open_stream(served) as line:
                await line.send(start_frame())
                code, reason = await line.wait_closed()
                assert code == 1013
                assert "busy" in reason

    run(main())


def test_a_token_opens_one_call(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as served:
            token = await token_of(served)
            async with open_stream(served, f"/media-stream/{token}") as line:
                await line.send(start_frame())
                await until(lambda: len(served.calls) == 1)
                for wrong in (start_frame(token), start_frame("never-given-out")):
                    async with open_stream(served) as other:
                        await other.send(wrong)
                        code, reason = await other.wait_closed()
                        assert code == 1008
                        assert "token" in reason
                await line.speak(QUESTION)
                await line.wait("media")
            theirs = await token_of(served, CallSid="CA2")
            async with open_stream(served) as line:
                await line.send(start_frame(theirs, call="CA3"))
                assert (await line.wait_closed())[0] == 1008
            await until(lambda: len(served.calls) == 0)

    run(main())
