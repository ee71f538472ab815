"""PCM as the rest of the server wants it: whole samples, mono, int16, windows of a fixed size.

Audio inside the server is always a NumPy array of int16 of shape [samples]. What arrives are bytes cut
anywhere, floats and several channels; this module is the only place that knows how to go from those to
this. It knows no sample rate, no container and no protocol.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from antiphon.errors import AudioError, suggest

Pcm16 = npt.NDArray[np.int16]
"""Mono signed 16-bit samples, shape [samples]."""

SampleFormat = Literal["s16le", "f32le"]

_SAMPLE_BYTES: dict[str, int] = {"s16le": 2, "f32le": 4}


def pcm_from_bytes(data: bytes | bytearray | memoryview) -> Pcm16:
    """Whole little-endian 16-bit samples -> array of shape [len(data) / 2], without a copy.

    Raises AudioError for an odd number of bytes; pieces of a stream go through `ByteJoiner`.
    """
    if len(data) % 2:
        raise AudioError(
            f"{len(data)} bytes are not whole 16-bit samples; send an even number of bytes"
        )
    return np.frombuffer(data, dtype="<i2").astype(np.int16, copy=False)


def pcm_to_bytes(pcm: Pcm16) -> bytes:
    """Array of shape [n] -> 2 n bytes, little-endian."""
    return pcm.astype("<i2", copy=False).tobytes()


def float_to_pcm(samples: npt.NDArray[np.floating]) -> Pcm16:
    """Floats of -1..1 -> int16, same shape. Beyond the range is clipped; NaN becomes silence.

    The scale is 32768, so that int16 -> float -> int16 is exact.
    """
    scaled = np.clip(np.nan_to_num(samples, nan=0.0), -1.0, 1.0) * 32768.0
    pcm: Pcm16 = np.minimum(np.rint(scaled), 32767).astype(np.int16)
    return pcm


def pcm_to_float(pcm: Pcm16) -> npt.NDArray[np.float32]:
    """int16 -> float32 of -1..1, same shape."""
    return pcm.astype(np.float32) / np.float32(32768.0)


def mix_to_mono(channels: Pcm16) -> Pcm16:
    """Samples of shape [samples, channels] (or [samples]) -> the mean of the channels, shape [samples]."""
    if channels.ndim == 1:
        return channels
    if channels.shape[1] == 1:
        return channels[:, 0]
    mono: Pcm16 = np.rint(channels.mean(axis=1, dtype=np.float64)).astype(np.int16)
    return mono


class ByteJoiner:
    """Bytes cut anywhere -> whole samples. The incomplete sample at the end waits for the next piece."""

    def __init__(self, sample_format: SampleFormat = "s16le") -> None:
        if sample_format not in _SAMPLE_BYTES:
            hint = suggest(sample_format, _SAMPLE_BYTES)
            raise AudioError(f"unknown sample format {sample_format!r}{hint}")
        self._sample_format = sample_format
        self._sample_bytes = _SAMPLE_BYTES[sample_format]
        self._rest = b""

    def feed(self, piece: bytes) -> Pcm16:
        """The samples that `piece` completes, shape [n], n may be 0."""
        data = self._rest + piece if self._rest else piece
        odd = len(data) % self._sample_bytes
        self._rest = data[len(data) - odd :] if odd else b""
        count = len(data) // self._sample_bytes
        if self._sample_format == "f32le":
            return float_to_pcm(np.frombuffer(data, dtype="<f4", count=count))
        return np.frombuffer(data, dtype="<i2", count=count).astype(np.int16, copy=False)

    def reset(self) -> None:
        """Forget the incomplete sample: what comes next starts a new stream."""
        self._rest = b""


class Framer:
    """Chunks of any length -> windows of exactly `frame_samples`.

    A window that lies within one chunk is a view of that chunk. One that spans chunks is collected in a buffer
    allocated beforehand, which is then given away, so that no window is ever overwritten.
    """

    def __init__(self, frame_samples: int) -> None:
        if frame_samples < 1:
            raise AudioError(f"a frame of {frame_samples} samples is too short; use 1 or more")
        self.frame_samples = frame_samples
        self._partial: Pcm16 = np.empty(frame_samples, np.int16)
        self._filled = 0

    def feed(self, chunk: Pcm16) -> list[Pcm16]:
        """Windows completed by `chunk`, in order, each of shape [frame_samples]."""
        size = self.frame_samples
        windows: list[Pcm16] = []
        at = 0
        if self._filled:
            at = min(size - self._filled, len(chunk))
            self._partial[self._filled : self._filled + at] = chunk[:at]
            self._filled += at
            if self._filled < size:
                return windows
            windows.append(self._partial)
            self._partial = np.empty(size, np.int16)
            self._filled = 0
        whole = at + (len(chunk) - at) // size * size
        windows.extend(chunk[start : start + size] for start in range(at, whole, size))
        self._filled = len(chunk) - whole
        self._partial[: self._filled] = chunk[whole:]
        return windows

    @property
    def missing(self) -> int:
        """Samples that complete the next window, 1..frame_samples."""
        return self.frame_samples - self._filled

    @property
    def remainder(self) -> Pcm16:
        """A copy of the samples that wait for the rest of their window, shape [0..frame_samples - 1]."""
        return self._partial[: self._filled].copy()

    def reset(self) -> None:
        """Drop the remainder."""
        self._filled = 0
