"""One WebRTC peer: the SDP answer, a track each way, and the data channel `oai-events`.

To a session it is a transport (the channel) and a line (the tracks). Knows neither what the events mean nor who may
call. Source: W3C WebRTC 1.0 as aiortc has it; the shape of a call as OpenAI documents it for its Realtime API.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

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

from antiphon.audio.framing import Pcm16
from antiphon.errors import ProtocolError
from antiphon.server.realtime.playout import Playout
from antiphon.server.realtime.rtc_track import VoiceTrack, mono

log = logging.getLogger(__name__)

_HIGH_WATER_BYTES = 1 << 20
"""Of what the channel has not sent yet; the rest waits in the session's outbox, which can drop it."""
_LAST_WORDS_S = 1.0
_CLOSE_S = 5.0
_OVER = ("closed", "failed")


@dataclass(frozen=True, slots=True)
class Network:
    """How the peer is reached."""

    ice_servers: tuple[str, ...] = ()
    """`stun:` and `turn:` addresses; empty: this machine's own addresses only."""
    user: str = ""
    password: str = ""


class Peer:
    """Lives in the event loop that it is made in. `shut` frees it, whatever happened."""

    gone: tuple[type[Exception], ...] = (ConnectionError,)

    def __init__(self, network: Network, max_inbox_bytes: int) -> None:
        """`max_inbox_bytes`: events that wait to be obeyed; a peer that sends more is left.

        Raises ValueError for an address that is none of an ICE server.
        """
        for url in network.ice_servers:
            parse_stun_turn_uri(url)
        self.playout = Playout()
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
            self._pc.addTrack(VoiceTrack(self.playout))
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
        if self._listening is not None:
            self._listening.cancel()
        try:
            async with asyncio.timeout(_CLOSE_S):
                await self._pc.close()
        except TimeoutError:
            log.warning("webrtc: a connection could not be closed within %g s", _CLOSE_S)

    def _on_state(self) -> None:
        if self._pc.connectionState == "connected":
            self._connected.set()
        elif self._pc.connectionState in _OVER:
            self.leave()

    # -- the tracks ---------------------------------------------------------------------------------

    def listen(self, hear: Callable[[Pcm16, int], None]) -> None:
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
