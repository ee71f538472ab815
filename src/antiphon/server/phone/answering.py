"""Has a person taken the call, or a machine? Told from how the greeting sounds and what it says.

People say a word or two and wait; machines speak for seconds, ask for a message, and beep. `judge` is a pure function
of what was heard so far; `BeepFinder` looks for the tone. Times are milliseconds since the call was taken. Knows no
session and no carrier.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from antiphon.audio.framing import Framer, Pcm16

LONG_GREETING_MS = 4_000
"""People do not speak so long before they wait for an answer."""
_SHORT_GREETING_MS = 2_500
_WAITS_MS = 1_200
"""A person who has said hello is silent for so long."""
_BREATH_MS = 900
"""Shorter pauses belong to the greeting."""
_LISTEN_MS = 30_000
"""What is said later is a conversation."""

_MACHINE_WORDS = re.compile(
    r"leave (?:us |me )?(?:a|your|an?y?) (?:\w+ )?(?:message|name)|(?:after|at) the (?:tone|beep|signal)"
    r"|you(?:'ve| have) reached|voice ?mail|answering machine|mail ?box"
    r"|(?:not|n't|un)\s?(?:be )?(?:available|able to (?:take|answer))|(?:can't|cannot) (?:take|answer|come)"
    r"|record your message|at the sound of|press (?:one|1|pound|star)|please hold"
    r"|nach dem (?:signal|ton|piep)|nachricht hinterlassen|laissez un message|deje (?:su|un) mensaje"
)


class Answerer(StrEnum):
    UNKNOWN = "unknown"
    """Not yet, or not at all."""
    HUMAN = "human"
    MACHINE = "machine"


@dataclass(frozen=True, slots=True)
class Heard:
    """All that is known of the other side."""

    now_ms: int
    speech: Sequence[tuple[int, int]] = ()
    """Stretches of speech, start and end, in order; the last one may still go on (its end is now)."""
    words: str = ""
    beep: bool = False


@dataclass(frozen=True, slots=True)
class Judgement:
    who: Answerer
    why: str = ""


def judge(heard: Heard) -> Judgement:
    """The best guess at this moment. `UNKNOWN` while it may become either."""
    if heard.beep:
        return Judgement(Answerer.MACHINE, "a beep")
    said = _MACHINE_WORDS.search(" ".join(heard.words.lower().replace("’", "'").split()))
    if said is not None:
        return Judgement(Answerer.MACHINE, f"it says {said[0]!r}")
    first = _first_utterance(heard.speech)
    if first is None:
        return Judgement(Answerer.UNKNOWN, "nobody has spoken yet")
    length_ms, quiet_ms = first[1] - first[0], heard.now_ms - first[1]
    if length_ms > LONG_GREETING_MS and first[0] < _LISTEN_MS:
        return Judgement(Answerer.MACHINE, f"a greeting of {length_ms / 1000:.1f} s")
    if length_ms <= _SHORT_GREETING_MS and quiet_ms >= _WAITS_MS:
        return Judgement(Answerer.HUMAN, "a short greeting, then silence")
    return Judgement(Answerer.UNKNOWN, "a greeting of middle length")


def _first_utterance(speech: Sequence[tuple[int, int]]) -> tuple[int, int] | None:
    """With the pauses for breath in it."""
    if not speech:
        return None
    start_ms, end_ms = speech[0]
    for next_start_ms, next_end_ms in speech[1:]:
        if next_start_ms - end_ms >= _BREATH_MS:
            break
        end_ms = next_end_ms
    return start_ms, end_ms


# --- the beep ---------------------------------------------------------------------------------------

_WINDOW_MS = 32
_LEAST_MS = 160
_MOST_MS = 1_500
_BAND_HZ = (350.0, 2_200.0)
_PURE = 0.85
"""Share of the energy within one spectral line and its neighbours: a voice has a dozen harmonics, a beep has one."""
_LOUD_RMS = 200.0
_STEADY_HZ = 45.0


class BeepFinder:
    """A steady pure tone of 0.16 to 1.5 s that ends. Feed it the line's audio as it comes."""

    def __init__(self, rate_hz: int) -> None:
        self._rate_hz = rate_hz
        self._framer = Framer(rate_hz * _WINDOW_MS // 1000)
        self._window = np.hanning(rate_hz * _WINDOW_MS // 1000)
        self._tone_hz = 0.0
        self._length_ms = 0

    def feed(self, pcm: Pcm16) -> bool:
        """-> whether a beep has ended in it."""
        found = False
        for frame in self._framer.feed(pcm):
            found = self._step(self._pitch(frame)) or found
        return found

    def _step(self, pitch_hz: float) -> bool:
        if pitch_hz and (not self._tone_hz or abs(pitch_hz - self._tone_hz) <= _STEADY_HZ):
            self._tone_hz = self._tone_hz or pitch_hz
            self._length_ms += _WINDOW_MS
            return False
        ended = _LEAST_MS <= self._length_ms <= _MOST_MS
        self._tone_hz, self._length_ms = pitch_hz, _WINDOW_MS if pitch_hz else 0
        return ended

    def _pitch(self, frame: Pcm16) -> float:
        """Of a pure tone in the band of beeps; 0 for anything else."""
        samples = frame.astype(np.float64)
        if np.sqrt(np.mean(samples**2)) < _LOUD_RMS:
            return 0.0
        power = np.abs(np.fft.rfft(samples * self._window)) ** 2
        peak = int(np.argmax(power))
        pitch_hz = peak * self._rate_hz / len(frame)
        line = float(power[max(peak - 2, 0) : peak + 3].sum())
        pure = line >= _PURE * float(power.sum())
        return pitch_hz if pure and _BAND_HZ[0] <= pitch_hz <= _BAND_HZ[1] else 0.0
