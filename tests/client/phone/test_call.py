"""Whole calls over a real socket, to a small agent that writes down what it is sent."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import numpy as np
import pytest
from tests.client.phone.fake_agent import FakeCall, fake_agent, payload
from tests.support import nothing_left, run, say, until
from twilio.request_validator import RequestValidator

from antiphon.audio.g711 import decode_ulaw
from antiphon.client.phone import call_summary
from antiphon.client.phone.caller import Number, PhoneCall, number_for
from antiphon.client.phone.carrier_webhooks import PhoneNumbers
from antiphon.client.phone.clips import Clip, make_clip
from antiphon.client.phone.impairments import Impairments
from antiphon.client.phone.script import CallResult, Script, call_once, numbered
from antiphon.errors import ProtocolError

TWIML = (
    '<Response><Connect><Stream url="ws://{address}/media-stream" statusCallback="/status">'
    '<Parameter name="token" value="t1"/></Stream></Connect><Hangup/></Response>'
)


def question(ms: int = 300, hz: int = 440) -> Clip:
    return make_clip(f"{hz}.wav", say(hz, ms, rate_hz=8_000), 8_000)


def quick(*clips: Clip, **options: Any) -> Script:
    return Script(clips, **{"quiet_ms": 200, "greeting_s": 0.0, "answer_limit_s": 5.0, **options})


def test_the_messages_are_twilios() -> None:
    async def scenario() -> None:
        async with fake_agent() as agent, nothing_left():
            number = number_for([agent.ws], parameters={"tenant": "acme"})
            result = await call_once(number, quick(question(), digits="1#"))
            assert (result.trouble, result.faults) == ("", [])
            await until(lambda: agent.calls[0].closed)
            messages = agent.calls[0].messages
            line = number.line
            assert messages[0] == {"event": "connected", "protocol": "Call", "version": "1.0.0"}
            assert messages[1] == {
                "event": "start",
                "sequenceNumber": "1",
                "streamSid": line.stream_sid,
                "start": {
                    "accountSid": line.account_sid,
                    "streamSid": line.stream_sid,
                    "callSid": line.call_sid,
                    "tracks": ["inbound"],
                    "mediaFormat": {
                        "encoding": "audio/x-mulaw",
                        "sampleRate": 8000,
                        "channels": 1,
                    },
                    "customParameters": {"tenant": "acme"},
                },
            }
            assert messages[-1]["event"] == "stop"
            assert messages[-1]["stop"] == {
                "accountSid": line.account_sid,
                "callSid": line.call_sid,
            }
            numbers = [int(m["sequenceNumber"]) for m in messages[1:]]
            assert numbers == list(range(1, len(messages)))
            media = [m["media"] for m in agent.calls[0].of("media")]
            assert [m["chunk"] for m in media] == [str(i + 1) for i in range(len(media))]
            assert [m["timestamp"] for m in media] == [str(20 * i) for i in range(len(media))]
            assert {m["track"] for m in media} == {"inbound"}
            assert {len(base64.b64decode(m["payload"])) for m in media} == {160}
            digits = [m["dtmf"] for m in agent.calls[0].of("dtmf")]
            assert digits == [{"track": "inbound_track", "digit": d} for d in "1#"]
            heard = decode_ulaw(b"".join(base64.b64decode(m["payload"]) for m in media))
            assert result.recording is not None
            same = np.array_equal(
                heard[: len(result.recording.caller)], result.recording.caller[: len(heard)]
            )
            assert same, "what is kept is what was sent"

    run(scenario())


def test_through_the_webhook_signed_with_its_parameters() -> None:
    async def scenario() -> None:
        async with fake_agent() as agent:
            agent.twiml = TWIML
            line = PhoneNumbers(auth_token="secret")
            number = number_for([f"http://{agent.address}"], line=line, parameters={"more": "x"})
            result = await call_once(number, quick(question()))
            assert result.trouble == ""
            assert result.faults == ["31922: Twilio connects to wss:// only"]
            call = agent.calls[0]
            assert call.of("start")[0]["start"]["customParameters"] == {"token": "t1", "more": "x"}
            signed = call.headers["x-twilio-signature"]
            assert RequestValidator("secret").validate(agent.ws, {}, signed)
            assert [path for path, *_ in agent.forms] == ["/voice-stream", "/status", "/status"]
            assert [form.get("StreamEvent") for _, form, _ in agent.forms[1:]] == [
                "stream-started",
                "stream-stopped",
            ]
            assert agent.forms[0][1]["CallStatus"] == "ringing"

    run(scenario())


def test_the_stream_is_reached_another_way_but_signed_as_the_twiml_says() -> None:
    async def scenario() -> None:
        async with fake_agent() as agent:
            agent.twiml = TWIML.replace("ws://{address}", "wss://voice.example.org")
            line = PhoneNumbers(auth_token="secret")
            number = number_for([agent.http, agent.ws], line=line)
            async with PhoneCall(number):
                await until(lambda: agent.calls)
            signed = agent.calls[0].headers["x-twilio-signature"]
            public = "wss://voice.example.org/media-stream"
            assert RequestValidator("secret").validate(public, {}, signed)

    run(scenario())


def test_three_questions_two_interruptions() -> None:
    async def scenario() -> CallResult:
        async with fake_agent(answer_ms=3_000) as agent:
            clips = [question(400, hz) for hz in (440, 500, 550)]
            script = quick(*clips, barge_in_at_s=0.4)
            agent.behaviour.answer_ms = 1_500
            result = await call_once(number_for([agent.ws]), script)
            await until(lambda: agent.calls[0].closed)
            marks = [m["mark"]["name"] for m in agent.calls[0].of("mark")]
            assert marks == [f"a{turn}:{at}" for turn in (1, 2, 3) for at in range(0, 1_500, 100)]
            return result

    result = run(scenario())
    assert result.trouble == ""
    assert [turn.answered for turn in result.turns] == [True] * 3
    assert [turn.barge_in_to_silence_ms is not None for turn in result.turns] == [False, True, True]
    for turn in result.turns[1:]:
        assert turn.barge_in_to_silence_ms == pytest.approx(turn.overlap_ms, abs=30)
    assert result.turns[0].answer_ms < 1_500 <= result.turns[2].answer_ms + 1
    assert result.clears == 3
    assert [turn.cleared for turn in result.turns] == [False, True, True]
    shown = call_summary.as_object([result])
    assert shown["sum"]["barge_in_to_silence_ms"]["count"] == 2
    assert [line["who"] for line in shown["calls"][0]["timeline"]] == ["caller", "agent"] * 3
    drawn = call_summary.timeline(result)
    assert "#" in drawn
    assert "=" in drawn


def test_a_greeting_is_heard_to_its_end() -> None:
    async def scenario() -> CallResult:
        async with fake_agent(greeting_ms=500) as agent:
            return await call_once(number_for([agent.ws]), quick(question(), greeting_s=3.0))

    result = run(scenario())
    assert result.greeting_ms is not None
    assert result.turns[0].barge_in_to_silence_ms is None
    assert result.turns[0].speech_start_ms > result.greeting_ms + 500


def test_nobody_answers_the_question() -> None:
    async def scenario() -> CallResult:
        async with fake_agent(answer_ms=0) as agent:
            return await call_once(number_for([agent.ws]), quick(question(), answer_limit_s=0.3))

    result = run(scenario())
    assert result.unanswered == 1
    assert call_summary.headline([result]) == "1 calls, 1 turns, 1 unanswered"


def test_the_agent_hangs_up() -> None:
    async def scenario() -> None:
        async with fake_agent(hang_up_after=1) as agent, nothing_left():
            agent.twiml = TWIML
            number = number_for([agent.http])
            result = await call_once(number, quick(question(), question()))
            assert result.ended == "the agent hung up; then: <Hangup>"
            assert "hung up before 440.wav" in result.trouble
            assert len(result.turns) == 1

    run(scenario())


def test_loss_leaves_a_gap_in_time_and_none_in_the_count() -> None:
    async def scenario() -> None:
        async with fake_agent(answer_ms=0) as agent:
            impairments = Impairments(loss_share=0.3, jitter_ms=30)
            number = number_for([agent.ws], impairments=impairments)
            await call_once(number, quick(question(600), answer_limit_s=0.3))
            media = [m["media"] for m in agent.calls[0].of("media")]
            stamps = [int(m["timestamp"]) for m in media]
            assert [m["chunk"] for m in media] == [str(i + 1) for i in range(len(media))]
            assert stamps == sorted(stamps)
            assert len(stamps) < stamps[-1] / 20
            assert all(stamp % 20 == 0 for stamp in stamps)

    run(scenario())


def test_what_twilio_would_complain_of_is_told_and_survived() -> None:
    async def trouble(call: FakeCall) -> None:
        await call.socket.send_bytes(b"\0")
        await call.socket.send_text("not json")
        await call.socket.send_text('{"event":"media","media":{"payload":"//"}}')
        await call.send("media", media={"payload": "!!"})
        await call.send("media", media={"payload": base64.b64encode(b"RIFF0000").decode()})
        await call.send("mark", mark={})
        await call.send("hello")
        await call.send("hello")
        await call.send("media", media={"payload": payload(700)})
        await call.send("mark", mark={"name": "end"})

    async def scenario() -> None:
        async with fake_agent(on_start=trouble) as agent:
            result = await call_once(number_for([agent.ws]), quick(question()))
            assert result.trouble == ""
            assert result.turns[0].answered
            told = "\n".join(result.faults)
            for what in (
                "31950",
                "not one of Twilio's",
                "without this stream",
                "not base64",
                "WAV",
            ):
                assert what in told
            assert "'hello' is no message to Twilio, or incomplete (2 times)" in told
            assert agent.calls[0].of("mark")[0]["mark"]["name"] == "end"

    run(scenario())


@pytest.mark.parametrize(
    ("status", "path", "reason"),
    [(403, "/media-stream", "31920: .* answered 403"), (101, "/nothing", "31920: .* answered 4")],
)
def test_a_stream_that_is_refused(status: int, path: str, reason: str) -> None:
    async def scenario() -> None:
        async with fake_agent(status=status) as agent:
            with pytest.raises(ProtocolError, match=reason):
                async with PhoneCall(number_for([f"ws://{agent.address}{path}"])):
                    pass

    run(scenario())


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ("<Response><Say>Hi</Say></Response>", "asks for <Say>"),
        ("<Response/>", "asks for nothing"),
        ("<Response><Record/></Response>", "--mode record"),
        ("<Response><Redirect>/voice-stream</Redirect></Response>", "redirects for ever"),
    ],
)
def test_a_webhook_that_offers_no_stream(document: str, reason: str) -> None:
    async def scenario() -> None:
        async with fake_agent() as agent:
            agent.twiml = document
            result = await call_once(number_for([agent.http]), quick(question()))
            assert reason in result.trouble
            assert result.turns == []

    run(scenario())


def test_nobody_is_there() -> None:
    async def scenario() -> None:
        async with nothing_left():
            result = await call_once(number_for(["ws://127.0.0.1:1"]), quick(question()))
            assert result.trouble.startswith(
                "31902: no connection to ws://127.0.0.1:1/media-stream"
            )

    run(scenario())


def test_calls_at_the_same_time_are_calls_of_their_own() -> None:
    async def scenario() -> None:
        async with fake_agent(answer_ms=300) as agent, nothing_left():
            number = Number(stream_url=agent.ws)
            script = quick(question())
            calls = [call_once(numbered(number, index), script) for index in range(6)]
            results = await asyncio.gather(*calls)
            assert [result.unanswered for result in results] == [0] * 6
            assert len({call.stream for call in agent.calls}) == 6
            summed = call_summary.in_sum(results)
            assert (summed["calls"], summed["turns"]) == (6, 6)
            assert summed["voice_to_voice_ms"]["count"] == 6

    run(scenario())


def test_a_cancelled_call_hangs_up() -> None:
    async def scenario() -> None:
        async with fake_agent(answer_ms=0) as agent, nothing_left():
            script = quick(question(), answer_limit_s=60.0)
            task = asyncio.create_task(call_once(number_for([agent.ws]), script))
            await until(lambda: agent.calls and agent.calls[0].spoke > 5)
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
            await until(lambda: agent.calls[0].closed)
            assert agent.calls[0].messages[-1]["event"] == "stop"

    run(scenario())


def test_keys_that_no_telephone_has() -> None:
    async def scenario() -> None:
        async with fake_agent() as agent, PhoneCall(number_for([agent.ws])) as call:
            with pytest.raises(ProtocolError, match="'x' is not a key"):
                call.press("12x")

    run(scenario())
