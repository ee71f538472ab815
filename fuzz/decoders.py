"""Damaged audio of every kind through the decoder processes: `python -m fuzz.decoders --seconds 60 --seed 1`.

Seeds are made by FFmpeg itself, in every container and codec that it writes and this project reads, and by hand
(`harmful_audio`). They are mutated, and decoded as whole files and as recordings in pieces. A decoder may refuse an
input, crash, or meet a limit; the process that asked must get an `AudioError` every time, and the process that forks
must live. The same seed gives the same inputs, one after the other; how many there are depends on the time.
"""

from __future__ import annotations

import argparse
import collections
import hashlib
import io
import json
import random
import resource
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np

from antiphon.audio import decoders
from antiphon.audio.containers import decode_file
from antiphon.audio.decoders import DecoderLost
from antiphon.audio.frame_decoding import demuxers
from antiphon.audio.streaming_decoder import StreamDecoder, sniff
from antiphon.errors import AudioError
from fuzz import harmful_audio

_MORE_CODECS = {
    "matroska": "pcm_f32le flac alac aac ac3 dca mp2 libmp3lame libopus libvorbis wavpack tta truehd".split(),
    "mov": "pcm_s24be alac aac ac3 pcm_mulaw adpcm_ima_qt libmp3lame".split(),
    "mp4": "aac alac flac ac3 eac3 libopus libmp3lame".split(),
    "wav": "pcm_u8 pcm_s32le pcm_f64le pcm_alaw adpcm_ms adpcm_ima_wav g726 libmp3lame wmav2".split(),
    "ogg": "libopus libvorbis flac libspeex".split(),
    "webm": "libopus libvorbis".split(),
    "avi": "pcm_s16le libmp3lame adpcm_ms ac3".split(),
    "mpegts": "aac mp2 ac3 libopus".split(),
    "nut": "pcm_s16be aac libvorbis flac".split(),
    "caf": "pcm_s16be alac libopus aac".split(),
    "aiff": "pcm_s16be pcm_s24be pcm_mulaw".split(),
    "asf": "wmav1 wmav2".split(),
    "flv": "aac libmp3lame adpcm_swf nellymoser speex".split(),
    "swf": ["libmp3lame"],
}
_RATES_HZ = (48_000, 44_100, 16_000, 8_000)
_SEED_S = 0.3
_LIMIT_S = 60.0
_PATIENCE_S = 120.0
_MOST_KEPT = 50
"""Inputs of each outcome that are written down."""


@dataclass(frozen=True, slots=True)
class Seed:
    name: str
    data: bytes


def seeds() -> list[Seed]:
    """All that can be made here."""
    known = set(demuxers())
    found: dict[str, bytes] = {}
    for muxer in sorted(av.formats_available):
        # A muxer's name may be one of the names that its demuxer has, or have no demuxer of that name ("ipod").
        if not known & {muxer, *_other_names(muxer)}:
            continue
        for codec in [*_MORE_CODECS.get(muxer, []), None]:
            for channels in (1, 6, 8):
                made = _made(muxer, codec, channels)
                if made is not None:
                    found[f"{muxer} {codec or 'default'} {channels}"] = made
    unique = {data: Seed(name, data) for name, data in found.items()}
    by_hand = {
        "opus 8 channels": harmful_audio.ogg_opus(8),
        "opus 9 channels": harmful_audio.ogg_opus(9),
        "opus chained": harmful_audio.ogg_opus(2) + harmful_audio.ogg_opus(9, serial=2),
        "mp4 tables": harmful_audio.mp4(3, 100_000, composition_offsets=True),
        "aac 7.1": harmful_audio.adts(7, bytes(range(40))),
        "aac of a program": harmful_audio.adts(0, b"\xa0\x01\x12" + bytes(range(40))),
        "wav lists": harmful_audio.wav(
            harmful_audio.list_chunk(50), harmful_audio.chunk(b"junk", b"x")
        ),
        "wav 24 channels": harmful_audio.wav(channels=24),
        "swf": b"FWS\x0a" + bytes(range(256)),
    }
    return [*unique.values(), *[Seed(name, data) for name, data in by_hand.items()]]


def _other_names(muxer: str) -> tuple[str, ...]:
    aliases = {
        "adts": ("aac",),
        "webm": ("matroska",),
        "opus": ("ogg",),
        "oga": ("ogg",),
        "spx": ("ogg",),
    }
    movies = ("mp4", "ipod", "3gp", "3g2", "psp", "ismv", "f4v", "mov")
    return aliases.get(muxer, ()) + (("mov",) if muxer in movies else ())


def _made(muxer: str, codec: str | None, channels: int) -> bytes | None:
    for rate_hz in _RATES_HZ:
        try:
            return _encoded(muxer, codec, channels, rate_hz)
        except Exception:  # noqa: BLE001 - this combination does not exist
            continue
    return None


def _encoded(muxer: str, codec: str | None, channels: int, rate_hz: int) -> bytes | None:
    layout = {1: "mono", 6: "5.1", 8: "7.1"}[channels]
    file = io.BytesIO()
    out = av.open(file, "w", format=muxer)
    name = codec or out.default_audio_codec
    if name in ("none", ""):
        return None
    stream: Any = out.add_stream(name, rate=rate_hz, layout=layout)
    time_s = np.arange(round(rate_hz * _SEED_S)) / rate_hz
    tone = np.rint(9_000 * np.sin(2 * np.pi * 440 * time_s)).astype(np.int16)
    samples = np.repeat(tone, channels).reshape(1, -1)
    frame = av.AudioFrame.from_ndarray(samples, "s16", layout)
    frame.sample_rate = rate_hz
    out.mux(stream.encode(frame))
    out.mux(stream.encode(None))
    out.close()
    return file.getvalue() or None


# -- mutations -----------------------------------------------------------------------------------------

_LYING = (0, 1, 7, 8, 9, 255, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
_MARKS = (
    b"OggS",
    b"OpusHead",
    b"fmt ",
    b"data",
    b"LIST",
    b"moov",
    b"trak",
    b"stsd",
    b"stsz",
    b"stts",
    b"stsc",
)
_MARKS += (
    b"stco",
    b"ctts",
    b"mdat",
    b"moof",
    b"trun",
    b"esds",
    b"\x1a\x45\xdf\xa3",
    b"\x9f",
    b"fLaC",
    b"\xff\xf1",
)


def mutated(data: bytes, dice: random.Random) -> bytes:
    """One to four things that go wrong with a file."""
    changed = bytearray(data)
    for _ in range(dice.randint(1, 4)):
        if changed:
            dice.choice(_MUTATIONS)(changed, dice)
    return bytes(changed[: 4 << 20])


def _flip(data: bytearray, dice: random.Random) -> None:
    for _ in range(dice.choice((1, 1, 2, 8, 64))):
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)


def _cut_short(data: bytearray, dice: random.Random) -> None:
    del data[dice.randrange(len(data)) :]


def _leave_out(data: bytearray, dice: random.Random) -> None:
    at = dice.randrange(len(data))
    del data[at : at + dice.choice((1, 4, 100, 4_000))]


def _repeat(data: bytearray, dice: random.Random) -> None:
    at = dice.randrange(len(data))
    data[at:at] = data[at : at + dice.choice((4, 16, 200, 4_000))] * dice.choice((1, 2, 50))


def _noise(data: bytearray, dice: random.Random) -> None:
    at = dice.randrange(len(data))
    size = dice.choice((1, 4, 16, 200))
    data[at : at + size] = dice.randbytes(size)


def _lie(data: bytearray, dice: random.Random) -> None:
    """A number, of any width and order, is another: sizes, counts, channels and rates are such numbers."""
    width, order = dice.choice((1, 2, 3, 4, 8)), dice.choice(("little", "big"))
    near = data.find(dice.choice(_MARKS), dice.randrange(len(data)))
    within = near + dice.randint(-8, 32) if near >= 0 else dice.randrange(min(len(data), 512))
    at = min(max(within, 0), len(data) - 1)
    value = dice.choice(_LYING) % (1 << 8 * width)
    data[at : at + width] = value.to_bytes(width, "little" if order == "little" else "big")


_MUTATIONS = (_flip, _flip, _cut_short, _leave_out, _repeat, _noise, _lie, _lie, _lie)


# -- outcomes ------------------------------------------------------------------------------------------


def as_file(data: bytes) -> str:
    try:
        decode_file(data, max_duration_s=_LIMIT_S)
    except DecoderLost as lost:
        return lost.outcome
    except AudioError:
        return "refused"
    return "decoded"


def as_stream(data: bytes, piece_bytes: int = 700) -> str:
    """The first error, if there is one."""
    outcomes: list[str] = []

    def on_error(error: AudioError) -> None:
        outcomes.append(error.outcome if isinstance(error, DecoderLost) else "refused")

    decoder = StreamDecoder(lambda _: None, on_error)
    try:
        for at in range(0, len(data), piece_bytes):
            decoder.feed(data[at : at + piece_bytes])
    except AudioError:
        outcomes.append("refused")
    decoder.end()
    ended = decoder.join(_PATIENCE_S)
    decoder.close()
    if not ended:
        return "hung"
    return outcomes[0] if outcomes else "decoded"


def outcome_of(data: bytes, way: str) -> str:
    try:
        return as_stream(data) if way == "stream" else as_file(data)
    except Exception as error:  # noqa: BLE001 - this is what is looked for
        return f"wrong: {error!r}"[:200]


@dataclass(slots=True)
class Report:
    seed: int
    seconds: float
    seeds: int
    inputs: int = 0
    slowest_s: float = 0.0
    parent_grown_mb: int = 0
    forker_lived: bool = True
    outcomes: dict[str, dict[str, int]] | None = None
    """By way: how many inputs came to what."""

    @property
    def good(self) -> bool:
        found = {outcome for counts in (self.outcomes or {}).values() for outcome in counts}
        return self.forker_lived and found <= {"decoded", "refused", "crashed", "memory", "time"}


def fuzz(seconds: float, seed: int, kept: Path, workers: int) -> Report:
    """Decode mutations for that long. Inputs that took a decoder with them are written to the folder `kept`."""
    dice = random.Random(seed)
    known = seeds()
    report = Report(seed, seconds, len(known))
    counts: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    lock = threading.Lock()
    decode_file(harmful_audio.wav())
    forker, before_kb = decoders.shared.pid, _peak_kb()

    def attempt(name: str, data: bytes, way: str) -> None:
        began_s = time.monotonic()
        outcome = outcome_of(data, way)
        with lock:
            report.inputs += 1
            report.slowest_s = max(report.slowest_s, round(time.monotonic() - began_s, 2))
            counts[way][outcome] += 1
            if outcome not in ("decoded", "refused") and counts[way][outcome] <= _MOST_KEPT:
                _keep(kept, name, data, f"{way} {outcome}")

    ends_s = time.monotonic() + seconds
    with ThreadPoolExecutor(workers) as threads:
        waiting: collections.deque[Future[None]] = collections.deque()
        for name, data, way in _inputs(known, dice):
            if time.monotonic() > ends_s:
                break
            waiting.append(threads.submit(attempt, name, data, way))
            if len(waiting) >= 2 * workers:
                waiting.popleft().result()
    report.parent_grown_mb = (_peak_kb() - before_kb) >> 10
    report.forker_lived = decoders.shared.pid == forker
    report.outcomes = {way: dict(found) for way, found in counts.items()}
    return report


def _inputs(known: list[Seed], dice: random.Random) -> Iterator[tuple[str, bytes, str]]:
    """Every seed as it is, then mutations without end."""
    for seed in known:
        yield seed.name, seed.data, "file"
    while True:
        seed = dice.choice(known)
        data = mutated(seed.data, dice)
        yield seed.name, data, "stream" if sniff(data) and dice.random() < 0.5 else "file"


def _peak_kb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _keep(folder: Path, name: str, data: bytes, outcome: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    label = "-".join(f"{outcome} {name}".replace(":", "").split())[:80].replace("/", "_")
    (folder / f"{label}-{hashlib.sha256(data).hexdigest()[:10]}.bin").write_bytes(data)


def main() -> int:
    parser = argparse.ArgumentParser(description="Damaged audio through the decoder processes.")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path(".fuzz/decoders.json"))
    asked = parser.parse_args()
    report = fuzz(asked.seconds, asked.seed, asked.out.with_suffix(""), asked.workers)
    text = json.dumps(asdict(report), indent=2, sort_keys=True)
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(text + "\n")
    print(text)
    return 0 if report.good else 1


if __name__ == "__main__":
    sys.exit(main())
