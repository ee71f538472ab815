"""HTTP that no client of ours would send, at every route: an answer of the 4xx kind, and no traceback."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
from tests.protocols.services_support import service
from tests.security.strangers import line, upgrade
from tests.server.support import serving

from antiphon.models.ports import Kind
from antiphon.server.http_protocol import host_is_valid

LONG = "n" * 300
HOSTS = (
    b"localhost:99999",
    b"[",
    b"[::1",
    b"]",
    b"a b",
    b"localhost:abc",
    b"localhost:-1",
    b"\xff",
)
HOST = b"Host: localhost\r\n"
GARBLED = (
    b"X-A: \xff\xfe\r\nAuthorization: Bearer \xff\r\nCookie: \xff\r\nAccept: \xff\r\nOrigin: \xff\r\n",
    b"Origin: http://[\r\n",
    b"X-Forwarded-Host: [\r\nX-Forwarded-Proto: \xff\r\n",
    b"X-Twilio-Signature: \xff\r\nkyutai-api-key: \xff\r\n",
    b"Content-Type: \xff\r\n",
)
JSON = (
    b'{"a": "\xff\xfe"}',
    b'{"model": "\\ud800", "input": "\\ud800", "messages": [{"role": "user", "content": "\\ud800"}]}',
    b"[" * 50_000,
    b'{"a":' * 5_000,
    b'{"model": 1e999, "input": NaN}',
    b"null",
    b"\xff",
)
FORM = b"a=%ff&CallSid=%ff\xff&=\xfe"
MULTIPART = (
    b'--x\r\nContent-Disposition: form-data; name="file"; filename="\xff%s.wav"\r\n\r\n\xff\r\n'
    b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\n\xff\xfe\r\n--x--\r\n'
) % LONG.encode()
KINDS = {
    b"application/json": JSON,
    b"application/x-www-form-urlencoded": (FORM,),
    b"multipart/form-data; boundary=x": (MULTIPART,),
    b"multipart/form-data": (MULTIPART,),
    b"multipart/form-data; boundary=\xff": (MULTIPART,),
}
HIDDEN = [("GET", "/"), ("GET", "/metrics"), ("GET", "/static/app.js"), ("GET", "/health/")]
HIDDEN += [("GET", "/static"), ("GET", "/nothing"), ("POST", "/llm/v1/chat/completions")]
SOCKETS = ("/ws", "/media-stream", f"/media-stream/{LONG}", "/media-stream/%ff", "/nothing")
SOCKETS += ("/ws/conversation?start=%ff", "/ws/conversation?start=%ed%a0%80", "/v1/realtime")
SOCKETS += ("/api/asr-streaming", "/api/tts_streaming?voice=%ff&format=%ff")
UPGRADES = (
    b"Host: localhost\r\nTransfer-Encoding: chunked\r\n",
    b"Host: localhost\r\nContent-Length: 5\r\n",
    b"Host: localhost\r\nX: " + b"x" * 9_000 + b"\r\n",
    b"Host: localhost\r\n" + b"X: y\r\n" * 200,
    b"Host: localhost\r\nSec-WebSocket-Protocol: \xff, openai-insecure-api-key.\xff\r\n",
    *(HOST + garbled for garbled in GARBLED),
    *(b"Host: " + host + b"\r\n" for host in HOSTS),
)


def heads(path: str) -> list[tuple[str, bytes]]:
    """Targets, and the headers to ask them with."""
    plain, bad, long = (re.sub(r"{[^}]*}", part, path) for part in ("x", "%ff%fe%00", LONG))
    found = [(plain, b"Host: " + host + b"\r\n") for host in HOSTS]
    found += [(plain, HOST + garbled) for garbled in GARBLED]
    return [*found, (long, HOST), (f"{plain}?{LONG}={LONG}", HOST), (f"{bad}?a=%ff&%fe=%00", HOST)]


def requests(app: Any) -> list[bytes]:
    paths: dict[str, dict[str, Any]] = app.openapi()["paths"]
    routes = [(m.upper(), path) for path, methods in paths.items() for m in methods] + HIDDEN
    found = []
    for method, path in routes:
        for target, headers in heads(path):
            found.append(_request(method, target, headers))
        if method != "GET":
            plain = re.sub(r"{[^}]*}", "x", path)
            for kind, bodies in KINDS.items():
                headers = HOST + b"Content-Type: " + kind + b"\r\n"
                found += [_request(method, plain, headers, body) for body in bodies]
    return found


def _request(method: str, target: str, headers: bytes, body: bytes = b"") -> bytes:
    length = b"Content-Length: %d\r\n" % len(body) if body else b""
    head = f"{method} {target} HTTP/1.1\r\nConnection: close\r\n".encode()
    return head + headers + length + b"\r\n" + body


async def status_of(address: str, raw: bytes, *, head_only: bool = False) -> int:
    async with line(address) as client:
        await client.send(raw)
        answer = await (client.head() if head_only else client.to_the_end())
    assert answer.startswith(b"HTTP/1.1 "), (raw[:200], answer[:100])
    return int(answer.split()[1])


async def none_fails(app: Any, address: str) -> None:
    few = asyncio.Semaphore(8)

    async def ask(raw: bytes, head_only: bool) -> None:
        async with few:
            status = await status_of(address, raw, head_only=head_only)
        assert status < 500 or status == 501, raw[:300]

    upgrades = [upgrade(p).replace(HOST, headers, 1) for p in SOCKETS for headers in UPGRADES]
    async with asyncio.TaskGroup() as group:
        for raw in requests(app):
            group.create_task(ask(raw, False))
        for raw in upgrades:
            group.create_task(ask(raw, True))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("token", ["", "t" * 32])
def test_the_server(token: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with serving(tmp_path, phone__account_sid="AC1", phone__auth_token=token) as served:
            await none_fails(served.app, served.address)

    asyncio.run(main())
    assert not [record.getMessage() for record in caplog.records if record.exc_info]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", [Kind.STT, Kind.TTS, Kind.LLM])
def test_services(kind: Kind, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with service(tmp_path, kind) as served:
            await none_fails(served.app, f"127.0.0.1:{served.port}")

    asyncio.run(main())
    assert not [record.getMessage() for record in caplog.records if record.exc_info]


@pytest.mark.parametrize(
    ("host", "valid"),
    [
        (b"localhost", True),
        (b"localhost:8000", True),
        (b"my_host.example-1.org:65535", True),
        (b"127.0.0.1:1", True),
        (b"[::1]:8000", True),
        (b"[fe80::1%eth0]", True),
        (b"", True),
        *((host, False) for host in HOSTS),
        (b"localhost:65536", False),
        (b"localhost:", False),
        (b"user@localhost", False),
        (b"localhost/x", False),
        (b"::1", False),
    ],
)
def test_hosts(host: bytes, valid: bool) -> None:
    assert host_is_valid(host) is valid
