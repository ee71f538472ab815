from __future__ import annotations

import io
import wave

import numpy as np
import pytest

from antiphon.audio.containers import decode_file
from antiphon.audio.encoding import (
    CONTENT_TYPES,
    FORMATS,
    StreamEncoder,
    encode_file,
    format_of,
    wav_header,
)
from antiphon.audio.framing import Pcm16
from antiphon.audio.levels import rms
from antiphon.errors import AudioError

RATES_HZ = [8_000, 16_000, 22_050, 24_000, 44_100, 48_000, 96_000]


def tone(rate_hz: int, seconds: float = 1.0) -> Pcm16:
    at = np.arange(round(rate_hz * seconds)) / rate_hz
    return np.rint(12_000 * np.sin(2 * np.pi * 440 * at)).astype(np.int16)


def streamed(fmt: str, pcm: Pcm16, rate_hz: int, bitrate_kbps: int = 64) -> list[bytes]:
    encoder = StreamEncoder(fmt, rate_hz, bitrate_kbps)
    step = rate_hz // 50
    return [
        *(encoder.encode(pcm[at : at + step]) for at in range(0, len(pcm), step)),
        encoder.finish(),
    ]


def sound(data: bytes, fmt: str, rate_hz: int) -> Pcm16:
    if fmt == "pcm":
        return np.frombuffer(data, "<i2")
    return decode_file(data, rate_hz=rate_hz).pcm


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("rate_hz", RATES_HZ)
@pytest.mark.parametrize("bitrate_kbps", [8, 64, 320])
def test_files_of_every_format_rate_and_bit_rate(fmt: str, rate_hz: int, bitrate_kbps: int) -> None:
    pcm = tone(rate_hz, 0.5)
    found = sound(encode_file(pcm, rate_hz, fmt, bitrate_kbps), fmt, rate_hz)
    # AAC in ADTS cannot say how much of its first and last frame is padding.
    spare = 0.2 * rate_hz if fmt == "aac" else 2
    assert len(pcm) - 2 <= len(found) <= len(pcm) + spare
    assert rms(found) > 6_500


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_streams_of_every_format_and_rate(fmt: str, rate_hz: int) -> None:
    pcm = tone(rate_hz, 0.6)
    pieces = streamed(fmt, pcm, rate_hz)
    found = sound(b"".join(pieces), fmt, rate_hz)
    assert len(pcm) - 2 <= len(found) <= len(pcm) + 0.2 * rate_hz
    assert rms(found) > 6_000


@pytest.mark.parametrize(
    ("fmt", "held_ms"),
    [("wav", 0), ("opus", 50), ("webm", 70), ("mp3", 100), ("aac", 100), ("flac", 210)],
)
def test_a_stream_can_be_played_while_it_is_made(fmt: str, held_ms: int) -> None:
    pcm = tone(24_000, 2.0)
    so_far = b"".join(streamed(fmt, pcm, 24_000)[:75])  # 1.5 s went in
    heard_ms = 1000 * decode_file(so_far).duration_s
    assert 1499.9 - held_ms <= heard_ms <= 1510


def test_bit_rate_is_honoured() -> None:
    pcm = np.random.default_rng(1).integers(-8_000, 8_000, 48_000 * 2).astype(np.int16)
    for fmt in ("mp3", "opus", "aac"):
        small, large = (len(encode_file(pcm, 48_000, fmt, kbps)) for kbps in (32, 128))
        assert small * 2.5 < large
    assert len(encode_file(pcm, 48_000, "mp3", 64)) == pytest.approx(2 * 64_000 / 8, rel=0.1)


def test_wav_file_has_true_sizes() -> None:
    data = encode_file(tone(22_050), 22_050, "wav")
    with wave.open(io.BytesIO(data)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (22_050, 1, 2)
        assert file.getnframes() == 22_050
    assert int.from_bytes(data[4:8], "little") == len(data) - 8


def test_streamed_wav_is_read_by_the_standard_library_too() -> None:
    data = b"".join(streamed("wav", tone(16_000), 16_000))
    assert data[:44] == wav_header(16_000, None)
    assert data[4:8] == data[40:44] == b"\xff\xff\xff\xff"
    with wave.open(io.BytesIO(data)) as file:
        assert file.readframes(1 << 30) == tone(16_000).tobytes()


@pytest.mark.parametrize("fmt", FORMATS)
def test_one_sample_and_none(fmt: str) -> None:
    assert encode_file(np.ones(1, np.int16), 16_000, fmt)
    silent = StreamEncoder(fmt, 16_000)
    assert silent.encode(np.zeros(0, np.int16)) + silent.finish() is not None
    if fmt in ("wav", "pcm"):
        assert len(encode_file(np.zeros(0, np.int16), 16_000, fmt)) in (0, 44)
    else:
        with pytest.raises(AudioError, match="no audio to write"):
            encode_file(np.zeros(0, np.int16), 16_000, fmt)


def test_finish_twice_adds_nothing() -> None:
    encoder = StreamEncoder("mp3", 16_000)
    encoder.encode(tone(16_000))
    assert encoder.finish()
    assert encoder.finish() == b""
    assert encoder.content_type == CONTENT_TYPES["mp3"] == "audio/mpeg"


@pytest.mark.parametrize(
    ("path", "fmt"),
    [
        ("a.wav", "wav"),
        ("A.MP3", "mp3"),
        ("x/y.ogg", "opus"),
        ("x.opus", "opus"),
        ("x.flac", "flac"),
        ("x.aac", "aac"),
        ("x.webm", "webm"),
        ("x.raw", "pcm"),
    ],
)
def test_format_by_extension(path: str, fmt: str) -> None:
    assert format_of(path) == fmt


@pytest.mark.parametrize(
    ("path", "message"),
    [("answer", "has no extension"), ("answer.mp33", "did you mean '.mp3'"), ("a.xyz", "known: ")],
)
def test_unknown_extensions(path: str, message: str) -> None:
    with pytest.raises(AudioError, match=message):
        format_of(path)


@pytest.mark.parametrize(
    ("fmt", "rate_hz", "kbps", "message"),
    [
        ("mp33", 16_000, 64, "did you mean 'mp3'"),
        ("mp3", 0, 64, "cannot write audio at 0 Hz"),
        ("mp3", 16_000, 0, "use 8 to 320"),
        ("opus", 16_000, 1_000, "use 8 to 320"),
    ],
)
def test_bad_arguments(fmt: str, rate_hz: int, kbps: int, message: str) -> None:
    with pytest.raises(AudioError, match=message):
        StreamEncoder(fmt, rate_hz, kbps)
    with pytest.raises(AudioError, match=message):
        encode_file(tone(16_000), rate_hz, fmt, kbps)
