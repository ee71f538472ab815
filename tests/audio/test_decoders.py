"""Foreign audio in processes of its own: what a harmful file may take, what it costs others, how processes end."""

from __future__ import annotations

import io
import os
import re
import resource
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import numpy as np
import pytest
from fuzz import harmful_audio as harmful
from tests.audio.test_streaming_decoder import (
    OGG,
    PATIENCE_S,
    SOUND_S,
    WAV,
    WEBM,
    Listener,
    in_pieces,
)

from antiphon.audio import decoders
from antiphon.audio.containers import Decoded, decode_file
from antiphon.audio.decoders import DecoderLost, Decoders
from antiphon.audio.encoding import encode_file
from antiphon.errors import AudioError

linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> Iterator[Decoders]:
    """Decoders of this test alone."""
    mine = Decoders()
    monkeypatch.setattr(decoders, "shared", mine)
    yield mine
    mine.close()


def forks(of: Decoders) -> list[int]:
    pid = of.pid
    assert pid is not None
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def attempt(data: bytes) -> Decoded | AudioError:
    try:
        return decode_file(data)
    except AudioError as error:
        return error


class Held(io.BytesIO):
    """A file whose decoder is held up in its first read, until something has been done to it."""

    def __init__(self, data: bytes, do: Callable[[], object]) -> None:
        super().__init__(data)
        self._do: Callable[[], object] | None = do

    def read(self, size: int | None = -1) -> bytes:
        do, self._do = self._do, None
        if do is not None:
            do()
        return super().read(size)


# --- channels and rates -----------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [2, 3, 7, 8])
def test_as_many_channels_as_can_be_mixed(channels: int) -> None:
    """Eight planes crash PyAV's own conversion."""
    assert decode_file(harmful.ogg_opus(channels)).channels == channels


@pytest.mark.parametrize("muxer", ["aiff", "caf", "wav", "matroska"])
def test_a_valid_film_sound(muxer: str) -> None:
    """7.1: a layout that FFmpeg has no mask for in some containers, whose map PyAV frees once too often."""
    file = io.BytesIO()
    codec = "pcm_s16be" if muxer in ("aiff", "caf") else "pcm_s16le"
    with av.open(file, "w", muxer) as out:
        track = out.add_stream(codec, rate=16_000, layout="7.1")
        frame = av.AudioFrame.from_ndarray(np.full((1, 8 * 16_000), 800, np.int16), "s16", "7.1")
        frame.sample_rate = 16_000
        out.mux(track.encode(frame))
    found = decode_file(file.getvalue())
    assert found.channels == 8
    assert found.pcm.tolist() == [800] * 16_000


@pytest.mark.parametrize(
    "data",
    [
        harmful.ogg_opus(9),
        harmful.ogg_opus(255, 2),
        harmful.wav(channels=9),
        harmful.wav(channels=64),
        harmful.mp4(1, 1_000, channels=24),
    ],
    ids=["opus 9", "opus 255", "wav 9", "wav 64", "mp4 24"],
)
def test_more_channels_than_that(data: bytes) -> None:
    with pytest.raises(AudioError, match="channels, and 8 is the most"):
        decode_file(data)


def test_more_channels_in_the_middle() -> None:
    """A chain of two Ogg streams, the second of which has too many: what came before is heard."""
    chain = harmful.ogg_opus(2) + harmful.ogg_opus(9, serial=2)
    assert decode_file(chain).duration_s == pytest.approx(0.1)


@pytest.mark.parametrize("rate_hz", [1, 999, 3_072_001, 0x7FFFFFF])
def test_rates_that_no_sound_has(rate_hz: int) -> None:
    with pytest.raises(
        AudioError, match=r"samples a second|cannot be|could be decoded|longer|not audio"
    ):
        decode_file(harmful.wav(rate_hz=rate_hz, seconds=100 / rate_hz))


def test_only_the_first_sound_track_is_read() -> None:
    file = io.BytesIO()
    with av.open(file, "w", "matroska") as out:
        tracks = [out.add_stream("pcm_s16le", rate=8_000, layout="mono") for _ in range(3)]
        for number, track in enumerate(tracks):
            frame = av.AudioFrame.from_ndarray(
                np.full((1, 8_000), 1_000 * number, np.int16), "s16", "mono"
            )
            frame.sample_rate = 8_000
            out.mux(track.encode(frame))
    found = decode_file(file.getvalue(), rate_hz=None)
    assert found.duration_s == pytest.approx(1.0)
    assert not found.pcm.any()


# --- memory and time --------------------------------------------------------------------------------


@linux
@pytest.mark.parametrize("offsets", [False, True])
@pytest.mark.parametrize(("tracks", "samples"), [(60, 5_000_000), (1_000, 1_000_000)])
def test_declared_samples_fill_no_memory(
    tracks: int, samples: int, offsets: bool, own: Decoders
) -> None:
    """26 kB that would take 8 GB."""
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    others_kb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss  # of tests before this one
    found = attempt(harmful.mp4(tracks, samples, composition_offsets=offsets))
    assert isinstance(found, Decoded) or "takes too much memory" in str(found)
    own.close()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb < 32 << 10
    children_kb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    # A child has counted what its parent held when it was forked.
    assert children_kb <= max(512 << 10, others_kb, before_kb + (32 << 10))


@pytest.mark.parametrize("name", harmful.riff_lists())
def test_lists_in_a_wav(name: str) -> None:
    found = attempt(harmful.riff_lists()[name])
    if isinstance(found, Decoded):
        assert found.duration_s == pytest.approx(0.5)
    else:
        assert re.search("takes too long to decode|not audio that can be read", str(found))


@linux
def test_a_file_that_never_comes_out_ends_at_the_limit_of_the_wall(
    own: Decoders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoders, "_FILE_S", 0.05)

    def stop() -> None:
        os.kill(forks(own)[0], signal.SIGSTOP)

    with pytest.raises(DecoderLost) as lost:
        decode_file(Held(WAV, stop), max_duration_s=10, rate_hz=None)
    assert lost.value.outcome == "time"
    assert decode_file(WAV).duration_s == pytest.approx(SOUND_S)


# --- crashes ----------------------------------------------------------------------------------------


@linux
@pytest.mark.parametrize(
    ("number", "outcome"),
    [
        (signal.SIGSEGV, "crashed"),
        (signal.SIGABRT, "crashed"),
        (signal.SIGKILL, "crashed"),
        (signal.SIGXCPU, "time"),
    ],
)
def test_a_decoder_that_crashes_costs_one_file(
    number: signal.Signals, outcome: str, own: Decoders
) -> None:
    with pytest.raises(DecoderLost, match="record it again") as lost:
        decode_file(Held(WAV, lambda: os.kill(forks(own)[0], number)))
    assert lost.value.outcome == outcome
    before = own.pid
    assert decode_file(WAV).duration_s == pytest.approx(SOUND_S)
    assert own.pid == before


@linux
def test_the_process_that_forks_is_started_again(own: Decoders) -> None:
    assert decode_file(WAV).duration_s == pytest.approx(SOUND_S)
    first = own.pid
    assert first is not None
    with pytest.raises(DecoderLost):
        decode_file(Held(WAV, lambda: os.kill(first, signal.SIGKILL)))
    assert decode_file(WAV).duration_s == pytest.approx(SOUND_S)
    assert own.pid != first


def test_many_files_at_a_time() -> None:
    """Good ones beside bad ones."""
    files = [WAV, harmful.ogg_opus(9), harmful.mp4(1_000, 1_000_000), b"hello " * 50] * 6

    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(attempt, files))
    assert [isinstance(one, Decoded) for one in found] == [data is WAV for data in files]


# --- streams ----------------------------------------------------------------------------------------


@linux
@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGXCPU])
def test_a_crash_costs_one_recording_of_one_stream(number: signal.Signals, own: Decoders) -> None:
    one = Listener()
    one.decoder.feed(WEBM[0])
    one.wait_for_seconds(0.09)
    first = forks(own)
    other = Listener()
    other.decoder.feed(OGG[0])
    other.wait_for_seconds(0.05)
    os.kill(first[0], number)
    one.wait_for_error()
    for piece in WEBM[1:3]:
        one.decoder.feed(piece)  # said once is enough
    for piece in WEBM:
        one.decoder.feed(piece)
    for piece in OGG[1:]:
        other.decoder.feed(piece)
    assert len(one.finish().errors) == 1
    assert one.seconds == pytest.approx(0.1 + SOUND_S, abs=0.05)
    assert other.finish().errors == []
    assert other.seconds == pytest.approx(SOUND_S, abs=0.05)


@linux
def test_a_stream_that_crashes_again_and_again_gets_no_more_decoders(own: Decoders) -> None:
    heard = Listener()
    for number in range(1, 6):
        heard.decoder.feed(WEBM[0])
        heard.wait_for_seconds(0.09 * number)
        os.kill(forks(own)[0], signal.SIGSEGV)
        while len(heard.errors) < number:
            heard.wait_for_news()
    with pytest.raises(AudioError, match="too often"):
        heard.decoder.feed(WEBM[0])
    assert heard.decoder.close()


@pytest.mark.parametrize(
    ("data", "errors"),
    [
        (harmful.ogg_opus(9), 1),
        (harmful.ogg_opus(2) + harmful.ogg_opus(9, serial=2), 0),
        (harmful.mp4(1_000, 1_000_000), 1),
        (harmful.wav(channels=64), 1),
        (harmful.riff_lists()["many tiny chunks"], 0),
    ],
    ids=["opus 9", "opus 2, then 9", "mp4 tracks", "wav 64", "riff"],
)
def test_harmful_recordings_leave_a_stream_that_works(data: bytes, errors: int) -> None:
    heard = Listener()
    for piece in in_pieces(data, 50_000):
        heard.decoder.feed(piece)
    if errors:
        heard.wait_for_error()
    for piece in WEBM:
        heard.decoder.feed(piece)
    heard.finish()
    assert len(heard.errors) == errors
    assert SOUND_S - 0.05 < heard.seconds < SOUND_S + 1


# --- how processes end ------------------------------------------------------------------------------


@linux
def test_a_stream_that_is_closed_leaves_no_process(own: Decoders) -> None:
    heard = Listener()
    heard.decoder.feed(WEBM[0])
    heard.wait_for_seconds(0.09)
    (fork,) = forks(own)
    watched = os.pidfd_open(fork)
    try:
        assert heard.decoder.close()
        assert select.select([watched], [], [], PATIENCE_S)[0]
    finally:
        os.close(watched)


@linux
def test_decoders_end_with_the_process_that_started_them() -> None:
    """Also when it is killed."""
    program = (
        "import sys; from antiphon.audio import decoders; from antiphon.audio.streaming_decoder import StreamDecoder\n"
        "from pathlib import Path\n"
        "heard = StreamDecoder(lambda _: print(decoders.shared.pid, flush=True), print)\n"
        "heard.feed(sys.stdin.buffer.read())\n"
        "import threading; threading.Event().wait()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process.stdin, process.stdout:
        process.stdin.write(b"".join(WEBM))
        process.stdin.close()
        pid = int(process.stdout.readline())
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        watched = [os.pidfd_open(int(one)) for one in [pid, *children]]
        process.kill()
        process.wait()
        for fd in watched:
            assert select.select([fd], [], [], PATIENCE_S)[0]
            os.close(fd)
    assert len(children) == 1


@linux
def test_a_decoder_has_nothing_of_the_servers(
    own: Decoders, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No secret of the environment, no open socket, no other caller's connection, no core, no files to write."""
    monkeypatch.setenv("ANTIPHON_SECRET", "s3cret")
    others = [Listener() for _ in range(3)]
    for other in others:
        other.decoder.feed(WEBM[0])
        other.wait_for_seconds(0.09)
    seen: dict[str, str] = {}

    def look() -> None:
        fork = Path(f"/proc/{forks(own)[-1]}")
        seen["environment"] = (fork / "environ").read_bytes().decode()
        seen["limits"] = (fork / "limits").read_text()
        seen["sockets"] = str(
            sum(os.readlink(fd).startswith("socket:") for fd in (fork / "fd").iterdir())
        )

    decode_file(Held(WAV, look))
    assert "s3cret" not in seen["environment"]
    assert seen["sockets"] == "1"
    limits = {line[:26].strip(): line[26:].split()[0] for line in seen["limits"].splitlines()}
    assert limits["Max core file size"] == limits["Max file size"] == limits["Max processes"] == "0"
    assert int(limits["Max open files"]) < 64
    assert int(limits["Max address space"]) < 2 << 30
    assert int(limits["Max cpu time"]) <= 10
    for other in others:
        assert other.decoder.close()


def test_a_path(tmp_path: Path) -> None:
    """A file that can be sought in. A pipe is refused rather than waited for."""
    path = tmp_path / "a.wav"
    path.write_bytes(encode_file(np.zeros(16_000, np.int16), 16_000, "wav"))
    assert decode_file(path).duration_s == pytest.approx(1.0)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(AudioError, match="it is a pipe; name a regular file"):
        decode_file(pipe)
