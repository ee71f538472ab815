"""WebRTC: a real peer of aiortc's on loopback speaks, hears, interrupts and vanishes."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import aioice.ice
import pytest
from openai import AsyncOpenAI
from tests.protocols.realtime import rtc
from tests.protocols.realtime.rtc import RATE_HZ, calling, client, connect
from tests.server.support import Served, serving
from tests.support import nothing_left, run, say, until

SLOW_STORY = {"rules": {"story": " ".join(f"word{n}" for n in range(1, 27))}}
ORDER = [
    "response.created",
    "output_audio_buffer.started",
    "response.done",
    "output_audio_buffer.stopped",
]


@pytest.fixture(autouse=True)
def loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    rtc.loopback_only(monkeypatch)


def history(served: Served) -> list[tuple[str, str]]:
    (session,) = served.calls._sessions.values()
    return [(item.role, item.text) for item in session.view.history]


def test_a_spoken_turn(tmp_path: Path) -> None:
    async def main() -> None:
        async with nothing_left(), serving(tmp_path) as served, calling(served) as c:
            assert c.answer is not None
            assert c.answer.headers["content-type"] == "application/sdp"
            assert c.path.startswith("/v1/realtime/calls/rtc_")
            c.microphone.say(say(440, 640, rate_hz=RATE_HZ))
            await c.wait("input_audio_buffer.speech_started")
            done = await c.wait("response.done")
            stopped = await c.wait("output_audio_buffer.stopped")
            assert stopped["response_id"] == done["response"]["id"]
            kinds = [e["type"] for e in c.events if e["type"] in ORDER]
            assert sorted(kinds, key=ORDER.index) == ORDER
            assert kinds[-1] == ORDER[-1]
            (item,) = done["response"]["output"]
            assert item["content"][0]["transcript"] == "It is noon."
            assert not c.of("response.output_audio.delta")
            # Three words of 100 ms each, as the track had them.
            await until(lambda: c.loud_ms >= 260, "the answer was not heard")
            await until(lambda: history(served)[-1] == ("assistant", "It is noon."))
            assert history(served)[0] == ("user", "what time is it")

    run(main())


def test_barge_in_clears_the_buffer_and_the_history_is_what_was_played(tmp_path: Path) -> None:
    async def main() -> None:
        async with (
            serving(tmp_path, models__options__llm__scripted=SLOW_STORY) as served,
            calling(served) as c,
        ):
            c.microphone.say(say(550, 640, rate_hz=RATE_HZ))
            await c.wait("output_audio_buffer.started")
            await until(lambda: c.loud_ms >= 600, "the story was not heard")
            c.microphone.say(say(660, 640, rate_hz=RATE_HZ))
            cleared = await c.wait("output_audio_buffer.cleared")
            assert cleared["response_id"] == c.of("response.created")[0]["response"]["id"]
            came = len(c.heard)
            await until(lambda: len(c.heard) >= came + 15)  # what was on the way has arrived
            heard_ms = c.loud_ms
            await until(lambda: ("user", "stop please") in history(served))
            said = next(text for role, text in history(served) if role == "assistant")
            # 100 ms a word: what the track carried is what the history says.
            assert len(said.split()) == pytest.approx(heard_ms / 100, abs=2)

    run(main())


def test_the_client_clears_the_buffer(tmp_path: Path) -> None:
    async def main() -> None:
        async with (
            serving(tmp_path, models__options__llm__scripted=SLOW_STORY) as served,
            calling(served) as c,
        ):
            c.send("output_audio_buffer.clear")  # nothing plays: nothing happens
            part = {"type": "input_text", "text": "tell me a story"}
            item = {"type": "message", "role": "user", "content": [part]}
            c.send("conversation.item.create", item=item)
            c.send("response.create")
            await c.wait("output_audio_buffer.started")
            await c.wait("response.done")  # made, not heard
            await until(lambda: c.loud_ms >= 200)
            c.send("output_audio_buffer.clear")
            await c.wait("output_audio_buffer.cleared")
            await until(lambda: history(served)[-1][0] == "assistant")
            assert len(history(served)[-1][1].split()) < 26
            assert not c.of("error")

    run(main())


def test_a_second_response_while_the_first_is_playing(tmp_path: Path) -> None:
    async def main() -> None:
        async with (
            serving(
                tmp_path,
                models__options__llm__scripted={"replies": ["One, two, three. Four, five, six."]},
                realtime__speak_ahead_ms=100,
            ) as served,
            calling(served) as c,
        ):
            c.send("response.create")
            await c.wait("response.done")
            c.send("response.create")
            await c.wait("output_audio_buffer.stopped", 2)
            buffer = [e for e in c.events if e["type"].startswith("output_audio_buffer")]
            first, second = (e["response"]["id"] for e in c.of("response.created"))
            assert [e["response_id"] for e in buffer] == [first, first, second, second]
            assert [e["type"].rpartition(".")[2] for e in buffer] == ["started", "stopped"] * 2
            await until(lambda: c.loud_ms >= 2 * 560, f"{c.loud_ms} ms of 1200 were heard")
            texts = [text for role, text in history(served) if role == "assistant"]
            assert texts == ["One, two, three. Four, five, six."] * 2

    run(main())


def test_an_event_that_is_too_large_for_the_channel(tmp_path: Path) -> None:
    async def main() -> None:
        async with (
            serving(tmp_path, models__options__llm__scripted={"replies": ["word " * 60]}) as served,
            calling(served) as c,
        ):
            c.send("response.create")
            (item,) = (await c.wait("response.done"))["response"]["output"]
            c.send("conversation.item.retrieve", item_id=item["id"])
            assert (await c.wait("error"))["error"]["code"] == "event_too_large"
            c.send("conversation.item.delete", item_id=item["id"])
            await c.wait("conversation.item.deleted")

    run(main())


def test_the_session_of_the_form_and_hanging_up(tmp_path: Path) -> None:
    async def main() -> None:
        session = {"type": "realtime", "instructions": "Be a pirate.", "model": "gpt-realtime"}
        async with serving(tmp_path) as served, calling(served, **session) as c:
            created = c.of("session.created")[0]["session"]
            assert (created["instructions"], created["model"]) == ("Be a pirate.", "gpt-realtime")
            assert (await served.http.post("/v1/realtime/calls/rtc_no/hangup")).status_code == 404
            assert (await served.http.post(f"{c.path}/hangup")).status_code == 200
            await until(lambda: not len(served.calls) and not len(served.app.state.rtc))
            await until(lambda: c.closed)

    run(main())


def test_without_a_data_channel_it_is_a_telephone(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as served, calling(served, channel=False) as c:
            await until(lambda: len(served.calls) == 1)
            c.microphone.say(say(440, 640, rate_hz=RATE_HZ))
            await until(lambda: c.loud_ms >= 200, "the answer was not heard")

    run(main())


def test_the_sdk_and_its_keys(tmp_path: Path) -> None:
    async def main() -> None:
        async with (
            serving(tmp_path, security__api_key="sk-right-and-long-enough") as served,
            client() as c,
        ):
            base = f"http://{served.address}/v1"
            sdp = await rtc.offer(c.pc)
            headers = {"Content-Type": "application/sdp"}
            wrong = await served.http.post("/v1/realtime/calls", content=sdp, headers=headers)
            assert wrong.status_code == 401
            sdk = AsyncOpenAI(base_url=base, api_key="sk-right-and-long-enough")
            secret = await sdk.realtime.client_secrets.create(
                session={"type": "realtime", "instructions": "Be short."}
            )
            page = AsyncOpenAI(base_url=base, api_key=secret.value)
            answer = await page.realtime.calls.create(sdp=sdp, session={"type": "realtime"})
            found = rtc.RTCSessionDescription(answer.text, "answer")
            await c.pc.setRemoteDescription(found)
            created = (await c.wait("session.created"))["session"]
            assert created["instructions"] == "Be short."
            path = answer.response.headers["location"]
            await page.realtime.calls.hangup(path.rpartition("/")[2])
            await until(lambda: not len(served.app.state.rtc))
            await sdk.close()
            await page.close()

    run(main())


BAD = [
    ("application/sdp", "", 400),
    ("application/sdp", "nonsense", 400),
    ("application/sdp", "v=0\r\nm=audio", 400),
    ("application/sdp", "x" * (65 << 10), 413),
    ("application/json", "{}", 415),
]


def test_offers_that_cannot_be_met(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as served, client() as c, nothing_left():
            sdp = await rtc.offer(c.pc)
            mute = sdp.replace("a=sendrecv", "a=sendonly")
            deaf = sdp.replace("opus/48000", "strange/48000")
            deaf = "\r\n".join(x for x in deaf.split("\r\n") if "PCM" not in x and "G722" not in x)
            film = sdp + sdp[sdp.index("m=audio") : sdp.index("m=application")].replace(
                "m=audio", "m=video"
            )
            for kind, body, status in [
                *BAD,
                *(("application/sdp", bad, 400) for bad in (mute, deaf, film)),
            ]:
                answer = await served.http.post(
                    "/v1/realtime/calls", content=body, headers={"Content-Type": kind}
                )
                assert answer.status_code == status, (kind, body[:40], answer.text)
                assert answer.json()["error"]["message"]
            form = {"sdp": (None, sdp), "session": (None, '{"type": "realtime", "tools": 3}')}
            answer = await served.http.post("/v1/realtime/calls", files=form)
            assert answer.status_code == 400
            assert answer.json()["error"]["param"].startswith("session.tools")
            assert not len(served.app.state.rtc)

    run(main())


def test_an_ice_server_that_is_none(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path, realtime__rtc_ice_servers=["nonsense"]) as served:
            headers = {"Content-Type": "application/sdp"}
            answer = await served.http.post("/v1/realtime/calls", content="x", headers=headers)
            assert answer.status_code == 500
            assert "rtc_ice_servers" in answer.json()["error"]["message"]

    run(main())


def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "antiphon.protocols.realtime.webrtc_peer", None)

    async def main() -> None:
        async with serving(tmp_path) as served:
            headers = {"Content-Type": "application/sdp"}
            answer = await served.http.post("/v1/realtime/calls", content="x", headers=headers)
            assert answer.status_code == 501
            assert "antiphon[rtc]" in answer.json()["error"]["message"]

    run(main())


def test_a_peer_that_never_comes_and_one_too_many(tmp_path: Path) -> None:
    async def main() -> None:
        limits = {"server__max_calls": 1, "realtime__rtc_setup_s": 1}
        async with serving(tmp_path, **limits) as served, client() as c:
            headers = {"Content-Type": "application/sdp"}
            sdp = await rtc.offer(c.pc)
            first = await served.http.post("/v1/realtime/calls", content=sdp, headers=headers)
            assert first.status_code == 201
            second = await served.http.post("/v1/realtime/calls", content=sdp, headers=headers)
            assert second.status_code == 503
            assert "busy" in second.json()["error"]["message"]
            await until(lambda: not len(served.app.state.rtc), "it is still waited for")
            await connect(c, served)
            await c.wait("session.created")

    run(main())


def test_a_peer_that_vanishes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aioice.ice, "CONSENT_INTERVAL", 0.05)
    monkeypatch.setattr(aioice.ice, "CONSENT_FAILURES", 2)

    async def main() -> None:
        async with serving(tmp_path) as served, calling(served) as c:
            ice = c.pc.getTransceivers()[0].sender.transport.transport
            for protocol in ice._connection._protocols:
                protocol.transport.abort()
            await until(lambda: not len(served.calls) and not len(served.app.state.rtc))

    run(main())


def test_the_server_ends_with_a_call_on(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as served, calling(served) as c:
            served.server.should_exit = True
            await until(lambda: c.closed, "the call was not ended")
            async with asyncio.timeout(10):
                await asyncio.shield(served.serving)

    run(main())
