"""The REST client against a carrier of ours on a real socket: what it sends and repeats, what it says of failures."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from tests.protocols.twilio.carrier import (
    CALL,
    CUT,
    NEVER,
    SID,
    TOKEN,
    Answer,
    Carrier,
    Pauses,
    carrier,
    refusal,
)
from tests.support import run

from antiphon.config.sections import PhoneSettings
from antiphon.errors import AntiphonError, ConfigError, ProtocolError
from antiphon.protocols.twilio import rest as module
from antiphon.protocols.twilio.rest import NewCall, TwilioError, TwilioRest, dialable

ACCOUNT = f"/2010-04-01/Accounts/{SID}"
NEW = NewCall(
    "+1 555-0100", url="https://v.example/answered", status_url="https://v.example/status"
)
Do = Callable[[TwilioRest], Awaitable[Any]]


def ask(do: Do, *script: Answer, **changes: Any) -> tuple[Any, Carrier, list[float]]:
    """-> what it returned or raised, the carrier, the pauses."""

    async def main() -> tuple[Any, Carrier, list[float]]:
        async with carrier() as line:
            line.script = list(script)
            pauses = Pauses()
            async with TwilioRest(line.settings(**changes), pause=pauses) as client:
                try:
                    found: Any = await do(client)
                except AntiphonError as error:
                    found = error
            return found, line, pauses.taken_s

    found: tuple[Any, Carrier, list[float]] = run(main())
    return found


def test_a_new_call() -> None:
    call, line, _ = ask(lambda c: c.create_call(NEW))
    (asked,) = line.asked
    assert (call.sid, call.status, call.answered_by) == (CALL, "queued", "")
    assert (asked.method, asked.path) == ("POST", f"{ACCOUNT}/Calls.json")
    assert asked.auth == f"{SID}:{TOKEN}"
    assert asked.form == {
        "To": ["+15550100"],
        "From": ["+15550199"],
        "Timeout": ["45"],
        "Url": ["https://v.example/answered"],
        "Method": ["POST"],
        "StatusCallback": ["https://v.example/status"],
        "StatusCallbackMethod": ["POST"],
        "StatusCallbackEvent": ["initiated", "ringing", "answered", "completed"],
    }


def test_recorded_and_listened_to() -> None:
    _, line, _ = ask(
        lambda c: c.create_call(NewCall("+15550100", twiml="<R/>", amd=True, record=True))
    )
    asked = line.asked[0]
    assert asked.first("MachineDetection") == "DetectMessageEnd"
    assert (asked.first("Record"), asked.first("RecordingChannels")) == ("true", "dual")
    assert (asked.first("Twiml"), asked.first("Url")) == ("<R/>", "")


@pytest.mark.parametrize(
    ("do", "method", "path", "form"),
    [
        (lambda c: c.hang_up(CALL), "POST", f"/Calls/{CALL}.json", {"Status": ["completed"]}),
        (lambda c: c.fetch_call(CALL), "GET", f"/Calls/{CALL}.json", {}),
        (
            lambda c: c.start_recording(CALL),
            "POST",
            f"/Calls/{CALL}/Recordings.json",
            {"RecordingChannels": ["dual"]},
        ),
        (
            lambda c: c.stop_recording(CALL, "RE1"),
            "POST",
            f"/Calls/{CALL}/Recordings/RE1.json",
            {"Status": ["stopped"]},
        ),
        (lambda c: c.fetch_recording("RE1"), "GET", "/Recordings/RE1.json", {}),
        (lambda c: c.delete_recording("RE1"), "DELETE", "/Recordings/RE1.json", {}),
        (
            lambda c: c.transfer(CALL, "+15550111", "One <moment>"),
            "POST",
            f"/Calls/{CALL}.json",
            {
                "Twiml": [
                    "<Response><Say>One &lt;moment&gt;</Say><Dial><Number>+15550111</Number></Dial></Response>"
                ]
            },
        ),
    ],
    ids=["hang-up", "fetch", "record", "stop", "recording", "delete", "transfer"],
)
def test_operations(do: Do, method: str, path: str, form: dict[str, list[str]]) -> None:
    found, line, _ = ask(do)
    assert not isinstance(found, Exception)
    assert [(a.method, a.path, a.form) for a in line.asked] == [(method, ACCOUNT + path, form)]


@pytest.mark.parametrize("answer", [refusal(404, 20404), refusal(400, 21220)])
def test_a_call_that_is_over_is_hung_up(answer: Answer) -> None:
    found, line, _ = ask(lambda c: c.hang_up(CALL), answer)
    assert found is None
    assert len(line.asked) == 1


# --- repeats ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [refusal(503, 0), refusal(500, 0), refusal(429, 20429), CUT])
def test_a_state_is_set_again(first: Answer) -> None:
    found, line, pauses = ask(lambda c: c.hang_up(CALL), first)
    assert found is None
    assert (len(line.asked), len(pauses)) == (2, 1)


def test_what_the_carrier_asks_for_is_waited() -> None:
    _, _, pauses = ask(
        lambda c: c.fetch_call(CALL),
        refusal(429, 20429, Retry_After="2"),
        refusal(503, 0, Retry_After="7200"),
        refusal(503, 0, Retry_After="Wed, 21 Oct 2026 07:28:00 GMT"),
    )
    assert pauses[:2] == [2.0, 8.0]
    assert 0.7 < pauses[2] < 1.3


@pytest.mark.parametrize("failure", [refusal(500, 0), refusal(503, 0), CUT])
def test_a_new_call_is_never_asked_for_twice(failure: Answer) -> None:
    found, line, pauses = ask(lambda c: c.create_call(NEW), failure)
    assert isinstance(found, TwilioError)
    assert (len(line.asked), pauses) == (1, [])


def test_a_new_call_that_was_refused_for_haste_is_asked_for_again() -> None:
    found, line, _ = ask(lambda c: c.create_call(NEW), refusal(429, 20429))
    assert found.sid == CALL
    assert len(line.asked) == 2


def test_a_new_call_that_never_left_is_asked_for_again() -> None:
    async def main() -> tuple[Exception, list[float]]:
        pauses = Pauses()
        phone = Carrier(port=1).settings()  # nobody listens there
        async with TwilioRest(phone, pause=pauses) as client:
            with pytest.raises(TwilioError, match=r"no answer from 127\.0\.0\.1") as caught:
                await client.create_call(NEW)
        return caught.value, pauses.taken_s

    error, pauses = run(main())
    assert len(pauses) == 3
    assert "rest_base_url" in str(error)


def test_a_carrier_that_never_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_TIMEOUT", httpx.Timeout(0.1))
    found, line, _ = ask(lambda c: c.create_call(NEW), NEVER)
    assert isinstance(found, TwilioError)
    assert "look before you repeat it" in str(found)
    assert len(line.asked) == 1
    found, line, _ = ask(lambda c: c.fetch_call(CALL), NEVER, NEVER)
    assert found.sid == CALL
    assert len(line.asked) == 3


# --- failures ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "code", "says"),
    [
        (refusal(401, 20003, "Authenticate"), 20003, "phone.auth_token"),
        (Answer(401, b"nope"), 20003, "phone.auth_token"),
        (refusal(404, 20404), 20404, "is not there"),
        (refusal(400, 21219, "unverified\nnumber"), 21219, "trial account"),
        (refusal(400, 99999), 99999, "twilio.com/docs/errors/99999"),
        (Answer(200, b"<html>hello</html>"), 0, "rest_base_url"),
        (Answer(200, [1]), 0, "rest_base_url"),
    ],
)
def test_refusals_say_what_to_do(answer: Answer, code: int, says: str) -> None:
    found, _, _ = ask(lambda c: c.fetch_call(CALL), answer)
    assert isinstance(found, TwilioError)
    assert found.code == code
    assert says in str(found)
    assert "\n" not in str(found)


def test_the_last_attempt_is_told() -> None:
    found, line, _ = ask(lambda c: c.fetch_call(CALL), *[refusal(500, 0)] * 4)
    assert isinstance(found, TwilioError)
    assert (found.status, len(line.asked)) == (500, 4)
    assert "status.twilio.com" in str(found)


def test_no_credentials() -> None:
    with pytest.raises(ConfigError, match="account_sid and phone"):
        TwilioRest(PhoneSettings())
    with pytest.raises(ConfigError, match="begins with AC"):
        TwilioRest(PhoneSettings(account_sid="../x", auth_token="t"))  # type: ignore[arg-type]


def test_secrets_stay_out_of_logs_and_errors(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    found, _, _ = ask(lambda c: c.fetch_call(CALL), refusal(401, 20003))
    assert TOKEN not in caplog.text + str(found)


@pytest.mark.parametrize(
    "number", ["", "911", "+0123456789", "+1555<Say>", "sip:", "+15550100;x", "١٢٣"]
)
def test_what_is_no_number_is_not_called(number: str) -> None:
    with pytest.raises(ProtocolError, match=r"\+15550100"):
        dialable(number)


@pytest.mark.parametrize(
    ("number", "dialled"),
    [
        (" +1 (555) 010-0100 ", "+15550100100"),
        ("sip:ann@pbx.example:5060", "sip:ann@pbx.example:5060"),
    ],
)
def test_numbers(number: str, dialled: str) -> None:
    assert dialable(number) == dialled


def test_a_sid_cannot_be_a_path() -> None:
    found, line, _ = ask(lambda c: c.hang_up("../../x"))
    assert isinstance(found, ProtocolError)
    assert not line.asked
