"""The recording of a call -> what each turn was like for the caller. Nothing that the server says is believed.

Voice to voice counts from the acoustic end of the caller's speech to the first audible sample of the agent. Pure
functions of samples: no clock, no protocol. A sound is audible above -40 dBFS.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from antiphon.audio.framing import Pcm16
from antiphon.client.loudspeaker import AUDIBLE
from antiphon.client.phone.caller_recording import CallerRecording, SpokenQuestion
from antiphon.client.phone.clips import FRAME_BYTES, FRAME_MS, RATE_HZ

_JOIN_MS = 60
"""A quiet stretch within a word does not end a sound."""
_SHORTEST_MS = 10
"""Shorter sounds are clicks, and answer nothing."""
_STILL_TALKING_MS = 600
"""An interrupted agent that goes on within this time had only paused; after longer it says something new."""
_ONSET_SAMPLES = 8
_ABRUPT = 0.5
"""A voice does not reach this share of its loud level within 1 ms; a beginning that was cut off does."""
_SHORTEST_GAP_MS = 60


@dataclass(frozen=True, slots=True)
class SoundSpan:
    """A stretch of sound, in samples."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class TurnFigures:
    """One turn, as the caller lived it. Times in ms, positions from the start of the call."""

    question: str
    speech_start_ms: float
    speech_end_ms: float
    answered: bool
    voice_to_voice_ms: float | None
    """None where there was no answer, or it began before the caller had finished."""
    talked_over: bool
    """The agent began to speak while the caller spoke."""
    barge_in_to_silence_ms: float | None
    """Start of the caller's speech to the last audible sample of the agent; None where the agent was not speaking."""
    cleared: bool
    """The server had the rest of its audio dropped; else an interrupted answer may have ended by itself."""
    overlap_ms: float
    """Both were audible at once."""
    dead_air_ms: float
    """The longest stretch after the question in which nobody was audible, the answer's end excluded."""
    clipped_start: bool
    """The answer began abruptly at full level."""
    gaps: int
    """How often the answer ran dry for 60 ms or more."""
    longest_gap_ms: float
    answer_ms: float
    """First to last audible sample of the answer, up to the next question."""


def sounds(pcm: Pcm16, limit: int = AUDIBLE) -> list[SoundSpan]:
    """Audible stretches, the pauses within words closed, clicks left out."""
    loud = np.flatnonzero(np.abs(pcm.astype(np.int32)) > limit)
    if not len(loud):
        return []
    breaks = np.flatnonzero(np.diff(loud) > _JOIN_MS * RATE_HZ // 1000)
    starts = loud[np.concatenate([[0], breaks + 1])]
    ends = loud[np.concatenate([breaks, [len(loud) - 1]])] + 1
    spans = [SoundSpan(int(a), int(b)) for a, b in zip(starts, ends, strict=True)]
    return [s for s in spans if s.end - s.start >= _SHORTEST_MS * RATE_HZ // 1000]


def measure(recording: CallerRecording, asked: Sequence[SpokenQuestion]) -> list[TurnFigures]:
    """One result per question, in order. Some ms of work per minute of call."""
    agent = sounds(recording.agent)
    found = []
    for index, question in enumerate(asked):
        last = index + 1 == len(asked)
        until = len(recording.agent) if last else asked[index + 1].speech_start
        found.append(_measure_turn(recording, agent, question, until))
    return found


def _measure_turn(
    recording: CallerRecording, agent: Sequence[SoundSpan], asked: SpokenQuestion, until: int
) -> TurnFigures:
    old_end = _old_answer_end(agent, asked)
    new = [
        SoundSpan(s.start, min(s.end, until))
        for s in agent
        if s.start < until and s.start >= max(asked.speech_start, old_end)
    ]
    early = [s for s in new if s.start < asked.speech_end]
    later = [s for s in new if s.start >= asked.speech_end]
    # An early answer that goes on is the answer; one that was taken back is not.
    running = bool(early) and (early[-1].end > asked.speech_end)
    answer = ([early[-1]] if running else []) + later
    gaps = _gaps(recording, answer)
    return TurnFigures(
        question=asked.question,
        speech_start_ms=_ms(asked.speech_start),
        speech_end_ms=_ms(asked.speech_end),
        answered=bool(answer),
        voice_to_voice_ms=_ms(later[0].start - asked.speech_end) if later and not running else None,
        talked_over=bool(early),
        barge_in_to_silence_ms=_ms(old_end - asked.speech_start) if old_end else None,
        cleared=_is_cleared(recording, asked, old_end),
        overlap_ms=_overlap_ms(recording, agent, asked),
        dead_air_ms=_dead_air_ms(answer, old_end, asked, until),
        clipped_start=bool(answer) and _is_abrupt(recording.agent, answer),
        gaps=len(gaps),
        longest_gap_ms=max(gaps, default=0.0),
        answer_ms=_ms(answer[-1].end - answer[0].start) if answer else 0.0,
    )


def _ms(samples: int) -> float:
    return round(1000 * samples / RATE_HZ, 1)


def _is_cleared(recording: CallerRecording, asked: SpokenQuestion, old_end: int) -> bool:
    """Between the caller's first sound and the agent's last; the 20 ms that were on their way are heard after it."""
    late = 2 * FRAME_BYTES
    return any(asked.speech_start <= at <= old_end + late for at in recording.clears)


def _old_answer_end(agent: Sequence[SoundSpan], asked: SpokenQuestion) -> int:
    """The sample after the last of what the agent was saying when the caller cut in; 0 where it was silent."""
    end = 0
    for sound in agent:
        if sound.start < asked.speech_start < sound.end:
            end = sound.end
        elif end and sound.start < asked.speech_end:
            if sound.start - end > _STILL_TALKING_MS * RATE_HZ // 1000:
                break
            end = sound.end
    if end:
        return end
    return _resumed_end(agent, asked)


def _resumed_end(agent: Sequence[SoundSpan], asked: SpokenQuestion) -> int:
    """The caller cut in between two words of the agent: it was speaking if it spoke shortly before and after."""
    limit = _STILL_TALKING_MS * RATE_HZ // 1000 // 2
    before = [s for s in agent if s.end <= asked.speech_start]
    after = [s for s in agent if asked.speech_start <= s.start < asked.speech_end]
    if not before or not after or after[0].start - before[-1].end > limit:
        return 0
    end = after[0].end
    for sound in after[1:]:
        if sound.start - end > _STILL_TALKING_MS * RATE_HZ // 1000:
            break
        end = sound.end
    return end


def _overlap_ms(
    recording: CallerRecording, agent: Sequence[SoundSpan], asked: SpokenQuestion
) -> float:
    said = recording.caller[asked.speech_start : asked.speech_end]
    # A tenth of its own peak: the noise of the line is no speech.
    peak = int(np.abs(said.astype(np.int32)).max()) if len(said) else 0
    caller = sounds(said, max(peak // 10, 1))
    both = 0
    for mine in caller:
        start, end = mine.start + asked.speech_start, mine.end + asked.speech_start
        both += sum(max(min(end, s.end) - max(start, s.start), 0) for s in agent)
    return _ms(both)


def _dead_air_ms(
    answer: Sequence[SoundSpan], old_end: int, asked: SpokenQuestion, until: int
) -> float:
    begin = max(asked.speech_end, old_end)
    if not answer:
        return _ms(max(until - begin, 0))
    waits = [max(answer[0].start - begin, 0)]
    waits += [after.start - before.end for before, after in pairwise(answer)]
    return _ms(max(waits))


def _is_abrupt(agent: Pcm16, answer: Sequence[SoundSpan]) -> bool:
    """Digital silence, then at once a good part of the level that the first second of the answer reaches."""
    start = answer[0].start
    before = agent[max(start - 5 * _ONSET_SAMPLES, 0) : start]
    if np.any(np.abs(before.astype(np.int32)) > AUDIBLE // 10):
        return False
    voice = np.abs(agent[start : min(start + RATE_HZ, answer[-1].end)].astype(np.int32))
    loud = float(np.percentile(voice, 95))
    return float(voice[:_ONSET_SAMPLES].max()) >= _ABRUPT * loud


def _gaps(recording: CallerRecording, answer: Sequence[SoundSpan]) -> list[float]:
    """Lengths in ms of the stretches within the answer for which there was nothing to play."""
    if not answer:
        return []
    first, last = answer[0].start // FRAME_BYTES, (answer[-1].end - 1) // FRAME_BYTES
    dry = recording.fed[first : last + 1].translate(bytes.maketrans(b"\0\1", b"x."))
    stretches = [len(part) * FRAME_MS for part in dry.split(b".") if part]
    return [float(length) for length in stretches if length >= _SHORTEST_GAP_MS]
