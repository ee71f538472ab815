"""The simulated caller against the server that it ships with: the stream, and the recording flow."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.client.phone.test_call import quick
from tests.server.support import serving
from tests.support import run, say

from antiphon.client.phone.caller import number_for
from antiphon.client.phone.carrier_webhooks import PhoneNumbers
from antiphon.client.phone.clips import Clip, make_clip
from antiphon.client.phone.recorded_flow import call_recorded
from antiphon.client.phone.recording_host import RecordingHost
from antiphon.client.phone.script import call_once

LOCAL = ["31922: Twilio connects to wss:// only"]


def asks(hz: int) -> Clip:
    return make_clip(f"{hz}", say(hz, 640, rate_hz=8_000), 8_000)


def test_questions_and_an_interruption_over_a_signed_stream(tmp_path: Path) -> None:
    async def scenario() -> None:
        secret = "s3cret"
        async with serving(tmp_path, phone__auth_token=secret) as served:
            number = number_for([f"http://{served.address}"], line=PhoneNumbers(auth_token=secret))
            script = quick(asks(550), asks(440), barge_in_at_s=0.6, answer_limit_s=10.0)
            result = await call_once(number, script)
            assert (result.trouble, result.faults) == ("", LOCAL)
            first, second = result.turns
            assert first.answered
            assert second.answered
            assert second.barge_in_to_silence_ms is not None
            assert second.voice_to_voice_ms is not None
            assert result.clears >= 1
            assert result.marks > 3
            forged = number_for([f"http://{served.address}"], line=PhoneNumbers(auth_token="other"))
            refused = await call_once(forged, script)
            assert "11200" in refused.trouble
            assert "403" in refused.trouble

    run(scenario())


@pytest.mark.parametrize("token", ["", "s3cret"])
@pytest.mark.parametrize("public_url", ["", "https://voice.example.org"])
def test_the_recording_flow(token: str, public_url: str, tmp_path: Path) -> None:
    """With and without signatures. The server is told that recordings are on this machine."""
    options = {
        "phone__record_silence_s": 1,
        "phone__media_hosts": "127.0.0.1",
        "phone__auth_token": token,
        "phone__public_url": public_url if token else "",
    }

    async def scenario() -> None:
        async with serving(tmp_path, **options) as served:
            line = PhoneNumbers(auth_token=token, public_url=public_url if token else "")
            number = number_for([f"http://{served.address}"], "record", line=line)
            async with RecordingHost(number.line.account_sid, not_yet=1) as host:
                result = await call_recorded(number, quick(asks(440), digits="#"), host)
            assert (result.trouble, result.ended) == ("", "the caller hung up")
            assert result.faults == []
            assert result.turns[0].answered
            assert not result.turns[0].talked_over

    run(scenario())
