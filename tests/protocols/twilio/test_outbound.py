"""Calls that we make: who may ask for one, what Twilio is told, callbacks in any order, answering machines."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from xml.etree import ElementTree

import httpx
import pytest
from tests.protocols.twilio.carrier import CALL, SID, TOKEN, Carrier, carrier, refusal
from tests.server.support import Served, serving
from tests.support import run
from twilio.request_validator import RequestValidator

from antiphon.protocols.twilio.outbound import Dialled, Order, OutboundCalls

PUBLIC = "https://v.example"
ORDER = {"to": "+15550100", "agent": {"prompt": "Be kind.", "greeting": "Good day!"}}


class Office:
    def __init__(self, served: Served, company: Carrier) -> None:
        self.served = served
        self.carrier = company

    async def dial(self, **changes: Any) -> httpx.Response:
        return await self.served.http.post("/calls", json={**ORDER, **changes})

    async def webhook(self, url: str, **form: str) -> httpx.Response:
        """As Twilio would: to the URL that it was given, and signed."""
        form = {"CallSid": CALL, "From": "+15550199", "To": "+15550100", **form}
        signature = RequestValidator(TOKEN).compute_signature(url, form)
        parts = urlsplit(url)
        return await self.served.http.post(
            f"{parts.path}?{parts.query}", data=form, headers={"X-Twilio-Signature": signature}
        )

    async def verbs(self, url: str, **form: str) -> list[ElementTree.Element]:
        answer = await self.webhook(url, **form)
        assert answer.status_code == 200, answer.text
        return list(ElementTree.fromstring(answer.text))

    def given(self, name: str) -> str:
        """What the REST API was told."""
        return self.carrier.asked[-1].first(name)

    async def state(self, key: str) -> dict[str, Any]:
        found: dict[str, Any] = (await self.served.http.get(f"/calls/{key}")).json()
        return found


@contextlib.asynccontextmanager
async def office(folder: Path, **overrides: Any) -> AsyncIterator[Office]:
    async with carrier() as company:
        phone = {
            "phone__account_sid": SID,
            "phone__auth_token": TOKEN,
            "phone__from_number": "+15550199",
            "phone__public_url": PUBLIC,
            "phone__rest_base_url": company.url,
            "server__trusted_proxies": "192.0.2.1",  # the tests themselves come from this machine
        }
        async with serving(folder, **{**phone, **overrides}) as served:
            yield Office(served, company)


def test_a_call_from_order_to_end(tmp_path: Path) -> None:
    async def main() -> None:
        async with office(tmp_path) as we:
            made = await we.dial(record=True)
            assert made.status_code == 201
            body = made.json()
            assert (body["call_sid"], body["status"], body["over"]) == (CALL, "queued", False)
            assert we.given("Record") == "true"
            url, status_url = we.given("Url"), we.given("StatusCallback")
            assert url.startswith(f"{PUBLIC}/calls/answered?dial=")
            assert (await we.webhook(status_url, CallStatus="ringing")).status_code == 204
            assert (await we.state(body["id"]))["status"] == "ringing"

            (connect,) = await we.verbs(url, CallStatus="in-progress")
            (stream,) = connect
            assert stream.get("url") == "wss://v.example/media-stream"
            token = next(p.get("value") for p in stream if p.get("name") == "token")
            phone = we.served.app.state.phone
            ticket = phone.tokens.redeem(token, CALL)
            assert (ticket.caller, ticket.outbound) == ("+15550100", True)
            assert (ticket.agent.prompt, ticket.greeting) == ("Be kind.", "Good day!")

            await we.webhook(status_url, CallStatus="completed", CallDuration="12")
            await we.webhook(status_url, CallStatus="ringing")
            final = await we.state(body["id"])
            assert (final["status"], final["duration_s"], final["over"]) == ("completed", 12, True)

    run(main())


STEPS = ["initiated", "ringing", "in-progress", "completed"]


@pytest.mark.parametrize("order", list(itertools.permutations(STEPS)))
def test_callbacks_in_any_order(order: tuple[str, ...]) -> None:
    calls = OutboundCalls(Carrier().settings(), None)
    call = Dialled(Order(to="+15550100"))
    seen = []
    for status in order:
        calls.note(call, status)
        seen.append(STEPS.index(call.status))
    assert call.status == "completed"
    assert seen == sorted(seen)


@pytest.mark.parametrize("final", ["busy", "failed", "no-answer", "canceled"])
def test_a_final_state_stays(final: str) -> None:
    calls = OutboundCalls(Carrier().settings(), None)
    call = Dialled(Order(to="+15550100"))
    for status in (final, "completed", "ringing", "nonsense", ""):
        calls.note(call, status)
    assert call.status == final


@pytest.mark.parametrize(
    ("answered_by", "settings", "verbs"),
    [
        ("human", {}, ["Connect"]),
        ("unknown", {}, ["Connect"]),
        ("machine_start", {}, ["Hangup"]),
        ("fax", {"phone__voicemail": "ignore"}, ["Hangup"]),
        ("machine_end_beep", {"phone__voicemail": "ignore"}, ["Connect"]),
        ("machine_end_beep", {"phone__voicemail": "message"}, ["Hangup"]),
        (
            "machine_end_beep",
            {"phone__voicemail": "message", "phone__voicemail_message": "Call us."},
            ["Play", "Hangup"],
        ),
    ],
)
def test_answering_machines(
    tmp_path: Path, answered_by: str, settings: dict[str, str], verbs: list[str]
) -> None:
    async def main() -> None:
        async with office(tmp_path, **settings) as we:
            made = (await we.dial(amd=True)).json()
            assert we.given("MachineDetection") == "DetectMessageEnd"
            url = we.given("Url")
            found = await we.verbs(url, CallStatus="in-progress", AnsweredBy=answered_by)
            assert [verb.tag for verb in found] == verbs
            if verbs[0] == "Play":
                address = (found[0].text or "").removeprefix("../")
                assert (await we.served.http.get(f"/{address}")).status_code == 200
            assert (await we.state(made["id"]))["answered_by"] == answered_by

    run(main())


def test_a_call_that_nobody_made_is_ended(tmp_path: Path) -> None:
    async def main() -> None:
        async with office(tmp_path) as we:
            url = f"{PUBLIC}/calls/answered?dial=guessed"
            assert [verb.tag for verb in await we.verbs(url)] == ["Hangup"]
            assert (await we.webhook(f"{PUBLIC}/calls/status?dial=x")).status_code == 204
            assert (await we.served.http.get("/calls/guessed")).status_code == 404
            assert (await we.served.http.post("/calls/answered?dial=x")).status_code == 403

    run(main())


@pytest.mark.parametrize(
    ("changes", "settings", "status", "says"),
    [
        ({"to": "911"}, {}, 400, "not a number"),
        ({"agent": {"prmpt": "x"}}, {}, 422, "prmpt"),
        ({}, {"phone__public_url": ""}, 409, "phone.public_url"),
        ({}, {"phone__from_number": ""}, 409, "phone.from_number"),
        ({}, {"phone__account_sid": ""}, 409, "phone.account_sid"),
    ],
)
def test_orders_that_cannot_be_met(
    tmp_path: Path, changes: dict[str, Any], settings: dict[str, str], status: int, says: str
) -> None:
    async def main() -> None:
        async with office(tmp_path, **settings) as we:
            found = await we.dial(**changes)
            assert (found.status_code, says in found.text) == (status, True), found.text
            assert not we.carrier.asked

    run(main())


def test_the_carrier_refuses(tmp_path: Path) -> None:
    async def main() -> None:
        async with office(tmp_path) as we:
            we.carrier.script = [refusal(400, 21219)]
            found = await we.dial()
            assert (found.status_code, "trial account" in found.text) == (502, True)

    run(main())


def test_who_may_dial(tmp_path: Path) -> None:
    """A tunnel's requests come from this machine, too: the name that was asked for gives them away."""

    async def main() -> None:
        async with office(tmp_path, security__open=True) as we:
            for headers in ({"Host": "v.example"}, {"X-Forwarded-For": "8.8.8.8"}):
                answer = await we.served.http.post("/calls", json=ORDER, headers=headers)
                assert answer.status_code == 403
            assert not we.carrier.asked
        async with office(tmp_path, security__api_key="sk-antiphon-test") as we:
            assert (await we.dial()).status_code == 401
            bearer = {"Authorization": "Bearer sk-antiphon-test", "Host": "v.example"}
            answer = await we.served.http.post("/calls", json=ORDER, headers=bearer)
            assert answer.status_code == 201

    run(main())


def test_transfers_go_by_rest(tmp_path: Path) -> None:
    async def main() -> None:
        async with office(tmp_path) as we:
            lines = we.served.app.state.phone.lines
            assert lines is not None
            await lines.transfer(CALL, "+15550111")
            assert "<Number>+15550111</Number>" in we.given("Twiml")

    run(main())
