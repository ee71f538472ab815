"""Files made ready for the line, and what the line does to them."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
import pytest
from tests.support import say

from antiphon.audio.encoding import encode_file
from antiphon.audio.g711 import decode_ulaw
from antiphon.audio.levels import rms
from antiphon.client.phone.clips import SILENCE, background, frames_of, load_clip, make_clip
from antiphon.client.phone.impairments import Fate, Impairments, noise
from antiphon.errors import AudioError, ConfigError


def test_a_file_of_any_rate_becomes_frames_with_its_acoustic_bounds(tmp_path: Path) -> None:
    pcm = np.concatenate([np.zeros(8_000, np.int16), say(440, 700, silence_ms=300)])
    path = tmp_path / "q.wav"
    path.write_bytes(encode_file(pcm, 16_000, "wav"))
    clip = load_clip(path)
    assert clip.name == "q.wav"
    assert clip.duration_s == pytest.approx(1.5, abs=0.01)
    assert clip.speech_start == pytest.approx(4_000, abs=40)
    assert clip.speech_end == pytest.approx(9_600, abs=40)
    assert len(clip.frames) == 75
    assert all(base64.b64decode(f.payload) == f.codes and len(f.codes) == 160 for f in clip.frames)


def test_a_file_in_which_nothing_is_said() -> None:
    with pytest.raises(AudioError, match=r"nothing can be heard in hush\.wav"):
        make_clip("hush.wav", np.zeros(8_000, np.int16), 8_000)


def test_the_last_frame_is_filled_up() -> None:
    (first, last) = frames_of(say(440, 30, rate_hz=8_000))
    assert len(first.codes) == len(last.codes) == 160
    assert last.codes[80:] == SILENCE[80:]


def test_noise_is_as_loud_as_asked_in_speech_and_between() -> None:
    clip = make_clip("q", say(440, 1_000, rate_hz=8_000), 8_000, noise_snr_db=10)
    sent = decode_ulaw(b"".join(f.codes for f in clip.frames)).astype(np.float64)
    added = sent[: len(clip.pcm)] - clip.pcm
    assert 20 * np.log10(clip.level / rms(added.astype(np.int16))) == pytest.approx(10, abs=0.5)
    bed = decode_ulaw(b"".join(f.codes for f in background([clip])))
    assert 20 * np.log10(clip.level / rms(bed)) == pytest.approx(10, abs=0.5)
    assert clip.speech_end == len(clip.pcm), "bounds are those of the clean file"


def test_a_quiet_line_is_silent() -> None:
    assert [f.codes for f in background([])] == [SILENCE]
    assert len(noise(0, 1_000, 10)) == 0


def test_losses_have_the_asked_share_come_in_bursts_and_repeat() -> None:
    def fates(seed: int) -> list[bool]:
        fate = Fate(Impairments(loss_share=0.05, seed=seed))
        return [fate.is_lost() for _ in range(20_000)]

    lost = fates(1)
    assert sum(lost) / len(lost) == pytest.approx(0.05, abs=0.01)
    bursts = sum(now and not before for before, now in zip([False, *lost], lost, strict=False))
    assert sum(lost) / bursts == pytest.approx(2, abs=0.2)
    assert fates(1) == lost != fates(2)
    assert not any(Fate(Impairments()).is_lost() for _ in range(100))


def test_jitter_is_bounded() -> None:
    fate = Fate(Impairments(jitter_ms=40))
    delays = [fate.delay_s() for _ in range(500)]
    assert 0 <= min(delays) < 0.005
    assert 0.035 < max(delays) <= 0.04


@pytest.mark.parametrize("wrong", [{"loss_share": 0.6}, {"loss_share": -1}, {"jitter_ms": -1}])
def test_impairments_out_of_range(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        Impairments(**wrong)  # type: ignore[arg-type]
