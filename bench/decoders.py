"""What decoding takes, as who waits for it sees it: files, and pieces of a recording of a call. No model, no server.

    python bench/decoders.py [--calls 20]

Run it under two versions (PYTHONPATH=src of each) to compare them. One JSON object per line.
"""

from __future__ import annotations

import argparse
import json
import statistics
import threading
import time

import numpy as np

from antiphon.audio.containers import decode_file
from antiphon.audio.encoding import StreamEncoder, encode_file
from antiphon.audio.streaming_decoder import StreamDecoder

FILES = 60
PIECES = 100
PIECE_S = 0.1
PATIENCE_S = 10.0


def speech(seconds: float, rate_hz: int) -> np.ndarray:
    """Noise that swells, as hard to decode as speech."""
    dice = np.random.default_rng(1)
    at = np.arange(round(seconds * rate_hz)) / rate_hz
    return (dice.normal(0, 2_000, len(at)) * (1 + np.sin(at * 9))).astype(np.int16)


def summary(name: str, found_ms: list[float]) -> None:
    ordered = sorted(found_ms)
    print(
        json.dumps(
            {
                "what": name,
                "median_ms": round(statistics.median(ordered), 3),
                "p95_ms": round(ordered[int(0.95 * (len(ordered) - 1))], 3),
                "n": len(ordered),
            }
        ),
        flush=True,
    )


def files() -> None:
    pcm = speech(10, 16_000)
    for fmt in ("wav", "mp3", "opus"):
        data = encode_file(pcm, 16_000, fmt)
        decode_file(data)
        found = []
        for _ in range(FILES):
            began_s = time.perf_counter()
            decode_file(data)
            found.append((time.perf_counter() - began_s) * 1000)
        summary(f"file {fmt}, 10 s", found)


class Call:
    """Feeds pieces, and measures how long the audio of each takes to come out."""

    def __init__(self) -> None:
        self._came = threading.Event()
        self.found_ms: list[float] = []
        self._decoder = StreamDecoder(lambda _: self._came.set(), print)

    def feed(self, piece: bytes) -> None:
        self._came.clear()
        began_s = time.perf_counter()
        self._decoder.feed(piece)
        assert self._came.wait(PATIENCE_S)
        self.found_ms.append((time.perf_counter() - began_s) * 1000)

    def close(self) -> None:
        self._decoder.close()


def streams(fmt: str, calls: int) -> None:
    encoder = StreamEncoder(fmt, 48_000)
    pcm = speech(PIECES * PIECE_S, 48_000)
    size = round(48_000 * PIECE_S)
    pieces = [encoder.encode(pcm[at : at + size]) for at in range(0, len(pcm), size)]

    def one(number: int) -> None:
        call = Call()
        begin_s = time.perf_counter() + number * PIECE_S / calls
        for index, piece in enumerate(pieces):
            time.sleep(max(0.0, begin_s + index * PIECE_S - time.perf_counter()))
            call.feed(piece)
        call.close()
        with lock:
            first.append(call.found_ms[0])
            later.extend(call.found_ms[1:])

    lock = threading.Lock()
    first: list[float] = []
    later: list[float] = []
    threads = [threading.Thread(target=one, args=(number,)) for number in range(calls)]
    cpu_s = time.process_time()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    summary(f"{fmt}, {calls} calls, first piece", first)
    summary(f"{fmt}, {calls} calls, later pieces of {PIECE_S * 1000:g} ms", later)
    share = (time.process_time() - cpu_s) / (calls * PIECES * PIECE_S)
    print(
        json.dumps(
            {
                "what": f"{fmt}, CPU of this process, ms per call-second",
                "ms": round(share * 1000, 2),
            }
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--calls", type=int, default=20)
    asked = parser.parse_args()
    files()
    for fmt in ("webm", "opus"):
        streams(fmt, 1)
        streams(fmt, asked.calls)


if __name__ == "__main__":
    main()
