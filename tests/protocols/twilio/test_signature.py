"""Who may ring: signatures by Twilio's own arithmetic, over real HTTP and websocket requests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.protocols.twilio.streams import CALL, CONNECTED, open_stream, start_frame, token_of
from tests.server.support import Served, serving
from tests.support import run, until
from twilio.request_validator import RequestValidator
from websockets.exceptions import InvalidStatus

from antiphon.config.sections import PhoneSettings
from antiphon.errors import ConfigError
from antiphon.protocols.twilio.signature import Guard

TOKEN = "0123456789abcdef0123456789abcdef"
PUBLIC = "https://voice.example.org"
SIGNED = {"phone__auth_token": TOKEN, "phone__public_url": PUBLIC}


def signed(url: str, form: dict[str, Any] | None = None, token: str = TOKEN) -> dict[str, str]:
    signature = RequestValidator(token).compute_signature(url, form or {})
    return {"X-Twilio-Signature": signature}


async def post(served: Served, form: dict[str, Any], headers: dict[str, str], path: str) -> int:
    return (await served.http.post(path, data=form, headers=headers)).status_code


WEBHOOKS: list[tuple[str, dict[str, Any], str, dict[str, Any], int]] = [
    # what, form that was signed, URL that was signed, form that is sent, status
    ("genuine", CALL, f"{PUBLIC}/voice-stream", CALL, 200),
    ("with its port", CALL, f"{PUBLIC}:443/voice-stream", CALL, 200),
    ("empty and blank values", {**CALL, "A": "", "B": " "}, f"{PUBLIC}/voice-stream", {}, 200),
    ("altered", CALL, f"{PUBLIC}/voice-stream", {**CALL, "From": "+1900"}, 403),
    ("a parameter more", CALL, f"{PUBLIC}/voice-stream", {**CALL, "X": "1"}, 403),
    ("of another path", CALL, f"{PUBLIC}/voice", CALL, 403),
    ("by http", CALL, "http://voice.example.org/voice-stream", CALL, 403),
    ("of another host", CALL, "https://evil.example.org/voice-stream", CALL, 403),
    ("with a slash", CALL, f"{PUBLIC}/voice-stream/", CALL, 403),
]


def test_webhooks(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with serving(tmp_path, **SIGNED) as served:
            for what, form, url, sent, status in WEBHOOKS:
                got = await post(served, sent or form, signed(url, form), "/voice-stream")
                assert got == status, what
            url = f"{PUBLIC}/voice-stream?a=%20b"
            assert await post(served, CALL, signed(url, CALL), "/voice-stream?a=%20b") == 200
            assert await post(served, CALL, {}, "/voice-stream") == 403
            bad = signed(f"{PUBLIC}/voice-stream", CALL, token="another")
            assert await post(served, CALL, bad, "/voice-stream") == 403
            assert await post(served, {}, signed(f"{PUBLIC}/", {}), "/") == 400
            assert await post(served, CALL, signed(f"{PUBLIC}/", CALL), "/") == 200

    run(main())
    assert f"computed over {PUBLIC}/voice-stream and 4 parameters" in caplog.text
    assert TOKEN not in caplog.text


def test_the_upgrade_of_a_stream(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    wss = "wss://voice.example.org/media-stream"
    refused = [
        {},
        signed(wss, token="another"),
        signed("wss://voice.example.org/ws"),
        signed(f"{PUBLIC}/voice-stream", CALL),
    ]

    async def main() -> None:
        async with serving(tmp_path, **SIGNED) as served:
            for headers in refused:
                with pytest.raises(InvalidStatus) as error:
                    async with open_stream(served, additional_headers=headers):
                        pass
                assert error.value.response.status_code == 403
            for url in (wss, "wss://voice.example.org:443/media-stream"):
                form = await served.http.post(
                    "/voice-stream", data=CALL, headers=signed(f"{PUBLIC}/voice-stream", CALL)
                )
                assert f'url="{wss}"' in form.text
                token = form.text.split('value="')[1].split('"')[0]
                async with open_stream(served, additional_headers=signed(url)) as line:
                    await line.send(start_frame(token))
                    await until(lambda: len(served.calls) == 1)
                await until(lambda: len(served.calls) == 0)
                # The same signature again: true, and worth nothing without a token that is.
                async with open_stream(served, additional_headers=signed(url)) as line:
                    await line.send(start_frame(token))
                    assert (await line.wait_closed())[0] == 1008
            async with open_stream(served, additional_headers=signed(wss)) as line:
                await line.send(start_frame())
                code, reason = await line.wait_closed()
                assert code == 1008
                assert "/voice-stream" in reason
            async with open_stream(served, "/ws") as line:
                await line.send(CONNECTED)
                assert (await line.wait_closed())[0] == 1008

    run(main())
    assert wss in caplog.text
    assert TOKEN not in caplog.text


FORWARDED = {"X-Forwarded-Host": "a.example, tunnel.example", "X-Forwarded-Proto": "https"}


@pytest.mark.parametrize(
    ("proxies", "status"), [("127.0.0.1", 200), ("10.0.0.0/8", 403), ("127.0.0.0/8,10.1.2.3", 200)]
)
def test_behind_a_proxy(proxies: str, status: int, tmp_path: Path) -> None:
    async def main() -> None:
        options = {"phone__auth_token": TOKEN, "phone__trusted_proxies": proxies}
        async with serving(tmp_path, **options) as served:
            headers = {**FORWARDED, **signed("https://tunnel.example/voice-stream", CALL)}
            answer = await served.http.post("/voice-stream", data=CALL, headers=headers)
            assert answer.status_code == status
            assert ("wss://tunnel.example/media-stream" in answer.text) == (status == 200)

    run(main())


@pytest.mark.parametrize(
    "headers",
    [{"X-Forwarded-For": "203.0.113.9"}, {"Host": "tunnel.example"}, FORWARDED],
)
def test_without_a_token_only_this_machine_is_served(
    headers: dict[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        elsewhere = {"server__trusted_proxies": "192.0.2.1"}
        async with serving(tmp_path, phone__public_url="voice.example.org", **elsewhere) as served:
            answer = await served.http.post("/voice-stream", data=CALL, headers=headers)
            assert answer.status_code == 403
            with pytest.raises(InvalidStatus):
                async with open_stream(served, additional_headers=headers):
                    pass
            assert await token_of(served)

    run(main())
    assert "THE TELEPHONE IS NOT PROTECTED" in caplog.text
    assert "no phone.auth_token is set" in caplog.text


def test_a_page_of_another_site(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as served:
            with pytest.raises(InvalidStatus):
                async with open_stream(served, origin="https://evil.example"):
                    pass

    run(main())


def test_the_newer_signature(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path, **SIGNED) as served:
            url = f"{PUBLIC}/voice-stream"
            value = RequestValidator(TOKEN).compute_signature(url, CALL, "HMAC_SHA256")
            settings = "key=webhooks_sharedkey_1,algorithm=HMAC_SHA256"
            headers = {
                "X-Twilio-Signature": value,
                "X-Twilio-Webhooks-Signature-Settings": settings,
            }
            assert await post(served, CALL, headers, "/voice-stream") == 200
            headers["X-Twilio-Webhooks-Signature-Settings"] = "algorithm=ROT13"
            assert await post(served, CALL, headers, "/voice-stream") == 403

    run(main())


def test_forms_that_are_none(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as served:
            for body, status in (
                (b"\xff\xfe=1", 400),
                (b"&".join(b"a=1" for _ in range(300)), 400),
                (b"a=" + b"x" * 70_000, 413),
                (b"", 400),
            ):
                answer = await served.http.post("/voice-stream", content=body)
                assert answer.status_code == status, body[:20]
            answer = await served.http.post(
                "/stream-status", data={"CallSid": "CA1", "StreamError": "31921"}
            )
            assert answer.status_code == 204

    run(main())


def test_proxies_must_be_addresses() -> None:
    with pytest.raises(ConfigError, match=r"'proxy\.local' is no address"):
        Guard(PhoneSettings(trusted_proxies=("proxy.local",)))


def test_keys_in_paths_are_not_written_down(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")

    async def main() -> None:
        options = {**SIGNED, "phone__stream_key": "a-stream-key", "server__debug": True}
        async with serving(tmp_path, **options) as served:
            async with open_stream(served, "/media-stream/a-stream-key") as line:
                await line.send(start_frame())
                await until(lambda: len(served.calls) == 1)
            with pytest.raises(InvalidStatus):
                async with open_stream(served, "/media-stream/another-key"):
                    pass

    run(main())
    assert '"WebSocket /media-stream/..." [accepted]' in caplog.text
    assert "a-stream-key" not in caplog.text
    assert "another-key" not in caplog.text


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:3000"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Mode": "navigate"},
        {"Sec-CH-UA": '"Chromium"'},
        {"Referer": "https://evil.example/form.html"},
    ],
)
@pytest.mark.parametrize("path", ["/voice-stream", "/voice", "/voice/recorded", "/calls/answered"])
def test_without_a_token_no_page_is_served(
    headers: dict[str, str], path: str, tmp_path: Path
) -> None:
    """A form that another site has the owner's browser send arrives from this machine, with a right `Host`."""

    async def main() -> None:
        async with serving(tmp_path, server__cors_origins="http://localhost:3000") as served:
            assert await post(served, CALL, headers, path) == 403
            assert await post(served, CALL, {}, path) == 200
            with pytest.raises(InvalidStatus) as error:
                async with open_stream(served, additional_headers=headers):
                    pass
            assert error.value.response.status_code == 403

    run(main())


def test_without_a_token_keys_are_needed_where_there_are_some(tmp_path: Path) -> None:
    paths = ("/voice-stream", "/voice", "/voice/recorded", "/voice/wait", "/voice/silent")
    paths = (*paths, "/stream-status", "/calls/status", "/calls/answered", "/")
    right = {"Authorization": "Bearer sk-antiphon-owner"}

    async def main() -> None:
        async with serving(tmp_path, security__api_key="sk-antiphon-owner") as served:
            for headers in ({}, {"Authorization": "Bearer wrong"}):
                for path in paths:
                    assert await post(served, CALL, headers, path) == 401, path
                with pytest.raises(InvalidStatus) as error:
                    async with open_stream(served, additional_headers=headers):
                        pass
                assert error.value.response.status_code == 401
                async with open_stream(served, "/ws", additional_headers=headers) as line:
                    await line.send(CONNECTED)
                    assert (await line.wait_closed())[0] == 1008
            for path in paths:
                assert await post(served, CALL, right, path) in (200, 204), path
            async with open_stream(served, additional_headers=right) as line:
                await line.send(CONNECTED)
                await line.send(start_frame())
                await until(lambda: len(served.calls) == 1)
            await until(lambda: len(served.calls) == 0)
        keyed = {"security__api_key": "sk-antiphon-owner", "security__local": True}
        async with serving(tmp_path, **keyed) as served:
            assert await post(served, CALL, {}, "/voice-stream") == 200

    run(main())
