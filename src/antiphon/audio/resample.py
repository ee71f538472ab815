"""Changing the sample rate of mono int16 audio, streaming or in one go.

A streaming resampler holds audio back, and every millisecond of it is heard as slowness of the agent. soxr
works in blocks, so what it holds swings between a few ms and the value below; the default here is a filter
of our own that holds the same short time always. Measured with 5 ms chunks, worst case, in ms of audio:

    from -> to       auto   QQ    LQ    MQ    HQ   VHQ
     8000 -> 16000    2.5    0    61   118   115   111
    16000 ->  8000    2.5    0    61   118   115   111
    22050 -> 24000    0.9    1     1    43    42    40
    22050 -> 16000    1.3    1    22    41    40    84
    24000 -> 16000    1.3    0    20    38    37    76
    22050 ->  8000    2.5    0    44    82    80   169
    24000 ->  8000    2.5    0    40    75    73   152
    48000 -> 16000    1.3    0    20    38    37    76
    16000 -> 24000    1.3    0    20    38    37    76

QQ interpolates without a filter: a 6 kHz tone taken from 24 to 8 kHz comes back as a 2 kHz tone. `auto` is flat
to 0.875 of the lower Nyquist frequency and at least 70 dB down from 1.125 of it (3.5 and 4.5 kHz when one
side is 8 kHz): what folds back lies in the top eighth of the band, where telephone speech has nothing.

Source of the filter: the windowed-sinc polyphase method (Crochiere and Rabiner, Multirate Digital Signal
Processing, 1983; Kaiser window). Output sample n stands at the time of input sample n * from / to: nothing is
shifted, only held back. This module knows no codec, container or protocol.
"""

from __future__ import annotations

from functools import lru_cache
from math import ceil, gcd
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import soxr

from antiphon.audio.framing import Pcm16
from antiphon.errors import AudioError, suggest

QUALITIES = ("auto", "QQ", "LQ", "MQ", "HQ", "VHQ")

_HALF_WIDTH = 20
"""Input samples on each side of an output sample, at the lower of the two rates."""
_KAISER_BETA = 7.0
_COEFFICIENT_UNIT = 2.0**-22
"""Coefficients are multiples of this. Then every sum is exact in float64 (16 + 22 + 9 bits), whatever the order
in which it is added, and the result cannot depend on how the input was cut."""
_LONGEST_PERIOD = 1024
"""Pairs of rates with more phases than this (odd rates such as 44101) go to soxr."""

_FEW_PHASES = 8
"""Up to here a product per phase is faster than gathering coefficients."""
_GATHERED = 128
"""Outputs made at a time when gathering, so that a long chunk does not take 100 times its size in memory."""

Floats = npt.NDArray[np.float64]


class _Engine(Protocol):
    def process(self, pcm: Pcm16) -> Pcm16: ...
    def flush(self) -> Pcm16: ...
    def reset(self) -> None: ...


@lru_cache(maxsize=32)
def _polyphase(up: int, down: int) -> Floats:
    """Filter coefficients of shape [up, taps]: row p makes the output at p / up after an input sample."""
    half = _half_taps(up, down)
    cutoff = min(1.0, up / down)
    offset = np.arange(up)[:, None] / up + half - 1 - np.arange(2 * half)[None, :]
    taper = np.i0(_KAISER_BETA * np.sqrt(np.clip(1 - (offset / half) ** 2, 0, 1)))
    bank = np.sinc(offset * cutoff) * taper
    bank /= bank.sum(axis=1, keepdims=True)
    return np.rint(bank / _COEFFICIENT_UNIT) * _COEFFICIENT_UNIT


def _half_taps(up: int, down: int) -> int:
    return ceil(_HALF_WIDTH * max(1.0, down / up))


def _to_int16(samples: npt.NDArray[Any]) -> Pcm16:
    """Floats on the int16 scale -> int16, clipped."""
    pcm: Pcm16 = np.clip(np.rint(samples), -32768, 32767).astype(np.int16)
    return pcm


class _ShortFilter:
    """Polyphase windowed sinc. Keeps the input that later outputs still need, nothing more."""

    def __init__(self, from_hz: int, to_hz: int) -> None:
        common = gcd(from_hz, to_hz)
        self._up, self._down = to_hz // common, from_hz // common
        self._bank = _polyphase(self._up, self._down)
        self._half = _half_taps(self._up, self._down)
        self.reset()

    def reset(self) -> None:
        self._kept: Floats = np.zeros(self._half - 1)
        self._kept_from = 1 - self._half  # index of the first kept input sample
        self._taken = 0  # input samples so far
        self._given = 0  # output samples so far

    def process(self, pcm: Pcm16) -> Pcm16:
        self._taken += len(pcm)
        # Output n needs the input up to floor(n * down / up) + half.
        ready = max(0, -(-(self._taken - self._half) * self._up // self._down))
        return self._filter(pcm, ready)

    def flush(self) -> Pcm16:
        """The rest, as if silence followed. Call `reset` before the next sample."""
        total = round(self._taken * self._up / self._down)
        tail = np.zeros(self._half + 1, np.int16)
        return self._filter(tail, total)

    def _filter(self, pcm: Pcm16, ready: int) -> Pcm16:
        """Append `pcm` and make the outputs up to number `ready`."""
        signal = np.concatenate([self._kept, pcm])
        count = ready - self._given
        if count <= 0:
            self._kept = signal
            return np.empty(0, np.int16)
        windows = np.lib.stride_tricks.sliding_window_view(signal, 2 * self._half)
        out = self._products(windows, count)
        self._given = ready
        keep_from = ready * self._down // self._up - self._half + 1
        self._kept = signal[keep_from - self._kept_from :].copy()
        self._kept_from = keep_from
        return _to_int16(out)

    def _products(self, windows: Floats, count: int) -> Floats:
        """Outputs number given .. given + count; `windows` has shape [starts, taps]."""
        shift = self._kept_from + self._half - 1
        out = np.empty(count)
        if self._up > _FEW_PHASES:
            for at in range(0, count, _GATHERED):
                numbers = np.arange(self._given + at, self._given + min(at + _GATHERED, count))
                bases, phases = np.divmod(numbers * self._down, self._up)
                rows_of_input = windows[bases - shift]
                np.einsum(
                    "ij,ij->i", rows_of_input, self._bank[phases], out=out[at : at + _GATHERED]
                )
            return out
        for first in range(min(self._up, count)):
            # Outputs of one phase lie `down` input samples apart: a strided view, no gathering.
            base, phase = divmod((self._given + first) * self._down, self._up)
            rows = -(-(count - first) // self._up)
            start = base - shift
            chosen = windows[start : start + (rows - 1) * self._down + 1 : self._down]
            out[first :: self._up] = chosen @ self._bank[phase]
        return out


class _Soxr:
    """soxr's own stream. In float32, because for int16 soxr adds dither that differs from run to run."""

    def __init__(self, from_hz: int, to_hz: int, quality: str) -> None:
        self._stream = soxr.ResampleStream(from_hz, to_hz, 1, dtype="float32", quality=quality)

    def process(self, pcm: Pcm16) -> Pcm16:
        return _to_int16(self._stream.resample_chunk(pcm.astype(np.float32)))

    def flush(self) -> Pcm16:
        return _to_int16(self._stream.resample_chunk(np.empty(0, np.float32), last=True))

    def reset(self) -> None:
        self._stream.clear()


class _Identity:
    """Equal rates: the audio itself."""

    def process(self, pcm: Pcm16) -> Pcm16:
        return pcm

    def flush(self) -> Pcm16:
        return np.empty(0, np.int16)

    def reset(self) -> None:
        pass


@lru_cache(maxsize=64)
def _soxr_delay_ms(from_hz: int, to_hz: int, quality: str) -> float:
    """The most audio soxr holds back, by trial: it depends on block sizes that it does not tell."""
    engine = _Soxr(from_hz, to_hz, quality)
    chunk = np.zeros(max(1, from_hz // 200), np.int16)
    taken = given = 0
    worst_ms = 0.0
    while taken < from_hz:
        taken += len(chunk)
        given += len(engine.process(chunk))
        worst_ms = max(worst_ms, 1000 * (taken / from_hz - given / to_hz))
    return worst_ms


class Resampler:
    """Streaming mono int16 from one rate to another. Not for several threads at once.

    The result does not depend on how the input was cut, and has round(n * to / from) samples after `flush`
    (soxr qualities: within one).
    """

    def __init__(self, from_hz: int, to_hz: int, quality: str = "auto") -> None:
        """`quality`: `auto` (short delay) or soxr's QQ, LQ, MQ, HQ, VHQ. Raises AudioError for bad arguments."""
        if from_hz < 1 or to_hz < 1:
            raise AudioError(f"cannot resample from {from_hz} to {to_hz} Hz; rates are 1 or more")
        if quality not in QUALITIES:
            raise AudioError(f"unknown quality {quality!r}{suggest(quality, QUALITIES)}")
        self.from_hz = from_hz
        self.to_hz = to_hz
        self._quality = quality
        self._engine = self._make_engine()
        self._flushed = False

    def _make_engine(self) -> _Engine:
        if self.from_hz == self.to_hz:
            return _Identity()
        if self._quality != "auto":
            return _Soxr(self.from_hz, self.to_hz, self._quality)
        common = gcd(self.from_hz, self.to_hz)
        if max(self.from_hz, self.to_hz) // common > _LONGEST_PERIOD:
            self._quality = "LQ"
            return _Soxr(self.from_hz, self.to_hz, "LQ")
        return _ShortFilter(self.from_hz, self.to_hz)

    @property
    def delay_ms(self) -> float:
        """The most audio that is held back at any moment, in ms of the input."""
        if self.from_hz == self.to_hz:
            return 0.0
        if self._quality != "auto":
            return _soxr_delay_ms(self.from_hz, self.to_hz, self._quality)
        common = gcd(self.from_hz, self.to_hz)
        half = _half_taps(self.to_hz // common, self.from_hz // common)
        return 1000 * half / self.from_hz

    def process(self, pcm: Pcm16) -> Pcm16:
        """Samples of shape [n] in, those that are ready out; n may be 0. After `flush` a new stream begins."""
        if self._flushed:
            self.reset()
        if not len(pcm):
            return np.empty(0, np.int16)
        return self._engine.process(pcm)

    def flush(self) -> Pcm16:
        """What was held back. The next `process` begins a new stream."""
        if self._flushed:
            return np.empty(0, np.int16)
        self._flushed = True
        return self._engine.flush()

    def reset(self) -> None:
        """Forget what is held back: after an interruption, or where audio was left out."""
        self._engine.reset()
        self._flushed = False


def resample(pcm: Pcm16, from_hz: int, to_hz: int) -> Pcm16:
    """A whole recording of shape [n] at best quality -> shape [round(n * to / from)]."""
    if from_hz < 1 or to_hz < 1:
        raise AudioError(f"cannot resample from {from_hz} to {to_hz} Hz; rates are 1 or more")
    if from_hz == to_hz or not len(pcm):
        return pcm
    return _to_int16(soxr.resample(pcm.astype(np.float32), from_hz, to_hz, quality="VHQ"))
