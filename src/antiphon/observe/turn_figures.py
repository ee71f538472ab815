"""Turn records -> figures: how long each stage took, and what a call adds up to.

Every table, metric, span and report takes its numbers from here. Pure functions of records; knows no clock, no output
format, and not how a record came about.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields
from statistics import fmean, median

from antiphon.core.turn_record import TurnRecord


@dataclass(frozen=True, slots=True)
class Stages:
    """Durations of one turn, in ms; None where the stage did not happen."""

    stt_ms: int | None
    """The transcript that was used: asked for until there."""
    turn_detector_ms: int | None
    """Asked until its last answer, as near as the record tells."""
    llm_first_token_ms: int | None
    llm_total_ms: int | None
    tts_first_audio_ms: int | None
    """The first clause was handed over until its first audio."""
    end_to_commit_ms: int | None
    """Acoustic end of the caller's speech until the turn was taken for over."""
    end_to_audio_ready_ms: int | None
    """Acoustic end of speech until there was audio that could be sent."""
    voice_to_voice_ms: int | None
    """Acoustic end of speech until the first sound of the answer."""


STAGES = tuple(field.name for field in fields(Stages))


def stages(record: TurnRecord) -> Stages:
    r = record
    # A score may belong to an earlier attempt than the transcript; then it tells nothing.
    return Stages(
        stt_ms=_span(r.transcribe_ms, r.transcript_ms),
        turn_detector_ms=_span(detector_asked_ms(r), r.turn_scored_ms),
        llm_first_token_ms=_span(r.generate_ms, r.first_token_ms),
        llm_total_ms=_span(r.generate_ms, r.text_done_ms),
        tts_first_audio_ms=_span(r.speak_ms, r.first_audio_ms),
        end_to_commit_ms=_span(r.speech_end_ms, r.committed_ms),
        end_to_audio_ready_ms=_span(r.speech_end_ms, r.first_audio_ms),
        voice_to_voice_ms=voice_to_voice_ms(r),
    )


def detector_asked_ms(record: TurnRecord) -> int | None:
    """When the turn detector was asked the question whose answer counted."""
    return record.score_asked_ms


def heard_from_ms(record: TurnRecord) -> int | None:
    """When the first sound of the reply was heard. A client cannot have played what had not been sent."""
    sent_ms, played_ms = record.first_sent_ms, record.first_played_ms
    if sent_ms is None or played_ms is None:
        return sent_ms if played_ms is None else played_ms
    return max(sent_ms, played_ms)


def voice_to_voice_ms(record: TurnRecord) -> int | None:
    """`record.voice_to_voice_ms`, with reports that cannot be true left out."""
    return _span(record.speech_end_ms, heard_from_ms(record))


def _span(from_ms: int | None, to_ms: int | None) -> int | None:
    if from_ms is None or to_ms is None or to_ms < from_ms:
        return None
    return to_ms - from_ms


def withdrawn(record: TurnRecord) -> bool:
    """The reply was taken back before any of it was heard, mostly because the caller went on.

    The turn goes on then, and its next record, with the same number, counts its guesses again.
    """
    return record.status == "cancelled" and not record.interrupted and heard_from_ms(record) is None


def wasted_guesses(record: TurnRecord) -> int:
    """Speculative replies of this turn that were thrown away."""
    return max(record.preemptive_generations - int(record.preemptive_used), 0)


def percentile(values: Iterable[float], share: float) -> float:
    """Nearest rank: the smallest value that at least `share` (0..1) of them do not exceed. ValueError if empty."""
    ordered = sorted(values)
    if not ordered:
        raise ValueError("no values")
    return ordered[max(math.ceil(share * len(ordered)) - 1, 0)]


@dataclass(frozen=True, slots=True)
class Summary:
    """Of a list of durations, in ms."""

    count: int
    mean_ms: float
    median_ms: float
    least_ms: float
    most_ms: float
    p95_ms: float


def summarise(values: Iterable[float | None]) -> Summary | None:
    """None when there is no value; Nones are left out."""
    found = [value for value in values if value is not None]
    if not found:
        return None
    return Summary(
        count=len(found),
        mean_ms=fmean(found),
        median_ms=median(found),
        least_ms=min(found),
        most_ms=max(found),
        p95_ms=percentile(found, 0.95),
    )


@dataclass(frozen=True, slots=True)
class CallFigures:
    """A whole call in numbers."""

    turns: int
    """Turns of the caller, answered or not."""
    replies: int
    """Replies of the agent of which something was heard."""
    interruptions: int
    false_interruptions: int
    """Interruptions that were nothing."""
    guesses_used: int
    guesses_wasted: int
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    characters: int
    played_ms: int
    voice_to_voice: Summary | None


def call_figures(records: Iterable[TurnRecord]) -> CallFigures:
    found = list(records)
    # A turn that was reopened has several records; the last one has all its guesses. What follows a function has none.
    turns = {r.number: r for r in found if r.number > 0 and not r.preemptive_generations}
    turns |= {r.number: r for r in found if r.number > 0 and r.preemptive_generations}
    return CallFigures(
        turns=len(turns),
        replies=sum(1 for r in found if r.played_ms > 0),
        interruptions=sum(1 for r in found if r.interrupted),
        false_interruptions=sum(r.false_interruptions for r in found),
        guesses_used=sum(1 for r in turns.values() if r.preemptive_used),
        guesses_wasted=sum(wasted_guesses(r) for r in turns.values()),
        input_tokens=sum(r.input_tokens for r in found),
        output_tokens=sum(r.output_tokens for r in found),
        cached_tokens=sum(r.cached_tokens for r in found),
        characters=sum(r.characters for r in found),
        played_ms=sum(r.played_ms for r in found),
        voice_to_voice=summarise(voice_to_voice_ms(r) for r in found),
    )


def unheard_text(record: TurnRecord) -> str:
    """The words of the reply that come after the heard ones; empty when all was heard or the two do not match."""
    words, heard = record.reply_text.split(), record.heard_text.split()
    return " ".join(words[len(heard) :]) if words[: len(heard)] == heard else ""
