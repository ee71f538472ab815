"""Ogg Opus in pieces -> int16 mono at 16 kHz at once, in the caller's thread.

Source: RFC 3533 (Ogg), RFC 7845 (Opus in it). For a peer whose other messages have their place among the pieces;
recordings of browsers, which may be anything, go through `streaming` and are decoded by another process. What is
decoded here is one kind of packet, mono or stereo: the header is read before the decoder sees it.
"""

from __future__ import annotations

import av
import numpy as np
from av.audio.codeccontext import AudioCodecContext

from antiphon.audio.framing import Pcm16, float_to_pcm, mix_to_mono
from antiphon.audio.resample import Resampler
from antiphon.errors import AudioError

_OUTPUT_HZ = 16_000
_OPUS_HZ = 48_000
_HEADER_BYTES = 27
_MAX_PACKET_BYTES = 256 << 10
_HEAD_BYTES = 19
"""Of an Opus header of mapping family 0."""


class OggOpusReader:
    """One logical stream after the other. Not for several threads at once."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._packet = bytearray()
        self._codec: AudioCodecContext | None = None
        self._resampler = Resampler(_OPUS_HZ, _OUTPUT_HZ)

    def feed(self, piece: bytes) -> Pcm16:
        """What `piece` completes, shape [n]. Raises AudioError for what is not Ogg Opus."""
        self._held += piece
        found = [np.empty(0, np.int16)]
        while (page := self._next_page()) is not None:
            for packet in self._packets(*page):
                found.append(self._decode(packet))
        return np.concatenate(found)

    def _next_page(self) -> tuple[bytes, bytes] | None:
        """Lengths of segments, and their bytes."""
        held = self._held
        if not b"OggS".startswith(held[:4]) and held[:4] != b"OggS":
            raise AudioError("this is not Ogg; send whole pages, from the header on")
        if len(held) < _HEADER_BYTES:
            return None
        body = _HEADER_BYTES + held[26]
        if len(held) < body:
            return None
        lengths = bytes(held[_HEADER_BYTES:body])
        end = body + sum(lengths)
        if len(held) < end:
            return None
        data = bytes(held[body:end])
        del held[:end]
        return lengths, data

    def _packets(self, lengths: bytes, data: bytes) -> list[bytes]:
        found: list[bytes] = []
        at = 0
        for length in lengths:
            self._packet += data[at : at + length]
            at += length
            if len(self._packet) > _MAX_PACKET_BYTES:
                raise AudioError("an Ogg packet is far too long; restart the recorder")
            if length < 255:  # the last segment of a packet
                found.append(bytes(self._packet))
                self._packet.clear()
        return found

    def _decode(self, packet: bytes) -> Pcm16:
        if packet.startswith(b"OpusHead"):
            self._codec = _decoder(packet)
            self._resampler.reset()
        if self._codec is None:
            raise AudioError("the Ogg stream does not begin with an Opus header; send it")
        if not packet or packet.startswith((b"OpusHead", b"OpusTags")):
            return np.empty(0, np.int16)
        try:
            frames = self._codec.decode(av.Packet(packet))
        except av.FFmpegError as error:
            raise AudioError(f"an Opus packet cannot be decoded: {error}") from None
        found = [np.empty(0, np.int16)]
        for frame in frames:
            found.append(self._resampler.process(_mono(frame)))
        return np.concatenate(found)


def _decoder(head: bytes) -> AudioCodecContext:
    """Raises AudioError for all but mono and stereo: what a microphone sends, and what the decoder is safe with."""
    if len(head) < _HEAD_BYTES or head[18] != 0 or head[9] not in (1, 2):
        channels = head[9] if len(head) > 9 else 0
        raise AudioError(
            f"the Opus header announces {channels} channels in a mapping of its own; send mono or stereo"
        )
    try:
        codec = av.CodecContext.create("opus", "r")
        codec.extradata = head[:_HEAD_BYTES]
    except (av.FFmpegError, ValueError) as error:
        raise AudioError(f"the Opus header cannot be read: {error}") from None
    assert isinstance(codec, AudioCodecContext)
    return codec


def _mono(frame: av.AudioFrame) -> Pcm16:
    """FFmpeg's decoder gives floats, each channel for itself."""
    if frame.layout.nb_channels > 2:
        raise AudioError("an Opus packet has more than two channels; send mono or stereo")
    return mix_to_mono(float_to_pcm(np.asarray(frame.to_ndarray(), np.float32).T))
