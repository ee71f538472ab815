"""HTTP: health, the page, and `POST /v1/speech-to-speech`, over real sockets."""

from __future__ import annotations

import asyncio
import io
import json
import wave
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from tests.server.support import Served, serving
from tests.support import nothing_left, run, say

from antiphon.audio.containers import decode_file
from antiphon.audio.encoding import encode_file
from antiphon.models.registry import register_model
from antiphon.models.scripted import ScriptedLlm, ScriptedStt

QUESTION = encode_file(say(440, 640, silence_ms=300), 16_000, "wav")
ROUTE = "/v1/speech-to-speech"


class Unloadable(ScriptedStt):
    def load(self) -> None:
        raise OSError("no such device")


register_model("stt", "test-unloadable")(Unloadable)
register_model("llm", "test-broken", fail_always=True)(ScriptedLlm)


def get(folder: Path, path: str, **overrides: Any) -> httpx.Response:
    async def main() -> httpx.Response:
        async with serving(folder, **overrides) as served:
            return await served.http.get(path)

    found = run(main())
    assert isinstance(found, httpx.Response)
    return found


# --- health -----------------------------------------------------------------------------------------


def test_health(tmp_path: Path) -> None:
    found = get(tmp_path, "/health")
    assert found.status_code == 200
    assert found.json()["status"] == "healthy"
    assert set(found.json()) == {"status", "service", "timestamp"}


def test_ready(tmp_path: Path) -> None:
    found = get(tmp_path, "/ready")
    body = found.json()
    assert (found.status_code, body["status"]) == (200, "ready")
    assert body["services"] == dict.fromkeys(("vad", "turn", "asr", "llm", "tts"), True)
    assert [m["kind"] for m in body["models"]] == ["vad", "turn", "stt", "llm", "tts"]
    model = body["models"][2]
    assert set(model) == {
        "kind",
        "name",
        "state",
        "detail",
        "load_s",
        "in_use",
        "fallback",
        "error",
    }
    assert (model["name"], model["state"], model["in_use"], model["fallback"]) == (
        "scripted",
        "ready",
        True,
        False,
    )
    assert model["load_s"] >= 0
    assert (body["calls"], body["max_calls"]) == (0, 32)


def test_ready_with_a_fallback_in_use(tmp_path: Path) -> None:
    found = get(tmp_path, "/ready", models__stt="test-unloadable, scripted")
    assert (found.status_code, found.json()["status"]) == (200, "ready")
    first, second = [m for m in found.json()["models"] if m["kind"] == "stt"]
    assert (first["state"], first["in_use"]) == ("failed", False)
    assert "no such device" in first["error"]
    assert (second["state"], second["in_use"], second["fallback"]) == ("ready", True, True)


def test_ready_when_a_kind_has_no_model_left(tmp_path: Path) -> None:
    async def main() -> None:
        async with nothing_left(), serving(tmp_path, models__stt="test-unloadable") as served:
            assert "no such device" in str(served.ready[0])
            found = await served.http.get("/ready")
            assert (found.status_code, found.json()["status"]) == (503, "failed")
            assert found.json()["services"]["asr"] is False
            refused = await post(served, QUESTION)
            assert refused.status_code == 503
            assert "no stt model could be loaded" in refused.json()["detail"]
            assert (await served.http.get("/health")).status_code == 200

    run(main())


def test_options_are_never_shown(tmp_path: Path) -> None:
    options = {
        "models__options__openai": {"api_key": "sk-secret", "base_url": "http://localhost:1/v1"}
    }
    found = get(tmp_path, "/ready", models__llm="scripted, openai", **options)
    assert "sk-secret" not in found.text


def test_gpu(tmp_path: Path) -> None:
    body = get(tmp_path, "/gpu").json()
    assert body["available"] is bool(body["devices"])
    if not body["available"]:
        assert body["reason"]


# --- the page and the documentation -----------------------------------------------------------------


def test_the_page(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as served:
            page = await served.http.get("/")
            assert page.status_code == 200
            assert page.headers["content-type"].startswith("text/html")
            policy = page.headers["content-security-policy"]
            assert "default-src 'self'" in policy
            assert "script-src" not in policy  # nothing inline, nothing from elsewhere
            assert (await served.http.get("/static/app.js")).status_code == 200
            assert (await served.http.get("/static/../app.py")).status_code == 404
            assert (await served.http.get("/nothing")).status_code == 404

    run(main())


def test_documentation(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as served:
            assert (await served.http.get("/docs")).status_code == 200
            paths = (await served.http.get("/openapi.json")).json()["paths"]
            assert {"/health", "/ready", "/gpu", ROUTE} <= set(paths)

    run(main())


def test_cors(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path, server__cors_origins="https://shop.example") as served:
            for origin, answer in (
                ("https://shop.example", "https://shop.example"),
                ("https://x", None),
            ):
                found = await served.http.get("/health", headers={"Origin": origin})
                assert found.headers.get("access-control-allow-origin") == answer

    run(main())


# --- speech to speech -------------------------------------------------------------------------------


async def post(served: Served, file: bytes, name: str = "q.wav", **form: Any) -> httpx.Response:
    return await served.http.post(ROUTE, files={"file": (name, file)}, data=form)


@pytest.mark.parametrize(
    ("form", "content_type", "source_format"),
    [
        ({}, "audio/mpeg", "mp3"),
        ({"response_format": "mp3", "bitrate": "32"}, "audio/mpeg", "mp3"),
        ({"response_format": "wav"}, "audio/wav", "wav"),
        ({"response_format": "opus"}, "audio/ogg", "ogg"),
        ({"response_format": "flac"}, "audio/flac", "flac"),
    ],
)
def test_a_spoken_answer(
    form: dict[str, str], content_type: str, source_format: str, tmp_path: Path
) -> None:
    async def main() -> None:
        async with nothing_left(), serving(tmp_path) as served:
            found = await post(served, QUESTION, **form)
            assert (found.status_code, found.headers["content-type"]) == (200, content_type)
            answer = decode_file(found.content)
            assert answer.source_format == source_format
            assert 0.25 <= answer.duration_s <= 0.5
            result = json.loads(found.headers["x-antiphon-result"])
            assert (result["transcript"], result["reply"]) == ("what time is it", "It is noon.")
            assert (result["audio_s"], set(result)) == (
                0.3,
                {"transcript", "reply", "audio_s", "compression_ratio", "timings_ms"},
            )

    run(main())


def wav(seconds: float, rate_hz: int = 16_000, channels: int = 1) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(channels)
        out.setsampwidth(2)
        out.setframerate(rate_hz)
        out.writeframes(bytes(int(seconds * rate_hz) * channels * 2))
    return file.getvalue()


BAD: list[tuple[str, bytes, dict[str, str], int, str]] = [
    ("empty", b"", {}, 400, "empty"),
    ("silent", wav(2), {}, 400, "nobody speaks"),
    ("one sample", wav(1 / 16_000), {}, 400, "nobody speaks"),
    ("header only", wav(0), {}, 400, "no audio"),
    ("truncated header", QUESTION[:30], {}, 400, ""),
    ("text", b"Dear server, what time is it?\n" * 40, {}, 400, "not audio that can be read"),
    ("too long", wav(61), {}, 400, "longer than 60 s"),
    ("unknown format", QUESTION, {"response_format": "ogv"}, 400, "unknown response_format 'ogv'"),
    ("bit rate", QUESTION, {"bitrate": "9999"}, 422, "less than or equal to 320"),
    ("no number", QUESTION, {"bitrate": "high"}, 422, "valid integer"),
]


@pytest.mark.parametrize(
    ("file", "form", "status", "reason"), [row[1:] for row in BAD], ids=[row[0] for row in BAD]
)
def test_bad_requests(
    file: bytes, form: dict[str, str], status: int, reason: str, tmp_path: Path
) -> None:
    async def main() -> None:
        async with nothing_left(), serving(tmp_path, server__max_file_s=60) as served:
            found = await post(served, file, **form)
            assert found.status_code == status, found.text
            assert reason in found.text
            assert "Traceback" not in found.text
            assert (await post(served, QUESTION)).status_code == 200  # nothing is broken

    run(main())


def test_a_truncated_recording_is_answered_as_far_as_it_goes(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as served:
            assert (await post(served, QUESTION[: len(QUESTION) * 2 // 3])).status_code == 200

    run(main())


def test_no_file_at_all(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as served:
            assert (await served.http.post(ROUTE, data={"bitrate": "64"})).status_code == 422
            broken = {"content-type": "multipart/form-data; boundary=x"}
            found = await served.http.post(ROUTE, content=b"--x\r\nnonsense", headers=broken)
            assert found.status_code in (400, 422)

    run(main())


def test_a_body_that_says_it_is_too_large_is_not_read(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path, server__max_upload_bytes=100_000) as served:
            host, _, port = served.address.partition(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(
                f"POST {ROUTE} HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000000\r\n"
                "Content-Type: multipart/form-data; boundary=x\r\n\r\n".encode()
            )
            async with asyncio.timeout(2):  # not a byte of the body was sent
                answer = await reader.readuntil(b"}")
            assert answer.startswith(b"HTTP/1.1 413")
            assert b"larger than" in answer
            writer.close()
            found = await post(served, bytes(300_000))  # its client sends all before it reads
            assert found.status_code == 413
            assert (await post(served, QUESTION)).status_code == 200

    run(main())


def test_a_body_that_turns_out_to_be_too_large(tmp_path: Path) -> None:
    async def chunks() -> Any:
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
        for _ in range(200):
            yield bytes(1_000)

    async def main() -> None:
        async with serving(tmp_path, server__max_upload_bytes=100_000) as served:
            headers = {"content-type": "multipart/form-data; boundary=x"}
            found = await served.http.post(ROUTE, content=chunks(), headers=headers)
            assert found.status_code == 413
            assert "larger than" in found.json()["detail"]

    run(main())


def test_a_model_that_fails(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path, models__llm="test-broken") as served:
            found = await post(served, QUESTION)
            assert found.status_code == 503
            assert "the server's log says why" in found.json()["detail"]

    run(main())


def test_several_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        slow = {
            "models__options__llm__scripted": {"delay_ms": 200, "rules": {"time": "It is noon."}}
        }
        async with nothing_left(), serving(tmp_path, **slow) as served:
            found = await asyncio.gather(*(post(served, QUESTION) for _ in range(7)))
            codes = sorted(response.status_code for response in found)
            assert codes == [200] * 4 + [503] * 3
            refused = next(r for r in found if r.status_code == 503)
            assert refused.headers["retry-after"] == "5"
            assert "several recordings" in refused.json()["detail"]

    run(main())


def test_the_header_stays_small_enough_for_proxies(tmp_path: Path) -> None:
    async def main() -> None:
        reply = "\u00fcber " * 2_000
        options = {
            "models__options__llm__scripted": {"rules": {"time": reply}},
            "models__options__tts__scripted": {"word_ms": 1},
            "agent__max_tokens": 5_000,
        }
        async with serving(tmp_path, **options) as served:
            found = await post(served, QUESTION)
            header = found.headers["x-antiphon-result"]
            assert len(header) <= 4_100
            result = json.loads(header)
            assert result["transcript"] == "what time is it"
            assert result["reply"].startswith("\u00fcber")
            assert result["reply"].endswith("...")

    run(main())


def test_any_rate_and_channels(tmp_path: Path) -> None:
    async def main() -> None:
        mono = say(440, 640, rate_hz=96_000)
        file = io.BytesIO()
        with wave.open(file, "wb") as out:
            out.setnchannels(7)
            out.setsampwidth(2)
            out.setframerate(96_000)
            out.writeframes(np.repeat(mono[:, None], 7, axis=1).astype("<i2").tobytes())
        async with serving(tmp_path) as served:
            assert (await post(served, file.getvalue())).status_code == 200

    run(main())
