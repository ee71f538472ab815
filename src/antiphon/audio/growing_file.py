"""Audio files that grow while a call lasts, and are whole at every moment: WAV, FLAC, Opus in Ogg.

What has been written stays readable when the process dies: WAV has its sizes corrected with every piece, the other two
are streams of packets by nature. Not for several threads at once; blocking.
"""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import av
import av.error
import numpy as np
import numpy.typing as npt

from antiphon.audio.encoding import wav_header
from antiphon.audio.framing import Pcm16
from antiphon.errors import AudioError
from antiphon.files import open_private

GrowingFormat = Literal["opus", "flac", "wav"]
EXTENSIONS: dict[GrowingFormat, str] = {"opus": ".opus", "flac": ".flac", "wav": ".wav"}
_CODECS = {"opus": ("ogg", "libopus"), "flac": ("flac", "flac")}
_OPTIONS = {"ogg": {"page_duration": "200000", "flush_packets": "1"}, "flac": {}}
_BITS_PER_CHANNEL = 32_000


class GrowingFile:
    """One file, made at once and readable by its owner only. `write` as often as wanted, then `close`.

    Raises OSError when the file cannot be made or a piece not be written.
    """

    def __init__(self, path: Path, fmt: GrowingFormat, rate_hz: int, channels: int = 1) -> None:
        """`rate_hz`: for opus one of 8, 12, 16, 24 or 48 kHz."""
        self._rate_hz, self._channels = rate_hz, channels
        self._file = os.fdopen(open_private(path, os.O_RDWR | os.O_TRUNC), "w+b")
        self._bytes = 0
        self._frames = 0
        self._container: Any = None
        try:
            if fmt == "wav":
                self._file.write(wav_header(rate_hz, 0, channels))
                self._file.flush()
            else:
                self._open_encoder(*_CODECS[fmt])
        except BaseException:
            self._file.close()
            raise

    def _open_encoder(self, muxer: str, codec: str) -> None:
        self._container = av.open(self._file, "w", format=muxer, options=_OPTIONS[muxer])
        self._stream: Any = self._container.add_stream(codec, rate=self._rate_hz)
        self._stream.layout = "mono" if self._channels == 1 else "stereo"
        if codec == "libopus":
            self._stream.bit_rate = _BITS_PER_CHANNEL * self._channels

    def write(self, pcm: Pcm16) -> None:
        """Samples of shape [n] for one channel, [n, channels] for more. On the disk when it returns."""
        if not len(pcm):
            return
        if self._container is None:
            self._write_wav(np.ascontiguousarray(pcm, "<i2").tobytes())
        else:
            frame = av.AudioFrame.from_ndarray(
                np.ascontiguousarray(pcm).reshape(1, -1), format="s16", layout=self._stream.layout
            )
            frame.sample_rate, frame.pts = self._rate_hz, self._frames
            frame.time_base = Fraction(1, self._rate_hz)
            self._container.mux(self._stream.encode(frame))
        self._frames += len(pcm)
        self._file.flush()

    def _write_wav(self, data: bytes) -> None:
        self._file.write(data)
        self._bytes += len(data)
        self._file.seek(0)
        self._file.write(wav_header(self._rate_hz, self._bytes, self._channels))
        self._file.seek(0, os.SEEK_END)

    def close(self) -> None:
        """What the encoder holds back is written."""
        try:
            if self._container is not None:
                container, self._container = self._container, None
                if self._frames:
                    container.mux(self._stream.encode(None))
                    container.close()
        finally:
            self._file.close()


def read_sides(path: Path, rate_hz: int) -> tuple[Pcm16, Pcm16]:
    """A two-channel recording -> left and right at `rate_hz`. Raises AudioError.

    A file that breaks off gives what is there.
    """
    parts: list[npt.NDArray[Any]] = []
    try:
        with av.open(str(path)) as container:
            if not container.streams.audio or container.streams.audio[0].channels != 2:
                raise AudioError(f"{path} is no recording of a call: it needs two channels")
            resampler = av.AudioResampler(format="s16", layout="stereo", rate=rate_hz)
            try:
                for frame in container.decode(audio=0):
                    parts += [found.to_ndarray() for found in resampler.resample(frame)]
            except av.error.InvalidDataError:
                pass
            parts += [found.to_ndarray() for found in resampler.resample(None)]
    except (OSError, av.error.FFmpegError) as error:
        raise AudioError(f"cannot read {path}: {error.strerror or error}") from None
    samples: npt.NDArray[np.int16] = np.concatenate([np.empty((1, 0), np.int16), *parts], axis=1)
    return samples[0, 0::2].copy(), samples[0, 1::2].copy()
