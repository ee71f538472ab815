"""Asterisk as a telephone line of one's own: a TCP listener for AudioSocket, one call per connection.

We own the clock: one frame every 20 ms against an absolute schedule, silence while the agent says nothing, for Asterisk
takes a quiet link for a dead one. There are no marks: what has been written counts as played, and little waits here, so
that an interruption has nothing to take back. A peer has no way to show who it is: only this machine is served, unless
`phone.audiosocket_peers` lists others.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections import deque
from dataclasses import replace

import numpy as np

from antiphon.call.call import Call
from antiphon.call.transport import TransportAudio
from antiphon.config.sections import PhoneSettings
from antiphon.core import actions as act
from antiphon.core import events as ev
from antiphon.core.floor import Floor
from antiphon.core.policy import Policy
from antiphon.errors import AntiphonError, ConfigError, ProtocolError
from antiphon.models.ports import Pcm16
from antiphon.protocols.audiosocket import codec
from antiphon.server.admission import Calls, agent_of
from antiphon.server.budget import WorkBudget
from antiphon.server.security import is_loopback
from antiphon.telephony.call_log import CallLog
from antiphon.telephony.keypad import Keypad

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 256
_OPENING_S = 5.0
"""For the frame that names the call."""
_QUIET_S = 30.0
"""Asterisk sends a frame every 20 ms; a peer that is silent for so long is gone."""
_LAST_WORDS_S = 10.0
_READ_BYTES = 4_096
_MAX_UNSENT_BYTES = 64_000
"""Four seconds that the peer has not taken: it has stopped reading."""
_REPORT_FRAMES = 5
_TAKEN_BACK = (Floor.THINKING, Floor.AGENT, Floor.OVERLAP)
_FRAME_S = codec.FRAME_MS / 1000
_BEHIND_S = 0.2
"""After a pause of the whole process, time is let go: a burst would only queue at the peer."""
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_SILENCE = codec.encode_audio(np.zeros(codec.FRAME_SAMPLES, np.int16))


class AudioSocketTransport:
    """The call's side: a short queue of samples that the line empties, frame by frame."""

    def __init__(self) -> None:
        self.audio = TransportAudio(
            rate_hz=codec.RATE_HZ,
            lead_ms=120,
            chunk_ms=60,
            align_ms=codec.FRAME_MS,
            listen_hz=codec.RATE_HZ,
        )
        self.call: Call | None = None
        self.closing = asyncio.Event()
        """The call is over; what is queued is still to be said."""
        self._queue: deque[tuple[str, Pcm16]] = deque()
        self._reply, self._played = "", 0
        self._frames = 0

    def notice(self, action: act.Action) -> None:
        if isinstance(action, act.Play):
            self._reply = action.reply
            self._played = action.from_ms * codec.RATE_HZ // 1000
        elif isinstance(action, act.Fault):
            log.info("%s: %s", action.code, action.message)

    def send_audio(self, reply: str, pcm: Pcm16) -> None:
        self._queue.append((reply, pcm))

    def drop_audio(self, reply: str) -> None:
        self._queue = deque(piece for piece in self._queue if piece[0] != reply)

    def hang_up(self, reason: str) -> None:
        self.closing.set()

    @property
    def empty(self) -> bool:
        return not self._queue

    def next_frame(self) -> bytes:
        """20 ms to be written now, silence if there is nothing; and the ledger's entry for it."""
        if not self._queue:
            return _SILENCE
        reply, pcm = self._queue.popleft()
        while len(pcm) < codec.FRAME_SAMPLES and self._queue and self._queue[0][0] == reply:
            pcm = np.concatenate([pcm, self._queue.popleft()[1]])
        frame, rest = pcm[: codec.FRAME_SAMPLES], pcm[codec.FRAME_SAMPLES :]
        if len(rest):
            self._queue.appendleft((reply, rest))
        self._count(reply, len(frame))
        whole = np.zeros(codec.FRAME_SAMPLES, np.int16)
        whole[: len(frame)] = frame
        return codec.encode_audio(whole)

    def _count(self, reply: str, samples: int) -> None:
        if reply != self._reply or self.call is None:
            return
        self._played += samples
        self._frames += 1
        if not self._queue or self._frames % _REPORT_FRAMES == 0:
            self.call.post(ev.Played(reply, self._played * 1000 // codec.RATE_HZ))


class AudioSocketServer:
    """The listener and its connections. Close it."""

    def __init__(self, calls: Calls, call_log: CallLog) -> None:
        """Raises ConfigError like `check_peers`."""
        phone = calls.settings.phone
        self._calls = calls
        self._log = call_log
        self._host, self._port = phone.audiosocket_host, phone.audiosocket_port
        self._peers = check_peers(phone)
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def listen(self, port: int | None = None) -> int:
        """Begin to listen, if a port is set. `port`: instead of the configured one -> the port, 0: off.

        Raises ConfigError when the address cannot be had.
        """
        wanted = self._port if port is None else port
        if not wanted and port is None:
            return 0
        try:
            self._server = await asyncio.start_server(self._connected, self._host, wanted)
        except OSError as error:
            raise ConfigError(
                f"AudioSocket cannot listen on {self._host} port {wanted}: {error.strerror}; "
                "set phone.audiosocket_port to another"
            ) from None
        found: int = self._server.sockets[0].getsockname()[1]
        log.info("AudioSocket listens on %s port %d", self._host, found)
        return found

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        tasks = tuple(self._connections)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        peer = writer.get_extra_info("peername")
        host = peer[0] if peer else ""
        self._connections.add(task)
        try:
            if not self._allowed(host):
                log.warning("AudioSocket: refused %s; add it to phone.audiosocket_peers", host)
            elif len(self._connections) > MAX_CONNECTIONS:
                log.warning("AudioSocket: refused %s: too many connections", host)
            else:
                await _Line(self._calls, self._log, reader, writer).serve()
        except asyncio.CancelledError:
            pass  # the server ends; asyncio would log it as a failure
        except Exception:
            log.exception("AudioSocket: a connection of %s failed", host)
        finally:
            self._connections.discard(task)
            writer.close()

    def _allowed(self, host: str) -> bool:
        if is_loopback(host):
            return True
        try:
            address = ipaddress.ip_address(host.partition("%")[0])
        except ValueError:
            return False
        address = getattr(address, "ipv4_mapped", None) or address
        return any(address in network for network in self._peers)


class _Line:
    """One connection, and the call that it carries."""

    def __init__(
        self,
        calls: Calls,
        call_log: CallLog,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._calls = calls
        self._log = call_log
        self._reader = reader
        self._writer = writer
        self._decoder = codec.AudioSocketDecoder()
        self._budget = WorkBudget()
        self._waiting: deque[codec.Frame] = deque()
        self._transport = AudioSocketTransport()
        self._keypad: Keypad | None = None

    async def serve(self) -> None:
        try:
            async with asyncio.timeout(_OPENING_S):
                first = await self._next()
            if not isinstance(first, codec.CallId):
                raise ProtocolError("the first frame must name the call")
            await self._call(str(first.id))
        except (AntiphonError, TimeoutError) as error:
            log.warning("AudioSocket: refused: %s", error or "no call was named in time")
            await self._send(codec.HANG_UP)
        except OSError as error:
            log.info("AudioSocket: the peer is gone: %s", error)
        finally:
            # An error that the streams keep refers to the frames that it went through, and they to this line: until
            # the next garbage collection, so nothing large must hang on it.
            self._keypad = None
            self._waiting.clear()
            del self._transport, self._reader, self._writer, self._budget

    async def _call(self, name: str) -> None:
        settings = self._calls.settings
        async with self._calls.open(
            self._transport,
            lambda policy: _policy_for(policy, settings.phone.greeting),
            agent_of(settings),
        ) as call:
            log.info("AudioSocket: %s is call %s", name, call.call_id)
            self._transport.call = call
            self._keypad = Keypad(
                lambda keys: call.post(
                    ev.UserText(f"(The caller pressed on the telephone: {' '.join(keys)})")
                ),
                settings.phone.keypad_pause_ms / 1000,
            )
            try:
                await self._converse(call)
            finally:
                self._keypad.close()
                self._log.add_records("audiosocket", name, call.records)

    async def _converse(self, call: Call) -> None:
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(self._read(call))
            speaking = group.create_task(self._speak(call))
            await call.run(max_s=self._calls.settings.server.max_call_s)
            reading.cancel()
            await asyncio.wait([speaking], timeout=_LAST_WORDS_S)
            speaking.cancel()

    # -- the caller -----------------------------------------------------------------------------

    async def _read(self, call: Call) -> None:
        reason = "caller hung up"
        try:
            while True:
                async with asyncio.timeout(_QUIET_S):
                    frame = await self._next()
                if frame is None or isinstance(frame, codec.HangupFrame):
                    break
                with self._budget.message(
                    0
                ):  # a frame has 64 kB at most: its bytes need no counting
                    self._take(call, frame)
        except ProtocolError as error:
            reason = f"AudioSocket: {error}"
            log.warning("call %s: %s", call.call_id, reason)
        except (OSError, TimeoutError):
            reason = "the peer is gone"
        call.post(ev.HungUp(reason))

    def _take(self, call: Call, frame: codec.Frame) -> None:
        match frame:
            case codec.AudioFrame(pcm=pcm, rate_hz=rate_hz):
                self._budget.heard(len(pcm) / rate_hz)
                call.feed_audio(pcm, rate_hz)
            case codec.DigitFrame(digit=digit):
                self._budget.request()
                self._on_key(call, digit)
            case codec.ErrorFrame(code=code):
                log.warning("AudioSocket: Asterisk reports error %s", code)

    def _on_key(self, call: Call, digit: str) -> None:
        """A key stops the agent, as on every telephone."""
        conversation = call.view
        if conversation.floor in _TAKEN_BACK and conversation.policy.interruptible:
            call.post(ev.RequestCancel())
        assert self._keypad is not None
        self._keypad.press(digit)

    async def _next(self) -> codec.Frame | None:
        """The next frame; None at the end. Raises ProtocolError (OverBudget too), OSError."""
        if self._budget.due:
            await self._budget.wait()
        while not self._waiting:
            data = await self._reader.read(_READ_BYTES)
            if not data:
                return None
            self._waiting.extend(self._decoder.feed(data))
        return self._waiting.popleft()

    # -- the agent ------------------------------------------------------------------------------

    async def _speak(self, call: Call) -> None:
        """A frame every 20 ms, until the call is over and all is said."""
        loop = asyncio.get_running_loop()
        due_s = loop.time()
        try:
            while not (self._transport.closing.is_set() and self._transport.empty):
                self._writer.write(self._transport.next_frame())
                if self._writer.transport.get_write_buffer_size() > _MAX_UNSENT_BYTES:
                    call.post(ev.HungUp("the peer stopped reading"))
                    self._writer.transport.abort()
                    return
                due_s = max(due_s + _FRAME_S, loop.time() - _BEHIND_S)
                await asyncio.sleep(max(due_s - loop.time(), 0))
            await self._send(codec.HANG_UP)
        except OSError:
            call.post(ev.HungUp("the peer is gone"))

    async def _send(self, data: bytes) -> None:
        """Something short and last."""
        try:
            self._writer.write(data)
            async with asyncio.timeout(_OPENING_S):
                await self._writer.drain()
        except (OSError, TimeoutError):
            pass


def _policy_for(policy: Policy, greeting: str) -> Policy:
    return replace(
        policy,
        greeting=greeting or policy.greeting,
        client_can_clear=True,
        client_reports_played=True,
    )


def check_peers(phone: PhoneSettings) -> tuple[_Network, ...]:
    """Raises ConfigError for peers that are no addresses, and for a door that is open to everybody."""
    is_open = phone.audiosocket_port and not is_loopback(phone.audiosocket_host)
    if is_open and not phone.audiosocket_peers:
        raise ConfigError(
            f"phone.audiosocket_host {phone.audiosocket_host} is open to others; list your Asterisk in "
            "phone.audiosocket_peers"
        )
    return tuple(_network(peer) for peer in phone.audiosocket_peers)


def _network(text: str) -> _Network:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ConfigError(
            f"phone.audiosocket_peers: {text!r} is no address and no network; write 10.0.0.1 or 10.0.0.0/24"
        ) from None
