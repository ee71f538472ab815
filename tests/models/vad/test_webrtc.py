"""WebRTC's detector behind the `Vad` port: the contract, its options, and the core's gate on top of it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from antiphon.core.policy import Policy
from antiphon.core.vad import SpeechDetector, VadChange
from antiphon.errors import ConfigError, ModelError
from antiphon.models.ports import Kind, Pcm16
from antiphon.models.registry import shared_registry
from antiphon.models.vad.webrtc import WebRtcVad
from antiphon.models.vad_batcher import VadBatcher
from antiphon.testing.contracts import check_vad

Speak = Callable[[str, int], Pcm16]
SENTENCE = "Good morning, I would like to book a table for two."


class NoWeights:
    def files(self, name: str) -> Mapping[str, Path]:
        raise AssertionError("this model has no weights")


def loaded(**options: Any) -> WebRtcVad:
    model = WebRtcVad(NoWeights(), **options)
    model.load()
    return model


def vowel(rate_hz: int, seconds: float, peak: int = 12_000) -> Pcm16:
    """What the detector takes for a voice: harmonics of 120 Hz under two formants."""
    t = np.arange(int(seconds * rate_hz)) / rate_hz
    sound = np.zeros(len(t))
    for number in range(1, 28):
        hz = 120 * number
        gain = np.exp(-(((hz - 600) / 250) ** 2)) + 0.6 * np.exp(-(((hz - 1500) / 350) ** 2))
        sound += (gain + 0.02) * np.sin(2 * np.pi * hz * t)
    pcm: Pcm16 = (sound / np.abs(sound).max() * peak).astype(np.int16)
    return pcm


def between_silence(speech: Pcm16, rate_hz: int) -> Pcm16:
    silence = np.zeros(rate_hz, np.int16)
    return np.concatenate([silence, speech, silence])


def probabilities(vad: WebRtcVad, audio: Pcm16, rate_hz: int) -> list[float]:
    size = vad.window_samples(rate_hz)
    state = vad.new_state(rate_hz)
    starts = range(0, audio.size - size + 1, size)
    return [vad.score([audio[start : start + size]], [state])[0] for start in starts]


@pytest.mark.weights
@pytest.mark.parametrize("rate_hz", [8_000, 16_000])
@pytest.mark.parametrize("aggressiveness", [0, 1, 2, 3])
def test_it_keeps_the_contract_and_finds_speech(
    speak: Speak, rate_hz: int, aggressiveness: int
) -> None:
    model = loaded(aggressiveness=aggressiveness)
    check_vad(model, speech=speak(SENTENCE, rate_hz), speech_rate_hz=rate_hz)


@pytest.mark.parametrize("frame_ms", [10, 20, 30])
@pytest.mark.parametrize("smoothing_frames", [1, 5, 30])
def test_the_contract_holds_with_any_frame_and_smoothing(
    frame_ms: int, smoothing_frames: int
) -> None:
    check_vad(loaded(frame_ms=frame_ms, smoothing_frames=smoothing_frames, gate_dbfs=-50))


@pytest.mark.parametrize("rate_hz", [8_000, 16_000])
def test_windows_are_20_or_30_ms(rate_hz: int) -> None:
    for frame_ms, window_ms in ((10, 20), (20, 20), (30, 30)):
        vad = WebRtcVad(NoWeights(), frame_ms=frame_ms)
        assert vad.window_samples(rate_hz) == rate_hz * window_ms // 1000


@pytest.mark.parametrize("rate_hz", [8_000, 16_000])
@pytest.mark.parametrize("frame_ms", [10, 20, 30])
def test_the_default_policy_hears_one_utterance_where_it_is(rate_hz: int, frame_ms: int) -> None:
    vad = loaded(frame_ms=frame_ms, smoothing_frames=100 // frame_ms)
    audio = between_silence(vowel(rate_hz, 0.8), rate_hz)
    window_ms = vad.window_samples(rate_hz) * 1000 // rate_hz
    gate, policy, changes = SpeechDetector(), Policy(), []
    for index, probability in enumerate(probabilities(vad, audio, rate_hz)):
        change = gate.feed(
            probability,
            (index + 1) * window_ms,
            start=policy.speech_threshold,
            stop=policy.silence_threshold,
            min_speech_ms=policy.min_speech_ms,
            pause_ms=policy.preemptive_generation_after_ms,
        )
        if change is not None:
            changes.append(change)
    assert changes == [VadChange.START, VadChange.PAUSE]
    assert 1_000 <= gate.onset_ms <= 1_000 + policy.prefix_padding_ms // 2
    assert 1_750 <= gate.voiced_until_ms <= 2_100


def test_the_probability_is_the_share_of_voiced_frames() -> None:
    audio = between_silence(vowel(16_000, 0.8), 16_000)
    raw = probabilities(loaded(smoothing_frames=1), audio, 16_000)
    assert set(raw) == {0.0, 1.0}
    smooth = probabilities(loaded(smoothing_frames=4), audio, 16_000)
    padded = [0.0, 0.0, 0.0, *raw]
    assert smooth == [sum(padded[i : i + 4]) / 4 for i in range(len(raw))]


def test_silence_frames_hold_the_speech() -> None:
    audio = between_silence(vowel(16_000, 0.8), 16_000)
    short, held = (
        [score >= 0.5 for score in probabilities(loaded(silence_frames=n), audio, 16_000)]
        for n in (0, 15)
    )
    raw = probabilities(loaded(smoothing_frames=1), audio, 16_000)
    last_voiced = max(i for i, score in enumerate(raw) if score)
    assert short.index(True) == held.index(True)
    assert max(i for i, loud in enumerate(held) if loud) == last_voiced + 14
    assert max(i for i, loud in enumerate(short) if loud) < last_voiced + 5


def test_what_is_below_the_gate_is_no_speech() -> None:
    loud, faint = (between_silence(vowel(16_000, 0.8, peak=peak), 16_000) for peak in (12_000, 600))
    assert max(probabilities(loaded(), faint, 16_000)) > 0.5
    gated = loaded(gate_dbfs=-35)
    assert max(probabilities(gated, faint, 16_000)) == 0.0
    assert max(probabilities(gated, loud, 16_000)) > 0.5


def test_calls_do_not_hear_each_other_in_the_lane() -> None:
    vad = loaded()
    audio = between_silence(vowel(16_000, 0.5), 16_000)
    silent = np.zeros(320, np.int16)

    async def scored() -> tuple[list[float], list[float]]:
        scheduler = VadBatcher()
        scheduler.use("webrtc", vad)
        one, other = scheduler.new_state(16_000), scheduler.new_state(16_000)
        mine, theirs = [], []
        for start in range(0, audio.size - 319, 320):
            window = audio[start : start + 320]
            mine_theirs = await asyncio.gather(
                scheduler.score(window, one), scheduler.score(silent, other)
            )
            mine.append(mine_theirs[0])
            theirs.append(mine_theirs[1])
        await scheduler.close()
        return mine, theirs

    mine, theirs = asyncio.run(scored())
    assert mine == probabilities(vad, audio, 16_000)
    assert not any(theirs)


def test_it_is_found_by_its_name() -> None:
    model = shared_registry().create(Kind.VAD, "webrtc", NoWeights(), {"aggressiveness": 1})
    assert "aggressiveness 1" in model.info.detail


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"aggressiveness": 4}, "aggressiveness must be a whole number from 0 to 3, got 4"),
        ({"aggressiveness": "high"}, "got 'high'"),
        ({"smoothing_frames": 0}, "smoothing_frames must be a whole number from 1 to 100"),
        ({"silence_frames": -1}, "silence_frames must be"),
        ({"silence_frames": True}, "silence_frames must be"),
        ({"frame_ms": 25}, "frame_ms must be 10, 20 or 30, got 25"),
        ({"gate_dbfs": 6.0}, "gate_dbfs must be -96 to 0"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        WebRtcVad(NoWeights(), **options)


def test_wrong_windows_and_rates() -> None:
    vad = loaded()
    assert vad.score([], []) == []
    with pytest.raises(ModelError, match=r"320 samples at 16000 Hz, got \(512,\)"):
        vad.score([np.zeros(512, np.int16)], [vad.new_state(16_000)])
    with pytest.raises(ModelError, match="8000 or 16000 Hz, not 48000"):
        vad.new_state(48_000)


def test_it_must_be_loaded_before_it_is_asked() -> None:
    vad = loaded()
    vad.close()
    for model in (vad, WebRtcVad(NoWeights())):
        with pytest.raises(ModelError, match="not loaded"):
            model.new_state(16_000)


def test_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "webrtcvad", None)
    with pytest.raises(ModelError, match=r"pip install 'antiphon\[webrtc\]'") as refused:
        loaded()
    assert "\n" not in str(refused.value)
