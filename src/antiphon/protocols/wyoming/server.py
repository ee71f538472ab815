"""A TCP listener for Wyoming, the protocol of Home Assistant's voice services: speech to text, or text to speech.

Source of the flows: rhasspy/wyoming, and what Home Assistant sends.

Wyoming has no keys and no encryption: only this machine is served, unless `server.wyoming_peers` lists others.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from importlib.metadata import version
from typing import Any

import numpy as np

from antiphon.audio.framing import Pcm16, mix_to_mono, pcm_from_bytes, pcm_to_bytes
from antiphon.audio.resample import Resampler
from antiphon.call.speech_segments import transcribe_segments
from antiphon.config.sections import ServerSettings
from antiphon.core.text_segmenter import TextSegmenter
from antiphon.errors import AntiphonError, AudioError, BusyError, ConfigError, ProtocolError, told
from antiphon.models.model_set import ModelSet
from antiphon.models.ports import STT_RATE_HZ, Kind
from antiphon.protocols.wyoming.codec import Event, WyomingDecoder, encode
from antiphon.server.model_streams import ModelStreams
from antiphon.server.security import is_loopback
from antiphon.server.speech_stream import (
    RATE_HZ,
    SpeechOptions,
    SpeechStream,
    clauses,
    known_voice,
    voices_of,
)

Send = Callable[[Event], Awaitable[None]]

_FORMAT = {"rate": RATE_HZ, "width": 2, "channels": 1}
_MAX_CHARS = 20_000
_BY = {"name": "Antiphon", "url": "https://github.com/antiphon/antiphon"}


class TranscribeHandler:
    """`transcribe`, `audio-start`, `audio-chunk`s, `audio-stop` -> `transcript`, as its parts are known."""

    def __init__(self, streams: ModelStreams, send: Send) -> None:
        self._streams, self._send = streams, send
        self._language = ""
        self._pieces: list[Pcm16] = []
        self._samples = 0
        self._joiner: tuple[int, int, Resampler] | None = None

    async def take(self, event: Event) -> None:
        """Raises AudioError, BusyError, ModelError."""
        match event.type:
            case "transcribe":
                self._language = event.text("language")
            case "audio-start":
                self.close()
            case "audio-chunk":
                self._hear(event)
            case "audio-stop":
                await self._answer()

    def close(self) -> None:
        self._pieces, self._samples, self._joiner = [], 0, None

    def _hear(self, event: Event) -> None:
        rate_hz, channels = event.number("rate", STT_RATE_HZ), event.number("channels", 1)
        if event.number("width", 2) != 2 or not 1 <= channels <= 8 or rate_hz < 4_000:
            raise AudioError("audio must be 16-bit PCM of 4 kHz or more; set that in the client")
        if len(event.payload) % (2 * channels):
            raise AudioError("an audio-chunk must hold whole samples")
        if self._joiner is None or self._joiner[:2] != (rate_hz, channels):
            self._joiner = (rate_hz, channels, Resampler(rate_hz, STT_RATE_HZ))
        pcm = mix_to_mono(pcm_from_bytes(event.payload).reshape(-1, channels))
        pcm = self._joiner[2].process(pcm)
        self._samples += len(pcm)
        limit_s = self._streams.settings.server.max_file_s
        if self._samples > limit_s * STT_RATE_HZ:
            self.close()
            raise AudioError(f"the request is longer than {limit_s} s; speak shorter")
        self._pieces.append(pcm)

    async def _answer(self) -> None:
        if self._joiner is not None:
            self._pieces.append(self._joiner[2].flush())
        pcm = np.concatenate(self._pieces) if self._pieces else np.empty(0, np.int16)
        self.close()
        with self._streams.one("wyoming") as place:
            settings, said = self._streams.settings, ""
            found = transcribe_segments(
                self._streams.models,
                pcm,
                threshold=settings.conversation.speech_threshold,
                language=self._language or settings.agent.language,
                new_work=place.work,
            )
            told = {"language": self._language} if self._language else {}
            await self._send(Event("transcript-start", told))
            async with aclosing(found) as stretches:
                async for one in stretches:
                    piece = f" {one.text}" if said else one.text
                    said += piece
                    await self._send(Event("transcript-chunk", {"text": piece}))
        await self._send(Event("transcript", {"text": said, **told}))
        await self._send(Event("transcript-stop"))


class SynthesizeHandler:
    """`synthesize`, or a text in `synthesize-chunk`s -> `audio-start`, `audio-chunk`s, `audio-stop`."""

    def __init__(self, streams: ModelStreams, send: Send) -> None:
        self._streams, self._send = streams, send
        self._cutter: TextSegmenter | None = None
        self._waiting: list[str] = []
        self._manner = SpeechOptions()
        self._chars = 0

    async def take(self, event: Event) -> None:
        """Raises BusyError, ModelError."""
        match event.type:
            case "synthesize" if (
                self._cutter is None
            ):  # else it repeats the chunks, for old servers
                text = event.text("text")
                self._limit(len(text))
                await self._read(self._cut(text), self._manner_of(event))
            case "synthesize-start":
                policy = self._streams.settings.conversation
                self._manner, self._waiting, self._chars = self._manner_of(event), [], 0
                self._cutter = TextSegmenter(first_words=0, max_chars=policy.max_segment_chars)
            case "synthesize-chunk" if self._cutter is not None:
                text = event.text("text")
                self._chars += len(text)
                self._limit(self._chars)
                self._waiting += self._cutter.feed(text)
            case "synthesize-stop" if self._cutter is not None:
                found, self._cutter = [*self._waiting, *self._cutter.flush()], None
                await self._read(found, self._manner)
                await self._send(Event("synthesize-stopped"))

    def close(self) -> None:
        self._cutter, self._waiting = None, []

    def _limit(self, chars: int) -> None:
        if chars > _MAX_CHARS:
            self.close()
            raise BusyError(f"the text is over {_MAX_CHARS} characters; cut it")

    def _cut(self, text: str) -> list[str]:
        return clauses(text, self._streams.settings.conversation.max_segment_chars)

    def _manner_of(self, event: Event) -> SpeechOptions:
        voice, agent = event.group("voice"), self._streams.settings.agent
        name, language = voice.get("name"), voice.get("language")
        code = language.partition("-")[0].partition("_")[0] if isinstance(language, str) else ""
        return SpeechOptions(
            known_voice(self._streams.models, str(name or ""), agent.voice),
            code.lower() or agent.language,
            agent.speed,
        )

    async def _read(self, found: list[str], manner: SpeechOptions) -> None:
        with self._streams.one("wyoming") as place:
            speaker = SpeechStream(self._streams.models, place.work(), manner)
            await self._send(Event("audio-start", _FORMAT))
            for clause in found:
                async with aclosing(speaker.say(clause)) as made:
                    async for pcm in made:
                        await self._send(Event("audio-chunk", _FORMAT, pcm_to_bytes(pcm)))
            if len(rest := speaker.rest()):
                await self._send(Event("audio-chunk", _FORMAT, pcm_to_bytes(rest)))
            await self._send(Event("audio-stop"))


def info(models: ModelSet, kind: Kind) -> Event:
    """Who we are and what we have. Home Assistant hides what has no languages."""
    model = models.info(kind)
    languages = list(model.languages) or ["en"]
    program: dict[str, Any] = {**_artifact("antiphon"), "description": f"Antiphon, {model.name}"}
    if kind is Kind.STT:
        program["models"] = [{**_artifact(model.name), "languages": languages}]
        program["supports_transcript_streaming"] = True
        return Event("info", {"asr": [program]})
    program["voices"] = [
        {**_artifact(voice), "languages": languages, "speakers": None}
        for voice in voices_of(models)
    ]
    program["supports_synthesize_streaming"] = True
    return Event("info", {"tts": [program]})


def _artifact(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "attribution": _BY,
        "installed": True,
        "description": name,
        "version": version("antiphon"),
    }


log = logging.getLogger(__name__)

_READ_BYTES = 64 << 10
_IDLE_S = 300.0
"""Home Assistant keeps some connections open."""
_SEND_S = 10.0
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class WyomingServer:
    """The listener and its connections. Close it."""

    def __init__(self, streams: ModelStreams, kind: Kind) -> None:
        """Raises ConfigError like `check_peers`."""
        chosen = streams.settings.server
        self._streams, self._kind = streams, kind
        self._host, self._port = chosen.wyoming_host, chosen.wyoming_port
        self._peers = check_peers(chosen)
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
                f"Wyoming cannot listen on {self._host} port {wanted}: {error.strerror}; "
                "set server.wyoming_port to another"
            ) from None
        found: int = self._server.sockets[0].getsockname()[1]
        log.info("Wyoming listens on %s port %d", self._host, found)
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
            if not _allowed(host, self._peers):
                log.warning("Wyoming: refused %s; add it to server.wyoming_peers", host)
            elif len(self._connections) > self._streams.settings.server.max_calls:
                await Wire(reader, writer).send(_busy())
            else:
                await _Connection(self._streams, self._kind, Wire(reader, writer)).serve()
        except asyncio.CancelledError:
            pass  # the service ends; asyncio would log it as a failure
        except (OSError, TimeoutError) as error:
            log.info("Wyoming: %s is gone: %s", host, error)
        except Exception:
            log.exception("Wyoming: a connection of %s failed", host)
        finally:
            self._connections.discard(task)
            writer.close()


class Wire:
    """Events in and out of one socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._decoder = WyomingDecoder()
        self._waiting: list[Event] = []

    async def receive(self) -> Event | None:
        """None at the end. Raises ProtocolError, OSError, TimeoutError."""
        while not self._waiting:
            async with asyncio.timeout(_IDLE_S):
                data = await self._reader.read(_READ_BYTES)
            if not data:
                return None
            self._waiting = self._decoder.feed(data)
        return self._waiting.pop(0)

    async def send(self, event: Event) -> None:
        """Raises OSError, TimeoutError."""
        self._writer.write(encode(event))
        async with asyncio.timeout(_SEND_S):
            await self._writer.drain()


class _Connection:
    """What every service answers, and the work of this one."""

    def __init__(self, streams: ModelStreams, kind: Kind, wire: Wire) -> None:
        self._streams, self._kind, self._wire = streams, kind, wire
        work = TranscribeHandler if kind is Kind.STT else SynthesizeHandler
        self._work: TranscribeHandler | SynthesizeHandler = work(streams, wire.send)

    async def serve(self) -> None:
        try:
            while (event := await self._wire.receive()) is not None:
                try:
                    await self._answer(event)
                except AntiphonError as error:
                    log.warning("Wyoming: %s", error)
                    await self._wire.send(_error(error))
        except ProtocolError as error:
            log.warning("Wyoming: %s", error)
            await self._wire.send(_error(error))
        finally:
            self._work.close()

    async def _answer(self, event: Event) -> None:
        """Types that mean nothing to us are ignored: peers of later versions send more."""
        if event.type == "describe":
            await self._wire.send(info(self._streams.models, self._kind))
        elif event.type == "ping":
            await self._wire.send(Event("pong", {"text": event.text("text")}))
        else:
            await self._work.take(event)


def _error(error: AntiphonError) -> Event:
    return Event("error", {"text": told(error), "code": type(error).__name__})


def _busy() -> Event:
    return Event("error", {"text": "no free channels; try again soon", "code": "BusyError"})


def check_peers(chosen: ServerSettings) -> tuple[_Network, ...]:
    """Raises ConfigError for peers that are no addresses, and for a door that is open to everybody."""
    is_open = chosen.wyoming_port and not is_loopback(chosen.wyoming_host)
    if is_open and not chosen.wyoming_peers:
        raise ConfigError(
            f"server.wyoming_host {chosen.wyoming_host} is open to others; list your Home Assistant in "
            "server.wyoming_peers"
        )
    return tuple(_network(peer) for peer in chosen.wyoming_peers)


def _network(text: str) -> _Network:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ConfigError(
            f"server.wyoming_peers: {text!r} is no address and no network; write 10.0.0.1 or 10.0.0.0/24"
        ) from None


def _allowed(host: str, peers: Sequence[_Network]) -> bool:
    if is_loopback(host):
        return True
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    address = getattr(address, "ipv4_mapped", None) or address
    return any(address in network for network in peers)
