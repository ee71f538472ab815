"""One WebRTC peer: the SDP answer, a track each way, and the data channel `oai-events`.

To a session it is a transport (the channel) and a line (the tracks). Source: W3C WebRTC 1.0 as aiortc has it; the shape
of a call as OpenAI documents it for its Realtime API.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from aiortc import (
    RTCConfiguration,
    RTCDataChannel,
    RTCIceServer,
    RTCPeerConnection,
    RTCRtpReceiver,
    RTCSessionDescription,
)
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from aiortc.rtcicetransport import parse_stun_turn_uri
from aiortc.sdp import SessionDescription
from av import AudioFrame

from antiphon.audio.framing import Pcm16, mix_to_mono, pcm_to_bytes
from antiphon.errors import ProtocolError
from antiphon.protocols.realtime.audio_formats import VOICE_RATE_HZ

log = logging.getLogger(__name__)

_HIGH_WATER_BYTES = 1 << 20
"""What the channel may hold unsent; the rest waits in the session's outbox, which can drop it."""
_LAST_WORDS_S = 1.0
_CLOSE_S = 5.0
_OVER = ("closed", "failed")
_FRAME_S = 0.02
_FRAME_SAMPLES = VOICE_RATE_HZ // 50
_LATE_S = 0.2
"""A loop that was busy for longer does not catch up: that would be a burst, and the listener's delay for good."""
_TIME_BASE = Fraction(1, VOICE_RATE_HZ)


@dataclass(frozen=True, slots=True)
class Network:
    """How the peer is reached."""

    ice_servers: tuple[str, ...] = ()
    """`stun:` and `turn:` addresses; empty: this machine's own addresses only."""
    user: str = ""
    password: str = ""


def _silence(samples: int) -> Pcm16:
    return np.zeros(samples, np.int16)


class Peer:
    """Lives in the event loop that it is made in. `shut` frees it, whatever happened."""

    gone: tuple[type[Exception], ...] = (ConnectionError,)

    def __init__(self, network: Network, max_inbox_bytes: int) -> None:
        """`max_inbox_bytes`: events that wait to be obeyed; a peer that sends more is left.

        Raises ValueError for an address that is none of an ICE server.
        """
        for url in network.ice_servers:
            parse_stun_turn_uri(url)
        self._take: Callable[[int], Pcm16] = _silence
        servers = [
            RTCIceServer(url, network.user or None, network.password or None)
            for url in network.ice_servers
        ]
        # Not None, which would be a STUN server of somebody else's.
        self._pc = RTCPeerConnection(RTCConfiguration(iceServers=servers))
        self._max_inbox_bytes = max_inbox_bytes
        self._inbox: deque[str | bytes] = deque()
        self._inbox_bytes = 0
        self._arrived = asyncio.Event()
        self._writable = asyncio.Event()
        self._connected = asyncio.Event()
        self._left = False
        self._has_channel = False
        self._channel: RTCDataChannel | None = None
        self._track: MediaStreamTrack | None = None
        self._listening: asyncio.Task[None] | None = None
        self._oversize = 0
        self._pc.on("connectionstatechange", self._on_state)
        self._pc.on("datachannel", self._on_channel)
        self._pc.on("track", self._on_track)

    # -- the beginning and the end ------------------------------------------------------------------

    async def answer(self, offer: str) -> str:
        """SDP -> SDP, once this machine's addresses are known. Raises ProtocolError for an offer that cannot be met."""
        try:
            self._has_channel = _checked(offer)
            self._pc.addTrack(VoiceTrack(lambda samples: self._take(samples)))
            codecs = getattr(RTCRtpReceiver.getCapabilities("audio"), "codecs", [])
            (transceiver,) = self._pc.getTransceivers()
            transceiver.setCodecPreferences([c for c in codecs if c.mimeType == "audio/opus"])
            await self._pc.setRemoteDescription(RTCSessionDescription(offer, "offer"))
            await self._pc.setLocalDescription(await self._pc.createAnswer())
        except ProtocolError:
            raise
        except Exception as error:  # noqa: BLE001 - aiortc's parser raises whatever its parts do
            log.info("webrtc: an offer that cannot be met: %r", error)
            raise ProtocolError("the SDP offer cannot be read, or has no Opus audio") from None
        return str(self._pc.localDescription.sdp)

    async def connected(self) -> None:
        """Wait until the peer is there. Raises ConnectionError when it will not be."""
        await self._connected.wait()
        if self._left:
            raise ConnectionError("the peer could not be reached")

    def leave(self) -> None:
        """The call is over for the peer, as if it had gone."""
        self._left = True
        for event in (self._arrived, self._writable, self._connected):
            event.set()

    async def shut(self) -> None:
        """Free everything."""
        self.leave()
        self._take = _silence
        if self._listening is not None:
            self._listening.cancel()
        try:
            async with asyncio.timeout(_CLOSE_S):
                await self._pc.close()
        except TimeoutError:
            log.warning("webrtc: a connection could not be closed within %g s", _CLOSE_S)
        self._pc.remove_all_listeners()
        self._inbox.clear()

    def _on_state(self) -> None:
        if self._pc.connectionState == "connected":
            self._connected.set()
        elif self._pc.connectionState in _OVER:
            self.leave()

    # -- the tracks ---------------------------------------------------------------------------------

    def begin(self, hear: Callable[[Pcm16, int], None], take: Callable[[int], Pcm16]) -> None:
        """From now on give what the caller says to `hear(pcm, rate_hz)`, and play what `take(samples)` returns."""
        self._take = take
        if self._track is not None:
            listening = self._listen(self._track, hear)
            self._listening = asyncio.create_task(listening, name="webrtc microphone")

    async def _listen(self, track: MediaStreamTrack, hear: Callable[[Pcm16, int], None]) -> None:
        with contextlib.suppress(MediaStreamError):  # it ended
            while True:
                frame = await track.recv()
                assert isinstance(frame, AudioFrame)
                hear(mono(frame), frame.sample_rate)

    def _on_track(self, track: MediaStreamTrack) -> None:
        self._track = track

    # -- the channel --------------------------------------------------------------------------------

    def _on_channel(self, channel: RTCDataChannel) -> None:
        """The first one carries the events, whatever it is called; others are not heard."""
        if self._channel is not None:
            channel.close()
            return
        self._channel = channel
        channel.bufferedAmountLowThreshold = _HIGH_WATER_BYTES // 2
        channel.on("message", self._on_message)
        channel.on("bufferedamountlow", self._writable.set)
        channel.on("close", self.leave)
        self._writable.set()

    def _on_message(self, message: str | bytes) -> None:
        if self._left:
            return
        self._inbox.append(message)
        self._inbox_bytes += len(message)
        self._arrived.set()
        if self._inbox_bytes > self._max_inbox_bytes:
            log.warning("webrtc: a peer sends events faster than they can be obeyed: it is left")
            self.leave()

    async def receive(self) -> str | bytes | None:
        while not self._inbox and not self._left:
            self._arrived.clear()
            await self._arrived.wait()
        if self._left:
            return None
        message = self._inbox.popleft()
        self._inbox_bytes -= len(message)
        return message

    async def send_text(self, data: str) -> None:
        """Waits for the channel to open, and to have room. Without one in the offer nobody wants the events."""
        if not self._has_channel:
            return
        while not self._left and not self._ready():
            self._writable.clear()
            await self._writable.wait()
        channel = self._channel
        if self._left or channel is None or channel.readyState != "open":
            raise ConnectionError("the data channel is closed")
        try:
            channel.send(data)
        except ValueError:  # larger than the peer takes
            channel.send(self._too_large(len(data)))

    async def send_bytes(self, data: bytes) -> None:
        await self.send_text(data.decode())

    def _ready(self) -> bool:
        return self._channel is not None and self._channel.bufferedAmount < _HIGH_WATER_BYTES

    def _too_large(self, size: int) -> str:
        self._oversize += 1
        error = {
            "type": "server_error",
            "code": "event_too_large",
            "message": f"an event of {size} characters is more than your data channel takes; use a websocket for it",
            "param": None,
            "event_id": None,
        }
        event_id = f"event_oversize_{self._oversize}"
        return json.dumps({"type": "error", "event_id": event_id, "error": error})

    async def close(self, code: int, reason: str) -> None:
        """WebRTC has no codes. The end of the channel is acknowledged: what came before it has arrived then."""
        channel = self._channel
        if self._left or channel is None or channel.readyState != "open":
            return
        closed = asyncio.Event()
        channel.on("close", closed.set)
        channel.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_WORDS_S):
                await closed.wait()


def _checked(offer: str) -> bool:
    """-> whether there is a data channel in it. Raises ProtocolError."""
    media = SessionDescription.parse(offer).media
    kinds = [each.kind for each in media]
    if kinds.count("audio") != 1 or len(set(kinds)) != len(kinds):
        raise ProtocolError("the offer must have one audio track, and at most one data channel")
    if "video" in kinds:
        raise ProtocolError("the offer has video; there is nobody here to see it")
    audio = media[kinds.index("audio")]
    if audio.direction not in ("sendrecv", "recvonly"):
        raise ProtocolError("the offer's audio must be sendrecv or recvonly: the answer is spoken")
    return "application" in kinds


class VoiceTrack(MediaStreamTrack):
    """The agent's voice, 20 ms at a time by the event loop's clock. Opus and its 48 kHz are aiortc's."""

    kind = "audio"

    def __init__(self, take: Callable[[int], Pcm16]) -> None:
        """`take(samples)`: what comes next, at `VOICE_RATE_HZ`."""
        super().__init__()
        self._take = take
        self._now_s = asyncio.get_running_loop().time
        self._due_s: float | None = None
        """Loop time at which the next frame is to leave."""
        self._sent = 0
        """Samples."""

    async def recv(self) -> AudioFrame:
        if self.readyState != "live":
            raise MediaStreamError
        now_s = self._now_s()
        if self._due_s is None or now_s - self._due_s > _LATE_S:
            self._due_s = now_s
        await asyncio.sleep(self._due_s - now_s)
        self._due_s += _FRAME_S
        frame = AudioFrame(format="s16", layout="mono", samples=_FRAME_SAMPLES)
        frame.planes[0].update(pcm_to_bytes(self._take(_FRAME_SAMPLES)))
        frame.sample_rate = VOICE_RATE_HZ
        frame.time_base = _TIME_BASE
        frame.pts = self._sent
        self._sent += _FRAME_SAMPLES
        return frame


def mono(frame: AudioFrame) -> Pcm16:
    """What aiortc's Opus decoder gives: packed 16-bit samples, two channels."""
    channels = len(frame.layout.channels)
    return mix_to_mono(np.asarray(frame.to_ndarray(), np.int16).reshape(-1, channels))
