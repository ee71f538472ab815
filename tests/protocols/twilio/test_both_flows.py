"""Where the stream and the slower half of the telephone meet: the comparison, one memory, machines that take calls."""

from __future__ import annotations

from pathlib import Path

from tests.protocols.twilio.carrier import CALL, Carrier
from tests.protocols.twilio.streams import CONNECTED, open_stream, phone_call, start_frame
from tests.protocols.twilio.test_outbound import office
from tests.server.support import serving
from tests.support import nothing_left, run, say, until
from twilio.request_validator import RequestValidator

from antiphon.telephony.call_log import CallLog, PhoneTurn, as_text

TOKEN = Carrier().settings().auth_token.get_secret_value()


def test_a_streamed_call_goes_on_as_a_recorded_one(tmp_path: Path) -> None:
    async def main() -> None:
        async with nothing_left(), serving(tmp_path, conversation__greeting="Hi.") as served:
            async with phone_call(served) as stream:
                await stream.speak(say(440, 640, silence_ms=1_200, rate_hz=8_000))
                services = served.app.state.services
                session = next(iter(served.calls._sessions.values()))
                await until(lambda: [r for r in session.records if r.kind == "answer"])
            await until(lambda: not len(served.calls))
            said = [item.text for item in services.memory.of("CA1")]
            assert "what time is it" in said
            report = (await served.http.get("/calls/compare")).json()
            assert report["flows"]["stream"]["turns"] == 1
            assert "saved_by_streaming" not in report
            again = await served.http.post("/voice", data={"CallSid": "CA1"})
            assert "<Play>" not in again.text  # no second greeting
            assert "<Record" in again.text

    run(main())


def test_a_machine_takes_our_call(tmp_path: Path) -> None:
    async def main() -> None:
        async with office(tmp_path) as we:
            made = (await we.dial()).json()
            (connect,) = await we.verbs(we.given("Url"), CallStatus="in-progress")
            token = connect[0][0].get("value", "")
            signature = RequestValidator(TOKEN).compute_signature(
                "wss://v.example/media-stream", {}
            )
            headers = {"X-Twilio-Signature": signature}
            async with open_stream(we.served, additional_headers=headers) as stream:
                await stream.send(CONNECTED)
                await stream.send(start_frame(token, call=CALL))
                await until(lambda: len(we.served.calls) == 1)
                await stream.speak(say(550, 4_600, silence_ms=200, rate_hz=8_000))
                await stream.wait_closed()
            state = await we.state(made["id"])
            assert state["answered_by"] == "machine_heard"

    run(main())


def test_both_side_by_side() -> None:
    log = CallLog()
    for wait_ms in (600, 800, 700):
        log.add("stream", "CA1", PhoneTurn(wait_ms, {"stt": 100, "total": wait_ms}))
    log.add("recorded", "CA2", PhoneTurn(2_800, {"fetch": 50, "total": 2_800}))
    report = log.report()
    assert report["flows"]["stream"]["wait_ms"] == {"median": 700, "p95": 800, "max": 800}
    assert report["saved_by_streaming"] == {"median_ms": 2_100, "percent": 75}
    assert [call["call"] for call in report["calls"]] == ["CA1", "CA2"]
    text = as_text(report).splitlines()
    assert text[0].split() == ["stream", "recorded"]
    assert next(row for row in text if "fetch" in row).split() == ["fetch", "-", "50"]
    assert as_text(CallLog().report()) == "no telephone call with an answer yet\n"


def test_the_log_is_bounded() -> None:
    log = CallLog()
    for number in range(300):
        log.add("stream", f"CA{number}", PhoneTurn(1, {}))
    assert len(log.report()["calls"]) == 200
