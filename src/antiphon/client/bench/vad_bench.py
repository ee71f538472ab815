"""`antiphon bench vad`: what voice activity detectors make of speech in noise, through the core's own gate.

Sentences are spoken by the embedded voice, with pauses of 1.5 to 2.5 s between them, and mixed with white noise or with
babble (six voices that overlap) at several ratios. Where a sentence really begins and ends is known from the clean
audio. Each detector scores the mixture, and `core/vad` with the default policy makes speech of the scores. Runs as
fast as it can: no clock is involved.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from antiphon.audio.framing import Pcm16
from antiphon.audio.levels import rms, speech_bounds, trim_silence
from antiphon.audio.resample import resample
from antiphon.client.bench.questions import QUESTIONS
from antiphon.core.policy import Policy
from antiphon.core.vad import SpeechDetector, VadChange
from antiphon.models.ports import Kind, SpeechRequest, Vad, WeightSource
from antiphon.models.registry import shared_registry

RATE_HZ = 16_000
CONDITIONS: Mapping[str, tuple[str, float]] = {
    "clean": ("none", 0.0),
    "white 20 dB": ("white", 20.0),
    "white 10 dB": ("white", 10.0),
    "white 5 dB": ("white", 5.0),
    "white 0 dB": ("white", 0.0),
    "babble 20 dB": ("babble", 20.0),
    "babble 10 dB": ("babble", 10.0),
    "babble 5 dB": ("babble", 5.0),
}
"""Name -> kind of noise and how far it lies below the speech."""
DETECTORS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "silero": ("silero", {}),
    **{f"webrtc {level}": ("webrtc", {"aggressiveness": level}) for level in range(4)},
}
"""Name -> registry name and options."""

_SEED = 11
_VOICES = 6
_PITCHES = (0.86, 0.92, 0.97, 1.04, 1.1, 1.17)
_NEAR_MS = 100
"""Speech found this close to a sentence belongs to it."""
_END_MS = Policy().plain_silence_ms
"""Silence after which the bench takes an utterance for over, as the policy does without a turn detector."""


@dataclass(frozen=True, slots=True)
class Scene:
    """Clean speech and where it is."""

    pcm: Pcm16
    sentences: tuple[tuple[int, int], ...]
    """First and last ms of each."""


@dataclass(slots=True)
class DetectedSpeech:
    """One utterance as the gate reported it, in ms of audio."""

    onset_ms: int
    """Where it is said to begin."""
    start_ms: int
    """When that was reported."""
    voiced_until_ms: int = 0
    pause_ms: int | None = None
    """When its (last) pause was reported; None: it did not end."""


def run(weights: WeightSource, sentences: int = 20) -> dict[str, Any]:
    """The whole bench -> a JSON object. Blocking: about 20 s of CPU for 20 sentences.

    Raises ModelError when a detector or the voice cannot be loaded.
    """
    spoken = _speak(weights, sentences)
    scene = arrange(spoken)
    noises = {"white": _white(len(scene.pcm)), "babble": _babble(spoken, len(scene.pcm))}
    results: dict[str, Any] = {}
    for name, (spec, options) in DETECTORS.items():
        model: Any = shared_registry().create(Kind.VAD, spec, weights, options)
        model.load()
        try:
            results[name] = {
                condition: _measure(model, scene, mix(scene, noises.get(kind), snr_db))
                for condition, (kind, snr_db) in CONDITIONS.items()
            }
        finally:
            model.close()
    return {
        "sentences": len(scene.sentences),
        "speech_s": round(sum(end - start for start, end in scene.sentences) / 1000, 1),
        "audio_s": round(len(scene.pcm) / RATE_HZ, 1),
        "policy": {"speech_threshold": Policy().speech_threshold, "utterance_ends_ms": _END_MS},
        "detectors": results,
    }


def table(result: Mapping[str, Any]) -> str:
    """The result as a Markdown table, a line per condition and detector."""
    lines = [
        "| noise | detector | missed speech | sentences missed | false starts /min | pauses taken for speech "
        "| onset ms: median, P95 | end ms: median, P95 | not ended | CPU |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    detectors: Mapping[str, Any] = result["detectors"]
    for condition in CONDITIONS:
        for name, conditions in detectors.items():
            m = conditions[condition]
            lines.append(
                f"| {condition} | {name} | {m['missed_ms']} ms, {m['missed_percent']} % "
                f"| {m['sentences_missed']} | {m['false_starts_per_min']} "
                f"| {m['pauses_as_speech_percent']} % "
                f"| {_pair(m['onset_delay_ms'])} | {_pair(m['offset_delay_ms'])} "
                f"| {m['not_ended']} | {m['cpu_ms_per_s']} ms/s |"
            )
    return "\n".join(lines)


def _pair(found: Mapping[str, float] | None) -> str:
    return "none" if found is None else f"{found['median']:.0f}, {found['p95']:.0f}"


# --- what is to be heard ----------------------------------------------------------------------------


def _speak(weights: WeightSource, count: int) -> list[Pcm16]:
    """Sentences of the embedded voice without variation, so that every run hears the same."""
    options = {"noise_scale": 0.0, "noise_w": 0.0}
    tts: Any = shared_registry().create(Kind.TTS, "piper", weights, options)
    tts.load()
    try:
        texts = [", ".join(parts) for parts in QUESTIONS]
        spoken = [
            np.concatenate(list(tts.synthesize(SpeechRequest(text)))) for text in texts[:count]
        ]
        rate_hz: int = tts.sample_rate_hz
    finally:
        tts.close()
    return [trim_silence(resample(pcm, rate_hz, RATE_HZ), RATE_HZ, keep_ms=20) for pcm in spoken]


def arrange(spoken: Sequence[Pcm16]) -> Scene:
    """One after the other, with 2 s of silence before and 1.5 to 2.5 s after each."""
    rng = np.random.default_rng(_SEED)
    parts: list[Pcm16] = [np.zeros(2 * RATE_HZ, np.int16)]
    at = len(parts[0])
    places: list[tuple[int, int]] = []
    for pcm in spoken:
        bounds = speech_bounds(pcm, RATE_HZ)
        assert bounds is not None
        places.append(((at + bounds[0]) * 1000 // RATE_HZ, (at + bounds[1]) * 1000 // RATE_HZ))
        rest = np.zeros(int(rng.uniform(1.5, 2.5) * RATE_HZ), np.int16)
        parts += [pcm, rest]
        at += len(pcm) + len(rest)
    return Scene(np.concatenate(parts), tuple(places))


def mix(scene: Scene, noise: Pcm16 | None, snr_db: float) -> Pcm16:
    """Noise `snr_db` below the RMS of the speech itself, pauses not counted."""
    if noise is None:
        return scene.pcm
    speech = [
        scene.pcm[start * RATE_HZ // 1000 : end * RATE_HZ // 1000] for start, end in scene.sentences
    ]
    gain = rms(np.concatenate(speech)) / max(rms(noise), 1.0) * 10 ** (-snr_db / 20)
    mixed: Pcm16 = np.clip(np.rint(scene.pcm + gain * noise), -32768, 32767).astype(np.int16)
    return mixed


def _white(samples: int) -> Pcm16:
    noise: Pcm16 = np.random.default_rng(_SEED).normal(0, 3_000, samples).astype(np.int16)
    return noise


def _babble(spoken: Sequence[Pcm16], samples: int) -> Pcm16:
    """Six voices of other pitches, each with the sentences in another order and without pauses."""
    rng = np.random.default_rng(_SEED + 1)
    total = np.zeros(samples, np.float64)
    for pitch in _PITCHES[:_VOICES]:
        order = rng.permutation(len(spoken))
        voice = np.concatenate([spoken[index] for index in order])
        voice = resample(voice, round(RATE_HZ * pitch), RATE_HZ)
        repeats = -(-samples // len(voice)) + 1
        start = int(rng.integers(0, len(voice)))
        total += np.tile(voice, repeats)[start : start + samples]
    babble: Pcm16 = np.rint(total / _VOICES).astype(np.int16)
    return babble


# --- how it is heard --------------------------------------------------------------------------------


def _measure(model: Vad, scene: Scene, pcm: Pcm16) -> dict[str, Any]:
    began_s = time.process_time()
    scores = _scores(model, pcm)
    cpu_s = time.process_time() - began_s
    window_ms = model.window_samples(RATE_HZ) * 1000 / RATE_HZ
    found = judge(scene, gate(scores, window_ms), len(pcm) * 1000 // RATE_HZ)
    return {**found, "cpu_ms_per_s": round(1000 * cpu_s * RATE_HZ / len(pcm), 2)}


def _scores(model: Vad, pcm: Pcm16) -> list[float]:
    size = model.window_samples(RATE_HZ)
    state = model.new_state(RATE_HZ)
    starts = range(0, len(pcm) - size + 1, size)
    return [float(model.score([pcm[start : start + size]], [state])[0]) for start in starts]


def gate(
    scores: Sequence[float], window_ms: float, policy: Policy | None = None
) -> list[DetectedSpeech]:
    """Probabilities of successive windows -> utterances, by the policy's thresholds."""
    policy = policy or Policy()
    detector, heard = SpeechDetector(), list[DetectedSpeech]()
    for index, probability in enumerate(scores):
        now_ms = int((index + 1) * window_ms)
        change = detector.feed(
            probability,
            now_ms,
            start=policy.speech_threshold,
            stop=policy.silence_threshold,
            min_speech_ms=policy.min_speech_ms,
            pause_ms=policy.preemptive_generation_after_ms,
        )
        if change is VadChange.START:
            heard.append(DetectedSpeech(detector.onset_ms, now_ms))
        elif change is VadChange.PAUSE:
            heard[-1].pause_ms = now_ms
        elif change is VadChange.RESUME:
            heard[-1].pause_ms = None
        if detector.in_speech:
            heard[-1].voiced_until_ms = detector.voiced_until_ms
            if detector.silence_ms >= _END_MS:
                detector.reset()
    return heard


def judge(scene: Scene, heard: Sequence[DetectedSpeech], audio_ms: int) -> dict[str, Any]:
    """Utterances against where the sentences really are.

    `onset_delay_ms`: from the first sound of a sentence to the report of speech; `offset_delay_ms`: from its last
    sound to the report of a pause that lasted. A false start touches no sentence. Speech that was reported
    before the sentence began, and pauses that came before its end or only with the next sentence, have no delay;
    the latter are `not_ended`. A detector that always says speech misses none: `pauses_as_speech_percent`.
    """
    onsets: list[float] = []
    offsets: list[float] = []
    covered_ms = missed = not_ended = 0
    nexts = [*(start for start, _ in scene.sentences[1:]), audio_ms]
    for (start, end), next_start in zip(scene.sentences, nexts, strict=True):
        mine = [h for h in heard if _near(h, start, end)]
        overlaps = (min(h.voiced_until_ms, end) - max(h.onset_ms, start) for h in mine)
        covered_ms += sum(max(overlap, 0) for overlap in overlaps)
        if not mine:
            missed += 1
            continue
        if mine[0].onset_ms >= start - _NEAR_MS:
            onsets.append(mine[0].start_ms - start)
        pause_ms = mine[-1].pause_ms
        if pause_ms is None or pause_ms >= next_start:
            not_ended += 1
        else:
            offsets.append(pause_ms - end)
    false_starts = [h for h in heard if not any(_near(h, *place) for place in scene.sentences)]
    speech_ms = sum(end - start for start, end in scene.sentences)
    quiet_ms = audio_ms - speech_ms
    taken_ms = sum(h.voiced_until_ms - h.onset_ms for h in heard) - covered_ms
    return {
        "missed_ms": speech_ms - covered_ms,
        "missed_percent": round(100 * (speech_ms - covered_ms) / speech_ms, 1),
        "sentences_missed": missed,
        "false_starts_per_min": round(len(false_starts) * 60_000 / quiet_ms, 1),
        "pauses_as_speech_percent": round(100 * taken_ms / quiet_ms, 1),
        "onset_delay_ms": _spread(onsets),
        "offset_delay_ms": _spread(offsets),
        "not_ended": not_ended,
    }


def _near(heard: DetectedSpeech, start_ms: int, end_ms: int) -> bool:
    return heard.onset_ms <= end_ms + _NEAR_MS and heard.voiced_until_ms >= start_ms - _NEAR_MS


def _spread(values: Sequence[float]) -> dict[str, float] | None:
    if not values:
        return None
    middle, high = np.percentile(values, [50, 95])
    return {"median": round(float(middle), 1), "p95": round(float(high), 1)}
