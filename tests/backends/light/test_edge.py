"""edge-tts: its own client against a service on loopback that speaks Microsoft's websocket form."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from fractions import Fraction

import av
import numpy as np
import pytest

pytest.importorskip("edge_tts")

from aiohttp import WSMsgType, web

from antiphon.errors import ModelError
from antiphon.models.ports import SpeechRequest
from antiphon.models.tts.edge import EdgeTts
from antiphon.testing.contracts import check_tts

VOICES = [
    {"ShortName": "en-US-AriaNeural", "Locale": "en-US"},
    {"ShortName": "de-DE-KatjaNeural", "Locale": "de-DE"},
]

FRAME = 576


def mp3(seconds: float) -> bytes:
    """A tone as the service sends it: bare frames at 24 kHz, 48 kbit/s, mono."""
    encoder = av.CodecContext.create("libmp3lame", "w")
    encoder.sample_rate, encoder.layout, encoder.format = 24_000, "mono", "s16p"
    encoder.bit_rate, encoder.time_base = 48_000, Fraction(1, 24_000)
    times = np.arange(int(seconds * 24_000)) / 24_000
    samples = (6_000 * np.sin(2 * np.pi * 300 * times)).astype(np.int16)
    packets = []
    for at in range(0, samples.size, FRAME):
        piece = samples[np.newaxis, at : at + FRAME]
        frame = av.AudioFrame.from_ndarray(piece, format="s16p", layout="mono")
        frame.sample_rate, frame.time_base, frame.pts = 24_000, Fraction(1, 24_000), at
        packets += encoder.encode(frame)
    packets += encoder.encode(None)
    return b"".join(bytes(packet) for packet in packets)


class Service:
    """`broken`: it hangs up in the middle."""

    def __init__(self) -> None:
        self.broken = False
        self.asked: list[str] = []

    async def voices(self, request: web.Request) -> web.Response:
        return web.json_response(VOICES)

    async def speak(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            if message.type is WSMsgType.TEXT and "<speak" in message.data:
                self.asked.append(message.data)
                await self._answer(socket, message.data)
                break
        await socket.close()
        return socket

    async def _answer(self, socket: web.WebSocketResponse, ssml: str) -> None:
        words = len(re.sub(r"<[^>]+>", " ", ssml.split("<speak")[1]).split())
        rate = 1 + int(re.findall(r"rate='([+-]\d+)%'", ssml)[0]) / 100
        await socket.send_str("Path:turn.start\r\n\r\n{}")
        header = b"X-RequestId:1\r\nContent-Type:audio/mpeg\r\nPath:audio\r\n"
        audio = mp3(0.2 * words / rate)
        for at in range(0, len(audio), 700):
            if self.broken and at:
                return
            piece = audio[at : at + 700]
            await socket.send_bytes(len(header).to_bytes(2, "big") + header + piece)
        await socket.send_str("Path:turn.end\r\n\r\n{}")


@asynccontextmanager
async def service(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Service]:
    found = Service()
    app = web.Application()
    app.router.add_get("/voices", found.voices)
    app.router.add_get("/speak", found.speak)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    where = f"127.0.0.1:{runner.addresses[0][1]}"
    monkeypatch.setattr("edge_tts.voices.VOICE_LIST", f"http://{where}/voices?a=b")
    monkeypatch.setattr("edge_tts.communicate.WSS_URL", f"ws://{where}/speak?a=b")
    try:
        yield found
    finally:
        await runner.cleanup()


def run(
    monkeypatch: pytest.MonkeyPatch, test: Callable[[Service, EdgeTts], Awaitable[None]]
) -> None:
    async def main() -> None:
        async with asyncio.timeout(30), service(monkeypatch) as found:
            model = EdgeTts()
            await model.load()
            await test(found, model)
            await model.close()

    asyncio.run(main())


def test_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    with asyncio.Runner() as runner:
        context = service(monkeypatch)
        runner.run(context.__aenter__())
        model = EdgeTts()
        runner.run(model.load())
        check_tts(model, runner=runner)
        assert model.info.languages == ("de", "en")
        runner.run(context.__aexit__(None, None, None))


def test_text_is_escaped_and_the_voice_named(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(found: Service, model: EdgeTts) -> None:
        request = SpeechRequest("Fish & <b>chips</b>", "de-DE-KatjaNeural")
        assert [piece async for piece in model.synthesize(request)]
        assert "Fish &amp; &lt;b&gt;" in found.asked[-1]
        assert "KatjaNeural" in found.asked[-1]

    run(monkeypatch, test)


def test_a_service_that_hangs_up_before_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(found: Service, model: EdgeTts) -> None:
        found.broken = True
        pieces = [piece async for piece in model.synthesize(SpeechRequest("Good morning to you."))]
        assert sum(piece.size for piece in pieces) < 24_000, "what came is given"

    run(monkeypatch, test)


def test_a_service_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_tts.voices.VOICE_LIST", "http://127.0.0.1:1/voices?a=b")
    with pytest.raises(ModelError, match="cannot be reached"):
        asyncio.run(EdgeTts().load())
    monkeypatch.setattr("edge_tts.communicate.WSS_URL", "ws://127.0.0.1:1/speak?a=b")

    async def speak() -> None:
        async for _ in EdgeTts().synthesize(SpeechRequest("Hello.")):
            pass

    with pytest.raises(ModelError, match="edge-tts"):
        asyncio.run(speak())
