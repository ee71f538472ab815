"""A media stream for hundreds of simulated callers on one core: as little as a websocket client can be.

Written on a bare transport, because a general client would use up the core before the server does. Takes whole,
unmasked, uncompressed frames (RFC 6455), as every server of ours and the peer send them; anything else is a fault. The
masking key is zero: allowed for a client that means no harm, and nothing has to be masked. Knows Twilio's messages; not
who speaks, nor when.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import os
from collections.abc import Callable
from typing import cast
from urllib.parse import urlsplit

import msgspec

from antiphon.client.phone.carrier_webhooks import PhoneNumbers
from antiphon.client.phone.clips import FRAME_MS, RATE_HZ, ClipFrame
from antiphon.errors import ProtocolError

CONNECT_S = 15.0
_MAX_UNREAD_BYTES = 4 << 20
_TEXT, _CLOSE, _PING, _PONG = 1, 8, 9, 10
_MASK = b"\0\0\0\0"


class _Inner(msgspec.Struct):
    payload: str = ""
    name: str = ""


class _Message(msgspec.Struct):
    event: str
    media: _Inner | None = None
    mark: _Inner | None = None


_DECODER = msgspec.json.Decoder(_Message)


def frame(opcode: int, payload: bytes) -> bytes:
    """One masked frame, key zero."""
    size = len(payload)
    first = bytes([0x80 | opcode])
    if size < 126:
        return first + bytes([0x80 | size]) + _MASK + payload
    if size < 1 << 16:
        return first + b"\xfe" + size.to_bytes(2, "big") + _MASK + payload
    return first + b"\xff" + size.to_bytes(8, "big") + _MASK + payload


class MediaStream(asyncio.Protocol):
    """One connection. Made by `connect`; what arrives is told to the three callbacks at once."""

    def __init__(self, url: str, line: PhoneNumbers) -> None:
        parts = urlsplit(url)
        self.line = line
        self.closed = ""
        """Why the connection is gone; empty while it is there."""
        self.on_media: Callable[[bytes], None] = lambda codes: None
        self.on_mark: Callable[[str], None] = lambda name: None
        self.on_clear: Callable[[], None] = lambda: None
        self._host = parts.netloc
        self._path = parts.path or "/"
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._upgraded = False
        self._sequence = 0
        self._chunk = 0
        self._sid = line.stream_sid.encode()

    # -- the connection -------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        key = base64.b64encode(os.urandom(16)).decode()
        request = (
            f"GET {self._path} HTTP/1.1\r\nHost: {self._host}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n"
            "User-Agent: Twilio.TmeWs/1.0\r\n\r\n"
        )
        self._transport.write(request.encode())

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(f"the connection broke: {exc}" if exc else "the server closed the connection")

    async def opened(self) -> None:
        """Raises ProtocolError when the server takes no call."""
        try:
            async with asyncio.timeout(CONNECT_S):
                await self._opened
        except TimeoutError:
            self._end("no answer")
            raise ProtocolError(
                f"31901: {self._host} did not answer in {CONNECT_S:.0f} s"
            ) from None

    def close(self) -> None:
        """Hang up. Idempotent."""
        if self._transport is not None and not self.closed:
            self._send_text(
                b'{"event":"stop","sequenceNumber":"%d","streamSid":"%b","stop":{"accountSid":"%b","callSid":"%b"}}'
                % (
                    self._next(),
                    self._sid,
                    self.line.account_sid.encode(),
                    self.line.call_sid.encode(),
                )
            )
            self._transport.write(frame(_CLOSE, b"\x03\xe8"))
        self._end("the caller hung up")
        if self._transport is not None:
            self._transport.close()

    def _end(self, why: str) -> None:
        self.closed = self.closed or why
        if not self._opened.done():
            self._opened.set_exception(ProtocolError(f"31902: no stream at {self._host}: {why}"))

    # -- what arrives ---------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._upgraded and not self._take_answer():
            return
        while not self.closed and self._take_frame():
            pass
        if len(self._buffer) > _MAX_UNREAD_BYTES:
            self._fail("a frame longer than 4 MB")

    def _take_answer(self) -> bool:
        head, separator, rest = bytes(self._buffer).partition(b"\r\n\r\n")
        if not separator:
            return False
        status = head.split(b"\r\n", 1)[0].decode("latin-1")
        self._buffer = bytearray(rest)
        if " 101" not in status:
            self._fail(f"answered {status!r} instead of a websocket")
            return False
        self._upgraded = True
        if not self._opened.done():
            self._opened.set_result(None)
        return True

    def _take_frame(self) -> bool:
        buffer = self._buffer
        if len(buffer) < 2:
            return False
        size, at = buffer[1] & 0x7F, 2
        if size > 125:
            at = 4 if size == 126 else 10
            size = int.from_bytes(buffer[2:at], "big")
        if len(buffer) < at + size:
            return False
        first, payload = buffer[0], bytes(buffer[at : at + size])
        del buffer[: at + size]
        self._take(first, payload)
        return True

    def _take(self, first: int, payload: bytes) -> None:
        match first:
            case 0x81:
                self._take_text(payload)
            case 0x88:
                reason = payload[2:].decode(errors="replace")
                self._fail(f"the server hung up{': ' + reason if reason else ''}")
            case 0x89:
                self._write(frame(_PONG, payload))
            case 0x8A:
                pass
            case _:
                self._fail(f"a frame of a kind that no media stream has (0x{first:02x})")

    def _take_text(self, payload: bytes) -> None:
        try:
            message = _DECODER.decode(payload)
            if message.event == "media" and message.media is not None:
                self.on_media(binascii.a2b_base64(message.media.payload))
            elif message.event == "mark" and message.mark is not None:
                self.on_mark(message.mark.name)
            elif message.event == "clear":
                self.on_clear()
        except (msgspec.DecodeError, binascii.Error):
            self._fail("a message that is not one of Twilio's")

    def _fail(self, why: str) -> None:
        self._end(why)
        if self._transport is not None:
            self._transport.close()

    # -- what is sent ---------------------------------------------------------------------------

    def start(self) -> None:
        """`connected` and `start`, once `opened`."""
        line = self.line
        self._send_text(b'{"event":"connected","protocol":"Call","version":"1.0.0"}')
        start = {
            "accountSid": line.account_sid,
            "streamSid": line.stream_sid,
            "callSid": line.call_sid,
            "tracks": ["inbound"],
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": RATE_HZ, "channels": 1},
            "customParameters": {},
        }
        self._send_text(
            msgspec.json.encode(
                {
                    "event": "start",
                    "sequenceNumber": str(self._next()),
                    "streamSid": line.stream_sid,
                    "start": start,
                }
            )
        )

    def send_frame(self, spoken: ClipFrame) -> None:
        self._chunk += 1
        message = (
            b'{"event":"media","sequenceNumber":"%d","media":{"track":"inbound","chunk":"%d",'
            b'"timestamp":"%d","payload":"%b"},"streamSid":"%b"}'
            % (self._next(), self._chunk, (self._chunk - 1) * FRAME_MS, spoken.payload, self._sid)
        )
        self._send_text(message)

    def echo(self, name: str) -> None:
        self._send_text(
            msgspec.json.encode(
                {
                    "event": "mark",
                    "sequenceNumber": str(self._next()),
                    "streamSid": self.line.stream_sid,
                    "mark": {"name": name},
                }
            )
        )

    def _next(self) -> int:
        self._sequence += 1
        return self._sequence

    def _send_text(self, payload: bytes) -> None:
        self._write(frame(_TEXT, payload))

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)


async def connect(url: str, line: PhoneNumbers) -> MediaStream:
    """An open stream that has not started. Raises ProtocolError."""
    parts = urlsplit(url)
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(CONNECT_S):
            _, stream = await loop.create_connection(
                lambda: MediaStream(url, line), parts.hostname or "127.0.0.1", parts.port or 80
            )
    except (OSError, TimeoutError) as error:
        raise ProtocolError(f"31902: no connection to {parts.netloc}: {error}") from None
    await stream.opened()
    return stream
