"""Ogg Opus in pieces of any size, against FFmpeg's reading of the whole file."""

from __future__ import annotations

import numpy as np
import pytest
from fuzz import harmful_audio
from tests.support import say

from antiphon.audio.containers import decode_file
from antiphon.audio.encoding import StreamEncoder, encode_file
from antiphon.audio.ogg_opus import OggOpusReader
from antiphon.errors import AudioError

SPEECH = say(440, 1_000, silence_ms=200)
FILE = encode_file(SPEECH, 16_000, "opus")


@pytest.mark.parametrize("step", [1, 333, len(FILE)])
def test_pieces(step: int) -> None:
    reader = OggOpusReader()
    found = np.concatenate([reader.feed(FILE[at : at + step]) for at in range(0, len(FILE), step)])
    whole = decode_file(FILE).pcm
    assert len(found) == pytest.approx(len(whole), abs=800)
    assert np.abs(np.fft.rfft(found[:16_000])).argmax() == pytest.approx(440, abs=2)


def test_audio_comes_with_its_page() -> None:
    encoder, reader = StreamEncoder("opus", 16_000), OggOpusReader()
    given = 0
    for start in range(0, len(SPEECH), 1_280):
        given += len(reader.feed(encoder.encode(SPEECH[start : start + 1_280])))
        assert given >= start - 2_000


@pytest.mark.parametrize(
    "data", [b"nonsense", FILE[len(FILE) // 2 :], b"OggS" + bytes(26) + b"\xff"]
)
def test_what_is_no_opus(data: bytes) -> None:
    reader = OggOpusReader()

    def feed_all() -> None:
        for piece in (data, b"\1" * 300, b"OggS"):
            reader.feed(piece)

    with pytest.raises(AudioError):
        feed_all()


@pytest.mark.parametrize("channels", [1, 2, 3, 8, 9, 255])
def test_only_one_stream_of_mono_or_stereo(channels: int) -> None:
    """A valid stream of eight channels crashed the process."""
    with pytest.raises(AudioError, match="send mono or stereo"):
        OggOpusReader().feed(harmful_audio.ogg_opus(channels))
