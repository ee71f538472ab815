from __future__ import annotations

import io
import queue
import struct
import threading
from fractions import Fraction

import av
import numpy as np
import pytest

from antiphon.audio.encoding import StreamEncoder, encode_file
from antiphon.audio.framing import Pcm16
from antiphon.audio.levels import rms
from antiphon.audio.streaming_decoder import StreamDecoder, sniff
from antiphon.errors import AudioError

PATIENCE_S = 20.0
"""How long a test waits for the worker before it fails; never slept away."""


def tone(seconds: float, rate_hz: int = 16_000) -> Pcm16:
    at = np.arange(round(rate_hz * seconds)) / rate_hz
    return np.rint(12_000 * np.sin(2 * np.pi * 440 * at)).astype(np.int16)


# --- recordings as recorders make them --------------------------------------------------------------


def opus_packets(pcm: Pcm16) -> tuple[bytes, list[bytes]]:
    """OpusHead, and 20 ms packets of `pcm` at 48 kHz."""
    codec = av.CodecContext.create("libopus", "w")
    codec.sample_rate, codec.layout, codec.format = 48_000, "mono", "s16"  # type: ignore[attr-defined]
    codec.time_base = Fraction(1, 48_000)
    packets = []
    for at in range(0, len(pcm) - 959, 960):
        frame = av.AudioFrame.from_ndarray(
            pcm[at : at + 960].reshape(1, -1), format="s16", layout="mono"
        )
        frame.sample_rate, frame.pts, frame.time_base = 48_000, at, Fraction(1, 48_000)
        packets += [bytes(packet) for packet in codec.encode(frame)]  # type: ignore[attr-defined]
    return bytes(codec.extradata or b""), packets


def element(identifier: str, data: bytes, unknown_size: bool = False) -> bytes:
    size = b"\x01" + b"\xff" * 7 if unknown_size else struct.pack(">Q", len(data) | 1 << 56)
    return bytes.fromhex(identifier) + size + data


def webm_header(opus_head: bytes) -> bytes:
    track = (
        element("d7", b"\x01")
        + element("73c5", b"\x01")
        + element("83", b"\x02")
        + element("86", b"A_OPUS")
        + element("56aa", struct.pack(">I", 6_500_000))
        + element("63a2", opus_head)
        + element("e1", element("b5", struct.pack(">d", 48_000.0)) + element("9f", b"\x01"))
    )
    ebml = element("4286", b"\x01") + element("4282", b"webm") + element("4285", b"\x02")
    body = element("1549a966", element("2ad7b1", struct.pack(">I", 1_000_000)))
    return (
        element("1a45dfa3", ebml)
        + element("18538067", b"", unknown_size=True)
        + body
        + element("1654ae6b", element("ae", track))
    )


def webm_pieces(
    pcm48: Pcm16, piece_ms: int = 100, leave_out: range = range(0), cluster_ms: int = 1_000
) -> list[bytes]:
    """MediaRecorder's WebM: sizes unknown, a cluster per second, one piece per time slice.

    `leave_out`: numbers of the 20 ms packets that silence suppression does not send.
    """
    head, packets = opus_packets(pcm48)
    pieces = [webm_header(head)]
    for number, packet in enumerate(packets):
        at_ms = number * 20
        if at_ms % piece_ms == 0 and number:
            pieces.append(b"")
        cluster_start_ms = at_ms // cluster_ms * cluster_ms
        if at_ms == cluster_start_ms:
            pieces[-1] += element("1f43b675", b"", unknown_size=True)
            pieces[-1] += element("e7", struct.pack(">I", cluster_start_ms))
        if number not in leave_out:
            relative = struct.pack(">BhB", 0x81, at_ms - cluster_start_ms, 0x80)
            pieces[-1] += element("a3", relative + packet)
    return [piece for piece in pieces if piece]


def mp4_pieces(pcm48: Pcm16) -> list[bytes]:
    """Safari's fragmented MP4 with AAC, about a fragment per 100 ms."""

    class Sink:
        written = bytearray()

        def write(self, data: bytes) -> int:
            self.written += data
            return len(data)

    sink = Sink()
    sink.written = bytearray()
    options = {
        "movflags": "empty_moov+default_base_moof",
        "frag_duration": "100000",
        "flush_packets": "1",
    }
    pieces = []
    out = av.open(sink, "w", format="mp4", options=options)
    track = out.add_stream("aac", rate=48_000)
    track.layout = "mono"  # type: ignore[union-attr]
    for at in range(0, len(pcm48), 4_800):
        chunk = pcm48[at : at + 4_800].reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(chunk, format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 48_000, at, Fraction(1, 48_000)
        out.mux(track.encode(frame))  # type: ignore[union-attr]
        pieces.append(bytes(sink.written))
        sink.written.clear()
    out.mux(track.encode(None))  # type: ignore[union-attr]
    out.close()
    return [piece for piece in [*pieces, bytes(sink.written)] if piece]


def ogg_pieces(pcm48: Pcm16) -> list[bytes]:
    encoder = StreamEncoder("opus", 48_000)
    pieces = [encoder.encode(pcm48[at : at + 4_800]) for at in range(0, len(pcm48), 4_800)]
    return [piece for piece in [*pieces, encoder.finish()] if piece]


def whole_mp4(pcm48: Pcm16) -> bytes:
    """An MP4 file with its index at the end, as a client sends it that records each utterance into a file."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as out:
        track = out.add_stream("aac", rate=48_000)
        track.layout = "mono"  # type: ignore[union-attr]
        frame = av.AudioFrame.from_ndarray(pcm48.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 48_000, 0, Fraction(1, 48_000)
        out.mux(track.encode(frame))  # type: ignore[union-attr]
        out.mux(track.encode(None))  # type: ignore[union-attr]
    return file.getvalue()


SOUND_S = 3.0
SOUND = tone(SOUND_S, 48_000)
WEBM = webm_pieces(SOUND)
OGG = ogg_pieces(SOUND)
MP4 = mp4_pieces(SOUND)
WAV = encode_file(tone(SOUND_S), 16_000, "wav")


class Listener:
    """Takes what a decoder gives out."""

    def __init__(self, **options: object) -> None:
        self.pieces: list[Pcm16] = []
        self.errors: list[AudioError] = []
        self._news: queue.Queue[None] = queue.Queue()
        self.decoder = StreamDecoder(self._audio, self._error, **options)  # type: ignore[arg-type]

    def _audio(self, pcm: Pcm16) -> None:
        self.pieces.append(pcm)
        self._news.put(None)

    def _error(self, error: AudioError) -> None:
        self.errors.append(error)
        self._news.put(None)

    @property
    def pcm(self) -> Pcm16:
        return np.concatenate([*self.pieces, np.zeros(0, np.int16)])

    @property
    def seconds(self) -> float:
        return len(self.pcm) / 16_000

    def wait_for_seconds(self, seconds: float) -> None:
        while self.seconds < seconds:
            self._news.get(timeout=PATIENCE_S)

    def wait_for_error(self) -> None:
        while not self.errors:
            self.wait_for_news()

    def wait_for_news(self) -> None:
        self._news.get(timeout=PATIENCE_S)

    def finish(self) -> Listener:
        self.decoder.end()
        assert self.decoder.join(PATIENCE_S)
        assert self.decoder.close()
        return self


def decode(pieces: list[bytes], **options: object) -> Listener:
    listener = Listener(**options)
    for piece in pieces:
        listener.decoder.feed(piece)
    return listener.finish()


def in_pieces(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


# --- tests ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["webm", "ogg", "mp4", "wav"])
@pytest.mark.parametrize("size", [0, 7, 1_200, 10**9], ids=["slices", "tiny", "1200", "one"])
def test_every_container_in_pieces_of_any_size(name: str, size: int) -> None:
    pieces = {"webm": WEBM, "ogg": OGG, "mp4": MP4, "wav": in_pieces(WAV, 3_200)}[name]
    if size:
        pieces = in_pieces(b"".join(pieces), size)
    heard = decode(pieces)
    assert heard.errors == []
    assert heard.seconds == pytest.approx(SOUND_S, abs=0.05)
    assert rms(heard.pcm) == pytest.approx(12_000 / np.sqrt(2), rel=0.03)


@pytest.mark.parametrize(
    ("pieces", "held_s"), [(WEBM, 0.008), (OGG, 0.05), (MP4, 0.13)], ids=["webm", "ogg", "mp4"]
)
def test_audio_comes_out_with_its_piece(pieces: list[bytes], held_s: float) -> None:
    """`held_s` for Ogg and MP4 is mostly what their muxer here keeps back of the piece."""
    heard = Listener()
    for number, piece in enumerate(pieces[:25], 1):
        heard.decoder.feed(piece)
        heard.wait_for_seconds(number * 0.1 - held_s)
    assert heard.errors == []
    heard.decoder.close()


def test_a_recorder_that_restarts_on_the_same_connection() -> None:
    heard = decode([*WEBM, *OGG, *WEBM[:10], *MP4, WAV, *WEBM])
    assert heard.errors == []
    assert heard.seconds == pytest.approx(5 * SOUND_S + 1.0, abs=0.2)


@pytest.mark.parametrize("size", [1, 3, 5])
def test_a_restart_whose_first_piece_is_tiny(size: int) -> None:
    joined = b"".join(WEBM)
    heard = decode([*WEBM, joined[:size], joined[size:]])
    assert heard.errors == []
    assert heard.seconds == pytest.approx(2 * SOUND_S, abs=0.05)


def test_a_file_per_utterance_is_heard_without_the_next_one() -> None:
    files = [
        b"".join(WEBM),
        whole_mp4(SOUND),
        WAV,
        encode_file(SOUND, 48_000, "webm"),
        encode_file(SOUND, 48_000, "opus"),
    ]
    heard = Listener()
    for number, file in enumerate(files, 1):
        heard.decoder.feed(file)
        heard.wait_for_seconds(number * (SOUND_S - 0.03))
    assert heard.finish().errors == []
    assert heard.seconds == pytest.approx(len(files) * SOUND_S, abs=0.2)


@pytest.mark.parametrize("pieces", [WEBM[3:], OGG[3:], [b"hello " * 100], MP4[3:]])
def test_the_middle_of_a_recording_gives_one_error_and_the_next_start_is_heard(
    pieces: list[bytes],
) -> None:
    heard = Listener()
    with pytest.raises(AudioError, match="restart the recorder"):
        heard.decoder.feed(pieces[0])
    for piece in pieces[1:]:
        heard.decoder.feed(piece)
    for piece in WEBM:
        heard.decoder.feed(piece)
    assert heard.finish().errors == []
    assert heard.seconds == pytest.approx(SOUND_S, abs=0.05)


def test_garbage_behind_a_header_is_one_error_and_the_next_start_is_heard() -> None:
    heard = Listener()
    noise = np.random.default_rng(5).bytes(30_000)
    heard.decoder.feed(b"\x1a\x45\xdf\xa3" + noise)
    for piece in WEBM:
        heard.decoder.feed(piece)
    heard.finish()
    assert len(heard.errors) == 1
    assert "restart the recorder" in str(heard.errors[0])
    assert heard.seconds == pytest.approx(SOUND_S, abs=0.05)


def test_a_lost_piece_costs_only_itself() -> None:
    heard = decode(WEBM[:10] + WEBM[13:])
    assert heard.errors == []
    assert heard.seconds == pytest.approx(SOUND_S, abs=0.15), "the gap is filled with silence"


def test_suppressed_silence_is_put_back() -> None:
    heard = decode(webm_pieces(SOUND, leave_out=range(50, 100)))
    assert heard.seconds == pytest.approx(SOUND_S, abs=0.05)
    assert rms(heard.pcm[17_000:31_000]) < 100
    assert rms(heard.pcm[33_000:47_000]) > 8_000


def test_suppressed_silence_is_capped() -> None:
    heard = decode(webm_pieces(SOUND, leave_out=range(25, 125)), max_gap_s=0.5)
    assert heard.seconds == pytest.approx(0.5 + 0.5 + 0.5, abs=0.05)


def test_header_only_is_silence_not_an_error() -> None:
    head, _ = opus_packets(SOUND[:960])
    heard = decode([webm_header(head)])
    assert heard.errors == []
    assert heard.seconds == 0


def test_nothing_at_all() -> None:
    assert decode([b""]).errors == []
    assert decode([b"\x1a"]).seconds == 0


def test_a_recording_without_sound_says_so() -> None:
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as out:
        pictures = out.add_stream("mpeg4", rate=10)
        pictures.width, pictures.height, pictures.pix_fmt = 32, 32, "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
        out.mux(pictures.encode(frame))
        out.mux(pictures.encode(None))
    heard = decode([file.getvalue()])
    assert [str(error) for error in heard.errors] == [
        "the recording holds no sound; record a microphone track"
    ]


def test_a_decoder_that_is_behind_refuses_more_and_recovers_at_the_next_start() -> None:
    """The callback holds the worker, as a slow machine would; `feed` never waits."""
    busy, go_on = threading.Event(), threading.Event()
    heard: list[Pcm16] = []
    news: queue.Queue[int] = queue.Queue()

    def slow(pcm: Pcm16) -> None:
        heard.append(pcm)
        news.put(len(pcm))
        busy.set()
        assert go_on.wait(PATIENCE_S)

    def feed_all(pieces: list[bytes]) -> None:
        nonlocal accepted
        for piece in pieces:
            decoder.feed(piece)
            accepted += 1

    accepted = 0
    errors: list[AudioError] = []
    minute = webm_pieces(np.tile(SOUND, 40))
    decoder = StreamDecoder(slow, errors.append, max_backlog_bytes=5_000)
    feed_all(minute[:3])
    assert busy.wait(PATIENCE_S)
    with pytest.raises(AudioError, match="faster than it can be decoded"):
        feed_all(minute[3:])
    assert accepted < len(minute)
    go_on.set()
    caught_up = 1_600 * accepted - 160
    while caught_up > 0:
        caught_up -= news.get(timeout=PATIENCE_S)
    with pytest.raises(AudioError, match="restart the recorder"):
        decoder.feed(minute[-1])
    decoder.feed(b"".join(WEBM))
    decoder.end()
    assert decoder.join(PATIENCE_S)
    assert decoder.close()
    assert errors == []
    total = sum(len(pcm) for pcm in heard)
    assert total == pytest.approx(16_000 * SOUND_S + 1_600 * accepted, abs=800)


def worker_count() -> int:
    return sum(thread.name == "audio-decoder" for thread in threading.enumerate())


@pytest.mark.parametrize(
    "pieces",
    [[], [b"\x1a\x45"], WEBM[:1], WEBM[:8], OGG[:4], MP4[:3], [WAV[:5_000]], [b"\x1a\x45\xdf\xa3"]],
    ids=["nothing", "two bytes", "header", "webm", "ogg", "mp4", "wav", "magic"],
)
def test_close_releases_the_worker_wherever_it_waits(pieces: list[bytes]) -> None:
    before = worker_count()
    heard = Listener()
    for piece in pieces:
        heard.decoder.feed(piece)
    assert heard.decoder.close()
    assert heard.decoder.close(), "twice is fine"
    assert worker_count() == before
    assert heard.errors == []
    with pytest.raises(AudioError, match="has ended"):
        heard.decoder.feed(b"more")


def test_no_callback_after_close_and_close_from_within_one() -> None:
    heard: list[Pcm16] = []
    closed = threading.Event()

    def once(pcm: Pcm16) -> None:
        heard.append(pcm)
        decoder.close()
        closed.set()

    decoder = StreamDecoder(once, heard.append)  # type: ignore[arg-type]
    for piece in WEBM[:4]:
        decoder.feed(piece)
    assert closed.wait(PATIENCE_S)
    assert decoder.join(PATIENCE_S)
    assert len(heard) == 1


def test_a_callback_that_raises_is_reported_not_lost(caplog: pytest.LogCaptureFixture) -> None:
    def broken(_: Pcm16) -> None:
        raise RuntimeError("event loop is closed")

    errors: list[AudioError] = []
    decoder = StreamDecoder(broken, errors.append)
    decoder.feed(WAV)
    decoder.end()
    assert decoder.join(PATIENCE_S)
    assert "event loop is closed" in str(errors[0])
    assert "audio decoder failed" in caplog.text


@pytest.mark.parametrize(
    ("head", "container"),
    [
        (b"\x1a\x45\xdf\xa3", "matroska"),
        (b"\x1a\x45", None),
        (b"OggS\x00\x02", "ogg"),
        (b"OggS\x00\x00", ""),
        (b"OggS", None),
        (b"\0\0\0\x1cftyp", "mov"),
        (b"\0\0\0", None),
        (b"\0\0\0\x1cmoof", ""),
        (b"RIFF\0\0\0\0WAVE", "wav"),
        (b"RIFF\0\0\0\0AVI ", ""),
        (b"RIFF\0\0", None),
        (b"hello", ""),
        (b"x", ""),
    ],
)
def test_sniff(head: bytes, container: str | None) -> None:
    assert sniff(head) == container
