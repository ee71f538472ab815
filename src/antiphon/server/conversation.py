"""The door `/ws/conversation`: a browser (or anything that speaks its protocol) on one end, a session on the other.

Messages are understood by `wire/conversation.py`; this module moves bytes and frees what a connection holds.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace

from fastapi import APIRouter, WebSocket, WebSocketDisconnect

from antiphon.audio.framing import ByteJoiner, pcm_to_bytes
from antiphon.audio.streaming import StreamDecoder
from antiphon.core import actions as act
from antiphon.core import events as ev
from antiphon.core.policy import Policy
from antiphon.errors import AntiphonError, AudioError, BusyError, ModelError, ProtocolError
from antiphon.models.ports import STT_RATE_HZ, Pcm16
from antiphon.server.calls import Calls, agent_of
from antiphon.server.outbox import Outbox
from antiphon.server.security import origin_allowed
from antiphon.session.door import DoorAudio
from antiphon.session.session import Session
from antiphon.wire import conversation as wire

log = logging.getLogger(__name__)
router = APIRouter()

_START_PATIENCE_S = 0.25
"""A client that names extensions does so at once; an older one never does."""
_CLOSE_POLICY, _CLOSE_TOO_BIG, _CLOSE_BUSY = 1008, 1009, 1013
_MAX_ERRORS = 50
"""A client that sends this many senseless messages is shown the door."""


class ConversationDoor:
    """Translates for one client. Never blocks: everything goes to the outbox."""

    def __init__(self, outbox: Outbox, start: wire.Start) -> None:
        self.audio = DoorAudio(rate_hz=wire.OUTPUT_RATE_HZ)
        self._outbox = outbox
        self._encoder = wire.Encoder(frozenset(start.extensions) & frozenset(wire.EXTENSIONS))

    def notice(self, action: act.Action) -> None:
        for frame in self._encoder.encode(action):
            self._outbox.put(frame)

    def send_audio(self, reply: str, pcm: Pcm16) -> None:
        begin = self._encoder.audio_start(reply)
        if begin is not None:
            self._outbox.put(begin)
        self._outbox.put(pcm_to_bytes(pcm), reply)

    def drop_audio(self, reply: str) -> None:
        frame = self._encoder.clear()
        if frame is not None:
            self._outbox.purge(reply)
            self._outbox.put(frame)

    def hang_up(self, reason: str) -> None:
        self._outbox.close()


class CallerAudio:
    """The client's binary frames -> PCM for the session: raw samples directly, containers through a decoder thread."""

    def __init__(self, session: Session, outbox: Outbox, start: wire.Start) -> None:
        self._session = session
        self._outbox = outbox
        self._rate_hz = start.rate
        self._joiner: ByteJoiner | None = None
        self._decoder: StreamDecoder | None = None
        self._loop = asyncio.get_running_loop()
        if start.format == "pcm_s16le":
            self._joiner = ByteJoiner("s16le")
        elif start.format == "pcm_f32le":
            self._joiner = ByteJoiner("f32le")

    def feed(self, data: bytes) -> None:
        """Raises AudioError, to be told to the client."""
        if self._joiner is not None:
            self._session.feed_audio(self._joiner.feed(data), self._rate_hz)
            return
        if self._decoder is None:
            self._decoder = StreamDecoder(self._on_audio, self._on_error)
        self._decoder.feed(data)

    async def close(self) -> None:
        if self._decoder is not None:
            # Waits for a thread that may be in the middle of a packet: not on the event loop.
            await asyncio.to_thread(self._decoder.close)

    def _on_audio(self, pcm: Pcm16) -> None:
        self._call_soon(lambda: self._session.feed_audio(pcm, STT_RATE_HZ))

    def _on_error(self, error: AudioError) -> None:
        self._call_soon(lambda: self._outbox.put(wire.error(str(error))))

    def _call_soon(self, step: Callable[[], None]) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(step)


def _policy_for(start: wire.Start, policy: Policy) -> Policy:
    return replace(
        policy,
        client_can_clear="clear" in start.extensions,
        client_reports_played="played" in start.extensions,
    )


@router.websocket("/ws/conversation")
async def conversation(socket: WebSocket) -> None:
    """The talk protocol; see docs/protocols/conversation.md."""
    calls: Calls = socket.app.state.calls
    if not origin_allowed(socket.headers, calls.settings.server.cors_origins):
        await socket.close(
            _CLOSE_POLICY, "this origin is not allowed; add it to server.cors_origins"
        )
        return
    await socket.accept()
    try:
        calls.check_room()
    except (BusyError, ModelError) as error:
        await socket.send_text(wire.error(str(error)))
        await socket.close(_CLOSE_BUSY, str(error)[:120])
        return
    await Connection(socket, calls).serve()


class Connection:
    """One websocket, from `connected` to its end."""

    def __init__(self, socket: WebSocket, calls: Calls) -> None:
        self._socket = socket
        self._calls = calls
        self._session: Session | None = None
        self._outbox = Outbox(calls.settings.server.max_outbox_bytes, self._on_stuck)
        self._errors = 0

    def _on_stuck(self) -> None:
        if self._session is not None:
            self._session.post(ev.HungUp("the client stopped reading"))

    async def serve(self) -> None:
        calls, query = self._calls, self._socket.query_params
        session_id = ""
        first: str | bytes | None = None
        start = _start_from_query(dict(query))
        try:
            first = await self._first_message()
            asked = self._decode(first) if isinstance(first, str) else None
            if isinstance(asked, wire.Start):
                start, first = asked, None
            door = ConversationDoor(self._outbox, start)
            agent = agent_of(calls.settings)
            agent = replace(
                agent, voice=start.voice or agent.voice, language=start.language or agent.language
            )
            async with calls.open(
                door, lambda policy: _policy_for(start, policy), agent
            ) as session:
                self._session, session_id = session, session.call_id
                if start.extensions:
                    self._outbox.put(
                        wire.started(session_id, frozenset(start.extensions) & set(wire.EXTENSIONS))
                    )
                else:
                    self._outbox.put(wire.connected(session_id))
                await self._converse(session, start, first)
        except (WebSocketDisconnect, TimeoutError, OSError, RuntimeError):
            log.info("call %s: the client is gone", session_id)
        except AntiphonError as error:
            await self._say_last(wire.error(str(error)))
        finally:
            await self._close_socket()

    async def _first_message(self) -> str | bytes | None:
        try:
            async with asyncio.timeout(_START_PATIENCE_S):
                return await self._receive()
        except TimeoutError:
            return None

    async def _converse(
        self, session: Session, start: wire.Start, first: str | bytes | None
    ) -> None:
        """Everything that lives as long as the call, in one task group; the first to end ends the others."""
        audio = CallerAudio(session, self._outbox, start)

        async def read() -> None:
            message = first if first is not None else await self._receive()
            while message is not None:
                self._take(message, session, audio)
                message = await self._receive()
            session.post(ev.HungUp())

        async def talk() -> None:
            await session.run(greet=start.greeting, max_s=self._calls.settings.server.max_call_s)
            self._outbox.close()

        try:
            async with asyncio.TaskGroup() as group:
                reader = group.create_task(read())
                group.create_task(self._write(session))
                await talk()
                reader.cancel()
        except* (WebSocketDisconnect, TimeoutError, OSError, RuntimeError) as gone:
            log.info("call %s: connection lost: %s", session.call_id, gone.exceptions[0])
        finally:
            await audio.close()

    async def _write(self, session: Session) -> None:
        try:
            await self._outbox.drain(self._socket)
        except (WebSocketDisconnect, TimeoutError, OSError, RuntimeError):
            self._outbox.abort()
            session.post(ev.HungUp("the client is gone"))

    async def _receive(self) -> str | bytes | None:
        """The next frame; None once the client has disconnected, and never read after that."""
        message = await self._socket.receive()
        if message["type"] == "websocket.disconnect":
            return None
        text: str | None = message.get("text")
        data: bytes | None = message.get("bytes")
        return text if text is not None else data

    def _decode(self, text: str) -> wire.Incoming | None:
        try:
            return wire.decode(text)
        except ProtocolError as error:
            self._complain(str(error))
            return None

    def _complain(self, message: str) -> None:
        self._errors += 1
        self._outbox.put(wire.error(message))
        if self._errors >= _MAX_ERRORS and self._session is not None:
            self._session.post(ev.HungUp("too many senseless messages"))

    def _take(self, message: str | bytes, session: Session, audio: CallerAudio) -> None:
        if isinstance(message, bytes):
            try:
                audio.feed(message)
            except AudioError as error:
                self._complain(str(error))
            return
        incoming = self._decode(message)
        match incoming:
            case wire.Ping():
                self._outbox.put(wire.frame("pong"))
            case wire.PlayedReport(reply=reply, ms=ms):
                session.post(ev.Played(reply, ms))
            case wire.Text(text=text):
                session.post(ev.Typed(text))
            case wire.Stop() | wire.EndConversation():
                session.post(ev.HungUp())
            case wire.SetLevel():
                pass
            case wire.Start():
                self._complain(
                    "`start` must be the first message; open a new connection to change it"
                )

    async def _say_last(self, frame: str) -> None:
        try:
            async with asyncio.timeout(2):
                await self._socket.send_text(frame)
        except (WebSocketDisconnect, TimeoutError, OSError, RuntimeError):
            pass

    async def _close_socket(self) -> None:
        try:
            async with asyncio.timeout(2):
                await self._socket.close()
        except (WebSocketDisconnect, TimeoutError, OSError, RuntimeError):
            pass  # closed already


def _start_from_query(query: dict[str, str]) -> wire.Start:
    """Older clients announce raw audio in the URL: `?format=pcm_s16le&rate=16000`."""
    rate = query.get("rate") or query.get("sample_rate") or ""
    fmt = query.get("format", "pcm_s16le" if rate else "auto")
    if not (rate.isdigit() or not rate) or fmt not in wire.FORMATS:
        return wire.Start()
    return wire.Start(format=fmt, rate=min(max(int(rate or 16_000), 4_000), 192_000))
