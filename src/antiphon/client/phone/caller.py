"""A caller with a telephone: dials a voice agent through its webhook or its websocket, speaks, waits, interrupts.

What a script or a test drives. Every wait has a limit, and ends when the agent hangs up.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from types import TracebackType
from urllib.parse import urlsplit, urlunsplit

from antiphon.client.phone import twiml_parser
from antiphon.client.phone.caller_recording import CallerRecording, SpokenQuestion
from antiphon.client.phone.carrier_webhooks import PhoneNumbers, Webhooks
from antiphon.client.phone.clips import FRAME_MS, Clip, background
from antiphon.client.phone.impairments import Impairments
from antiphon.client.phone.line import PhoneLine, open_stream
from antiphon.errors import ConfigError, ProtocolError

STREAM_PATH = "/media-stream"
WEBHOOK_PATHS = {"stream": "/voice-stream", "record": "/voice"}
_MAX_REDIRECTS = 10


@dataclass(frozen=True, slots=True)
class Number:
    """What is dialled."""

    webhook_url: str = ""
    """`http://...`: asked first, and its TwiML obeyed."""
    stream_url: str = ""
    """`ws://...`: with a webhook, where its stream is reached from here; without one, all there is."""
    line: PhoneNumbers = field(default_factory=PhoneNumbers)
    parameters: dict[str, str] = field(default_factory=dict)
    """Custom parameters, over those of the TwiML."""
    impairments: Impairments = field(default_factory=Impairments)


def number_for(urls: Sequence[str], mode: str = "stream", **options: object) -> Number:
    """What a person types -> what is dialled; a URL without a path gets the server's own. Raises ConfigError."""
    found = {"webhook_url": "", "stream_url": ""}
    for url in urls:
        try:
            parts = urlsplit(url if "://" in url else f"ws://{url}")
            valid = parts.hostname and parts.port != 0
        except ValueError:
            valid = None
        if not valid or parts.scheme not in ("http", "https", "ws", "wss"):
            raise ConfigError(f"--url takes ws://host:port or http://host:port, got {url!r}")
        kind = "webhook_url" if parts.scheme.startswith("http") else "stream_url"
        if found[kind]:
            raise ConfigError(f"give one {parts.scheme}:// address, got {found[kind]} and {url}")
        default = WEBHOOK_PATHS[mode] if kind == "webhook_url" else STREAM_PATH
        path = parts.path if parts.path.strip("/") else default
        found[kind] = urlunsplit((parts.scheme, parts.netloc, path, parts.query, ""))
    if not any(found.values()):
        raise ConfigError("nobody to call; give --url ws://host:port or http://host:port")
    if mode == "record" and not found["webhook_url"]:
        raise ConfigError("the recording flow is webhooks; give --url http://host:port")
    return Number(**found, **options)  # type: ignore[arg-type]


class PhoneCall:
    """`async with PhoneCall(number) as call:` then `await call.say(clip)`, `await call.agent_finished()`."""

    def __init__(self, number: Number, clips: Sequence[Clip] = ()) -> None:
        """`clips`: what will be said, for the noise in between."""
        self.number = number
        self.asked: list[SpokenQuestion] = []
        self.ended = ""
        """Why the call is over, where that is not the caller's doing."""
        self.faults: list[str] = []
        """Of the server, known when the call is over."""
        self._background = background(list(clips))
        self._line: PhoneLine | None = None
        self._webhooks: Webhooks | None = None
        self._stream = twiml_parser.StreamVerb("")
        self._then = ""
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> PhoneCall:
        """Dial. Raises ProtocolError with Twilio's error code when there is no call to be had."""
        try:
            await self._dial()
        except BaseException:
            await self.hang_up()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.hang_up()

    async def _dial(self) -> None:
        number = self.number
        stream = twiml_parser.StreamVerb(number.stream_url)
        if number.webhook_url:
            self._webhooks = await self._stack.enter_async_context(Webhooks(number.line))
            stream, self._then = await self._ask_for_stream(self._webhooks)
            self.faults += stream.faults()
        self._stream = stream
        self._line = await open_stream(
            number.stream_url or stream.url,
            number.line,
            {**stream.parameters, **number.parameters},
            # The TwiML names the address that Twilio would sign; ours is only a way to it.
            signed_url=stream.url,
            background=self._background,
            impairments=number.impairments,
        )
        await self._report("stream-started")

    async def _ask_for_stream(self, webhooks: Webhooks) -> tuple[twiml_parser.StreamVerb, str]:
        """-> the stream, and what the TwiML says comes after it."""
        url, method, status = self.number.webhook_url, "POST", "ringing"
        for _ in range(_MAX_REDIRECTS):
            verbs = await webhooks.ask(url, status=status, method=method)
            status = "in-progress"
            for index, verb in enumerate(verbs):
                if isinstance(verb, twiml_parser.StreamVerb):
                    return verb, ", ".join(_name(later) for later in verbs[index + 1 :])
                if isinstance(verb, twiml_parser.RecordVerb):
                    raise ProtocolError(f"{url} answers with <Record>; call it with --mode record")
                if isinstance(verb, twiml_parser.RedirectVerb):
                    url, method = verb.url, verb.method
                    break
            else:
                names = ", ".join(_name(verb) for verb in verbs) or "nothing"
                raise ProtocolError(f"{url} asks for {names}; a stream needs <Connect><Stream>")
        raise ProtocolError(f"{url} redirects for ever")

    async def _report(self, event: str) -> None:
        """The stream's status callback, if there is one."""
        if self._webhooks is None or not self._stream.status_callback:
            return
        line = self.number.line
        fields = {"StreamSid": line.stream_sid, "StreamName": "", "StreamEvent": event}
        trouble = await self._webhooks.tell(self._stream.status_callback, fields)
        if trouble:
            self.faults.append(f"status callback: {trouble}")

    @property
    def line(self) -> PhoneLine:
        if self._line is None:
            raise ProtocolError("there is no call; use `async with`")
        return self._line

    @property
    def is_over(self) -> bool:
        return self.line.is_over

    def recording(self) -> CallerRecording:
        """Both sides so far."""
        return self.line.recording()

    async def say(self, clip: Clip) -> SpokenQuestion:
        """Speak in real time -> where it lies in the recording. Raises ProtocolError when the call ends before."""
        asked = await self.line.say(clip)
        if asked is None:
            raise ProtocolError(f"the agent hung up before {clip.name} was said to its end")
        self.asked.append(asked)
        return asked

    def press(self, digits: str) -> None:
        """Keys of the telephone. Raises ProtocolError for what is not one."""
        self.line.press(digits)

    async def agent_speaks(self, limit_s: float, *, since_step: int | None = None) -> int | None:
        """The first step of 20 ms, from now or `since_step` on, in which it can be heard; None within the limit."""
        playback = self.line.playback
        since = self.line.step if since_step is None else since_step
        await self.line.until(lambda: playback.audible.find(1, since) >= 0, limit_s)
        found = playback.audible.find(1, since)
        return None if found < 0 else found

    async def agent_finished(self, quiet_ms: int, limit_s: float) -> bool:
        """Wait until it has been silent for `quiet_ms` -> False after `limit_s`, or when it hung up."""
        playback = self.line.playback
        quiet = bytes(max(quiet_ms // FRAME_MS, 1))
        return await self.line.until(
            lambda: playback.audible.endswith(quiet) and not playback.buffered_ms, limit_s
        )

    async def wait(self, seconds: float) -> None:
        """Listen, until the time is up or the call is over."""
        await self.line.until(lambda: False, seconds)

    async def hang_up(self) -> None:
        """`stop`, the end of the connection, and the server's last faults. Idempotent."""
        line = self._line
        try:
            if line is not None and not self.ended:
                if line.is_over:
                    self.ended = "the agent hung up"
                    self.ended += f"; then: {self._then}" if self._then else ""
                await line.close()
                await self._report("stream-stopped")
                self.faults += line.faults.as_list()
                self.ended = self.ended or "the caller hung up"
        finally:
            await self._stack.aclose()


def _name(verb: twiml_parser.Verb) -> str:
    return f"<{verb.name if isinstance(verb, twiml_parser.OtherVerb) else type(verb).__name__.removesuffix('Verb')}>"
