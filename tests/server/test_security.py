"""Who is let in at which door, with a key, a client secret or without any. Real sockets."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from starlette.requests import HTTPConnection
from tests.protocols.openai_http.support import QUESTION, Clock, asked, sdk, use_clock, with_key
from tests.server.support import START, Client, Served, client, serving
from tests.support import nothing_left, run, settings, until
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Subprotocol

from antiphon.errors import ConfigError
from antiphon.server.http_errors import RequestRefused
from antiphon.server.keys import add_key, remove_key
from antiphon.server.security import Gate, is_local, is_loopback
from antiphon.server.usage import UsageLimits

KEY_ITEM = "openai-insecure-api-key."


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


async def status_of(served: Served, path: str = "/v1/models", **options: Any) -> int:
    return (await served.http.get(path, **options)).status_code


async def refused_socket(served: Served, **options: Any) -> httpx.Response | Any:
    with pytest.raises(InvalidStatus) as found:
        await connect(served.ws, **options)
    return found.value.response


# --- what a connection says of itself -------------------------------------------------------------


@pytest.mark.parametrize(
    ("peer", "headers", "local"),
    [
        ("127.0.0.1", {"host": "localhost:8000"}, True),
        ("127.0.0.1", {"host": "127.0.0.1"}, True),
        ("::1", {"host": "[::1]:8000"}, True),
        ("::ffff:127.0.0.1", {"host": "LOCALHOST"}, True),
        ("10.0.0.2", {"host": "localhost"}, False),
        ("127.0.0.1", {"host": "evil.example"}, False),  # DNS rebinding
        ("127.0.0.1", {"host": "localhost", "x-forwarded-for": "127.0.0.1"}, False),
        ("127.0.0.1", {"host": "localhost", "forwarded": "for=::1"}, False),
        ("127.0.0.1", {"host": "[::1"}, False),
        ("127.0.0.1", {"host": "127.0.0.1.evil.example"}, False),
        ("127.0.0.1", {}, False),
    ],
)
def test_what_is_local(peer: str, headers: Mapping[str, str], local: bool) -> None:
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "client": (peer, 1), "headers": raw, "path": "/"}
    assert is_local(HTTPConnection(scope)) is local


LOCALHOST, PUBLIC = {"host": "localhost:8000"}, {"phone__public_url": "https://voice.example.org"}
KEYED = {"security__api_key": "sk-antiphon-owner"}
PROXY_HERE = {"server__trusted_proxies": "127.0.0.1"}
PROXY_ELSEWHERE = {"server__trusted_proxies": "192.0.2.0/24"}
REWRITTEN = {"host": "127.0.0.1:8000"}
"""What reaches us from a proxy that sets `Host` and says nothing of whom it speaks for."""


@pytest.mark.parametrize(
    ("peer", "headers", "chosen", "outcome"),
    [
        ("127.0.0.1", LOCALHOST, {}, "local"),
        ("::ffff:127.0.0.1", LOCALHOST, {}, "local"),
        ("127.0.0.1", LOCALHOST, PROXY_ELSEWHERE, "local"),
        ("127.0.0.1", LOCALHOST, {**PUBLIC, **PROXY_ELSEWHERE}, "local"),
        ("127.0.0.1", LOCALHOST, {"phone__public_url": "http://localhost:8000"}, "local"),
        # A proxy on this machine, declared or to be assumed
        ("127.0.0.1", REWRITTEN, PROXY_HERE, 403),
        ("127.0.0.1", REWRITTEN, PUBLIC, 403),
        ("127.3.2.1", REWRITTEN, PUBLIC, 403),
        ("::1", REWRITTEN, PUBLIC, 403),
        ("::ffff:127.0.0.1", REWRITTEN, PROXY_HERE, 403),
        ("::ffff:127.0.0.1", REWRITTEN, PUBLIC, 403),
        ("127.0.0.1", {**REWRITTEN, "x-forwarded-for": "127.0.0.1"}, PROXY_HERE, 403),
        ("127.0.0.1", {**REWRITTEN, "x-forwarded-for": "::1"}, {}, 403),
        ("127.0.0.1", {"host": "voice.example.org"}, PUBLIC, 403),
        # From elsewhere
        ("192.0.2.7", LOCALHOST, {}, 403),
        ("192.0.2.7", {**LOCALHOST, "x-forwarded-for": "127.0.0.1"}, PROXY_ELSEWHERE, 403),
        ("192.0.2.7", LOCALHOST, {"security__open": True}, "anyone"),
        ("127.0.0.1", REWRITTEN, {**PUBLIC, "security__open": True}, "anyone"),
        # With keys
        ("127.0.0.1", LOCALHOST, KEYED, 401),
        ("127.0.0.1", LOCALHOST, {**KEYED, "security__local": True}, "local"),
        ("127.0.0.1", REWRITTEN, {**KEYED, **PUBLIC, "security__local": True}, 401),
        ("127.0.0.1", REWRITTEN, {**KEYED, **PROXY_HERE, "security__local": True}, 401),
        ("192.0.2.7", bearer("sk-antiphon-owner"), {**KEYED, **PUBLIC}, "default"),
    ],
)
def test_who_is_let_in_as_whom(
    peer: str,
    headers: Mapping[str, str],
    chosen: Mapping[str, Any],
    outcome: str | int,
    tmp_path: Path,
) -> None:
    gate = Gate(settings(tmp_path, security__keys_file=str(tmp_path / "keys.json"), **chosen))
    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    connection = HTTPConnection({"type": "http", "client": (peer, 1), "headers": raw, "path": "/"})
    try:
        found: str | int = asyncio.run(gate.admit(connection, secrets_too=False)).name
    except RequestRefused as refused:
        found = refused.status
    assert found == outcome


def test_a_proxy_that_is_no_address(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"server\.trusted_proxies: 'proxy\.local'"):
        Gate(settings(tmp_path, server__trusted_proxies="proxy.local"))


def test_addresses_of_loopback() -> None:
    assert all(map(is_loopback, ("localhost", "127.9.9.9", "::1", "[::1]")))
    assert not any(map(is_loopback, ("", "localhost.", "128.0.0.1", "127.evil", "fe80::1")))


# --- the doors ------------------------------------------------------------------------------------


def test_without_keys_this_machine_is_served(tmp_path: Path) -> None:
    async def main() -> None:
        async with nothing_left(), asked(tmp_path) as (served, sdk_client):
            assert (await sdk_client.models.list()).data
            async with client(served, start=START) as caller:
                await caller.wait("connected")
            rebound = await served.http.get("/v1/models", headers={"Host": "evil.example"})
            assert rebound.status_code == 403
            assert "serves only its own machine" in rebound.json()["error"]["message"]
            site = await served.http.get("/v1/models", headers={"Origin": "https://evil.example"})
            assert site.status_code == 403
            assert site.json()["error"]["code"] == "origin_not_allowed"
            for path in ("/metrics", "/v1/audio/voices", "/llm/v1/models"):
                proxied = {"X-Forwarded-For": "203.0.113.5"}
                assert await status_of(served, path, headers=proxied) == 403
                assert await status_of(served, path) == 200
            answer = await refused_socket(served, additional_headers={"X-Real-IP": "203.0.113.5"})
            assert answer.status_code == 403
        async with serving(tmp_path, security__open=True) as served:
            assert await status_of(served, headers={"X-Forwarded-For": "203.0.113.5"}) == 200

    run(main())


def test_a_key_is_needed_at_every_door(tmp_path: Path) -> None:
    clear, options = with_key(tmp_path)

    async def main() -> None:
        async with nothing_left(), serving(tmp_path, **options) as served:
            for headers in ({}, bearer("wrong"), bearer(clear + "x"), {"api-key": "wrong"}):
                answer = await served.http.get("/v1/models", headers=headers)
                assert answer.status_code == 401
                assert answer.json()["error"]["code"] == "invalid_api_key"
                assert answer.json()["error"]["type"] == "invalid_request_error"
                assert answer.headers["www-authenticate"] == "Bearer"
            for path in (
                "/v1/audio/transcriptions",
                "/v1/audio/speech",
                "/v1/chat/completions",
                "/v1/realtime/client_secrets",
                "/v1/speech-to-speech",
            ):
                assert (await served.http.post(path, content=b"")).status_code == 401, path
            assert await status_of(served, headers=bearer(clear)) == 200
            assert await status_of(served, headers={"api-key": clear}) == 200
            for path in ("/", "/health", "/ready", "/metrics", "/static/app.js"):
                assert await status_of(served, path) == 200, path
            away = {"X-Forwarded-For": "203.0.113.5"}
            assert await status_of(served, "/metrics", headers=away) == 401
            assert await status_of(served, "/metrics", headers=away | bearer(clear)) == 200

            answer = await refused_socket(served)
            assert answer.status_code == 401
            assert json.loads(answer.body)["error"]["code"] == "invalid_api_key"
            site = {"additional_headers": bearer(clear), "origin": "https://any.example"}
            for options_ in ({"additional_headers": bearer(clear)}, site):
                async with client(served, start=START, **options_) as caller:
                    await caller.wait("connected")
                    assert caller.socket.subprotocol is None
        async with serving(tmp_path, security__local=True, **options) as served:
            assert await status_of(served) == 200
            assert await status_of(served, headers={"X-Forwarded-For": "203.0.113.5"}) == 401

    run(main())


def test_pages_of_a_listed_site(tmp_path: Path) -> None:
    """Their preflight carries no key, their requests do; what an unlisted site asks, its page may not read."""
    clear, options = with_key(tmp_path)
    options["server__cors_origins"] = "https://shop.example"

    async def main() -> None:
        async with serving(tmp_path, **options) as served:
            asking = {
                "Access-Control-Request-Method": "POST",
                "Access-Control-Request-Headers": "authorization",
            }
            for origin, status in (("https://shop.example", 200), ("https://evil.example", 400)):
                headers = {"Origin": origin, **asking}
                answer = await served.http.options("/v1/audio/speech", headers=headers)
                assert answer.status_code == status
            for origin, readable in (
                ("https://shop.example", "https://shop.example"),
                ("https://evil.example", None),
            ):
                for key, status in ((clear, 200), ("wrong", 401)):
                    headers = {"Origin": origin, **bearer(key)}
                    answer = await served.http.get("/v1/models", headers=headers)
                    assert answer.status_code == status
                    assert answer.headers.get("access-control-allow-origin") == readable

    run(main())


def test_the_sdk_is_told(tmp_path: Path) -> None:
    clear, options = with_key(tmp_path)

    async def main() -> None:
        async with asked(tmp_path, clear, **options) as (served, good):
            assert (await good.models.list()).data
            async with sdk(served, "sk-wrong") as bad:
                with pytest.raises(openai.AuthenticationError, match="wrong or was revoked"):
                    await bad.models.list()

    run(main())


def test_a_browser_gives_its_key_as_a_subprotocol(tmp_path: Path) -> None:
    clear, options = with_key(tmp_path)

    async def main() -> None:
        async with nothing_left(), serving(tmp_path, **options) as served:
            for first in ("antiphon", "realtime"):
                offered = [Subprotocol(first), Subprotocol(KEY_ITEM + clear)]
                async with client(served, start=START, subprotocols=offered) as caller:
                    await caller.wait("connected")
                    assert caller.socket.subprotocol == first
            wrong = [Subprotocol("antiphon"), Subprotocol(KEY_ITEM + "wrong")]
            assert (await refused_socket(served, subprotocols=wrong)).status_code == 401

    run(main())


def test_keys_are_revoked_while_the_server_runs(tmp_path: Path) -> None:
    clear, options = with_key(tmp_path)
    path = Path(options["security__keys_file"])

    async def main() -> None:
        async with serving(tmp_path, **options) as served:
            served.app.state.gate.keys.look_every_s = 0
            assert await status_of(served, headers=bearer(clear)) == 200
            second, _ = add_key(path, "second")
            assert await status_of(served, headers=bearer(second)) == 200
            remove_key(path, "tester")
            assert await status_of(served, headers=bearer(clear)) == 401
            await asyncio.to_thread(path.write_text, "nonsense")
            assert await status_of(served, headers=bearer(second)) == 200
            await asyncio.to_thread(
                path.unlink
            )  # no keys are left: the server does not open itself
            assert await status_of(served, headers=bearer(second)) == 401
            assert await status_of(served) == 401

    run(main())


def test_limits_of_a_key(tmp_path: Path) -> None:
    clear, options = with_key(tmp_path, UsageLimits(1, 2, 5))

    async def main() -> None:
        async with nothing_left(), asked(tmp_path, clear, **options) as (served, sdk_client):
            clock = Clock()
            use_clock(served, clock)
            headers = {"additional_headers": bearer(clear)}
            async with client(served, start=START, **headers) as caller:
                await caller.wait("connected")
                async with client(served, start=START, **headers) as second:
                    assert await closed_with(second) == 1013
                    assert "1 calls at a time" in second.of("error")[0]["message"]
                clock.now_s += 130
            ledger = served.app.state.gate.ledger
            await until(lambda: ledger.sessions("tester") == 0)
            with pytest.raises(openai.RateLimitError, match="2 minutes of today"):
                await sdk_client.audio.speech.create(input="Hi.", model="x", voice="alloy")
            clock.now_s += 86_400
            await sdk_client.audio.speech.create(input="One two.", model="x", voice="alloy")
            left_s = ledger.left_s("tester", UsageLimits(1, 2, 5))
            assert left_s == pytest.approx(120 - 0.2, abs=0.05)
            for _ in range(4):
                await sdk_client.models.list()
            with pytest.raises(openai.RateLimitError, match="5 requests a minute"):
                await sdk_client.models.list()

    run(main())


def test_recordings_and_answers_cost_minutes(tmp_path: Path) -> None:
    limits = UsageLimits(minutes_per_day=1)
    clear, options = with_key(tmp_path, limits)

    async def main() -> None:
        async with asked(tmp_path, clear, **options) as (served, sdk_client):
            ledger = served.app.state.gate.ledger
            use_clock(served, Clock())
            await sdk_client.audio.transcriptions.create(file=("a.wav", QUESTION), model="x")
            assert ledger.left_s("tester", limits) == pytest.approx(60 - 0.94, abs=0.01)
            ledger.spend("tester", 60)
            for path in ("/v1/speech-to-speech", "/v1/audio/transcriptions"):
                answer = await served.http.post(
                    path, files={"file": QUESTION}, headers=bearer(clear)
                )
                assert answer.status_code == 429
                assert answer.json()["error"]["code"] == "rate_limit_exceeded"

    run(main())


async def closed_with(caller: Client) -> int:
    return (await caller.wait_closed())[0]


# --- ephemeral keys ---------------------------------------------------------------------------------


def test_a_client_secret_opens_websockets_until_it_expires(tmp_path: Path) -> None:
    clear, options = with_key(tmp_path)

    async def main() -> None:
        async with nothing_left(), asked(tmp_path, clear, **options) as (served, sdk_client):
            clock = Clock()
            use_clock(served, clock)
            session: Any = {"type": "realtime", "instructions": "Be brief."}
            made = await sdk_client.realtime.client_secrets.create(
                expires_after={"anchor": "created_at", "seconds": 60}, session=session
            )
            assert made.value.startswith("ek_")
            assert made.expires_at == clock.now_s + 60
            assert made.session.type == "realtime"
            assert made.session.instructions == "Be brief."
            assert made.session.audio is not None

            async with (
                sdk(served, made.value) as holder,
                holder.realtime.connect(model="x") as room,
            ):
                opened = await room.recv()
                assert opened.type == "session.created"
                assert opened.session.instructions == "Be brief."  # type: ignore[union-attr]

            headers = {"additional_headers": bearer(made.value)}
            async with client(served, start=START, **headers) as caller:
                await caller.wait("connected")
                assert served.app.state.gate.ledger.sessions("tester") == 1
            item = [Subprotocol("antiphon"), Subprotocol(KEY_ITEM + made.value)]
            async with client(served, start=START, subprotocols=item) as caller:
                await caller.wait("connected")

            for path in ("/v1/chat/completions", "/v1/realtime/client_secrets"):
                answer = await served.http.post(path, headers=bearer(made.value))
                assert answer.status_code == 401
                assert "opens Realtime sessions only" in answer.json()["error"]["message"]
            clock.now_s += 60
            answer = await refused_socket(served, **headers)
            assert answer.status_code == 401
            assert b"has expired" in answer.body

    run(main())


def test_a_secret_dies_with_its_key(tmp_path: Path) -> None:
    clear, options = with_key(tmp_path)

    async def main() -> None:
        async with asked(tmp_path, clear, **options) as (served, sdk_client):
            served.app.state.gate.keys.look_every_s = 0
            made = await sdk_client.realtime.client_secrets.create()
            assert made.session.type == "realtime"
            remove_key(Path(options["security__keys_file"]), "tester")
            answer = await refused_socket(served, additional_headers=bearer(made.value))
            assert answer.status_code == 401

    run(main())


def test_what_a_secret_may_not_be(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as served:
            for body, param in (
                ({"expires_after": {"seconds": 9}}, "expires_after.seconds"),
                ({"expires_after": {"seconds": 7_201}}, "expires_after.seconds"),
                ({"expires_after": {"anchor": "now"}}, "expires_after.anchor"),
                ({"session": {"type": "other"}}, "session.type"),
                ({"session": 5}, "session"),
                (
                    {"session": {"audio": {"output": {"speed": "fast"}}}},
                    "session.audio.output.speed",
                ),
            ):
                answer = await served.http.post("/v1/realtime/client_secrets", json=body)
                assert answer.status_code == 400
                assert answer.json()["error"]["param"] == param
            large = {"session": {"instructions": "x" * 300_000}}
            answer = await served.http.post("/v1/realtime/client_secrets", json=large)
            assert answer.status_code == 400
            beta = await served.http.post("/v1/realtime/sessions", json={"voice": "a"})
            assert beta.json()["client_secret"]["value"].startswith("ek_")
            assert beta.json()["voice"] == "a"
            route = "/v1/realtime/transcription_sessions"
            beta = await served.http.post(route, json={"client_secret": {}})
            assert beta.json()["object"] == "realtime.transcription_session"

    run(main())


# --- secrecy ----------------------------------------------------------------------------------------


def test_no_key_in_any_log(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Not even with everything turned on: uvicorn and websockets write headers at DEBUG."""
    from antiphon.observe import logs

    clear, options = with_key(tmp_path)
    root = logging.getLogger()
    before, level = root.handlers[:], root.level

    async def main() -> None:
        async with serving(tmp_path, server__debug=True, **options) as served:
            await status_of(served, headers=bearer(clear))
            await status_of(served, headers={"api-key": clear})
            offered = [Subprotocol("antiphon"), Subprotocol(KEY_ITEM + clear)]
            async with client(served, start=START, subprotocols=offered) as caller:
                await caller.wait("connected")

    handler = logs.setup("json", level=logging.DEBUG)
    try:
        run(main())
    finally:
        root.removeHandler(handler)
        root.handlers[:], root.level = before, level
    written = "".join(capfd.readouterr())
    assert "connection" in written.lower()
    assert clear not in written
    assert clear.removeprefix("sk-antiphon-") not in written


@pytest.mark.parametrize("depth", [70, 300, 900, 3_000, 100_000])
@pytest.mark.parametrize("inner", ["[]", '{"a":}'])
@pytest.mark.parametrize("path", ["client_secrets", "sessions", "transcription_sessions"])
def test_a_session_of_a_secret_that_is_nested_deeply(
    path: str, inner: str, depth: int, tmp_path: Path
) -> None:
    opening, closing = inner[:-1], inner[-1]
    value = opening * depth + "1" + closing * depth
    key = "session" if path == "client_secrets" else "tools"
    bodies = [f'{{"{name}": {{"tools": {value}}}}}' for name in (key, "client_secret")]
    bodies.append(f'{{"expires_after": {value}}}')

    async def main() -> None:
        async with serving(tmp_path) as served:
            for text in bodies:
                answer = await served.http.post(f"/v1/realtime/{path}", content=text)
                assert answer.status_code in (200, 400), answer.text[:200]

    run(main())
