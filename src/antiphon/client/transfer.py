"""The microphone on its way to the server: raw samples, or Opus in Ogg; and how much smaller that is.

Opus pages leave every 20 ms, and a decoder is 28 ms behind the microphone (measured with `StreamEncoder` at 16 kHz).
Knows no connection.
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from antiphon.audio.encoding import StreamEncoder
from antiphon.audio.framing import pcm_to_bytes
from antiphon.errors import ConfigError, suggest
from antiphon.models.ports import Pcm16

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
