"""One end of a Twilio media stream: speaks to a voice agent's websocket exactly as Twilio does, in real time.

The caller's side leaves in frames of 20 ms on a clock that does not drift; the agent's side is heard through
`Playback`. Both are kept, on one clock. Knows the messages of Twilio's Media Streams
(https://www.twilio.com/docs/voice/media-streams); does not know what is asked, nor when.
"""

from __future__ import annotations

import asyncio
import binascii
import contextlib
import json
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI

from antiphon.client.phone.caller_recording import CallerRecording, SpokenQuestion
from antiphon.client.phone.carrier_playback import Playback
from antiphon.client.phone.carrier_webhooks import PhoneNumbers
from antiphon.client.phone.clips import FRAME_BYTES, FRAME_MS, FRAME_S, RATE_HZ, Clip, ClipFrame
from antiphon.client.phone.impairments import Fate, Impairments
from antiphon.errors import ProtocolError

MAX_CALL_S = 3600.0
_CONNECT_S = 10.0
_CLOSE_S = 3.0
_MAX_MESSAGE_BYTES = 16 << 20
_MAX_FAULTS = 50
_DTMF_EVERY_STEPS = 10
_DIGITS = "0123456789*#ABCDabcd"


class _Inner(msgspec.Struct):
    payload: str = ""
    name: str = ""


class _Message(msgspec.Struct):
    event: str
    streamSid: str = ""
    media: _Inner | None = None
    mark: _Inner | None = None


_DECODER = msgspec.json.Decoder(_Message)


async def open_stream(
    url: str,
    line: PhoneNumbers,
    parameters: dict[str, str],
    *,
    signed_url: str = "",
    background: Sequence[ClipFrame],
    impairments: Impairments | None = None,
) -> PhoneLine:
    """Connect and announce the call. `signed_url`: where the server believes to be, if not at `url`.

    Raises ProtocolError with Twilio's error code.
    """
    headers = line.signature(signed_url or url)
    try:
        socket = await connect(
            url,
            additional_headers=headers,
            max_size=_MAX_MESSAGE_BYTES,
            compression=None,
            open_timeout=_CONNECT_S,
            close_timeout=_CLOSE_S,
            user_agent_header="Twilio.TmeWs/1.0",
        )
    except InvalidStatus as error:
        code = error.response.status_code
        raise ProtocolError(f"31920: {_bare(url)} answered {code} instead of a websocket") from None
    except TimeoutError:
        raise ProtocolError(f"31901: {_bare(url)} did not answer in {_CONNECT_S:.0f} s") from None
    except InvalidURI:
        raise ProtocolError(f"31923: {_bare(url)} is not a websocket's address") from None
    except (OSError, InvalidHandshake, EOFError) as error:
        raise ProtocolError(f"31902: no connection to {_bare(url)}: {error}") from None
    phone = PhoneLine(socket, line, background, impairments or Impairments())
    try:
        await phone.start(parameters)
    except BaseException:
        await phone.close()
        raise
    return phone


def _bare(url: str) -> str:
    return url.partition("?")[0]


@dataclass(slots=True)
class Faults:
    """What the server did that Twilio would warn of. The first of each kind; bounded."""

    seen: dict[str, int] = field(default_factory=dict)

    def note(self, what: str) -> None:
        if what in self.seen or len(self.seen) < _MAX_FAULTS:
            self.seen[what] = self.seen.get(what, 0) + 1

    def as_list(self) -> list[str]:
        return [what if n == 1 else f"{what} ({n} times)" for what, n in self.seen.items()]


@dataclass(slots=True)
class _Utterance:
    clip: Clip
    done: asyncio.Future[SpokenQuestion | None]
    first_step: int | None = None

    @property
    def last_step(self) -> int | None:
        return None if self.first_step is None else self.first_step + len(self.clip.frames) - 1

    def finish(self) -> None:
        if self.first_step is not None and not self.done.done():
            self.done.set_result(SpokenQuestion.at(self.clip, self.first_step * FRAME_BYTES))


class PhoneLine:
    """A call that is on. Made by `open_stream`; `close` it."""

    def __init__(
        self,
        socket: ClientConnection,
        line: PhoneNumbers,
        background: Sequence[ClipFrame],
        impairments: Impairments,
    ) -> None:
        loop = asyncio.get_running_loop()
        self.line = line
        self.faults = Faults()
        self.marks = 0
        """Echoed."""
        self.most_late_ms = 0.0
        """How late a frame of ours left: where this is large, this machine was too busy to measure."""
        self.playback = Playback(loop.time())
        self._socket = socket
        self._loop = loop
        self._background = background
        self._fate = Fate(impairments)
        self._said = bytearray()
        self._speech: deque[_Utterance] = deque()
        self._digits: deque[str] = deque()
        self._sequence = 0
        self._chunk = 0
        self._step_done = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    # --- life ---

    async def start(self, parameters: dict[str, str]) -> None:
        """Say who calls, and begin to send. The clock starts here."""
        line = self.line
        await self._send_json({"event": "connected", "protocol": "Call", "version": "1.0.0"})
        await self._send_numbered(
            "start",
            {
                "accountSid": line.account_sid,
                "streamSid": line.stream_sid,
                "callSid": line.call_sid,
                "tracks": ["inbound"],
                "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": RATE_HZ, "channels": 1},
                "customParameters": parameters,
            },
        )
        self.playback = Playback(self._loop.time())
        steps = (self._listen, self._hear, self._talk)
        self._tasks = [asyncio.create_task(step()) for step in steps]

    @property
    def is_over(self) -> bool:
        """The connection is gone, or one of its tasks failed."""
        return any(task.done() for task in self._tasks)

    async def close(self) -> None:
        """Hang up: `stop`, then wait for the server to close, at most 3 s. Idempotent."""
        listening, others = self._tasks[:1], self._tasks[1:]
        try:
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            if listening and not listening[0].done():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_CLOSE_S):
                        ids = {"accountSid": self.line.account_sid, "callSid": self.line.call_sid}
                        await self._send_numbered("stop", ids)
                        await asyncio.wait(listening)
        finally:
            self._forget_speech()
            for task in listening:
                task.cancel()
            await asyncio.gather(*listening, return_exceptions=True)
            with contextlib.suppress(ConnectionClosed, OSError, TimeoutError):
                async with asyncio.timeout(2 * _CLOSE_S):
                    await self._socket.close()

    def recording(self) -> CallerRecording:
        """What was said and heard so far."""
        heard = self.playback
        return CallerRecording.of(self._said, heard.heard, heard.fed, heard.clears)

    # --- what the caller does ---

    @property
    def step(self) -> int:
        """The 20 ms that are being heard now, counted from 0."""
        return max(self.playback.steps - 1, 0)

    def say(self, clip: Clip) -> asyncio.Future[SpokenQuestion | None]:
        """Speak at the next step -> done when the last frame has left; None when the call ended before that."""
        done: asyncio.Future[SpokenQuestion | None] = self._loop.create_future()
        if self.is_over:
            done.set_result(None)
        else:
            self._speech.append(_Utterance(clip, done))
        return done

    def _forget_speech(self) -> None:
        for said in self._speech:
            if not said.done.done():
                said.done.set_result(None)

    def press(self, digits: str) -> None:
        """Keys of the telephone, one every 200 ms. Raises ProtocolError for what is not one."""
        if wrong := [d for d in digits if d not in _DIGITS]:
            raise ProtocolError(f"{wrong[0]!r} is not a key of a telephone; use 0-9, * and #")
        self._digits.extend(digits.upper())

    async def until(self, condition: Callable[[], bool], limit_s: float) -> bool:
        """Wait until it holds; asked after every step -> False after `limit_s`, or when the call is over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                while not condition():
                    if self.is_over:
                        return False
                    self._step_done.clear()
                    await self._step_done.wait()
                return True
        return condition()

    # --- the three tasks of a call ---

    async def _talk(self) -> None:
        """Frames for ever. A frame leaves when its last sample has been spoken, and never drifts from the clock."""
        step = 0
        with contextlib.suppress(ConnectionClosed):
            while step * FRAME_S < MAX_CALL_S:
                frame = self._next_frame(step)
                due_s = self.playback.start_s + (step + 1) * FRAME_S
                await self._wait_until(due_s + self._fate.delay_s())
                self._said += frame.codes
                await self._send_frame(frame, step)
                step += 1
                if self._speech and self._speech[0].last_step == step - 1:
                    self._speech.popleft().finish()
        self._forget_speech()
        self._step_done.set()

    def _next_frame(self, step: int) -> ClipFrame:
        if not self._speech:
            return self._background[step % len(self._background)]
        said = self._speech[0]
        if said.first_step is None:
            said.first_step = step
        return said.clip.frames[step - said.first_step]

    async def _wait_until(self, due_s: float) -> None:
        wait_s = due_s - self._loop.time()
        self.most_late_ms = max(self.most_late_ms, -1000 * wait_s)
        await asyncio.sleep(max(wait_s, 0))

    async def _send_frame(self, frame: ClipFrame, step: int) -> None:
        if self._digits and step % _DTMF_EVERY_STEPS == 0:
            digit = self._digits.popleft()
            await self._send_numbered("dtmf", {"track": "inbound_track", "digit": digit})
        if self._fate.is_lost():
            return
        self._sequence += 1
        self._chunk += 1
        # By hand: this is most of what a call costs.
        message = (
            b'{"event":"media","sequenceNumber":"%d","media":{"track":"inbound","chunk":"%d",'
            b'"timestamp":"%d","payload":"%b"},"streamSid":"%b"}'
            % (
                self._sequence,
                self._chunk,
                step * FRAME_MS,
                frame.payload,
                self.line.stream_sid.encode(),
            )
        )
        await self._socket.send(message, text=True)

    async def _hear(self) -> None:
        """Let time pass for what was received, step by step."""
        with contextlib.suppress(ConnectionClosed):
            while True:
                await asyncio.sleep(max(self.playback.next_step_s() - self._loop.time(), 0))
                await self._pass_time()

    async def _pass_time(self) -> None:
        due = self.playback.advance(self._loop.time())
        self._step_done.set()
        await self._echo(due)

    async def _listen(self) -> None:
        try:
            async for data in self._socket:
                await self._pass_time()
                if isinstance(data, bytes):
                    self.faults.note("31950: a binary frame")
                else:
                    await self._take(data)
        except ConnectionClosed:
            pass
        finally:
            self._forget_speech()
            self._loop.call_soon(self._step_done.set)

    async def _take(self, text: str) -> None:
        try:
            message = _DECODER.decode(text)
        except (msgspec.DecodeError, UnicodeError):
            self.faults.note("31951: a message that is not one of Twilio's")
            return
        if message.streamSid != self.line.stream_sid:
            self.faults.note(f"31951: {message.event} without this stream's streamSid")
        elif message.event == "media" and message.media is not None:
            self._take_media(message.media.payload)
        elif message.event == "mark" and message.mark is not None and message.mark.name:
            await self._echo(self.playback.mark(message.mark.name))
        elif message.event == "clear":
            await self._echo(self.playback.clear())
        else:
            self.faults.note(
                f"31951: {message.event[:40]!r} is no message to Twilio, or incomplete"
            )

    def _take_media(self, payload: str) -> None:
        try:
            codes = binascii.a2b_base64(payload, strict_mode=True)
        except (binascii.Error, ValueError):
            self.faults.note("31951: a payload that is not base64")
            return
        if codes[:4] == b"RIFF":
            self.faults.note("a WAV header in the payload: it is heard as a click")
        if not self.playback.add(codes):
            self.faults.note("31931: more than ten minutes of audio in the buffer")

    # --- sending ---

    async def _echo(self, names: list[str]) -> None:
        for name in names:
            self.marks += 1
            await self._send_numbered("mark", {"name": name})

    async def _send_numbered(self, event: str, content: dict[str, Any]) -> None:
        self._sequence += 1
        message = {"event": event, "sequenceNumber": str(self._sequence)}
        await self._send_json({**message, "streamSid": self.line.stream_sid, event: content})

    async def _send_json(self, message: dict[str, Any]) -> None:
        with contextlib.suppress(ConnectionClosed):  # `_listen` notices
            await self._socket.send(json.dumps(message, separators=(",", ":")))
