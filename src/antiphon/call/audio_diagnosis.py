"""What is wrong with a caller's audio: too quiet, clipped, off centre, or not the encoding or rate it was said to be.

Measured by the second, so that it costs nothing per packet. Says what it finds; whether the client is told is the
call's business. The bands are those of the talk backend (`audio/levels.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from antiphon.audio import g711
from antiphon.audio.framing import pcm_to_bytes
from antiphon.audio.levels import LevelBand, band_of, dbfs, looks_like_wrong_encoding, rms
from antiphon.models.ports import Pcm16

_BLOCK_MS = 1_000
_FRAME_MS = 20
_SILENT_RMS = 10.0
_SOUND_RMS = 200.0
"""A second below this is too quiet to judge its encoding by."""
_LEVELS = 100
"""Bins of the level histogram, one per dB below full scale."""
_ABOVE_FLOOR_DB = 10
_SILENT_AFTER_S = 10
_CLIPPED_SHARE = 0.02
_CLIPPED_S = 3
_ENCODING_TRIALS = 6
_ENCODING_VOTES = 2
_STEADY_S = 4
"""Seconds of even delivery before a wrong rate is believed."""
_EVEN = 0.08
_WRONG_RATES = (0.25, 1 / 3, 0.5, 2.0, 3.0, 4.0, 6.0)
_FLOAT_SHARE = 0.9

ADVICE: Mapping[str, str] = {
    "audio_silent": "your audio is silent: check that the microphone is on, allowed and the right one",
    "audio_clipped": "your audio is clipped: lower the microphone's level",
    "audio_encoding": "your audio is noise as {declared}; it looks like {likely}: announce the encoding that you send",
    "audio_rate": "your audio comes at about {factor:.2g} times the announced rate of {rate_hz} Hz: announce the rate "
    "that you send",
}
"""Code of a warning -> what the client is told."""


@dataclass(frozen=True, slots=True)
class AudioReport:
    """A call's incoming audio in figures. Plain values, fit for a log line."""

    seconds: float = 0.0
    rate_hz: int = 0
    """As it came."""
    rms: float = 0.0
    """Of what stands out of the background, on the int16 scale; of everything, where nothing does."""
    dbfs: float = -100.0
    peak: int = 0
    band: str = LevelBand.SILENCE.value
    clipped_share: float = 0.0
    silence_share: float = 0.0
    """20 ms pieces with an RMS below 10."""
    dc_offset: float = 0.0
    """Mean of all samples, on the int16 scale."""
    wrong_encoding: str = ""
    """What it looks like, when that is not what it was said to be."""
    rate_factor: float = 1.0
    """Rate by the clock over the announced rate, where they are certain to differ."""

    def fields(self) -> dict[str, str | int | float]:
        """For a log line, a span or JSON."""
        return {
            name: round(value, 4) if isinstance(value, float) else value
            for name, value in asdict(self).items()
        }

    def sentence(self) -> str:
        """For people."""
        if not self.seconds:
            return "no audio came"
        words = (
            f"{self.band}, RMS {self.rms:.0f} ({self.dbfs:.0f} dBFS), {100 * self.clipped_share:.2g} % clipped, "
            f"{100 * self.silence_share:.0f} % silent, {self.seconds:.1f} s at {self.rate_hz} Hz"
        )
        if self.wrong_encoding:
            words += f"; looks like {self.wrong_encoding}"
        if self.rate_factor != 1.0:
            words += f"; comes at {self.rate_factor:.2g} times its rate"
        return words


class Diagnosis:
    """Of one call. `feed` what comes; it answers with the code of a warning, each at most once."""

    def __init__(self) -> None:
        self._pieces: list[Pcm16] = []
        self._held = 0
        self._rate_hz = 0
        self._seconds = 0.0
        self._samples = self._clipped = 0
        self._sum = 0.0
        self._peak = 0
        self._counts = np.zeros(_LEVELS, np.int64)
        self._energies = np.zeros(_LEVELS)
        self._silent_frames = 0
        self._clipped_blocks = 0
        self._sound = False
        self._trials = 0
        self._votes: dict[str, int] = {}
        self._declared = self._likely = ""
        self._clock = _RateClock()
        self._said: set[str] = set()

    def feed(self, pcm: Pcm16, rate_hz: int, now_ms: int) -> str:
        """-> the message of a warning that is due, or an empty string."""
        if rate_hz != self._rate_hz:
            self._measure()
            self._rate_hz, self._clock = rate_hz, _RateClock()
        self._pieces.append(pcm)
        self._held += len(pcm)
        self._clock.arrived(len(pcm), rate_hz, now_ms)
        if self._held < rate_hz * _BLOCK_MS // 1000:
            return ""
        self._measure()
        return self._warning()

    def report(self) -> AudioReport:
        """All that was heard so far."""
        self._measure()
        level = self._level()
        return AudioReport(
            seconds=self._seconds,
            rate_hz=self._rate_hz,
            rms=level,
            dbfs=max(dbfs(level), -100.0),
            peak=self._peak,
            band=band_of(level).value,
            clipped_share=self._clipped / self._samples if self._samples else 0.0,
            silence_share=self._silent_frames / max(int(self._counts.sum()), 1),
            dc_offset=self._sum / self._samples if self._samples else 0.0,
            wrong_encoding=self._likely,
            rate_factor=self._clock.factor,
        )

    # -- measuring ----------------------------------------------------------------------------------

    def _measure(self) -> None:
        if not self._held:
            return
        pcm = np.concatenate(self._pieces)
        self._pieces, self._held = [], 0
        self._seconds += len(pcm) / self._rate_hz
        self._samples += len(pcm)
        self._sum += float(pcm.sum(dtype=np.int64))
        self._peak = max(self._peak, int(pcm.max()), -int(pcm.min()))
        clipped = int(np.count_nonzero((pcm >= 32767) | (pcm <= -32767)))
        self._clipped += clipped
        self._clipped_blocks += clipped > _CLIPPED_SHARE * len(pcm)
        self._count_frames(pcm)
        if not self._likely and self._trials < _ENCODING_TRIALS and rms(pcm) > _SOUND_RMS:
            self._try_encoding(pcm)

    def _count_frames(self, pcm: Pcm16) -> None:
        frame = max(self._rate_hz * _FRAME_MS // 1000, 1)
        usable = len(pcm) // frame * frame
        if not usable:
            return
        power = np.mean(pcm[:usable].reshape(-1, frame).astype(np.float32) ** 2, axis=1)
        silent = power < _SILENT_RMS**2
        self._silent_frames += int(np.count_nonzero(silent))
        self._sound = self._sound or not bool(silent.all())
        below_db = -10 * np.log10(np.maximum(power, 1e-3) / 32768.0**2)
        bins = np.clip(below_db, 0, _LEVELS - 1).astype(np.int64)
        self._counts += np.bincount(bins, minlength=_LEVELS)
        self._energies += np.bincount(bins, weights=power, minlength=_LEVELS)

    def _level(self) -> float:
        """RMS of the pieces 10 dB above the background, the quietest tenth; of all where there are none."""
        total = int(self._counts.sum())
        if not total:
            return 0.0
        quietest_first = np.cumsum(self._counts[::-1])
        floor = _LEVELS - 1 - int(np.searchsorted(quietest_first, total / 10))
        loud = slice(0, max(floor - _ABOVE_FLOOR_DB, 0))
        if not self._counts[loud].sum():
            loud = slice(0, _LEVELS)
        return float(np.sqrt(self._energies[loud].sum() / self._counts[loud].sum()))

    def _try_encoding(self, pcm: Pcm16) -> None:
        self._trials += 1
        self._declared = declared = _declared(pcm)
        encode = {"mulaw": g711.encode_ulaw, "alaw": g711.encode_alaw}.get(declared, pcm_to_bytes)
        data = encode(pcm)
        likely = _floats(data) if declared == "pcm_s16le" else ""
        likely = likely or looks_like_wrong_encoding(data, declared)
        if likely:
            self._votes[likely] = self._votes.get(likely, 0) + 1
            if self._votes[likely] >= _ENCODING_VOTES:
                self._likely = likely

    # -- warning ------------------------------------------------------------------------------------

    def _warning(self) -> str:
        code = self._code()
        if not code or code in self._said:
            return ""
        self._said.add(code)
        return ADVICE[code].format(
            declared=self._declared,
            likely=self._likely,
            factor=self._clock.factor,
            rate_hz=self._rate_hz,
        )

    def _code(self) -> str:
        if self._likely:
            return "audio_encoding"
        if self._clock.factor != 1.0:
            return "audio_rate"
        if self._clipped_blocks >= _CLIPPED_S:
            return "audio_clipped"
        if not self._sound and self._seconds >= _SILENT_AFTER_S:
            return "audio_silent"
        return ""


def _declared(pcm: Pcm16) -> str:
    """How it was read: G.711 knows 256 values only, and no PCM keeps to them by chance."""
    for name, known in _COMPANDED.items():
        if bool(known[pcm.view(np.uint16)].all()):
            return name
    return "pcm_s16le"


def _known(values: Pcm16) -> npt.NDArray[np.bool_]:
    """Which of all 65,536 samples are among `values`; asked per second of audio, so it is a table."""
    known = np.zeros(65_536, np.bool_)
    known[values.view(np.uint16)] = True
    return known


_COMPANDED = {
    "mulaw": _known(g711.decode_ulaw(bytes(range(256)))),
    "alaw": _known(g711.decode_alaw(bytes(range(256)))),
}


def _floats(data: bytes) -> str:
    """32-bit floats between -1 and 1, read as pairs of samples? Of PCM, hardly any pair looks like one."""
    values = np.frombuffer(data, "<f4", count=len(data) // 4)
    with np.errstate(invalid="ignore"):
        sizes = np.abs(values)
        likely = (sizes <= 1.0) & (sizes > 1e-7)
    return "pcm_f32le" if len(values) and np.mean(likely) > _FLOAT_SHARE else ""


class _RateClock:
    """Audio per second of clock. Only even delivery counts: what comes in bursts says nothing of its rate."""

    def __init__(self) -> None:
        self.factor = 1.0
        self._since_ms: int | None = None
        self._samples = 0
        self._factors: list[float] = []

    def arrived(self, samples: int, rate_hz: int, now_ms: int) -> None:
        if self._since_ms is None:
            self._since_ms = now_ms
            return  # what it brought was said before
        self._samples += samples
        elapsed_ms = now_ms - self._since_ms
        if elapsed_ms < 1_000:
            return
        self._factors = [*self._factors, self._samples * 1000 / elapsed_ms / rate_hz][-_STEADY_S:]
        self._since_ms, self._samples = now_ms, 0
        if len(self._factors) < _STEADY_S or self.factor != 1.0:
            return
        for wrong in _WRONG_RATES:
            if all(abs(factor / wrong - 1) < _EVEN for factor in self._factors):
                self.factor = wrong
