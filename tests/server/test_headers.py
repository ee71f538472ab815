"""The headers of every answer: the page, its files, the API, refusals and faults."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.server.support import serving
from tests.support import run
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

ALWAYS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
}
PATHS = ["/", "/static/app.js", "/docs", "/openapi.json", "/health", "/v1/models", "/nothing"]


@pytest.mark.parametrize("path", PATHS)
def test_every_answer(path: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as served:
            headers = (await served.http.get(path)).headers
            assert {name: headers[name] for name in ALWAYS} == ALWAYS
            assert headers["permissions-policy"].startswith("microphone=(self)")
            policy = headers["content-security-policy"]
            assert "frame-ancestors 'none'" in policy
            own = {"/": "default-src 'self'; style-src", "/docs": "default-src 'self'; script-src"}
            assert policy.startswith(own.get(path, "default-src 'none'"))
            stored = {"/": "no-cache", "/static/app.js": None}
            assert headers.get("cache-control") == stored.get(path, "no-store")
            assert len(headers.get_list("content-security-policy")) == 1

    run(main())


def test_answers_that_are_no_pages_of_ours(tmp_path: Path) -> None:
    """Refusals of all kinds, of a websocket too, and a request that goes wrong."""

    async def main() -> None:
        async with serving(tmp_path, server__max_upload_bytes=2_000) as served:
            served.app.add_api_route("/broken", lambda: 1 / 0)
            with pytest.raises(InvalidStatus) as refused:
                async with connect(f"{served.ws}", origin="https://evil.example"):
                    pass
            found = [
                await served.http.get("/health", headers={"Host": "["}),
                await served.http.get("/v1/models", headers={"Origin": "https://evil.example"}),
                await served.http.post("/v1/speech-to-speech", content=bytes(100_000)),
                await served.http.get("/broken"),
                refused.value.response,
            ]
            statuses = [answer.status_code for answer in found]
            assert statuses == [400, 403, 413, 500, 403]
            for answer in found:
                assert {name: answer.headers[name] for name in ALWAYS} == ALWAYS

    run(main())
