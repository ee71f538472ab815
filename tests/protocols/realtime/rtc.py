"""A WebRTC client of `/v1/realtime/calls` on loopback: speaks tones, hears the track, checks every event strictly."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import aioice.ice
import httpx
import numpy as np
import pytest
from aiortc import (
    RTCConfiguration,
    RTCDataChannel,
    RTCPeerConnection,
    RTCSessionDescription,
)
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from av import AudioFrame
from tests.protocols.realtime.strict import check
from tests.server.support import Served
from tests.support import until

from antiphon.models.ports import Pcm16

RATE_HZ = 48_000
_FRAME = RATE_HZ // 50


def loopback_only(patch: pytest.MonkeyPatch) -> None:
    """ICE on 127.0.0.1, which aioice leaves out otherwise."""
    patch.setattr(aioice.ice, "get_host_addresses", lambda use_ipv4, use_ipv6: ["127.0.0.1"])


class Microphone(MediaStreamTrack):
    """What it was given to say, then silence, 20 ms every 20 ms."""

    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        self.waiting = np.empty(0, np.int16)
        self._sent = 0
        self._now_s = asyncio.get_running_loop().time
        self._began_s = self._now_s()

    def say(self, pcm: Pcm16) -> None:
        self.waiting = np.concatenate([self.waiting, pcm])

    async def recv(self) -> AudioFrame:
        if self.readyState != "live":
            raise MediaStreamError
        await asyncio.sleep(self._began_s + self._sent / RATE_HZ - self._now_s())
        part, self.waiting = self.waiting[:_FRAME], self.waiting[_FRAME:]
        pcm = np.pad(part, (0, _FRAME - len(part)))
        frame = AudioFrame.from_ndarray(pcm.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate, frame.time_base = RATE_HZ, Fraction(1, RATE_HZ)
        frame.pts = self._sent
        self._sent += _FRAME
        return frame


@dataclass(slots=True)
class RtcClient:
    pc: RTCPeerConnection
    microphone: Microphone
    channel: RTCDataChannel | None
    answer: httpx.Response | None = None
    events: list[dict[str, Any]] = field(default_factory=list)
    heard: list[Pcm16] = field(default_factory=list)
    problem: str = ""
    closed: bool = False

    def on_message(self, message: str | bytes) -> None:
        try:
            assert isinstance(message, str), "a binary message"
            self.events.append(check(message))
        except Exception as error:
            self.problem = self.problem or repr(error)[:2000]

    def on_close(self) -> None:
        self.closed = True

    async def listen(self, track: MediaStreamTrack) -> None:
        with contextlib.suppress(MediaStreamError):
            while True:
                frame = await track.recv()
                assert isinstance(frame, AudioFrame)
                self.heard.append(frame.to_ndarray().reshape(-1, 2)[:, 0])

    @property
    def path(self) -> str:
        assert self.answer is not None
        return self.answer.headers["location"]

    @property
    def loud_ms(self) -> int:
        """How much of what came was sound, in frames of 20 ms."""
        return 20 * sum(int(np.abs(pcm.astype(int)).max() > 300) for pcm in tuple(self.heard))

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["type"] == kind]

    async def wait(self, kind: str, count: int = 1) -> dict[str, Any]:
        def there() -> bool:
            return len(self.of(kind)) >= count or bool(self.problem) or self.closed

        await until(there, f"no {kind} {count}: {[e['type'] for e in self.events]}")
        assert not self.problem, self.problem
        assert len(self.of(kind)) >= count, [e["type"] for e in self.events]
        return self.of(kind)[count - 1]

    def send(self, kind: str, **fields: Any) -> None:
        assert self.channel is not None
        self.channel.send(json.dumps({"type": kind, **fields}))


async def offer(pc: RTCPeerConnection) -> str:
    await pc.setLocalDescription(await pc.createOffer())
    return str(pc.localDescription.sdp)


@contextlib.asynccontextmanager
async def client(*, channel: bool = True) -> AsyncIterator[RtcClient]:
    """Not connected yet."""
    pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    found = RtcClient(pc, Microphone(), pc.createDataChannel("oai-events") if channel else None)
    pc.addTrack(found.microphone)
    if found.channel is not None:
        found.channel.on("message", found.on_message)
        found.channel.on("close", found.on_close)
    listening: list[asyncio.Task[None]] = []
    pc.on("track", lambda t: listening.append(asyncio.create_task(found.listen(t))))
    try:
        yield found
    finally:
        for task in listening:
            task.cancel()
        await pc.close()
        assert not found.problem, found.problem


async def connect(found: RtcClient, served: Served, **session: Any) -> None:
    """Call the server. `session`: sent along in the form."""
    sdp = await offer(found.pc)
    if session:
        form = {"sdp": (None, sdp), "session": (None, json.dumps(session))}
        found.answer = await served.http.post("/v1/realtime/calls", files=form)
    else:
        headers = {"Content-Type": "application/sdp"}
        found.answer = await served.http.post("/v1/realtime/calls", content=sdp, headers=headers)
    assert found.answer.status_code == 201, found.answer.text
    await found.pc.setRemoteDescription(RTCSessionDescription(found.answer.text, "answer"))


@contextlib.asynccontextmanager
async def calling(
    served: Served, *, channel: bool = True, **session: Any
) -> AsyncIterator[RtcClient]:
    async with client(channel=channel) as found:
        await connect(found, served, **session)
        if channel:
            await found.wait("session.created")
        yield found
