"""The VAD bench: what it counts, on utterances made by hand, and a whole run on the default weights."""

from __future__ import annotations

import json

import numpy as np
import pytest

from antiphon.audio.levels import dbfs, rms
from antiphon.client.bench import vad_bench
from antiphon.client.bench.vad_bench import DetectedSpeech, Scene
from antiphon.models.store import WeightStore

SCENE = Scene(np.zeros(16_000 * 10, np.int16), ((2_000, 3_000), (6_000, 7_000)))


def test_exact_detection() -> None:
    heard = [DetectedSpeech(2_000, 2_096, 3_000, 3_064), DetectedSpeech(6_000, 6_096, 7_000, 7_064)]
    assert vad_bench.judge(SCENE, heard, 10_000) == {
        "missed_ms": 0,
        "missed_percent": 0.0,
        "sentences_missed": 0,
        "false_starts_per_min": 0.0,
        "pauses_as_speech_percent": 0.0,
        "onset_delay_ms": {"median": 96.0, "p95": 96.0},
        "offset_delay_ms": {"median": 64.0, "p95": 64.0},
        "not_ended": 0,
    }


def test_nothing_heard() -> None:
    found = vad_bench.judge(SCENE, [], 10_000)
    assert (found["missed_ms"], found["missed_percent"], found["sentences_missed"]) == (
        2_000,
        100.0,
        2,
    )
    assert found["onset_delay_ms"] is None


def test_speech_that_never_ends_and_noise() -> None:
    one_long = vad_bench.judge(SCENE, [DetectedSpeech(500, 600, 10_000, None)], 10_000)
    assert one_long["not_ended"] == 2
    assert one_long["missed_ms"] == 0
    assert one_long["pauses_as_speech_percent"] == 93.8
    assert one_long["onset_delay_ms"] is None
    noise = vad_bench.judge(SCENE, [DetectedSpeech(4_000, 4_100, 4_800, 4_900)], 10_000)
    assert noise["false_starts_per_min"] == 7.5
    assert noise["pauses_as_speech_percent"] == 10.0


def test_the_gate_makes_utterances_of_scores() -> None:
    loud, quiet = [0.9] * 10, [0.1] * 30
    short = [0.1] * 5  # a pause within an utterance
    heard = vad_bench.gate([*quiet, *loud, *short, *loud, *quiet, *loud[:2], *quiet], 20)
    assert heard == [DetectedSpeech(600, 700, 1_100, 1_180)]


def test_noise_is_mixed_at_its_level() -> None:
    t = np.arange(16_000 * 10) / 16_000
    pcm = np.where((t % 4 >= 2) & (t % 4 < 3), 8_000 * np.sin(2 * np.pi * 440 * t), 0)
    scene = Scene(pcm.astype(np.int16), SCENE.sentences)
    noise = np.random.default_rng(1).normal(0, 3_000, len(t)).astype(np.int16)
    mixed = vad_bench.mix(scene, noise, 10.0)
    speech, hiss = scene.pcm[32_000:48_000], mixed[: 16_000 * 2]
    assert dbfs(rms(speech)) - dbfs(rms(hiss)) == pytest.approx(10.0, abs=0.2)
    assert vad_bench.mix(scene, None, 0.0) is scene.pcm


@pytest.mark.weights
def test_a_whole_run() -> None:
    result = vad_bench.run(WeightStore(), sentences=3)
    json.dumps(result)
    detectors = result["detectors"]
    assert set(detectors) == {"silero", "webrtc 0", "webrtc 1", "webrtc 2", "webrtc 3"}
    for conditions in detectors.values():
        assert set(conditions) == set(vad_bench.CONDITIONS)
        assert conditions["clean"]["sentences_missed"] == 0
        assert conditions["clean"]["false_starts_per_min"] == 0
        assert conditions["clean"]["missed_percent"] < 10
    assert vad_bench.table(result).count("\n") == 1 + 5 * len(vad_bench.CONDITIONS)
