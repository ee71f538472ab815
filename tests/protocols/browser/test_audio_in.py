"""The audio of `/ws/conversation`: every recorder, restarts, damage, raw samples."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from tests.server.support import QUESTION, START, client, serving
from tests.support import nothing_left, run, say

from antiphon.audio.encoding import StreamEncoder, encode_file


def container(fmt: str, pcm: np.ndarray = QUESTION) -> bytes:
    if fmt == "mp4":
        return fragmented_mp4(pcm)
    encoder = StreamEncoder(fmt, 16_000)
    return encoder.encode(pcm) + encoder.finish()


def fragmented_mp4(pcm: np.ndarray) -> bytes:
    """As Safari's MediaRecorder makes it."""
    options = {"movflags": "frag_every_frame+empty_moov+default_base_moof"}
    file = io.BytesIO()
    with av.open(file, "w", format="mp4", options=options) as out:
        stream: Any = out.add_stream("aac", rate=16_000)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(pcm.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate = 16_000
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return file.getvalue()


@pytest.mark.parametrize("fmt", ["webm", "opus", "mp4"])
def test_recorders(fmt: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with nothing_left(), serving(tmp_path) as served, client(served) as caller:
            await caller.send_pieces(container(fmt))
            await caller.wait("turn_complete")
            assert caller.of("transcript")[-1]["text"] == "what time is it"
            assert not caller.of("error")

    run(main())


@pytest.mark.parametrize("fmt", ["wav", "flac", "webm"])
def test_a_file_per_utterance(fmt: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as served, client(served) as caller:
            for number in (1, 2):
                await caller.socket.send(encode_file(QUESTION, 16_000, fmt))
                if fmt == "flac":  # not a recorder's format
                    assert "no WebM, Ogg, MP4 or WAV" in (await caller.wait("error"))["message"]
                    return
                await caller.wait("turn_complete", number)

    run(main())


def test_a_recorder_that_restarts(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as served, client(served) as caller:
            for number in (1, 2):
                await caller.send_pieces(container("webm"))
                await caller.wait("turn_complete", number)
            finals = [m["text"] for m in caller.of("transcript") if m["is_final"]]
            assert finals == ["what time is it"] * 2

    run(main())


def test_a_recorder_that_restarts_in_the_middle_of_a_word(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as served, client(served) as caller:
            for part in (QUESTION[:5_000], QUESTION[5_000:]):
                await caller.send_pieces(container("webm", part))
            await caller.wait("turn_complete")
            finals = [m["text"] for m in caller.of("transcript") if m["is_final"]]
            assert finals == ["what time is it"]
            assert caller.of("error") == []

    run(main())


def test_the_middle_of_a_recording_is_one_error(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as served, client(served) as caller:
            await caller.send_pieces(container("webm")[2_000:])
            await caller.send(type="ping")
            await caller.wait("pong")
            assert len(caller.of("error")) == 1
            assert "restart the recorder" in caller.of("error")[0]["message"]
            await caller.send_pieces(container("webm"))
            await caller.wait("turn_complete")

    run(main())


def test_a_damaged_recording_is_one_error(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as served, client(served) as caller:
            await caller.send_pieces(container("webm")[:60] + bytes(range(256)) * 40)
            await caller.send_pieces(container("webm"))
            await caller.wait("turn_complete")
            assert len(caller.of("error")) <= 1

    run(main())


@pytest.mark.parametrize(
    ("start", "dtype", "piece_bytes"),
    [
        (START, "<i2", 641),
        ({**START, "rate": 48_000}, "<i2", 1_921),
        ({**START, "format": "pcm_f32le"}, "<f4", 1_283),
    ],
    ids=["odd-pieces", "48 kHz", "floats"],
)
def test_raw_samples(start: dict[str, Any], dtype: str, piece_bytes: int, tmp_path: Path) -> None:
    async def main() -> None:
        heard = say(440, 640, silence_ms=1200, rate_hz=start["rate"])
        data = heard if dtype == "<i2" else heard / 32768
        async with serving(tmp_path) as served, client(served, start=start) as caller:
            await caller.send_pieces(data.astype(dtype).tobytes(), piece_bytes)
            await caller.wait("turn_complete")
            assert caller.of("transcript")[-1]["text"] == "what time is it"

    run(main())
