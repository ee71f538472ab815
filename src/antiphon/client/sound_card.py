"""Microphone and loudspeaker of this machine, through PortAudio (`sounddevice`, the extra `mic`).

The system's default devices, at the call's rates where they take them and resampled where not. PortAudio calls from
threads of its own; everything else here happens on the event loop.
"""

from __future__ import annotations

import asyncio
import importlib
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from antiphon.audio.framing import pcm_to_bytes
from antiphon.audio.resample import Resampler
from antiphon.client.loudspeaker import Loudspeaker
from antiphon.errors import AudioError, ConfigError
from antiphon.models.ports import STT_RATE_HZ, Pcm16

OUTPUT_RATE_HZ = 24_000
_BLOCK_MS = 20
_SILENT_S = 2.0
"""A microphone that gives nothing for so long is gone: not every driver says so."""
_QUEUE_BLOCKS = 250
"""5 s. When it is full the oldest block is dropped: the loop was held up, and what is said now matters more."""
_KEPT_S = 180.0
_GONE = "the microphone or the loudspeaker is gone; plug it in and start again"
_INSTEAD = "plug one in and make it the system's default, or use --input and --output"


def load_driver() -> Any:
    """The module `sounddevice`. Raises ConfigError with what to install."""
    try:
        return importlib.import_module("sounddevice")
    except ImportError:
        raise ConfigError(
            "the microphone needs the extra `mic`: pip install 'antiphon[mic]'"
        ) from None
    except OSError:
        raise ConfigError(
            "PortAudio is missing: install it (Debian and Ubuntu: apt-get install libportaudio2)"
        ) from None


class CardPlayout(Loudspeaker):
    """The ideal player, and the queue of a real one that is as late as its card says."""

    def __init__(self) -> None:
        super().__init__(OUTPUT_RATE_HZ)
        self.latency_s = 0.0
        """What has been given to the card is heard so much later, and cannot be taken back."""
        self.card_rate_hz = OUTPUT_RATE_HZ
        self._resampler: Resampler | None = None
        self._waiting = bytearray()
        self._lock = threading.Lock()

    def add(self, reply: str, pcm: Pcm16, now_s: float) -> None:
        super().add(reply, pcm, now_s + self.latency_s)
        self.pieces = [p for p in self.pieces if p.reply == reply or p.start_s > now_s - _KEPT_S]
        if self._resampler is None:
            self._resampler = Resampler(self.rate_hz, self.card_rate_hz)
        data = pcm_to_bytes(self._resampler.process(pcm))
        with self._lock:
            self._waiting += data

    def clear(self, now_s: float) -> None:
        super().clear(now_s + self.latency_s)
        self._resampler = None  # what it held back is not to be heard either
        with self._lock:
            self._waiting.clear()

    def take(self, size: int) -> bytes:
        """The next `size` bytes for the card, silence where there is nothing to say. From any thread."""
        with self._lock:
            data = bytes(self._waiting[:size])
            del self._waiting[:size]
        return data + bytes(size - len(data))


class SoundCard:
    """`open` it on the event loop, `read` the microphone, play through `playout`, `close` it."""

    def __init__(self, driver: Any = None) -> None:
        """`driver`: what offers `sounddevice`'s interface. Raises ConfigError, AudioError when nothing can be heard."""
        self._driver = driver or load_driver()
        self.playout = CardPlayout()
        self._streams: list[Any] = []
        self._blocks: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._mic_rate_hz = self._rate("input", STT_RATE_HZ)
        self.playout.card_rate_hz = self._rate("output", OUTPUT_RATE_HZ)
        self._resampler = Resampler(self._mic_rate_hz, STT_RATE_HZ)
        self._closed = False

    def _rate(self, kind: str, wanted_hz: int) -> int:
        """The wanted rate where the default device takes it, else the device's own."""
        what = "microphone" if kind == "input" else "loudspeaker"
        try:
            device = self._driver.query_devices(kind=kind)
        except (self._driver.PortAudioError, ValueError) as error:
            raise AudioError(f"there is no {what} ({_short(error)}); {_INSTEAD}") from None
        check = getattr(self._driver, f"check_{kind}_settings")
        try:
            check(samplerate=wanted_hz, channels=1, dtype="int16")
        except (self._driver.PortAudioError, ValueError):
            return int(device["default_samplerate"])
        return wanted_hz

    def open(self) -> None:
        """Start recording and playing. On the event loop. Raises AudioError."""
        loop = asyncio.get_running_loop()

        def tell(block: bytes | None) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._put, block)

        def heard(data: Any, frames: int, time: Any, status: Any) -> None:
            tell(bytes(data))

        def fill(data: Any, frames: int, time: Any, status: Any) -> None:
            data[:] = self.playout.take(len(data))

        def finished() -> None:
            tell(None)

        self._start("RawOutputStream", self.playout.card_rate_hz, fill, finished)
        self.playout.latency_s = float(self._streams[-1].latency)
        self._start("RawInputStream", self._mic_rate_hz, heard, finished)

    def _start(
        self, kind: str, rate_hz: int, callback: Callable[..., None], finished: Callable[[], None]
    ) -> None:
        try:
            stream = getattr(self._driver, kind)(
                samplerate=rate_hz,
                blocksize=rate_hz * _BLOCK_MS // 1000,
                channels=1,
                dtype="int16",
                latency="low",
                callback=callback,
                finished_callback=finished,
            )
            self._streams.append(stream)
            stream.start()
        except (self._driver.PortAudioError, ValueError) as error:
            self.close()
            what = "microphone" if "Input" in kind else "loudspeaker"
            raise AudioError(f"cannot open the {what} ({_short(error)}); {_INSTEAD}") from None

    def _put(self, block: bytes | None) -> None:
        if self._closed:
            return
        if self._blocks.qsize() >= _QUEUE_BLOCKS:
            self._blocks.get_nowait()
        self._blocks.put_nowait(block)

    async def read(self) -> Pcm16:
        """The next samples at 16 kHz, shape [n]. Raises AudioError when a device is gone."""
        try:
            async with asyncio.timeout(_SILENT_S):
                block = await self._blocks.get()
        except TimeoutError:
            raise AudioError(_GONE) from None
        if block is None:
            raise AudioError(_GONE)
        return self._resampler.process(np.frombuffer(block, np.int16))

    def close(self) -> None:
        """Give the devices back. May be called twice."""
        self._closed = True
        streams, self._streams = self._streams, []
        for stream in streams:
            stream.close(ignore_errors=True)


def _short(error: Exception) -> str:
    """PortAudio's reason in one line, without its code."""
    return " ".join(str(error.args[0] if error.args else error).split())
