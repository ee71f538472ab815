"""The recording flow against a small agent that fetches recordings and answers with a file."""

from __future__ import annotations

import httpx
import pytest
from tests.client.phone.fake_agent import FakeAgent, fake_agent
from tests.client.phone.test_call import question, quick
from tests.support import nothing_left, run, say

from antiphon.audio.containers import decode_file
from antiphon.client.phone.caller import number_for
from antiphon.client.phone.recorded_flow import call_recorded
from antiphon.client.phone.recording_host import RecordingHost
from antiphon.client.phone.script import CallResult, Script

ACCOUNT = "AC1"


async def call(agent: FakeAgent, script: Script) -> CallResult:
    number = number_for([f"http://{agent.address}"], "record")
    async with RecordingHost(ACCOUNT) as host:
        return await call_recorded(number, script, host)


def test_two_questions_by_recording() -> None:
    async def scenario() -> None:
        async with fake_agent() as agent, nothing_left():
            result = await call(agent, quick(question(400), question(300)))
            assert (result.trouble, result.ended) == ("", "the caller hung up")
            assert result.mode == "record"
            assert [turn.answered for turn in result.turns] == [True, True]
            for turn in result.turns:
                assert turn.voice_to_voice_ms is not None
                assert turn.voice_to_voice_ms >= 1_000, "the silence that ends a recording counts"
                assert turn.answer_ms == pytest.approx(300, abs=10)
            assert [path for path, *_ in agent.forms] == ["/voice"] * 4
            second = agent.forms[1][1]
            assert second["RecordingUrl"].endswith(second["RecordingSid"])
            assert (second["RecordingDuration"], second["Digits"]) == ("1", "")
            assert agent.forms[3][1]["Digits"] == "hangup"
            assert agent.forms[3][1]["CallStatus"] == "completed"
            kept = decode_file(agent.recordings[0])
            assert kept.source_rate_hz == 8_000
            assert len(kept.pcm) / kept.rate_hz == pytest.approx(0.4, abs=0.01), "trimmed"

    run(scenario())


def test_a_key_ends_a_recording_at_once() -> None:
    async def scenario() -> None:
        async with fake_agent() as agent:
            result = await call(agent, quick(question(300), digits="#"))
            assert agent.forms[1][1]["Digits"] == "#"
            assert result.turns[0].answered
            assert result.turns[0].dead_air_ms < 1_000

    run(scenario())


def test_recordings_are_served_as_twilio_does() -> None:
    async def scenario() -> None:
        async with RecordingHost(ACCOUNT, not_yet=1) as host, httpx.AsyncClient() as http:
            _, url = host.keep(say(440, 300, rate_hz=8_000))
            assert "/2010-04-01/Accounts/AC1/Recordings/RE" in url
            assert (await http.get(url)).status_code == 404
            found = await http.get(url)
            assert (found.status_code, found.headers["content-type"]) == (200, "audio/wav")
            compressed = await http.get(url + ".mp3")
            assert len(decode_file(compressed.content).pcm) > 2_000
            assert (await http.get(url + ".ogg")).status_code == 404
            assert (await http.get(url + "x")).status_code == 404

    run(scenario())


def test_a_flow_that_goes_wrong_is_told() -> None:
    async def scenario() -> None:
        async with fake_agent() as agent, RecordingHost(ACCOUNT) as host:
            script = quick(question())
            for twiml, trouble in (
                ("<Response><Dial>+1</Dial></Response>", "cannot follow"),
                ("<Response><Play>/nothing.wav</Play></Response>", "11200: <Play>"),
                ("<Response><Redirect>/voice-stream</Redirect></Response>", "for ever"),
            ):
                agent.twiml = twiml
                result = await call_recorded(number_for([agent.http], "record"), script, host)
                assert trouble in result.trouble
            agent.twiml = "<Response><Say>Bye</Say><Pause length='0'/></Response>"
            result = await call_recorded(number_for([agent.http], "record"), script, host)
            assert result.ended == "the agent hung up: its TwiML came to an end"
            assert result.faults == ["<Say> is not spoken here: Bye"]

    run(scenario())
