"""The microphone of `antiphon talk`: its level, the end of the caller's speech, and how audio goes to the server.

Opus pages leave every 20 ms, and a decoder is 28 ms behind the microphone (measured with `StreamEncoder` at 16 kHz).
"""

from __future__ import annotations

import ipaddress
from collections import deque
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import numpy as np

from antiphon.audio.encoding import StreamEncoder
from antiphon.audio.framing import pcm_to_bytes
from antiphon.audio.levels import dbfs, rms, speech_end_sample
from antiphon.errors import ConfigError, suggest
from antiphon.models.ports import Pcm16

_KEPT_S = 180.0
"""Longer than an answer and the question before it."""


@dataclass(frozen=True, slots=True)
class _Block:
    pcm: Pcm16
    first: int
    """Index of its first sample since the start."""
    end_s: float
    """When its last sample was there; late by what the system took to say so."""


@dataclass(slots=True)
class MicTrack:
    rate_hz: int
    start_s: float | None = None
    """When the first sample was recorded."""
    _blocks: deque[_Block] = field(default_factory=deque)
    _samples: int = 0

    def add(self, pcm: Pcm16, end_s: float) -> None:
        """Samples of shape [n], the last of them recorded at `end_s`."""
        if self.start_s is None:
            self.start_s = end_s - len(pcm) / self.rate_hz
        self._blocks.append(_Block(pcm, self._samples, end_s))
        self._samples += len(pcm)
        while self._blocks[0].end_s < end_s - _KEPT_S:
            self._blocks.popleft()

    @property
    def level_db(self) -> float:
        """RMS of the last block in dB below full scale; -inf for silence."""
        return dbfs(rms(self._blocks[-1].pcm)) if self._blocks else float("-inf")

    def speech_end_s(self, from_s: float, to_s: float) -> float | None:
        """When the last speech between two times ended, acoustically; None where nothing stands out."""
        blocks = [b for b in self._blocks if from_s < b.end_s <= to_s]
        if not blocks:
            return None
        # A block is never early: the least late one of them tells when the first sample was recorded.
        late = min(b.end_s - (b.first + len(b.pcm)) / self.rate_hz for b in blocks)
        end = speech_end_sample(np.concatenate([b.pcm for b in blocks]), self.rate_hz)
        return None if end is None else late + (blocks[0].first + end) / self.rate_hz


CODECS = ("opus", "pcm")
_BITRATE_KBPS = 24
"""Speech at 16 kHz loses nothing that speech to text needs; with Ogg's headers a seventh of raw PCM."""


class Transfer:
    """What is sent for what was recorded, counted. Not for several threads at once."""

    def __init__(self, codec: str, rate_hz: int) -> None:
        """`codec`: one of `CODECS`. Raises ConfigError for another."""
        check_codec(codec)
        self.codec = codec
        self.recorded_bytes = 0
        """As 16-bit PCM."""
        self.sent_bytes = 0
        self._encoder = StreamEncoder("opus", rate_hz, _BITRATE_KBPS) if codec == "opus" else None

    @property
    def format(self) -> str:
        """As `start` announces it."""
        return "auto" if self._encoder is not None else "pcm_s16le"

    def pack(self, pcm: Pcm16) -> bytes:
        """Samples of shape [n] -> the bytes to send now; may be none yet."""
        data = pcm_to_bytes(pcm) if self._encoder is None else self._encoder.encode(pcm)
        self.recorded_bytes += 2 * len(pcm)
        self.sent_bytes += len(data)
        return data

    @property
    def ratio(self) -> float | None:
        """How many times smaller than PCM what was sent is; None before anything was."""
        return self.recorded_bytes / self.sent_bytes if self.sent_bytes else None


def check_codec(codec: str) -> None:
    """Raises ConfigError for a codec that a live microphone cannot use."""
    if codec == "mp3":
        raise ConfigError(
            "the server cannot read MP3 while it is being spoken; use --codec opus, which is smaller and sooner there"
        )
    if codec not in CODECS:
        raise ConfigError(f"unknown codec {codec!r}{suggest(codec, CODECS)}")


def codec_for(url: str) -> str:
    """Opus over a network, raw samples to this machine."""
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return "pcm"
    try:
        return "pcm" if ipaddress.ip_address(host).is_loopback else "opus"
    except ValueError:
        return "opus"
