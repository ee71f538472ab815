from __future__ import annotations

import io
import wave

import numpy as np
import pytest

from antiphon.audio import compress as module
from antiphon.audio.compress import compress, compression_ratio, decompress
from antiphon.audio.encoding import encode_file
from antiphon.errors import AudioError

PCM = np.rint(9_000 * np.sin(np.arange(22_050 * 4) * 0.1)).astype(np.int16)
WAV = encode_file(PCM, 22_050, "wav")


@pytest.mark.parametrize("fmt", ["mp3", "opus", "flac", "aac"])
def test_there_and_back(fmt: str) -> None:
    small = compress(WAV, bitrate=48, fmt=fmt)
    assert len(small) < len(WAV)
    with wave.open(io.BytesIO(decompress(small))) as file:
        assert file.getnframes() / file.getframerate() == pytest.approx(4.0, abs=0.1)
        assert (file.getnchannels(), file.getsampwidth()) == (1, 2)


def test_defaults_are_those_of_the_pipeline_system() -> None:
    small = module.compress_wav_to_mp3(WAV, bitrate=64)
    assert len(small) == pytest.approx(4 * 64_000 / 8, rel=0.1)
    with wave.open(io.BytesIO(module.decompress_mp3_to_wav(small))) as file:
        assert file.getframerate() == 22_050
    assert module.get_compression_ratio(WAV, small) == pytest.approx(22_050 * 16 / 64_000, rel=0.1)


def test_raw_pcm_needs_its_rate() -> None:
    raw = PCM.astype("<i2").tobytes()
    assert len(compress(raw, pcm_rate_hz=22_050)) == pytest.approx(len(compress(WAV)), rel=0.02)
    with pytest.raises(AudioError):
        compress(raw[:3], pcm_rate_hz=22_050)
    with pytest.raises(AudioError):
        compress(b"not audio at all")


def test_ratio_is_original_over_compressed() -> None:
    assert compression_ratio(bytes(400), bytes(100)) == 4.0
    assert compression_ratio(400, 100) == 4.0
    assert compression_ratio(b"", b"x") == 0.0
    assert f"{compression_ratio(400, 100):.1%}" == "400.0%"
    with pytest.raises(AudioError, match="compress it first"):
        compression_ratio(b"abc", b"")
