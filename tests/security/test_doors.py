"""Strangers at every door of the real server: what answers them at all, and how little it says."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from tests.protocols.openai_http.support import with_key
from tests.server.support import Served, serving
from tests.support import nothing_left, run
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

SECRET_PROMPT = "The vault is behind the painting."
OPEN = {"/health", "/ready", "/gpu", "/v1/health"}
"""Probes: they tell neither words nor settings."""
WEBHOOKS = {"/voice-stream", "/stream-status", "/voice", "/voice/recorded", "/voice/wait"}
WEBHOOKS |= {"/voice/silent", "/calls/status", "/calls/answered"}
"""Signed by the phone company."""
SOCKETS = ("/ws/conversation", "/v1/realtime", "/api/v1/realtime", "/media-stream", "/ws")
STRANGER = {"X-Forwarded-For": "203.0.113.5"}
PHONE = {"phone__account_sid": "AC1", "phone__auth_token": "t" * 32}
PHONE["phone__public_url"] = "https://v.example"


def doors(served: Served) -> list[tuple[str, str]]:
    """Every HTTP route that the application documents."""
    paths: dict[str, dict[str, Any]] = served.app.openapi()["paths"]
    return [
        (method.upper(), path.replace("{", "").replace("}", ""))
        for path, methods in paths.items()
        for method in methods
    ]


@pytest.mark.parametrize("keys", [True, False])
def test_every_route_refuses_strangers(keys: bool, tmp_path: Path) -> None:
    """A new route that forgets to ask who is there fails here."""
    options = with_key(tmp_path)[1] if keys else {}

    async def main() -> None:
        async with nothing_left(), serving(tmp_path, **options, **PHONE) as served:
            found = doors(served)
            assert len(found) > 20
            served_to_all = set()
            for method, path in found:
                answer = await served.http.request(method, path, headers=STRANGER)
                if answer.status_code not in (401, 403):
                    served_to_all.add(path)
            assert served_to_all == OPEN
            for path in WEBHOOKS - {path for _, path in found}:
                assert (await served.http.post(path, headers=STRANGER)).status_code == 403, path

    run(main())


@pytest.mark.parametrize("path", SOCKETS)
@pytest.mark.parametrize("keys", [True, False])
def test_every_socket_refuses_pages_of_other_sites(path: str, keys: bool, tmp_path: Path) -> None:
    """A browser opens a websocket to this machine for any page; the Origin is all that tells."""
    options = with_key(tmp_path)[1] if keys else {}

    async def main() -> None:
        async with nothing_left(), serving(tmp_path, **options, **PHONE) as served:
            for strange in (
                {"origin": "https://evil.example"},
                {"origin": "null"},
                {"additional_headers": STRANGER},
                {"origin": "http://evil.example", "additional_headers": {"Host": "evil.example"}},
            ):
                heard = await opened(f"ws://{served.address}{path}", **strange)
                assert heard == [], f"{strange}: {heard}"
            assert len(served.calls) == 0

    run(main())


async def opened(url: str, **options: Any) -> list[str | bytes]:
    """What a socket says to somebody who says nothing but a Twilio start without a token."""
    heard: list[str | bytes] = []
    try:
        async with asyncio.timeout(10), connect(url, compression=None, **options) as socket:
            await socket.send(json.dumps({"event": "connected", "protocol": "Call"}))
            start = {"streamSid": "MZ1", "callSid": "CA1", "customParameters": {}}
            await socket.send(json.dumps({"event": "start", "streamSid": "MZ1", "start": start}))
            heard.extend([frame async for frame in socket])
    except (InvalidStatus, ConnectionClosed):
        pass
    return heard


def test_nothing_that_is_open_tells_the_prompt_or_a_key(tmp_path: Path) -> None:
    clear, options = with_key(tmp_path)
    options |= {
        "agent__prompt": SECRET_PROMPT,
        "agent__presets": {"night": SECRET_PROMPT},
        "endpoint__api_key": "sk-endpoint-secret",
        **PHONE,
    }
    told = (SECRET_PROMPT, "sk-endpoint-secret", "t" * 32, clear)

    async def main() -> None:
        async with serving(tmp_path, **options) as served:
            gets = [path for method, path in doors(served) if method == "GET"]
            for path in [*gets, "/", "/openapi.json", "/docs", "/metrics", "/static/app.js"]:
                for headers in ({}, STRANGER, {"Authorization": f"Bearer {clear}"}):
                    answer = await served.http.get(path, headers=headers)
                    shown = answer.text + str(answer.headers)
                    assert not [secret for secret in told if secret in shown], path

    run(main())


@pytest.mark.parametrize(
    "path",
    [
        "/v1/speech-to-speech",
        "/v1/audio/transcriptions",
        "/v1/audio/speech",
        "/v1/chat/completions",
        "/v1/realtime/client_secrets",
        "/calls",
    ],
)
def test_a_strangers_upload_is_not_taken_in(path: str, tmp_path: Path) -> None:
    """Refused by the headers alone: 64 MiB of a body each would fill the disk of the uploads."""
    _, options = with_key(tmp_path)

    async def main() -> None:
        async with nothing_left(), serving(tmp_path, **options) as served:
            host, _, port = served.address.partition(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            kind = "application/json" if path == "/calls" else "multipart/form-data; boundary=x"
            head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n"
            writer.write(f"{head}Content-Length: 60000000\r\n\r\n--x\r\n".encode())
            async with asyncio.timeout(10):
                assert b" 401 " in await reader.readline()
            writer.close()

    run(main())


def test_a_webhooks_body_is_small_and_comes_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Signatures are computed over the form, so it is read before anybody is known."""
    monkeypatch.setattr("antiphon.protocols.twilio.signature._FORM_S", 0.2)

    async def main() -> None:
        async with nothing_left(), serving(tmp_path, **PHONE) as served:
            form = "a=" + "x" * 100_000
            answer = await served.http.post("/voice-stream", content=form)
            assert answer.status_code == 413
            host, _, port = served.address.partition(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(b"POST /voice HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\na=")
            async with asyncio.timeout(10):
                assert b" 408 " in await reader.readline()
            writer.close()

    run(main())


@pytest.mark.parametrize(
    "path",
    [
        "/static/../../server/app.py",
        "/static/%2e%2e/%2e%2e/server/app.py",
        "/static/..%2f..%2fserver/app.py",
        "/static//etc/passwd",
        "/static/%2Fetc%2Fpasswd",
        "/voice/audio/..%2f..%2fetc%2fpasswd?expires=9999999999&signature=x",
        "/v1/models/../../etc/passwd",
        "/calls/..%2f..%2fetc%2fpasswd",
    ],
)
def test_addresses_name_no_files(path: str, tmp_path: Path) -> None:
    """Sent as it stands: clients would tidy it up."""

    async def main() -> None:
        async with serving(tmp_path) as served:
            host, _, port = served.address.partition(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
            writer.write(head.encode())
            async with asyncio.timeout(10):
                answer = await reader.read()
            writer.close()
            assert answer.split()[1] in (b"403", b"404"), answer[:300]
            assert b"root:" not in answer
            assert b"import" not in answer

    run(main())
