from __future__ import annotations

import io
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from antiphon.audio import containers
from antiphon.audio.containers import decode_file, encode_file
from antiphon.audio.framing import Pcm16
from antiphon.audio.levels import rms
from antiphon.errors import AudioError


def tone(rate_hz: int, seconds: float = 1.0, hz: float = 440) -> Pcm16:
    at = np.arange(round(rate_hz * seconds)) / rate_hz
    return np.rint(12_000 * np.sin(2 * np.pi * hz * at)).astype(np.int16)


def wav(samples: np.ndarray, rate_hz: int, sizes: int | None = None) -> bytes:
    """A plain WAV of samples of shape [n, channels] and any type; `sizes` puts a lie into both size fields."""
    kind = 3 if samples.dtype.kind == "f" else 1
    width, channels = samples.dtype.itemsize, samples.shape[1]
    data = samples.tobytes()
    size = len(data) if sizes is None else sizes
    layout = (16, kind, channels, rate_hz, rate_hz * width * channels, width * channels, width * 8)
    riff = size + 36 if sizes is None else sizes
    return (
        struct.pack("<4sI4s4sIHHIIHH", b"RIFF", riff, b"WAVE", b"fmt ", *layout)
        + struct.pack("<4sI", b"data", size)
        + data
    )


def wav24(pcm: Pcm16, rate_hz: int) -> bytes:
    """24-bit mono WAV."""
    data = b"".join(struct.pack("<i", int(v) << 8)[:3] for v in pcm)
    layout = (16, 1, 1, rate_hz, rate_hz * 3, 3, 24)
    return (
        struct.pack("<4sI4s4sIHHIIHH", b"RIFF", len(data) + 36, b"WAVE", b"fmt ", *layout)
        + struct.pack("<4sI", b"data", len(data))
        + data
    )


def video(sound: Pcm16 | None, rate_hz: int = 48_000) -> bytes:
    """A small MP4 with a picture and, where given, a sound track."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as out:
        pictures = out.add_stream("mpeg4", rate=10)
        pictures.width, pictures.height, pictures.pix_fmt = 32, 32, "yuv420p"
        track = out.add_stream("aac", rate=rate_hz, layout="mono") if sound is not None else None
        for _ in range(10):
            frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
            out.mux(pictures.encode(frame))
        out.mux(pictures.encode(None))
        if track is not None and sound is not None:
            audio = av.AudioFrame.from_ndarray(sound.reshape(1, -1), format="s16", layout="mono")
            audio.sample_rate, audio.pts, audio.time_base = rate_hz, 0, Fraction(1, rate_hz)
            out.mux(track.encode(audio))
            out.mux(track.encode(None))
    return file.getvalue()


def assert_is_the_tone(found: containers.Decoded, seconds: float = 1.0) -> None:
    assert found.pcm.dtype == np.int16
    assert len(found.pcm) == pytest.approx(found.rate_hz * seconds, abs=0.1 * found.rate_hz)
    assert rms(found.pcm) == pytest.approx(12_000 / np.sqrt(2), rel=0.06)
    spectrum = np.abs(np.fft.rfft(found.pcm.astype(float)))
    assert np.argmax(spectrum) * found.rate_hz / len(found.pcm) == pytest.approx(440, abs=3)


STEREO = np.stack([tone(44_100), tone(44_100)], axis=1)
SEVEN = np.repeat(tone(96_000)[:, None], 7, axis=1)


@pytest.mark.parametrize(
    ("data", "rate_hz", "channels"),
    [
        (wav(tone(16_000)[:, None], 16_000), 16_000, 1),
        (wav(STEREO, 44_100), 44_100, 2),
        (wav(SEVEN, 96_000), 96_000, 7),
        (wav(SEVEN.astype("<f4") / 32768, 96_000), 96_000, 7),
        (wav(STEREO.astype("<f8") / 32768, 44_100), 44_100, 2),
        (wav(tone(8_000)[:, None].astype("<i4") * 65_536, 8_000), 8_000, 1),
        (wav((tone(11_025)[:, None] // 256 + 128).astype(np.uint8), 11_025), 11_025, 1),
        (wav24(tone(22_050), 22_050), 22_050, 1),
        (video(tone(48_000)), 48_000, 1),
    ],
    ids=[
        "16k",
        "stereo",
        "96k 7ch",
        "96k 7ch float",
        "double",
        "32 bit",
        "8 bit",
        "24 bit",
        "video",
    ],
)
def test_any_rate_channels_and_sample_format(data: bytes, rate_hz: int, channels: int) -> None:
    found = decode_file(data)
    assert found.rate_hz == 16_000
    assert (found.source_rate_hz, found.channels) == (rate_hz, channels)
    assert_is_the_tone(found)


@pytest.mark.parametrize("fmt", ["wav", "mp3", "opus", "flac", "aac", "webm"])
def test_every_format_we_write_is_read(fmt: str) -> None:
    assert_is_the_tone(decode_file(encode_file(tone(24_000), 24_000, fmt), rate_hz=24_000))


def test_bytes_path_and_file_object_are_the_same(tmp_path: Path) -> None:
    data = encode_file(tone(16_000), 16_000, "wav")
    path = tmp_path / "question.wav"
    path.write_bytes(data)
    expected = decode_file(data).pcm.tolist()
    assert decode_file(path).pcm.tolist() == expected
    assert decode_file(str(path)).pcm.tolist() == expected
    assert decode_file(memoryview(data)).pcm.tolist() == expected
    with path.open("rb") as file:
        assert decode_file(file).pcm.tolist() == expected


def test_the_rate_of_the_source_can_be_kept() -> None:
    found = decode_file(wav(STEREO, 44_100), rate_hz=None)
    assert found.rate_hz == 44_100
    assert found.pcm.tolist() == tone(44_100).tolist()


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF])
def test_wav_that_was_streamed_has_no_sizes(size: int) -> None:
    found = decode_file(wav(tone(16_000)[:, None], 16_000, sizes=size))
    assert found.pcm.tolist() == tone(16_000).tolist()


@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 96_000])
def test_one_sample(rate_hz: int) -> None:
    found = decode_file(encode_file(np.ones(1, np.int16), rate_hz, "wav"))
    assert 1 <= len(found.pcm) <= 2
    assert found.duration_s == pytest.approx(1 / rate_hz)


@pytest.mark.parametrize("fmt", ["wav", "mp3", "opus", "flac", "aac", "webm"])
def test_a_truncated_file_gives_what_is_there(fmt: str) -> None:
    whole = encode_file(tone(16_000, 4.0), 16_000, fmt)
    found = decode_file(whole[: len(whole) // 2])
    assert 1.2 < found.duration_s < 3.0
    assert rms(found.pcm) > 7_000


def test_damage_in_the_middle_is_passed_over() -> None:
    data = bytearray(encode_file(tone(16_000, 4.0), 16_000, "mp3"))
    middle = len(data) // 2
    data[middle : middle + 700] = b"\xff" * 700
    assert decode_file(bytes(data)).duration_s > 3.0


PLAYLIST = b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile:///etc/hostname\n#EXT-X-ENDLIST\n"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"This is a text that somebody called speech.wav.\n" * 40, "not audio that can be read"),
        (b"\0" * 5_000, "not audio that can be read|no audio could be decoded"),
        (PLAYLIST, "not audio that can be read"),
        (b"ffconcat version 1.0\nfile '/etc/hostname'\n", "not audio that can be read"),
        (encode_file(tone(8_000), 8_000, "wav")[:30], "not audio that can be read"),
        (encode_file(tone(8_000), 8_000, "wav")[:44], "no audio could be decoded"),
        (video(None), "holds no audio"),
    ],
    ids=[
        "empty",
        "text",
        "zeros",
        "playlist",
        "concat",
        "half a header",
        "only a header",
        "silent film",
    ],
)
def test_what_is_not_audio_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(AudioError, match=message) as caught:
        decode_file(data)
    assert "\n" not in str(caught.value)


def test_paths_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match=r"nothing\.wav: No such file"):
        decode_file(tmp_path / "nothing.wav")
    with pytest.raises(AudioError, match="cannot read"):
        decode_file(tmp_path)
    (tmp_path / "empty.wav").touch()
    with pytest.raises(AudioError, match="is empty"):
        decode_file(tmp_path / "empty.wav")


class CountingFile(io.BytesIO):
    """Counts the bytes that were read from it."""

    taken = 0

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self.taken += len(data)
        return data


def test_a_three_hour_file_is_refused_before_it_is_decoded() -> None:
    silence = np.zeros(8_000 * 60 * 30, np.int16)
    bomb = encode_file(silence, 8_000, "flac")
    assert len(bomb) < len(silence) / 20, "half an hour in some kilobytes"
    with pytest.raises(AudioError, match="longer than 60 s, the limit"):
        decode_file(bomb, max_duration_s=60)


def test_the_limit_holds_without_a_declared_length() -> None:
    streamed = wav(np.zeros((16_000 * 120, 1), np.int16), 16_000, sizes=0xFFFFFFFF)
    file = CountingFile(streamed)
    with pytest.raises(AudioError, match="longer than 10 s"):
        decode_file(file, max_duration_s=10)
    assert file.taken < len(streamed) / 4
    assert decode_file(streamed, max_duration_s=121).duration_s == pytest.approx(120)


def test_tags_in_another_alphabet_do_not_matter() -> None:
    plain = encode_file(tone(16_000), 16_000, "wav")
    info = b"INFOINAM" + struct.pack("<I", 4) + b"\xe9\xe8\xff\0"
    tagged = plain[:36] + b"LIST" + struct.pack("<I", len(info)) + info + plain[36:]
    assert_is_the_tone(decode_file(tagged))


def test_the_rate_may_change_within_a_file() -> None:
    chained = encode_file(tone(16_000), 16_000, "aac") + encode_file(tone(48_000), 48_000, "aac")
    found = decode_file(chained)
    assert found.duration_s == pytest.approx(2.0, abs=0.3)
    assert rms(found.pcm) > 7_000
