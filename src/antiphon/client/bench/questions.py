"""What the benches ask: questions of everyday talk, spoken by the embedded voice, some with a pause in mid-sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from antiphon.audio.levels import speech_end_sample, trim_silence
from antiphon.audio.resample import resample
from antiphon.client.phone.clips import Clip, make_clip
from antiphon.models.ports import Kind, Pcm16, SpeechRequest, WeightSource
from antiphon.models.registry import shared_registry

RATE_HZ = 16_000

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


def clips_of(questions: Sequence[Question]) -> list[Clip]:
    """As they go over a telephone line."""
    return [make_clip(question.text, question.pcm, RATE_HZ) for question in questions]


def speak_texts(weights: WeightSource, texts: Sequence[str], voice: str = "piper") -> list[Clip]:
    """Any sentences, as they go over a telephone line. Blocking."""
    tts = shared_registry().create(Kind.TTS, voice, weights=weights)
    tts.load()
    try:
        spoken = [_question(tts, (text,)) for text in texts]
    finally:
        tts.close()
    return clips_of(spoken)
