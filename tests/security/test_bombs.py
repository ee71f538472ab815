"""Small things that become large: compressed audio, compressed answers, compressed frames, long lists."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import tracemalloc
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from tests.protocols.twilio.carrier import Answer, carrier
from tests.server.support import START, client, serving
from tests.support import nothing_left, run
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from antiphon.audio.encoding import encode_file
from antiphon.protocols.twilio.recording_fetcher import MAX_BYTES, FetchError, RecordingFetcher

HOUR_S = 3600


def silence(format_: str, seconds: int, rate_hz: int = 8_000) -> bytes:
    """Hours of nothing, in a few hundred kilobytes."""
    return encode_file(np.zeros(seconds * rate_hz, np.int16), rate_hz, format_)


def many_channels() -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", "wav") as out:
        stream = out.add_stream("pcm_s16le", rate=384_000, layout="7.1")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8 * 384_000), np.int16), "s16", "7.1")
        frame.sample_rate = 384_000
        for _ in range(2):
            out.mux(stream.encode(frame))
    return file.getvalue()


@pytest.mark.parametrize("path", ["/v1/speech-to-speech", "/v1/audio/transcriptions"])
@pytest.mark.parametrize("kind", ["flac", "lying header"])
def test_hours_in_a_small_file(kind: str, path: str, tmp_path: Path) -> None:
    """Decoding stops at the limit; what is held by then is that much and no more."""
    data = silence("flac", 2 * HOUR_S)
    assert len(data) < 2 << 20
    if kind == "lying header":  # FLAC's total of samples, 36 bits, set to "unknown"
        data = data[:21] + bytes([data[21] & 0xF0]) + bytes(4) + data[26:]

    async def main() -> None:
        async with nothing_left(), serving(tmp_path, server__max_file_s=60) as served:
            tracemalloc.start()
            try:
                form = {"model": "whisper-1"}
                answer = await served.http.post(path, files={"file": ("a", data)}, data=form)
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            assert answer.status_code == 400, answer.text
            assert "60" in answer.text
            assert peak < 60 << 20  # two hours are 230 MB

    run(main())


def test_very_many_samples_a_second(tmp_path: Path) -> None:
    async def main() -> None:
        async with nothing_left(), serving(tmp_path) as served:
            files = {"file": ("a.wav", many_channels())}
            answer = await served.http.post("/v1/speech-to-speech", files=files)
            assert answer.status_code in (200, 400), answer.text

    run(main())


@pytest.mark.parametrize(
    "name", ["a.m3u8", "a.txt", "a.sdp", "a.mpd", "a.ffconcat"], ids=lambda name: name[2:]
)
def test_a_playlist_makes_us_fetch_nothing(name: str, tmp_path: Path) -> None:
    """FFmpeg reads playlists, and would open the files and addresses in them."""

    async def main() -> None:
        async with carrier() as inner, serving(tmp_path) as served:
            target = f"{inner.url}/secret"
            lists = {
                "a.m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{target}\n#EXT-X-ENDLIST\n",
                "a.txt": f"ffconcat version 1.0\nfile '{target}'\n",
                "a.ffconcat": "ffconcat version 1.0\nfile '/etc/passwd'\n",
                "a.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=-\nc=IN IP4 127.0.0.1\nt=0 0\n"
                "m=audio 5004 RTP/AVP 0\n",
                "a.mpd": f'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static">'
                f"<Period><AdaptationSet><Representation id='1'><BaseURL>{target}</BaseURL>"
                "</Representation></AdaptationSet></Period></MPD>",
            }
            files = {"file": (name, lists[name].encode())}
            answer = await served.http.post("/v1/speech-to-speech", files=files)
            assert answer.status_code == 400, answer.text
            assert "root:" not in answer.text
            assert not inner.asked

    run(main())


def test_a_recording_that_unpacks_without_end() -> None:
    """Gigabytes of zeros in a megabyte, from a host that is allowed: given up at the limit."""

    async def main() -> None:
        async with carrier() as company:
            packed = gzip.compress(bytes(10 * MAX_BYTES))
            headers = {"Content-Encoding": "gzip"}
            company.files["/a"] = [Answer(200, packed, headers)]
            fetcher = RecordingFetcher(company.settings())
            tracemalloc.start()
            try:
                with pytest.raises(FetchError, match="came compressed"):
                    await fetcher.fetch(f"{company.url}/a")
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
                await fetcher.close()
            assert peak < MAX_BYTES

    run(main())


def test_frames_are_not_compressed(tmp_path: Path) -> None:
    """A compressed frame could unpack a thousandfold; none is agreed on."""

    async def main() -> None:
        async with (
            nothing_left(),
            serving(tmp_path) as served,
            connect(served.ws, compression="deflate") as socket,
        ):
            assert socket.response is not None
            assert "Sec-WebSocket-Extensions" not in socket.response.headers

    run(main())


@pytest.mark.parametrize(
    "path", ["/v1/chat/completions", "/v1/audio/speech", "/v1/realtime/client_secrets"]
)
def test_deep_and_wide_json(path: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with nothing_left(), serving(tmp_path) as served:
            for body in (
                b"[" * 200_000,
                b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
                b'{"messages": [' + b'{"role": "user", "content": ""},' * 50_000 + b"0]}",
                b'{"model": ' + b"9" * 100_000 + b"}",
            ):
                headers = {"Content-Type": "application/json"}
                answer = await served.http.post(path, content=body, headers=headers)
                assert answer.status_code < 500, answer.text[:200]
            assert (await served.http.get("/health")).status_code == 200

    run(main())


def test_more_calls_than_lines(tmp_path: Path) -> None:
    """Each call takes a place; those beyond are told so, and places come back."""

    async def main() -> None:
        async with nothing_left(), serving(tmp_path, server__max_calls=2) as served:
            async with client(served, start=START) as one, client(served, start=START) as two:
                await one.wait("connected")
                await two.wait("connected")
                extra = await asyncio.gather(*(busy(served.ws) for _ in range(20)))
                assert all(extra)
                assert len(served.calls) == 2
            async with asyncio.timeout(10):
                while len(served.calls):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            async with client(served, start=START) as again:
                await again.wait("connected")

    run(main())


async def busy(url: str) -> bool:
    try:
        async with connect(url, compression=None) as socket:
            frame = await socket.recv()
            found: dict[str, Any] = json.loads(frame)
            return found["type"] == "error"
    except InvalidStatus as refused:
        return refused.response.status_code == 503


def test_sessions_whose_page_is_gone_are_bounded(tmp_path: Path) -> None:
    """Who connects and leaves again and again parks no more calls than the owner allows."""

    async def main() -> None:
        options = {"server__max_parked": 2, "server__resume_s": 60, "server__max_calls": 50}
        async with nothing_left(), serving(tmp_path, **options) as served:
            for _ in range(6):
                socket = await connect(served.ws, compression=None)
                await socket.send(json.dumps({**START, "resumable": True}))
                await socket.recv()
                socket.transport.abort()
            async with asyncio.timeout(10):
                while len(served.calls) > 2:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)

    run(main())
