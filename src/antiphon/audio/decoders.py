"""Decoder processes, as seen by who has audio to decode: one socket for each file and each stream.

The process that forks them (`decoder_process`) is started with the first job, or by `warm`, and again when it is gone.
It inherits nothing of this process: no socket, no secret of the environment. A decoder that crashes, hangs, or wants
too much costs its own audio and nothing else.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Mapping
from contextlib import suppress
from typing import IO, Any, Literal

from antiphon.audio.decoder_link import WANTED, MessageKind, receive, send
from antiphon.errors import AudioError, BusyError

_INHERITED = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PYTHONHOME", "LANG", "LC_ALL")
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
_SOCKET_BYTES = 64 << 10
"""What the system holds in each direction of a connection, about."""
_MAX_READ_BYTES = 1 << 20
_FILE_S = 60.0
_FILE_SHARE = 1 / 10
"""A file takes at most this long, and more where a longer one is allowed."""
_PLACE_S = 30.0
_places = threading.BoundedSemaphore(max(4, os.cpu_count() or 1))
"""Files that are decoded at a time; others wait."""
_END_S = 2.0

Outcome = Literal["crashed", "memory", "time"]


class DecoderLost(AudioError):
    """Audio that was too much for its decoder process."""

    def __init__(self, outcome: Outcome) -> None:
        self.outcome = outcome
        what = {
            "crashed": "this audio made its decoder fail",
            "memory": "this audio takes too much memory to decode",
            "time": "this audio takes too long to decode",
        }[outcome]
        super().__init__(
            f"{what}: it is damaged, or made to do harm; record it again as WAV or MP3"
        )


class Decoders:
    """The process that forks decoders. Thread-safe; `close` it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    @property
    def pid(self) -> int | None:
        """Of the process; None before it is started."""
        return None if self._process is None else self._process.pid

    def warm(self) -> None:
        """Start the process if it is not there. Does not wait until it can work; who has a job hears when it cannot."""
        with self._lock, suppress(OSError):
            self._started()

    def open(self, job: Mapping[str, Any]) -> socket.socket:
        """A connection to a decoder of its own, which closing it ends. Never waits for the decoder.

        Raises AudioError when no process can be started.
        """
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                for end in (ours, theirs):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BYTES)
                send(ours, MessageKind.JOB, json.dumps(job).encode())
                self._hand_over(theirs.fileno())
        except BaseException:
            ours.close()
            raise
        return ours

    def _hand_over(self, fd: int) -> None:
        with self._lock:
            try:
                try:
                    socket.send_fds(self._started(), [b"j"], [fd])
                except (BrokenPipeError, ConnectionResetError):
                    self._stop()
                    socket.send_fds(self._started(), [b"j"], [fd])
            except OSError as error:
                reason = error.strerror or str(error)
                raise AudioError(
                    f"no process for decoding audio can be started ({reason}); try again"
                ) from None

    def _started(self) -> socket.socket:
        if self._process is not None and self._process.poll() is not None:
            self._stop()
        if self._control is None:
            ours, theirs = socket.socketpair()
            with theirs:
                self._process = subprocess.Popen(
                    [
                        sys.executable,
                        "-s",
                        "-P",
                        "-Wignore",
                        "-m",
                        "antiphon.audio.decoder_process",
                    ],
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    cwd="/",
                    env=_environment(),
                    start_new_session=True,
                )
            self._control = ours
        return self._control

    def _stop(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None
        process, self._process = self._process, None
        if process is None:
            return
        try:
            process.wait(_END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def close(self) -> None:
        """End the process and every decoder. The next job starts another."""
        with self._lock:
            self._stop()


def _environment() -> dict[str, str]:
    """What the interpreter needs to find the same modules, and nothing that could be a secret."""
    paths = [os.path.abspath(path) for path in sys.path if path]
    inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    return inherited | _ONE_THREAD | {"PYTHONPATH": os.pathsep.join(paths)}


shared = Decoders()
"""The one of this process."""
atexit.register(shared.close)


def lost(body: bytes) -> DecoderLost:
    """Why a decoder died, by the number of the signal that it died of."""
    number = int(body or b"0")
    return DecoderLost("time" if number == signal.SIGXCPU else "crashed")


def decode_file(
    file: IO[bytes], rate_hz: int | None, max_duration_s: float
) -> Generator[tuple[MessageKind, bytes], None, None]:
    """Decode a file in a process of its own: `PCM` messages, then one of `FACTS`.

    The process asks for the bytes that it needs. Raises AudioError, and BusyError when too many others wait.
    """
    if not _places.acquire(timeout=_PLACE_S):
        raise BusyError("too many files are being decoded; try again in a moment")
    try:
        deadline_s = time.monotonic() + _FILE_S + _FILE_SHARE * max_duration_s
        content = _Content(file)
        job = {"rate_hz": rate_hz, "max_duration_s": max_duration_s, "size": content.size}
        with shared.open(job) as connection, connection.makefile("rb") as stream:
            while True:
                connection.settimeout(max(0.01, deadline_s - time.monotonic()))
                kind, body = receive(stream) or (MessageKind.DIED, b"")
                if kind is MessageKind.READ:
                    send(connection, MessageKind.DATA, content.read(*WANTED.unpack(body)))
                    continue
                _raise_if_lost(kind, body)
                yield kind, body
                if kind is MessageKind.FACTS:
                    return
    except TimeoutError:
        raise DecoderLost("time") from None
    except ConnectionError:
        raise DecoderLost("crashed") from None
    finally:
        _places.release()


class _Content:
    """A file from where it stands now, to be read here and there; one that cannot seek, from front to back."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.size: int | None = None
        self._begin = 0
        if file.seekable():
            self._begin = file.tell()
            self.size = file.seek(0, os.SEEK_END) - self._begin

    def read(self, at: int, size: int) -> bytes:
        if self.size is not None:
            self._file.seek(self._begin + at)
        return self._file.read(min(size, _MAX_READ_BYTES))


def _raise_if_lost(kind: MessageKind, body: bytes) -> None:
    if kind is MessageKind.REFUSED:
        raise AudioError(body.decode())
    if kind is MessageKind.MEMORY:
        raise DecoderLost("memory")
    if kind is MessageKind.DIED:
        raise lost(body)
