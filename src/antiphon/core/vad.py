"""Speech probabilities in, speech start / pause / resume out: hysteresis and nothing else.

Everything is counted on the audio clock (milliseconds of the user's audio), so the answers do not depend on how the
audio was delivered.
"""

from __future__ import annotations

from enum import Enum, auto


class VadChange(Enum):
    START = auto()
    """Speech began; `onset_ms` says when."""
    PAUSE = auto()
    """Credible silence after speech; `voiced_until_ms` says since when."""
    RESUME = auto()
    """Speech went on after a pause."""


class SpeechDetector:
    """Feed windows in order. Between START and `reset()` it reports pauses and resumptions of one utterance."""

    def __init__(self) -> None:
        self.onset_ms = 0
        self.voiced_until_ms = 0
        self.heard_ms = 0
        self.in_speech = False
        """An utterance is under way (paused or not)."""
        self.paused = False
        self._run_start_ms: int | None = None

    def feed(
        self,
        probability: float,
        end_ms: int,
        *,
        start: float,
        stop: float,
        min_speech_ms: int,
        pause_ms: int,
    ) -> VadChange | None:
        """One window that ends at `end_ms` of the user's audio, with thresholds as they stand now."""
        begin_ms, self.heard_ms = self.heard_ms, end_ms
        if probability >= start:
            if self._run_start_ms is None:
                self._run_start_ms = begin_ms
        elif probability < stop:
            self._run_start_ms = None
        run_ms = 0 if self._run_start_ms is None else end_ms - self._run_start_ms
        if not self.in_speech:
            return self._begin(min_speech_ms, run_ms)
        if self.paused:
            return self._resume(min_speech_ms, run_ms)
        if self._run_start_ms is not None:
            self.voiced_until_ms = end_ms
            return None
        if end_ms - self.voiced_until_ms >= max(pause_ms, 1):
            self.paused = True
            return VadChange.PAUSE
        return None

    def skip(self, end_ms: int) -> None:
        """Audio up to here was heard and is not judged."""
        self.heard_ms = end_ms

    @property
    def silence_ms(self) -> int:
        """How long the user has been silent, on the audio clock."""
        return self.heard_ms - self.voiced_until_ms

    def reset(self) -> None:
        """The utterance is over: the next speech is a START again."""
        self.in_speech = self.paused = False
        self._run_start_ms = None

    def split(self, at_ms: int) -> None:
        """The utterance up to here has been taken; speech after it belongs to the next one and is not forgotten."""
        if self.in_speech and self.voiced_until_ms > at_ms:
            self.onset_ms = max(self.onset_ms, at_ms)
            return
        run_start_ms = self._run_start_ms
        self.reset()
        if run_start_ms is not None:
            self._run_start_ms = max(run_start_ms, at_ms)

    def _begin(self, min_speech_ms: int, run_ms: int) -> VadChange | None:
        if self._run_start_ms is None or run_ms < min_speech_ms:
            return None
        self.in_speech, self.paused = True, False
        self.onset_ms, self.voiced_until_ms = self._run_start_ms, self.heard_ms
        return VadChange.START

    def _resume(self, min_speech_ms: int, run_ms: int) -> VadChange | None:
        # Within an utterance less proof is needed than at its start, yet one window is too often a breath.
        if self._run_start_ms is None or run_ms < min(min_speech_ms, 64):
            return None
        self.paused = False
        self.voiced_until_ms = self.heard_ms
        return VadChange.RESUME
