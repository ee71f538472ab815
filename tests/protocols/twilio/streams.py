"""A telephone stream as a test drives it: frames by hand, marks echoed when the test wants them to be."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from tests.server.support import Served
from tests.support import until
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from antiphon.audio import g711
from antiphon.call.call import Call
from antiphon.models.ports import Kind, Pcm16

CALL = {"CallSid": "CA1", "AccountSid": "AC1", "From": "+15550100", "To": "+15550199"}
CONNECTED = {"event": "connected", "protocol": "Call", "version": "1.0.0"}
FORMAT = {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1}


def start_frame(token: str = "", *, call: str = "CA1", **parameters: str) -> dict[str, Any]:
    given = {**({"token": token} if token else {}), **parameters}
    return {
        "event": "start",
        "sequenceNumber": "1",
        "streamSid": "MZ1",
        "start": {
            "streamSid": "MZ1",
            "accountSid": "AC1",
            "callSid": call,
            "tracks": ["inbound"],
            "mediaFormat": FORMAT,
            "customParameters": given,
        },
    }


def media_frame(codes: bytes, number: int, at_ms: int) -> dict[str, Any]:
    return {
        "event": "media",
        "sequenceNumber": str(number + 1),
        "streamSid": "MZ1",
        "media": {
            "track": "inbound",
            "chunk": str(number),
            "timestamp": str(at_ms),
            "payload": base64.b64encode(codes).decode(),
        },
    }


def dtmf_frame(digit: str) -> dict[str, Any]:
    return {"event": "dtmf", "streamSid": "MZ1", "dtmf": {"track": "inbound_track", "digit": digit}}


@dataclass(slots=True)
class Stream:
    """`echo`: marks come back at once; otherwise they wait for `echo_all`, or for a `clear`."""

    socket: ClientConnection
    echo: bool = True
    encode: Callable[[Pcm16], bytes] = g711.encode_ulaw
    frames: list[dict[str, Any]] = field(default_factory=list)
    pending: list[str] = field(default_factory=list)
    closed: tuple[int, str] | None = None
    _number: int = 0
    _at_ms: int = 0

    async def listen(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            async for text in self.socket:
                frame = json.loads(text)
                self.frames.append(frame)
                if frame["event"] in ("mark", "checkpoint"):
                    self.pending.append(frame["mark"]["name"] if "mark" in frame else frame["name"])
                if self.echo or frame["event"].startswith("clear"):
                    await self.echo_all()
        self.closed = (self.socket.close_code or 0, self.socket.close_reason or "")

    async def echo_all(self) -> None:
        names, self.pending = self.pending, []
        for name in names:
            await self.send({"event": "mark", "streamSid": "MZ1", "mark": {"name": name}})

    async def send(self, frame: dict[str, Any] | str | bytes) -> None:
        await self.socket.send(json.dumps(frame) if isinstance(frame, dict) else frame)

    async def speak(self, pcm: Pcm16) -> None:
        """At 8 kHz, in frames of 20 ms, as fast as the socket takes them."""
        codes = self.encode(pcm)
        for at in range(0, len(codes), 160):
            self._number += 1
            await self.send(media_frame(codes[at : at + 160], self._number, self._at_ms))
            self._at_ms += len(codes[at : at + 160]) // 8

    def of(self, event: str) -> list[dict[str, Any]]:
        return [frame for frame in self.frames if frame["event"] == event]

    def heard(self) -> Pcm16:
        """All audio that came, cleared or not."""
        media = (*self.of("media"), *self.of("playAudio"))
        payloads = [base64.b64decode(frame["media"]["payload"]) for frame in media]
        return g711.decode_ulaw(b"".join(payloads)) if payloads else np.empty(0, np.int16)

    async def wait(self, event: str, count: int = 1) -> None:
        await until(
            lambda: len(self.of(event)) >= count or self.closed,
            f"no {event}: {[f['event'] for f in self.frames]}",
        )
        assert len(self.of(event)) >= count, f"closed {self.closed} before {event}"

    async def wait_closed(self) -> tuple[int, str]:
        await until(lambda: self.closed, f"not closed: {[f['event'] for f in self.frames[-5:]]}")
        assert self.closed is not None
        return self.closed


async def token_of(served: Served, **changes: str) -> str:
    """What the webhook gives out."""
    answer = await served.http.post("/voice-stream", data={**CALL, **changes})
    assert answer.status_code == 200, answer.text
    found = re.search(r'name="token" value="([^"]+)"', answer.text)
    assert found, answer.text
    return found[1]


@contextlib.asynccontextmanager
async def open_stream(
    served: Served, path: str = "/media-stream", *, echo: bool = True, **options: Any
) -> AsyncIterator[Stream]:
    """A socket on which nothing has been said."""
    url = f"ws://{served.address}{path}"
    async with connect(url, compression=None, max_size=None, **options) as socket:
        stream = Stream(socket, echo)
        listening = asyncio.create_task(stream.listen())
        try:
            yield stream
        finally:
            await socket.close()
            await listening


@contextlib.asynccontextmanager
async def phone_call(
    served: Served, *, echo: bool = True, **parameters: str
) -> AsyncIterator[Stream]:
    """Webhook, socket, `connected`, `start`; the call is on."""
    token = await token_of(served)
    async with open_stream(served, echo=echo) as stream:
        await stream.send(CONNECTED)
        await stream.send(start_frame(token, **parameters))
        await until(lambda: len(served.calls) == 1 or stream.closed, "no call")
        yield stream


def session_of(served: Served) -> Call:
    (session,) = served.calls._sessions.values()
    return session


def history_of(session: Call) -> list[tuple[str, str]]:
    return [(item.role, item.text) for item in session.view.history]


def llm_of(served: Served) -> Any:
    return served.models.backend(Kind.LLM)
