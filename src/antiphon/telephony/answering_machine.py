"""Whether a person or a machine has taken a call that we made, and what to do when it was a machine.

People say a word or two and wait; machines speak for seconds, ask for a message, and beep. `judge` is a pure function
of what was heard so far; `BeepFinder` looks for the tone. Times are milliseconds since the call was taken.

`answering_machine.py` judges; this module collects what it needs from a call, and acts.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from antiphon.audio.framing import Framer, Pcm16
from antiphon.call.call import Call
from antiphon.core import actions as act
from antiphon.core import events as ev
from antiphon.models.ports import STT_RATE_HZ

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
class GreetingFeatures:
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


def judge(heard: GreetingFeatures) -> Judgement:
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


log = logging.getLogger(__name__)

_SPEECH = 0.5
_GAP_MS = 200
"""Shorter holes in speech are none."""
_LEAST_SPEECH_MS = 96
_QUIET_MS = 2_500
"""A machine without a beep is ready for the message after so much silence."""
_GREETING_LIMIT_MS = 45_000


class GreetingWatch:
    """Of one call. `message`: left after the beep; empty: the call is ended. `told`: once, that it is a machine."""

    def __init__(self, call: Call, message: str, told: Callable[[], None]) -> None:
        self.who = Answerer.UNKNOWN
        self._message = message
        self._told = told
        self._speech: list[tuple[int, int]] = []
        self._words: dict[str, str] = {}
        self._beeps = BeepFinder(STT_RATE_HZ)
        self._beep = False
        self._at_ms = 0
        self._over = False
        call.observe(self._observe)

    def _observe(self, call: Call, event: ev.Event | None, out: list[act.Action]) -> None:
        if self._over:
            return
        for action in out:
            if isinstance(action, act.Transcript):
                self._words[action.item] = action.text
        if isinstance(event, ev.VadScored):
            self._hear(call, event)
            self._decide(call)

    def _hear(self, call: Call, event: ev.VadScored) -> None:
        pcm = call.heard_audio(self._at_ms, event.end_ms)
        start_ms, self._at_ms = self._at_ms, event.end_ms
        self._beep = self._beeps.feed(pcm) or self._beep
        if event.probability < _SPEECH:
            return
        if self._speech and start_ms - self._speech[-1][1] <= _GAP_MS:
            self._speech[-1] = (self._speech[-1][0], event.end_ms)
        else:
            self._speech.append((start_ms, event.end_ms))

    def _decide(self, call: Call) -> None:
        if self.who is Answerer.MACHINE:
            self._wait_for_beep(call)
            return
        speech = [s for s in self._speech if s[1] - s[0] >= _LEAST_SPEECH_MS]
        found = judge(
            GreetingFeatures(self._at_ms, speech, " ".join(self._words.values()), self._beep)
        )
        self.who = found.who
        if found.who is Answerer.MACHINE:
            log.info("call %s: an answering machine: %s", call.call_id, found.why)
            self._told()
            self._silence(call)
            self._wait_for_beep(call)
        elif found.who is Answerer.HUMAN or self._at_ms > _LISTEN_MS:
            self._over = True

    def _silence(self, call: Call) -> None:
        """The machine is not answered."""
        if not self._message:
            self._over = True
            call.post(ev.Finish("an answering machine"))
            return
        policy = call.view.policy
        call.post(ev.Configure(replace(policy, auto_reply=False, idle_prompt_after_ms=0)))
        call.post(ev.RequestCancel())

    def _wait_for_beep(self, call: Call) -> None:
        if self._over:
            return
        quiet_ms = self._at_ms - (self._speech[-1][1] if self._speech else 0)
        if self._beep or quiet_ms >= _QUIET_MS or self._at_ms > _GREETING_LIMIT_MS:
            self._over = True
            call.post(ev.Finish("left a message", say_goodbye=True, text=self._message))
