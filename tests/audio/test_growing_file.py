"""Files that grow while a call lasts: readable at every moment, left and right where they belong."""

from __future__ import annotations

import stat
from pathlib import Path

import numpy as np
import pytest

from antiphon.audio.containers import decode_file
from antiphon.audio.growing_file import EXTENSIONS, GrowingFile, GrowingFormat, read_sides
from antiphon.audio.levels import rms
from antiphon.errors import AudioError
from antiphon.models.scripted import tone

RATE_HZ = 16_000
PIECE = RATE_HZ // 2
LEFT, RIGHT = tone(440, 3_000, RATE_HZ), tone(880, 3_000, RATE_HZ) // 2
BOTH = np.stack([LEFT, RIGHT], axis=1)


def pieces() -> list[np.ndarray]:
    return [BOTH[at : at + PIECE] for at in range(0, len(BOTH), PIECE)]


@pytest.mark.parametrize("fmt", EXTENSIONS)
def test_both_sides_come_back(tmp_path: Path, fmt: GrowingFormat) -> None:
    path = tmp_path / f"call{EXTENSIONS[fmt]}"
    file = GrowingFile(path, fmt, RATE_HZ, 2)
    for piece in pieces():
        file.write(piece)
    file.close()
    left, right = read_sides(path, RATE_HZ)
    assert len(left) == len(right) == len(LEFT)
    assert rms(left) == pytest.approx(rms(LEFT), rel=0.05)
    assert rms(right) == pytest.approx(rms(RIGHT), rel=0.05)
    if fmt != "opus":
        assert np.array_equal(left, LEFT)
        assert np.array_equal(right, RIGHT)


@pytest.mark.parametrize("fmt", EXTENSIONS)
def test_a_file_that_was_never_closed_can_be_read(tmp_path: Path, fmt: GrowingFormat) -> None:
    path, copy = tmp_path / f"call{EXTENSIONS[fmt]}", tmp_path / f"copy{EXTENSIONS[fmt]}"
    file = GrowingFile(path, fmt, RATE_HZ, 2)
    for number, piece in enumerate(pieces(), 1):
        file.write(piece)
        copy.write_bytes(path.read_bytes())
        left, _ = read_sides(copy, RATE_HZ)
        assert number * PIECE - len(left) < RATE_HZ // 3
    file.close()


def test_wav_is_whole_after_each_piece_and_private(tmp_path: Path) -> None:
    path = tmp_path / "call.wav"
    file = GrowingFile(path, "wav", RATE_HZ)
    file.write(LEFT)
    assert np.array_equal(decode_file(path, rate_hz=None).pcm, LEFT)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    file.close()


@pytest.mark.parametrize("fmt", EXTENSIONS)
def test_a_full_disk_is_an_os_error(fmt: GrowingFormat) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here")
    noise = np.random.default_rng(1).integers(-9000, 9000, (200_000, 2)).astype(np.int16)
    with pytest.raises(OSError, match="No space left"):
        GrowingFile(Path("/dev/full"), fmt, RATE_HZ, 2).write(noise)


def test_what_is_no_recording_of_a_call(tmp_path: Path) -> None:
    text, mono = tmp_path / "a.wav", tmp_path / "b.wav"
    text.write_text("no audio")
    file = GrowingFile(mono, "wav", RATE_HZ)
    file.write(LEFT)
    file.close()
    for path in (text, mono, tmp_path / "missing.opus"):
        with pytest.raises(AudioError, match=path.name):
            read_sides(path, RATE_HZ)
