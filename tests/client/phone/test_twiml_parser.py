"""What a webhook may answer, and what the carrier makes of it; signatures by Twilio's own validator."""

from __future__ import annotations

import pytest
from tests.client.phone.fake_agent import fake_agent
from tests.support import run
from twilio.request_validator import RequestValidator

from antiphon.client.phone import twiml_parser
from antiphon.client.phone.caller import number_for
from antiphon.client.phone.carrier_webhooks import PhoneNumbers, Webhooks
from antiphon.errors import ConfigError, ProtocolError

BASE = "http://voice.example.org/hooks/voice?x=1"


def parse(inner: str) -> list[twiml_parser.Verb]:
    return twiml_parser.parse(f'<?xml version="1.0"?><Response>{inner}</Response>'.encode(), BASE)


def test_a_stream_with_parameters() -> None:
    (verb,) = parse(
        '<Connect><Stream url="wss://v.example.org/media-stream" statusCallback="/status">'
        '<Parameter name="token" value="a&amp;b"/><Parameter name="empty" value=""/>'
        "</Stream></Connect>"
    )
    assert verb == twiml_parser.StreamVerb(
        "wss://v.example.org/media-stream",
        {"token": "a&b", "empty": ""},
        "http://voice.example.org/status",
    )
    assert isinstance(verb, twiml_parser.StreamVerb)
    assert verb.faults() == []


@pytest.mark.parametrize(
    ("url", "reached", "faults"),
    [
        ("/media", "ws://voice.example.org/media", ["31922"]),
        ("https://h/media", "wss://h/media", []),
        ("wss://h/media?token=1", "wss://h/media?token=1", ["31920"]),
    ],
)
def test_addresses_of_streams(url: str, reached: str, faults: list[str]) -> None:
    (verb,) = parse(f'<Connect><Stream url="{url}"/></Connect>')
    assert isinstance(verb, twiml_parser.StreamVerb)
    assert verb.url == reached
    assert [fault[:5] for fault in verb.faults()] == faults


def test_record_has_twilios_defaults() -> None:
    (verb,) = parse("<Record/>")
    assert verb == twiml_parser.RecordVerb(action=BASE)
    (verb,) = parse(
        '<Record action="next" timeout="2" finishOnKey="#" maxLength="60" trim="do-not-trim"/>'
    )
    assert verb == twiml_parser.RecordVerb(
        "http://voice.example.org/hooks/next", "POST", 2.0, "#", 60.0, trim=False
    )


def test_the_other_verbs() -> None:
    assert parse(
        '<Play>a.mp3</Play><Pause length="3"/><Redirect>/r</Redirect><Say>Hi</Say><Hangup/>'
    ) == [
        twiml_parser.PlayVerb("http://voice.example.org/hooks/a.mp3"),
        twiml_parser.PauseVerb(3.0),
        twiml_parser.RedirectVerb("http://voice.example.org/r"),
        twiml_parser.OtherVerb("Say", "Hi"),
        twiml_parser.OtherVerb("Hangup"),
    ]


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (b"", "not XML"),
        (b"{}", "not XML"),
        (b"<html/>", "<Response>"),
        (b"<!DOCTYPE x [<!ENTITY a 'b'>]><Response/>", "DOCTYPE"),
        (b"<Response>" + b" " * 70_000 + b"</Response>", "longer"),
        (b"<Response><Connect/></Response>", "<Connect> holds nothing"),
        (b"<Response><Connect><Stream/></Connect></Response>", "no url"),
        (b"<Response><Start><Stream url='wss://h'/></Start></Response>", "one-way"),
        (b"<Response><Connect><Stream url='ftp://h/x'/></Connect></Response>", "31922"),
        (b"<Response><Record timeout='soon'/></Response>", "number of seconds"),
        (b"<Response><Pause length='-1'/></Response>", "0 to 86400"),
        (b"<Response><Pause length='nan'/></Response>", "0 to 86400"),
    ],
)
def test_what_twilio_would_refuse(document: bytes, reason: str) -> None:
    with pytest.raises(ProtocolError, match=reason):
        twiml_parser.parse(document, BASE)


def test_webhooks_are_signed_over_the_url_and_every_field() -> None:
    async def scenario() -> None:
        async with fake_agent() as agent:
            agent.twiml = "<Response><Hangup/></Response>"
            line = PhoneNumbers(auth_token="secret")
            async with Webhooks(line) as webhooks:
                await webhooks.ask(agent.http + "?a=1&b=%20", {"Digits": "1#", "Empty": ""})
            ((_, form, signature),) = agent.forms
            assert form["CallSid"] == line.call_sid
            assert form["From"] == line.from_number
            assert form["Empty"] == ""
            validator = RequestValidator("secret")
            assert validator.validate(agent.http + "?a=1&b=%20", form, signature)
            assert not RequestValidator("other").validate(agent.http, form, signature)

    run(scenario())


def test_signatures_are_made_over_the_public_address() -> None:
    line = PhoneNumbers(auth_token="secret", public_url="https://v.example.org/base/")
    assert line.seen_as("http://127.0.0.1:8000/voice?x=1") == "https://v.example.org/base/voice?x=1"
    assert line.seen_as("ws://127.0.0.1:8000/ws") == "wss://v.example.org/base/ws"
    header = line.signature("ws://127.0.0.1:8000/ws")["X-Twilio-Signature"]
    assert RequestValidator("secret").validate("wss://v.example.org/base/ws", {}, header)
    assert PhoneNumbers().signature("http://h/") == {}
    assert "secret" not in repr(line)


def test_a_webhook_that_fails() -> None:
    async def scenario() -> None:
        async with fake_agent() as agent, Webhooks(PhoneNumbers()) as webhooks:
            base = f"http://{agent.address}"
            with pytest.raises(ProtocolError, match=r"11200: .* answered 404"):
                await webhooks.ask(base + "/nothing")
            with pytest.raises(ProtocolError, match=r"12300: .* text/plain, not text/xml"):
                await webhooks.ask(base + "/plain")
            with pytest.raises(ProtocolError, match="11200: <Play>"):
                await webhooks.fetch(base + "/nothing.wav?secret=1")
            assert "404" in await webhooks.tell(base + "/nothing", {})
            with pytest.raises(ProtocolError, match="cannot be reached"):
                await webhooks.ask("http://127.0.0.1:1/voice")

    run(scenario())


def test_what_a_person_types_as_a_number() -> None:
    number = number_for(["localhost:8000"])
    assert (number.stream_url, number.webhook_url) == ("ws://localhost:8000/media-stream", "")
    both = number_for(["http://h/", "ws://127.0.0.1:1/x"])
    assert (both.webhook_url, both.stream_url) == ("http://h/voice-stream", "ws://127.0.0.1:1/x")
    assert number_for(["https://h"], "record").webhook_url == "https://h/voice"
    for wrong in ([], ["ftp://h"], ["http://"], ["ws://a", "ws://b"], ["ws://h:99999"]):
        with pytest.raises(ConfigError):
            number_for(wrong)
    with pytest.raises(ConfigError, match="webhooks"):
        number_for(["ws://h"], "record")
