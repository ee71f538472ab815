"""What is found out about a caller's audio, on speech-like sound that is sent in the right and in the wrong way."""

from __future__ import annotations

import numpy as np
import pytest

from antiphon.audio import g711
from antiphon.call.audio_diagnosis import AudioReport, Diagnosis
from antiphon.models.ports import Pcm16

RATE_HZ = 16_000


def voice(seconds: float, peak: int = 6_000, rate_hz: int = RATE_HZ) -> Pcm16:
    """Syllables of a buzz with formants, and pauses: smooth like speech, over a little noise."""
    t = np.arange(int(seconds * rate_hz)) / rate_hz
    buzz = sum(np.sin(2 * np.pi * 120 * k * t) / k for k in range(1, 12))
    syllables = np.clip(np.sin(2 * np.pi * 2 * t) * 3, 0, 1)
    noise = np.random.default_rng(3).normal(0, 12, len(t))
    sound = buzz / np.abs(buzz).max() * syllables * peak + noise
    pcm: Pcm16 = np.clip(np.round(sound), -32_768, 32_767).astype(np.int16)
    return pcm


def listen(
    pcm: Pcm16, rate_hz: int = RATE_HZ, *, pace: float = 1.0, piece_ms: int = 20
) -> tuple[AudioReport, list[str]]:
    """-> the report, and the warnings on the way. `pace`: pieces per piece of clock."""
    diagnosis, warnings = Diagnosis(), []
    step = rate_hz * piece_ms // 1000
    for number, at in enumerate(range(0, len(pcm), step)):
        now_ms = int(number * piece_ms / pace)
        warnings.append(diagnosis.feed(pcm[at : at + step], rate_hz, now_ms))
    return diagnosis.report(), [text for text in warnings if text]


def test_good_speech_has_figures_and_no_warning() -> None:
    report, warnings = listen(voice(8))
    assert warnings == []
    assert report.band == "normal"
    assert 1_000 < report.rms < 8_000
    assert report.seconds == pytest.approx(8)
    assert report.rate_hz == RATE_HZ
    assert report.clipped_share == 0
    assert abs(report.dc_offset) < 5
    assert report.wrong_encoding == ""
    assert report.rate_factor == 1.0
    assert "normal" in report.sentence()
    assert "looks like" not in report.sentence()
    assert all(isinstance(value, str | int | float) for value in report.fields().values())


def test_pauses_do_not_make_speech_quiet() -> None:
    quiet = np.zeros(20 * RATE_HZ, np.int16)
    report, warnings = listen(np.concatenate([quiet, voice(3), quiet]))
    assert report.band == "normal"
    assert report.silence_share > 0.8
    assert warnings == [
        "your audio is silent: check that the microphone is on, allowed and the right one"
    ]


def test_short_silence_is_no_warning_and_nothing_at_all_is_a_sentence() -> None:
    assert listen(np.zeros(8 * RATE_HZ, np.int16))[1] == []
    assert Diagnosis().report().sentence() == "no audio came"


@pytest.mark.parametrize(("peak", "band"), [(3, "silence"), (400, "quiet"), (60_000, "loud")])
def test_bands(peak: int, band: str) -> None:
    pcm = voice(4, peak)
    assert listen(np.zeros_like(pcm) + 3 if peak == 3 else pcm)[0].band == band


def test_clipping_is_told_once() -> None:
    report, warnings = listen(voice(8, 150_000))
    assert report.clipped_share > 0.05
    assert warnings == ["your audio is clipped: lower the microphone's level"]


def test_dc_offset() -> None:
    assert listen(voice(4) + np.int16(500))[0].dc_offset == pytest.approx(500, abs=20)


def wrongly() -> dict[str, tuple[Pcm16, str]]:
    """How it was read -> (what comes out, what it is)."""
    pcm = voice(8, 12_000)
    plain, narrow = pcm.astype("<i2").tobytes(), voice(8, 12_000, 8_000)
    floats = (pcm / 32_768).astype("<f4").tobytes()
    return {
        "big-endian as little": (np.frombuffer(pcm.astype(">i2").tobytes(), "<i2"), "pcm_s16be"),
        "floats as samples": (np.frombuffer(floats, "<i2"), "pcm_f32le"),
        "mu-law as samples": (np.frombuffer(g711.encode_ulaw(pcm), "<i2"), "mulaw"),
        "samples as mu-law": (g711.decode_ulaw(plain), "pcm_s16le"),
        "samples as A-law": (g711.decode_alaw(narrow.astype("<i2").tobytes()), "pcm_s16le"),
    }


@pytest.mark.parametrize("case", wrongly())
def test_wrong_encodings(case: str) -> None:
    pcm, truth = wrongly()[case]
    report, warnings = listen(pcm)
    assert report.wrong_encoding == truth
    assert truth in warnings[0]
    assert len(warnings) == 1


@pytest.mark.parametrize("codec", ["ulaw", "alaw"])
def test_the_telephone_is_not_wrong(codec: str) -> None:
    encode, decode = getattr(g711, f"encode_{codec}"), getattr(g711, f"decode_{codec}")
    report, warnings = listen(decode(encode(voice(8, rate_hz=8_000))), 8_000)
    assert report.wrong_encoding == ""
    assert warnings == []


@pytest.mark.parametrize(("pace", "factor"), [(0.5, 0.5), (2.0, 2.0), (3.0, 3.0), (1.0, 1.0)])
def test_a_rate_that_the_clock_contradicts(pace: float, factor: float) -> None:
    report, warnings = listen(voice(20), pace=pace)
    assert report.rate_factor == pytest.approx(factor)
    assert [("announced rate of 16000 Hz" in text) for text in warnings] == [True] * (factor != 1)


def test_bursts_say_nothing_of_the_rate() -> None:
    diagnosis = Diagnosis()
    for second in range(20):  # two seconds of audio, then nothing for one or three
        diagnosis.feed(voice(2), RATE_HZ, 1_000 * (2 * second + second % 2))
    assert diagnosis.report().rate_factor == 1.0
