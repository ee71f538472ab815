"""`antiphon bench turn`: how long a caller waits for an answer, measured from the audio itself.

Questions are spoken by the embedded voice, some with a pause in mid-sentence, and played in real time through
`/ws/conversation`. Voice to voice is the time from the acoustic end of the question (its last sample above the noise)
to the first audible sample that the caller receives. Beside it stand the turns that were cut off too early: latency
bought with interruptions does not count.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from antiphon.audio.levels import speech_end_sample, trim_silence
from antiphon.audio.resample import resample
from antiphon.client.talker import Talker
from antiphon.errors import ProtocolError
from antiphon.models.ports import Kind, Pcm16, SpeechRequest, WeightSource
from antiphon.models.registry import shared_registry

RATE_HZ = 16_000
_ANSWER_S = 45.0
"""A long answer is heard to its end before the next question."""
_REST_S = 0.7
_STAGES = {
    "stt": ("transcribe_ms", "transcript_ms"),
    "turn_detector": ("score_asked_ms", "turn_scored_ms"),
    "llm_first_token": ("generate_ms", "first_token_ms"),
    "llm_first_clause": ("first_token_ms", "speak_ms"),
    "tts_first_audio": ("speak_ms", "first_audio_ms"),
    "end_to_transcribe": ("speech_end_ms", "transcribe_ms"),
    "end_to_audio_ready": ("speech_end_ms", "first_audio_ms"),
    "end_to_commit": ("speech_end_ms", "committed_ms"),
    "end_to_sent": ("speech_end_ms", "first_sent_ms"),
}

QUESTIONS: Sequence[tuple[str, ...]] = (
    ("What is the capital of France?",),
    ("How many days are there in a week?",),
    ("Can you tell me a short joke?",),
    ("I would like to know", "what the weather is like in spring."),
    ("Which animal is the largest in the world?",),
    ("Please give me a tip for sleeping better.",),
    ("What do I need", "to bake a simple cake?"),
    ("Who wrote Romeo and Juliet?",),
    ("Tell me something interesting about the moon.",),
    ("How do I say thank you in Spanish?",),
    ("My train leaves at nine and", "I wonder when I should get up."),
    ("What is a good name for a cat?",),
    ("Is it healthy to drink coffee every day?",),
    ("Why is the sky blue?",),
    ("Could you explain", "how a bicycle stays upright?"),
    ("What should I cook for dinner tonight?",),
    ("How far away is the sun?",),
    ("Do you think it will rain tomorrow?",),
    ("I am learning English and", "I make many mistakes."),
    ("What is your favourite colour?",),
    ("How long does it take to boil an egg?",),
    ("Give me three words that rhyme with tree.",),
    ("When was the telephone invented?",),
    ("What can I do on a rainy day?",),
)
"""Each a sentence; between two parts there is a pause in mid-sentence."""

PAUSE_S = 0.5
"""Added to the natural pause."""


@dataclass(frozen=True, slots=True)
class Question:
    text: str
    pcm: Pcm16
    speech_end_s: float
    """Acoustic end within `pcm`."""
    pauses: int


@dataclass(slots=True)
class Turn:
    question: str
    heard: str = ""
    reply: str = ""
    voice_to_voice_ms: float | None = None
    cut_off: bool = False
    """The agent was heard before the caller had finished."""
    reopened: bool = False
    """The agent took the turn for over before it was, and took that back unheard."""
    record: dict[str, Any] = field(default_factory=dict)


def speak_questions(weights: WeightSource, count: int, voice: str = "piper") -> list[Question]:
    """Make the questions with the embedded voice. Blocking, about 0.1 s each."""
    tts = shared_registry().create(Kind.TTS, voice, weights=weights)
    tts.load()
    try:
        spoken = [_question(tts, parts) for parts in QUESTIONS[: min(count, len(QUESTIONS))]]
    finally:
        tts.close()
    return [spoken[i % len(spoken)] for i in range(count)]


def _question(tts: Any, parts: Sequence[str]) -> Question:
    """Spoken in one breath, with the intonation of a comma at the pause, which is then drawn out."""
    chunks = list(tts.synthesize(SpeechRequest(", ".join(parts))))
    whole = resample(np.concatenate(chunks), tts.sample_rate_hz, RATE_HZ)
    pcm = trim_silence(whole, RATE_HZ, keep_ms=20)
    if len(parts) > 1:
        at = _longest_gap(pcm)
        pcm = np.concatenate([pcm[:at], np.zeros(int(PAUSE_S * RATE_HZ), np.int16), pcm[at:]])
    end = speech_end_sample(pcm, RATE_HZ)
    assert end is not None
    return Question(" ".join(parts), pcm, end / RATE_HZ, len(parts) - 1)


def _longest_gap(pcm: Pcm16) -> int:
    """The middle of the longest quiet stretch within the utterance, in samples."""
    frame = RATE_HZ // 100
    count = len(pcm) // frame
    level = np.abs(pcm[: count * frame].reshape(count, frame).astype(np.int32)).max(axis=1)
    quiet = level < max(0.04 * level.max(), 100)
    best, best_length, start = count // 2, 0, None
    for index in range(15, count - 15):
        if quiet[index] and start is None:
            start = index
        if not quiet[index] and start is not None:
            if index - start > best_length:
                best, best_length = (start + index) // 2, index - start
            start = None
    return best * frame


async def measure(
    url: str, questions: Sequence[Question], on_turn: Callable[[int, Turn], None]
) -> list[Turn]:
    """One call, one question after the other; each begins after the last answer was heard to its end."""
    turns: list[Turn] = []
    async with Talker(url) as caller:
        await asyncio.sleep(0.5)
        for index, question in enumerate(questions):
            turn = await _ask(caller, question)
            turns.append(turn)
            on_turn(index, turn)
    return turns


async def _ask(caller: Talker, question: Question) -> Turn:
    turn = Turn(question.text)
    before_s = caller.now_s
    said = await caller.say(question.pcm)
    end_s = said.start_s + question.speech_end_s
    early = caller.playout.first_audible_s(before_s)
    turn.cut_off = early is not None and early < end_s
    turn.reopened = not turn.cut_off and _replied_early(caller, before_s, end_s)
    try:
        done = await caller.wait_for("turn", after_s=end_s, timeout_s=_ANSWER_S + 8)
        while done.message["record"]["kind"] != "answer" or _stale(done.message["record"]):
            done = await caller.wait_for("turn", after_s=done.at_s + 1e-6, timeout_s=_ANSWER_S)
        turn.record = done.message["record"]
    except TimeoutError:
        return turn
    first_s = caller.playout.first_audible_s(end_s)
    turn.voice_to_voice_ms = None if first_s is None else round((first_s - end_s) * 1000, 1)
    turn.heard = turn.record.get("user_text", "")
    turn.reply = turn.record.get("reply_text", "")
    await asyncio.sleep(max(caller.playout.end_s - caller.now_s, 0) + _REST_S)
    return turn


def _replied_early(caller: Talker, after_s: float, end_s: float) -> bool:
    """An answer was committed while the caller had not finished, heard or not."""
    return any(
        r.message["type"] == "transcript" and r.message["is_final"] and after_s < r.at_s < end_s
        for r in caller.received
    )


def _stale(record: dict[str, Any]) -> bool:
    """A reply that was withdrawn before anything of it was heard, because the caller went on."""
    return record["status"] == "cancelled" and not record["first_sent_ms"]


def summarise(turns: Sequence[Turn]) -> dict[str, Any]:
    """Medians and P95 over all answered turns; stages from the server's own turn records."""
    answered = [t for t in turns if t.voice_to_voice_ms is not None]
    if not answered:
        raise ProtocolError("no turn was answered; is the server ready?")
    delays = [t.voice_to_voice_ms for t in answered if t.voice_to_voice_ms is not None]
    return {
        "turns": len(turns),
        "unanswered": len(turns) - len(answered),
        "voice_to_voice_ms": spread(delays),
        "cut_off_early": sum(t.cut_off for t in turns),
        "reopened_unheard": sum(t.reopened for t in turns),
        "speculations_per_turn": round(
            statistics.mean(t.record.get("speculations", 0) for t in answered), 2
        ),
        "stages_ms": {name: _stage(answered, *marks) for name, marks in _STAGES.items()},
        "each": [
            {
                "question": t.question,
                "heard": t.heard,
                "reply": t.reply,
                "voice_to_voice_ms": t.voice_to_voice_ms,
                "cut_off": t.cut_off,
                "reopened": t.reopened,
                "turn_probability": t.record.get("turn_probability"),
                "speculations": t.record.get("speculations"),
            }
            for t in turns
        ],
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {
        "median": round(statistics.median(ordered), 1),
        "p95": round(ordered[min(int(0.95 * len(ordered)), len(ordered) - 1)], 1),
        "min": round(ordered[0], 1),
        "max": round(ordered[-1], 1),
    }


def _stage(turns: Sequence[Turn], start: str, end: str) -> float | None:
    spans = [
        t.record[end] - t.record[start]
        for t in turns
        if t.record.get(start) is not None and t.record.get(end) is not None
    ]
    return round(statistics.median(spans), 1) if spans else None


def memory_mb(pid: int) -> float | None:
    """Resident memory of a process of this machine, None where it cannot be read."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return round(int(line.split()[1]) / 1024, 1)
    except OSError:
        return None
    return None
